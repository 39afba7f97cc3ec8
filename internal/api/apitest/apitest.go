// Package apitest is a switch without frames: a Backend that keeps in memory
// what it is told, for tests of the control API and of its users.
//
// # Concurrency
//
// A Switch may be used from any goroutine.
package apitest

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/capture"
	"github.com/tapestry-net/tapestry/capture/trace"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// Start is the moment at which everything in a Switch happened.
var Start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Switch is the Backend. Its zero value is not useful; see New.
type Switch struct {
	mu       sync.Mutex
	ports    []api.Port
	networks []api.Network
	peers    []api.Peer
	entries  []api.Entry
	history  []api.Taught
	problems []api.Problem
	asked    []any
	events   []chan api.Event
	fail     *api.Error
	flap     *api.Flap
}

var _ api.Backend = (*Switch)(nil)

// New returns a switch with the network blue, the ports c1 and c2, and one
// learned entry.
func New() *Switch {
	m1 := frame.MustParseMAC("02:00:00:00:00:01")
	return &Switch{
		networks: []api.Network{
			{Name: "blue", VLAN: 10, VNI: 10010, MTU: 1450, Ageing: 300, Ports: []string{"c1", "c2"}, Entries: 1},
			{Name: "red", VLAN: 20, MTU: 1500},
		},
		ports: []api.Port{
			{Name: "c1", ID: 1, Kind: "tap", Device: "eth0", Netns: "c1", State: "up", Network: "blue", MTU: 1450,
				MAC: m1.String(), Addresses: []string{"10.1.0.2/24"}, Origin: "config", Offloads: []string{"csum", "tso4"},
				Entries: 1, RX: api.Counter{Frames: 12, Bytes: 1440}, TX: api.Counter{Frames: 3, Bytes: 180},
				Drops: api.Drops{"storm": 2, "too_short": 1}, Since: Start},
			{Name: "c2", ID: 2, Kind: "veth", Device: "eth0", Netns: "c2", State: "down", Reason: "namespace c2 is gone", Network: "blue",
				MTU: 1450, MAC: "02:00:00:00:00:02", Addresses: []string{"10.1.0.3/24"}, Origin: "attach", Restarts: 4, Since: Start},
		},
		peers: []api.Peer{
			{Name: "h130", ID: 3, Address: "192.0.2.130:4789", State: "up", Since: Start, Encryption: "none", Established: 61,
				Networks: []string{"blue"}, MTU: 1450, RX: api.Counter{Frames: 7, Bytes: 700}, TX: api.Counter{Frames: 8, Bytes: 800},
				Drops: api.Drops{"unknown_vni": 2}},
			{Name: "h131", ID: 4, Address: "192.0.2.131:4789", State: "down", Since: Start, Encryption: "none",
				Networks: []string{"blue"}, MTU: 1450},
			{Name: "h132", ID: 5, Address: "192.0.2.132:4789", State: "up", Since: Start, Encryption: "dtls", Established: 59,
				Cipher: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", Epoch: 3, Networks: []string{"blue"}, MTU: 1450, SealedMTU: 1413,
				Link: &api.Link{State: "established", Address: "192.0.2.132:4788", KeyAge: 59, RecordEpoch: 1, Sealed: 12, Left: 1<<32 - 12,
					RekeyAt: 1 << 30, Handshakes: 3, LastHandshake: Start, OlderKeys: 1, Reason: "no_answer", FailedAt: Start}},
		},
		entries: []api.Entry{{Network: "blue", VLAN: 10, MAC: m1, Port: "c1", Kind: "dynamic", AgeS: 3, Moves: 1}},
		history: []api.Taught{
			{Time: Start, Event: "learned", Network: "blue", VLAN: 10, MAC: m1, Port: "c2",
				Frame: "arp who-has 10.1.0.3 tell 10.1.0.2", Head: "ffffffffffff0200000000010806"},
			{Time: Start.Add(time.Minute), Event: "moved", Network: "blue", VLAN: 10, MAC: m1, Port: "c1", OldPort: "c2",
				Frame: "icmp 10.1.0.2 > 10.1.0.3 echo request", Head: "020000000002020000000001", Rate: 1},
		},
		problems: []api.Problem{{What: "port c2 is down: namespace c2 is gone", Hint: "ip netns add c2"}},
	}
}

// Serve serves s on socket until the test ends.
func (s *Switch) Serve(t testing.TB, socket string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := api.NewServer(s, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Fail makes every call that can fail do so with err; nil ends that.
func (s *Switch) Fail(err *api.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// Mend removes all problems and brings all ports up.
func (s *Switch) Mend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problems = nil
	for i := range s.ports {
		s.ports[i].State, s.ports[i].Reason = "up", ""
	}
}

// AddPort puts in a port as it stands, whatever its name.
func (s *Switch) AddPort(p api.Port) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ports = append(s.ports, p)
}

// Asked returns the requests that were carried out, oldest first.
func (s *Switch) Asked() []any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// note records a request unless the switch fails.
func (s *Switch) note(r any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	s.asked = append(s.asked, r)
	return nil
}

// Status implements api.Backend.
func (s *Switch) Status() api.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := api.Status{Host: "h128", Version: "v0.0.0-test", Ready: true, Networks: len(s.networks),
		FDB: api.FDBStatus{Entries: len(s.entries), Limit: 1048576}, Problems: slices.Clone(s.problems)}
	for _, p := range s.ports {
		if p.State == "up" {
			st.Ports.Up++
		} else {
			st.Ports.Down++
		}
	}
	st.Peers = api.PeerCount{Up: 1, Down: 1, Connecting: 2}
	return st
}

// Stats implements api.Backend.
func (s *Switch) Stats() api.Stats {
	return api.Stats{Host: "h128", PID: 4242, UptimeS: 3723, Generation: 1, RxFrames: 15,
		Verdicts: map[string]uint64{"forward": 9, "flood": 3, "drop": 3, "local": 0},
		Copies:   api.Copies{Sent: 14, Refused: 1}, Drops: api.Drops{"storm": 2, "too_short": 1, "queue_full": 1}, Missed: 6,
		Loop: api.LoopStats{Loops: 1, Wakeups: 7, Spins: 5, Writes: 10, Coalesced: 4, Segmented: 2, Moves: 1}}
}

// Networks implements api.Backend.
func (s *Switch) Networks() []api.Network {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.networks)
}

// Ports implements api.Backend.
func (s *Switch) Ports() []api.Port {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ports)
}

// Peers implements api.Backend.
func (s *Switch) Peers() []api.Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.peers)
}

// FDB implements api.Backend.
func (s *Switch) FDB() iter.Seq[api.Entry] {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Values(slices.Clone(s.entries))
}

// Apply implements api.Backend. A file that holds the word "same" changes
// nothing.
func (s *Switch) Apply(_ context.Context, r api.ApplyRequest) (api.ApplyReply, error) {
	if err := s.note(r); err != nil {
		return api.ApplyReply{}, err
	}
	if strings.Contains(r.YAML, "same") {
		return api.ApplyReply{}, nil
	}
	return api.ApplyReply{Changes: []string{"+ port c3", "~ network blue: mtu 1450 → 1500"}}, nil
}

// Item implements api.Backend. It knows the names of its ports and networks
// and does not read YAML.
func (s *Switch) Item(_ context.Context, r api.ItemRequest) (api.ApplyReply, error) {
	if err := s.note(r); err != nil {
		return api.ApplyReply{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	known := r.Kind == "fdb" ||
		r.Kind == "peer" && slices.ContainsFunc(s.peers, func(p api.Peer) bool { return p.Name == r.Name }) ||
		r.Kind == "port" && slices.ContainsFunc(s.ports, func(p api.Port) bool { return p.Name == r.Name }) ||
		r.Kind == "network" && slices.ContainsFunc(s.networks, func(n api.Network) bool { return n.Name == r.Name })
	switch {
	case r.Op == "add" && known && r.Kind != "fdb":
		return api.ApplyReply{}, api.Errorf(api.CodeConflict, "%s %s is there already", r.Kind, r.Name)
	case r.Op != "add" && !known:
		return api.ApplyReply{}, api.Errorf(api.CodeNotFound, "no %s %s", r.Kind, r.Name)
	}
	sign := map[string]string{"add": "+", "set": "~", "rm": "-"}[r.Op]
	return api.ApplyReply{Changes: []string{strings.TrimSpace(sign + " " + r.Kind + " " + r.Name)}}, nil
}

// Attach implements api.Backend.
func (s *Switch) Attach(_ context.Context, r api.AttachRequest) (api.Port, error) {
	if err := s.note(r); err != nil {
		return api.Port{}, err
	}
	name := r.Port
	if name == "" {
		name = r.Label
	}
	p := api.Port{Name: name, ID: 9, Kind: r.Via, Device: r.Ifname, Netns: r.Netns, State: "up", Network: r.Network,
		MTU: 1450, MAC: "02:00:00:00:00:09", Addresses: r.Addresses, Origin: "attach", Since: Start}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.ports {
		if q.Name == name {
			return api.Port{}, api.Errorf(api.CodeConflict, "attach port %s: the name is taken by %s %s in namespace %s", name, q.Kind, q.Device, q.Netns).
				WithHint("choose another name with --port")
		}
	}
	s.ports = append(s.ports, p)
	return p, nil
}

// Detach implements api.Backend.
func (s *Switch) Detach(_ context.Context, r api.DetachRequest) error {
	if err := s.note(r); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.ports, func(p api.Port) bool { return p.Netns == r.Netns && p.Device == r.Ifname })
	if i < 0 {
		return api.Errorf(api.CodeNotFound, "no port of this switch is %s in namespace %s", r.Ifname, r.Netns)
	}
	s.ports = slices.Delete(s.ports, i, i+1)
	return nil
}

// Flush implements api.Backend. It removes everything.
func (s *Switch) Flush(r api.FlushRequest) (api.FlushReply, error) {
	if err := s.note(r); err != nil {
		return api.FlushReply{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.entries)
	s.entries = nil
	return api.FlushReply{Removed: n}, nil
}

// Explain implements api.Backend. It floods everything from a known port.
func (s *Switch) Explain(r api.ExplainRequest) (api.ExplainReply, error) {
	if err := s.note(r); err != nil {
		return api.ExplainReply{}, err
	}
	_, notAddress := netip.ParseAddr(r.In)
	if notAddress != nil && !slices.ContainsFunc(s.Ports(), func(p api.Port) bool { return p.Name == r.In }) &&
		!slices.ContainsFunc(s.Peers(), func(p api.Peer) bool { return "peer/"+p.Name == r.In }) {
		return api.ExplainReply{}, api.Errorf(api.CodeNotFound, "no port %s", r.In)
	}
	return api.ExplainReply{
		Steps: []api.Step{
			{Stage: "classify", What: "untagged on " + r.In + ", PVID 10", Result: "VLAN 10"},
			{Stage: "lookup", What: "ff:ff:ff:ff:ff:ff", Result: "broadcast"},
		},
		Action: frame.Flood, Reason: frame.BroadcastAddr, VLAN: 10,
		Out: []api.Egress{{Port: "c2", Tag: "untagged"}, {Port: "up", Tag: "tagged 10 pcp 0", Reason: "mtu_exceeded"}},
	}, nil
}

// Upgrade implements api.Backend.
func (s *Switch) Upgrade(context.Context) (api.UpgradeReply, error) {
	if err := s.note("upgrade"); err != nil {
		return api.UpgradeReply{}, err
	}
	return api.UpgradeReply{OldPID: 4242, NewPID: 4343, Generation: 2, Version: "v0.0.1-test"}, nil
}

// Events implements api.Backend. After what is remembered, if that is asked for,
// an event names the kinds asked for; others come from Emit.
func (s *Switch) Events(ctx context.Context, kinds []string, since time.Time) <-chan api.Event {
	in := make(chan api.Event, 16)
	if !since.IsZero() && since.Before(Start.Add(time.Hour)) {
		for _, e := range s.Happened(api.HappenedRequest{Kinds: kinds, Since: since, Limit: 9}) {
			in <- e
		}
	}
	in <- api.Event{Time: Start, Kind: "config", What: "listening for [" + strings.Join(kinds, " ") + "]"}
	s.mu.Lock()
	s.events = append(s.events, in)
	s.mu.Unlock()
	out := make(chan api.Event)
	go func() {
		defer close(out)
		for {
			select {
			case e := <-in:
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// Emit sends e to every stream that is open.
func (s *Switch) Emit(e api.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.events {
		c <- e
	}
}

// Capture implements api.Backend. It shows one frame, and ends with a count or its caller.
func (s *Switch) Capture(r api.CaptureRequest) (api.CaptureRun, error) {
	if err := s.note(r); err != nil {
		return nil, err
	}
	for _, name := range r.Ports {
		if !slices.ContainsFunc(s.Ports(), func(p api.Port) bool { return p.Name == name }) {
			return nil, api.Errorf(api.CodeNotFound, "no port %s", name)
		}
	}
	return func(ctx context.Context, w io.Writer, flush func() error) error {
		p := &capture.Packet{Time: Start, Port: 1, Direction: capture.In, Data: Broadcast, Len: len(Broadcast),
			Verdict: frame.Verdict{Action: frame.Flood, Reason: frame.BroadcastAddr, VID: 10}, Decision: "flood blue broadcast → c2"}
		if r.JSON {
			err := api.Encode(w, api.Captured{Kind: "packet", Time: p.Time, Host: "h128", Port: "c1", Direction: p.Direction.String(), Length: p.Len,
				Network: "blue", VLAN: 10, Action: "flood", Reason: "broadcast", Decision: p.Decision, Data: hex.EncodeToString(p.Data)})
			if err != nil {
				return err
			}
		} else {
			out := capture.NewPcapng(w, flush, "test", "", func(frame.PortID) capture.Interface { return capture.Interface{Name: "h128/c1"} })
			if err := errors.Join(out.Port(1), out.Packet(p, 0), out.Lost(1, 1, 0), out.Flush()); err != nil {
				return err
			}
		}
		if err := flush(); err != nil || r.Count > 0 {
			return err
		}
		<-ctx.Done()
		if r.JSON {
			return api.Encode(w, api.Captured{Kind: "count", Time: Start, Host: "h128", Port: "c1", Delivered: 1})
		}
		return nil
	}, nil
}

// Broadcast is the frame of a capture.
var Broadcast = append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5}, make([]byte, 46)...)

// Trace implements api.Backend. It shows a probe that c2 answers.
func (s *Switch) Trace(_ context.Context, r api.TraceRequest) (api.TraceRun, error) {
	if err := s.note(r); err != nil {
		return nil, err
	}
	if r.From != "c1" && r.Watch == "" {
		return nil, api.Errorf(api.CodeNotFound, "no port %s", r.From)
	}
	return func(_ context.Context, take func(api.Traced) error) error {
		for _, t := range Traced {
			if err := take(t); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// Traced are the lines of a trace.
var Traced = []api.Traced{
	{Kind: "probe", Probe: &api.TraceProbe{Trace: 0x7f3a, Host: "h128", Port: "c1", To: "c2", Proto: "icmp", Src: "10.1.0.2", Dst: "10.1.0.3", TTL: 64, Sent: "from"}},
	{Kind: "note", What: "host h130 did not answer: what it saw is missing"},
	{Kind: "hop", Hop: &trace.Hop{Trace: 0x7f3a, Hop: 1, Direction: trace.Request, Host: "h128", Port: "c1", At: trace.Ingress, Time: Start,
		SrcMAC: "02:00:00:00:00:01", DstMAC: "02:00:00:00:00:02", Network: "blue", TTLIn: 64, TTLOut: 64, Action: "receive", Packet: "probe"}},
	{Kind: "end", End: &api.TraceEnd{Answered: true, Reached: true, Answer: "echo reply", By: "10.1.0.3", Host: "h128", RTTUS: 112}},
}
