package integration_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// quiet waits until two looks at the counters in a row are alike and returns
// them.
func (n *node) quiet() (api.Stats, []api.Port) {
	n.t.Helper()
	var s api.Stats
	var ports []api.Port
	n.until("no frame moves", func() bool {
		var before, after api.Stats
		n.json(&before, "stats")
		ports = nil
		n.json(&ports, "port", "ls")
		n.json(&after, "stats")
		s = after
		before.UptimeS, after.UptimeS = 0, 0
		before.Loop, after.Loop = api.LoopStats{}, api.LoopStats{}
		return reflect.DeepEqual(before, after)
	})
	return s, ports
}

// conserved demands the contract's law of conservation of the quiet switch.
func conserved(t *testing.T, n *node) {
	t.Helper()
	var s api.Stats
	var ports []api.Port
	var peers []api.Peer
	n.until("no frame moves while peers are asked for", func() bool {
		s, ports = n.quiet()
		peers = nil
		n.json(&peers, "peer", "ls")
		var after api.Stats
		n.json(&after, "stats")
		return after.RxFrames == s.RxFrames && after.Copies == s.Copies && after.Refused == s.Refused
	})
	sum := func(m map[string]uint64) (total uint64) {
		for _, v := range m {
			total += v
		}
		return total
	}
	if got := sum(s.Verdicts); got != s.RxFrames {
		t.Errorf("verdicts %v are %d, received %d", s.Verdicts, got, s.RxFrames)
	}
	if got, want := sum(s.Drops), s.Verdicts["drop"]+s.Copies.Refused+s.Refused; got != want {
		t.Errorf("drops %v are %d, dropped and refused %d", s.Drops, got, want)
	}
	var rx, tx uint64
	drops := map[string]uint64{}
	for _, p := range ports {
		rx += p.RX.Frames
		tx += p.TX.Frames
		for k, v := range p.Drops {
			drops[k] += v
		}
	}
	for _, p := range peers {
		rx += p.RX.Frames
		tx += p.TX.Frames
		for k, v := range p.Drops {
			drops[k] += v
		}
	}
	for _, why := range []frame.Reason{frame.UnknownPeer, frame.PlaintextRefused} {
		if k := why.String(); s.Drops[k] > drops[k] {
			drops[k] = s.Drops[k] // the rest is no peer's
		}
	}
	if rx+s.Own != s.RxFrames || tx != s.Copies.Sent {
		t.Errorf("ports received %d and sent %d, the switch %d, %d of its own, and %d", rx, tx, s.RxFrames, s.Own, s.Copies.Sent)
	}
	if !reflect.DeepEqual(drops, map[string]uint64(s.Drops)) {
		t.Errorf("drops of the ports %v, of the switch %v", drops, s.Drops)
	}
}

// TestConservation sends what comes into its head by ports of every kind, TCP
// in between, and then counts: every frame has a verdict, every copy was sent
// or refused, and all ways to ask agree.
func TestConservation(t *testing.T) {
	var ends []*end
	for i, kind := range portKinds {
		policy := []string{"", ", isolated: true", ", sources: [10.1.0.4]", ", storm: {broadcast: 5/s}", "", ", isolated: true"}[i]
		ends = append(ends, newEnd(t, kind, 2+i, "access: blue", policy))
	}
	n := start(t, file("vlan: 10, mtu: 1400", ends...))
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		for i, e := range ends {
			raw, err := switchtest.OpenRawEnd(e.dev, e.do)
			if err != nil {
				t.Fatal(err)
			}
			for range 10 {
				from, to := station(byte(2+random.IntN(9))), station(byte(2+random.IntN(9)))
				f := switchtest.UDPFrame(from, to, switchtest.Pattern(random.IntN(1300)))
				switch random.IntN(6) {
				case 0:
					f = switchtest.Tagged(frame.VID(random.IntN(4096)), 0, f)
				case 1:
					f = hello(byte(i))
				case 2:
					f = switchtest.LLDP(from.MAC)
				case 3:
					copy(f[6:12], []byte{3})
				}
				if err := raw.Send(frame.Frame{Data: f}); err != nil {
					t.Fatal(err)
				}
			}
			raw.Close()
		}
	}
	if r, err := receive(ends[4], ends[4].v4); err != nil {
		t.Error(err)
	} else {
		if err := streamTCP(ends[0], r.addr, 1<<20); err != nil {
			t.Error(err)
		}
		r.close()
	}
	conserved(t, n)
	s, ports := n.quiet()
	for _, reason := range []string{"tag_not_accepted", "reserved_group", "spoofed_source", "bad_source", "storm"} {
		if s.Drops[reason] == 0 {
			t.Errorf("no %s among %v", reason, s.Drops)
		}
	}
	// The same by the way that Prometheus takes.
	m := scrape(t, n.socket)
	want := map[string]uint64{
		"tapestry_received_frames_total":       s.RxFrames,
		`tapestry_copies_total{result="sent"}`: s.Copies.Sent, `tapestry_copies_total{result="refused"}`: s.Copies.Refused,
	}
	for k, v := range s.Verdicts {
		want[fmt.Sprintf("tapestry_verdicts_total{action=%q}", k)] = v
	}
	for k, v := range s.Drops {
		want[fmt.Sprintf("tapestry_drops_total{reason=%q}", k)] = v
	}
	for _, p := range ports {
		want[fmt.Sprintf("tapestry_port_receive_frames_total{port=%q}", p.Name)] = p.RX.Frames
		want[fmt.Sprintf("tapestry_port_transmit_bytes_total{port=%q}", p.Name)] = p.TX.Bytes
	}
	for k, v := range want {
		if m[k] != float64(v) {
			t.Errorf("%s is %v, want %d", k, m[k], v)
		}
	}
}

// scrape reads /metrics.
func scrape(t *testing.T, socket string) map[string]float64 {
	t.Helper()
	c := http.Client{Timeout: patience, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer c.CloseIdleConnections()
	r, err := c.Get("http://tapestry/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			if out[name], err = strconv.ParseFloat(value, 64); err != nil {
				t.Fatalf("metrics say %q", line)
			}
		}
	}
	return out
}
