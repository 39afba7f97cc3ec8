package integration_test

import (
	"bytes"
	"context"
	bits "encoding/binary" // binary is the program under test
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// wireEnd is a device port whose far side is a packet socket: what a neighbouring
// switch or a hostile container would send and hear, octet by octet.
type wireEnd struct {
	*switchtest.RawEnd
	port string
	in   []string // networks whose frames it hears
}

// bench is a switch whose ports are all wires, and two more that sound each
// network: what they flood comes behind everything that was sent before.
type bench struct {
	t      *testing.T
	n      *node
	api    *api.Client
	wires  map[string]*wireEnd
	names  []string
	rounds int
	events chan api.Event
}

// etherTypeSounder marks the frames by which a bench finds out that nothing
// more is to come.
const etherTypeSounder = 0x88b6

// newBench starts a switch with networks blue (10) and red (20). ports maps a
// name to its membership and policy; head is put in front of the file.
func newBench(t *testing.T, head string, ports map[string]string) *bench {
	t.Helper()
	return newBenchOf(t, head, "blue: {vlan: 10}, red: {vlan: 20}", ports)
}

func newBenchOf(t *testing.T, head, networks string, ports map[string]string) *bench {
	t.Helper()
	netnstest.Require(t, "netns", "tun", "packet", "ip")
	b := &bench{t: t, wires: map[string]*wireEnd{}, events: make(chan api.Event, 256)}
	ports = maps.Clone(ports)
	ports["sound-blue"], ports["sound-red"] = "access: blue", "access: red"
	var f strings.Builder
	fmt.Fprintf(&f, "%s\nnetworks: {%s}\nports:\n", head, networks)
	for _, name := range slices.Sorted(maps.Keys(ports)) {
		ns := netnstest.New(t)
		ns.Run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6") // it says nothing by itself
		host := cable(t, ns, "eth0")
		fmt.Fprintf(&f, "  %s: {device: {name: %s}, %s}\n", name, host, ports[name])
		raw, err := switchtest.OpenRawEnd("eth0", ns.Handle.Do)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { raw.Close() })
		w := &wireEnd{RawEnd: raw, port: name}
		for _, network := range []string{"blue", "red"} {
			if strings.Contains(ports[name], network) {
				w.in = append(w.in, network)
			}
		}
		b.wires[name] = w
		if !strings.HasPrefix(name, "sound-") {
			b.names = append(b.names, name)
		}
	}
	b.n = start(t, f.String())
	b.api = api.Dial(b.n.socket)
	b.follow()
	return b
}

// follow reads the events of frames and waits until they flow.
func (b *bench) follow() {
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan struct{})
	b.t.Cleanup(func() { cancel(); <-done; b.api.Close() })
	go func() {
		defer close(done)
		for e, err := range b.api.Events(ctx, []string{"frame"}) {
			if err != nil {
				return
			}
			select {
			case b.events <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	b.n.until("events of frames flow", func() bool {
		b.hear(b.sound())
		return len(b.events) > 0
	})
}

// sound floods one marked frame in each network and returns its number.
func (b *bench) sound() uint64 {
	b.t.Helper()
	b.rounds++
	for i, network := range []string{"blue", "red"} {
		body := bits.BigEndian.AppendUint64(nil, uint64(b.rounds))
		src := frame.MAC{2, 0, 0, 0, 0xff, byte(i)}
		f := switchtest.Padded(switchtest.EthFrame(frame.Broadcast, src, etherTypeSounder, body))
		if err := b.wires["sound-"+network].Send(frame.Frame{Data: f}); err != nil {
			b.t.Fatal(err)
		}
	}
	return uint64(b.rounds)
}

// hear returns what each wire has heard until it heard the sounders of a round.
func (b *bench) hear(round uint64) map[string][]frame.Frame {
	b.t.Helper()
	out := map[string][]frame.Frame{}
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	for _, name := range b.names {
		for left := len(b.wires[name].in); left > 0; {
			f, err := b.wires[name].Receive(ctx)
			if err != nil {
				b.t.Fatalf("%s hears no sounder: %v\n%s", name, err, b.n.log)
			}
			h, _ := frame.Parse(f.Data)
			switch {
			case !ours(h.Src): // the kernel's own
			case h.EtherType != etherTypeSounder:
				out[name] = append(out[name], f)
			case bits.BigEndian.Uint64(f.Data[h.Len:]) == round:
				left--
			}
		}
	}
	return out
}

// ours tells the stations of a bench from the kernels at its wires.
func ours(m frame.MAC) bool { return m[0] == 2 && m[1] == 0 && m[2] == 0 && m[3] == 0 }

// outcome is what became of one frame.
type outcome struct {
	heard    map[string][]frame.Frame // by port
	decision string                   // action and reason
	entered  bool                     // the event said that the source was learned
}

// send puts a frame on a wire and follows it to its end. What `explain` said
// beforehand has to come true.
func (b *bench) send(in string, data []byte) outcome {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	said, err := b.api.Explain(ctx, api.ExplainRequest{In: in, Hex: hex.EncodeToString(data)})
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.wires[in].Send(frame.Frame{Data: data}); err != nil {
		b.t.Fatal(err)
	}
	e := b.event(in, data)
	o := outcome{heard: b.hear(b.sound()), decision: fmt.Sprint(e.Fields["action"], " ", e.Fields["reason"])}
	o.entered, _ = e.Fields["learned"].(bool)
	if foretold := fmt.Sprint(said.Action, " ", said.Reason); foretold != o.decision {
		b.t.Errorf("explain said %q, it became %q", foretold, o.decision)
	}
	for _, name := range b.names {
		want := 0
		for _, c := range said.Out {
			if c.Port == name && c.Reason == "" {
				want++
			}
		}
		if got := len(o.heard[name]); got != want {
			b.t.Errorf("%s hears %d copies, explain said %d", name, got, want)
		}
	}
	return o
}

// event waits for what the switch says of a frame.
func (b *bench) event(in string, data []byte) api.Event {
	b.t.Helper()
	h, _ := frame.Parse(data)
	deadline := time.After(patience)
	for {
		select {
		case e := <-b.events:
			if n, _ := e.Fields["length"].(float64); e.Port == in && int(n) == len(data) && e.MAC == h.Src.String() {
				return e
			}
		case <-deadline:
			b.t.Fatalf("no event of the frame from %s\n%s", in, b.n.log)
		}
	}
}

// drops are the port's drops by reason.
func (b *bench) drops(port string) api.Drops {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	ports, err := b.api.Ports(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, p := range ports {
		if p.Name == port {
			return p.Drops
		}
	}
	b.t.Fatalf("no port %s", port)
	return nil
}

// heardAs demands that exactly the named wires heard exactly one copy each.
func heardAs(t *testing.T, o outcome, want map[string][]byte) {
	t.Helper()
	for name, fs := range o.heard {
		if _, ok := want[name]; !ok && len(fs) > 0 {
			t.Errorf("%s hears % x, want silence", name, fs[0].Data)
		}
	}
	for name, data := range want {
		switch fs := o.heard[name]; {
		case len(fs) != 1:
			t.Errorf("%s hears %d copies, want 1", name, len(fs))
		case !bytes.Equal(fs[0].Data, data):
			t.Errorf("%s hears\n% x, want\n% x", name, fs[0].Data, data)
		}
	}
}
