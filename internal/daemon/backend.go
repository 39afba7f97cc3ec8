package daemon

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/journal"
	"github.com/tapestry-net/tapestry/switch/frame"
)

var _ api.Backend = (*Daemon)(nil)

// Status implements api.Backend.
func (d *Daemon) Status() api.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := api.Status{
		Host: d.eff.Host, Version: d.version, Ready: true, Networks: len(d.eff.Networks), Revision: d.st.Revision,
		FDB:      api.FDBStatus{Entries: d.table.Len(), Limit: d.table.Limit()},
		Problems: []api.Problem{},
	}
	for _, name := range slices.Sorted(maps.Keys(d.ports)) {
		p := d.ports[name]
		if p.up() && d.cutText(p) == "" {
			s.Ports.Up++
			if p.renamed != "" {
				s.Problems = append(s.Problems, d.problem(p))
			}
			continue
		}
		s.Ports.Down++
		s.Problems = append(s.Problems, d.problem(p))
	}
	d.peersStatus(&s)
	flaps := d.flaps(time.Now())
	s.FDB.Flapping = len(flaps)
	s.Problems = append(s.Problems, flapProblems(flaps)...)
	if s.FDB.Entries*10 >= s.FDB.Limit*9 {
		s.Problems = append(s.Problems, api.Problem{
			What: fmt.Sprintf("the FDB holds %d of %d entries: the port with the most loses some to newcomers", s.FDB.Entries, s.FDB.Limit),
			Hint: "raise fdb_limit, or see `tapestry port ls` for who owns them",
		})
	}
	if d.eff.FDBLimit > d.tableLimit {
		s.Problems = append(s.Problems, api.Problem{
			What: fmt.Sprintf("fdb_limit is %d, but the table in memory holds %d", d.eff.FDBLimit, d.tableLimit),
			Hint: "tapestry upgrade starts a worker with the larger table; addresses are learned again",
		})
	}
	return s
}

func (d *Daemon) problem(p *port) api.Problem {
	if d.cutText(p) != "" {
		return api.Problem{What: d.cutText(p), Hint: "take the second path between its networks away; the port opens by itself"}
	}
	if p.up() {
		return api.Problem{What: fmt.Sprintf("port %s: %s", p.name, p.renaming()), Hint: fmt.Sprintf("ip link set %s name %s", p.renamed, p.reply.Device)}
	}
	return api.Problem{What: fmt.Sprintf("port %s is down: %s", p.name, p.reason), Hint: p.hint}
}

// Stats implements api.Backend.
func (d *Daemon) Stats() api.Stats {
	t := d.sw.Stats()
	var refused uint64
	for why, n := range d.refusedByTunnel() {
		t.Drops[why] += n
		refused += n
	}
	c := d.table.Counters()
	s := api.Stats{
		PID: os.Getpid(), UptimeS: int64(time.Since(d.started).Seconds()),
		Generation: d.generation, RxFrames: t.RxFrames, Own: t.Own, Verdicts: map[string]uint64{},
		Copies: api.Copies{Sent: t.Sent, Refused: t.Refused}, Drops: drops(&t.Drops), Refused: refused,
		Loop: api.LoopStats{
			Loops: t.Loops, Wakeups: t.Wakeups, Spins: t.Spins, Writes: t.Writes,
			Coalesced: t.Coalesced, Segmented: t.Segmented, Moves: t.Moves, Evicted: c.Evicted,
		},
	}
	for a := range frame.NumActions {
		s.Verdicts[a.String()] = t.Verdicts[a]
	}
	d.mu.Lock()
	d.lookForMissing()
	s.Missed = d.missing.total
	s.Host = d.eff.Host
	d.mu.Unlock()
	return s
}

func drops(n *[frame.NumReasons]uint64) api.Drops {
	out := api.Drops{}
	for r, v := range n {
		if v > 0 && frame.Reason(r).IsDrop() {
			out[frame.Reason(r).String()] = v
		}
	}
	return out
}

// Networks implements api.Backend.
func (d *Daemon) Networks() []api.Network {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := []api.Network{}
	for _, name := range slices.Sorted(maps.Keys(d.eff.Networks)) {
		n := d.eff.Networks[name]
		row := api.Network{
			Name: name, VLAN: int(d.st.VLANs[name]), VNI: n.VNI, MTU: n.MTU, Encrypt: string(n.Encrypt),
			Ageing: int(duration(n.Ageing).Seconds()), Ports: []string{}, Peers: []string{},
			Entries: d.table.VIDLen(d.st.VLANs[name]),
		}
		for _, port := range slices.Sorted(maps.Keys(d.eff.Ports)) {
			if slices.Contains(d.eff.Ports[port].Networks(), name) {
				row.Ports = append(row.Ports, port)
			}
		}
		for _, p := range d.peersOf(d.st.VLANs[name]) {
			row.Peers = append(row.Peers, p.Name)
		}
		out = append(out, row)
	}
	return out
}

// Ports implements api.Backend.
func (d *Daemon) Ports() []api.Port {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := []api.Port{}
	for _, name := range slices.Sorted(maps.Keys(d.ports)) {
		out = append(out, d.portRow(name))
	}
	return out
}

// portRow is one row of `port ls`. The caller holds mu.
func (d *Daemon) portRow(name string) api.Port {
	p, c := d.ports[name], d.eff.Ports[name]
	n, _ := d.sw.PortStats(p.id)
	row := api.Port{
		Name: name, ID: p.id, Kind: c.Kind(), Device: p.device(), Netns: p.req.Netns, State: "up",
		Network: c.Access, Trunk: slices.Clone(c.Trunk), Native: c.Native, MTU: p.req.MTU, MAC: p.mac(),
		Addresses: []string{}, Origin: "config", Offloads: offloads(p), Entries: d.table.PortLen(p.id), Moves: d.table.PortMoves(p.id),
		RX: api.Counter(n.RX), TX: api.Counter(n.TX), Drops: drops(&n.Drops), Restarts: p.heals, Since: p.since, Missed: p.missed,
	}
	if row.Trunk == nil {
		row.Trunk = []string{}
	}
	if row.Network == "" {
		row.Network = c.Native
	}
	if !p.up() {
		row.State, row.Reason = "down", p.reason
	} else if d.cutText(p) != "" {
		row.State, row.Reason = "down", d.cutText(p)
	} else if p.renamed != "" {
		row.Reason = p.renaming()
	}
	if d.st.Ports[name].Attached != "" {
		row.Origin = "attach"
	}
	for _, a := range p.req.Addresses {
		row.Addresses = append(row.Addresses, a.String())
	}
	return row
}

// device is the interface's name as its namespace knows it.
func (p *port) device() string {
	return cmp.Or(p.reply.Device, p.req.Ifname, p.req.Device, p.req.Adopt)
}

func (p *port) mac() string {
	if !p.reply.MAC.IsZero() {
		return p.reply.MAC.String()
	}
	if !p.req.MAC.IsZero() {
		return p.req.MAC.String()
	}
	return ""
}

func offloads(p *port) []string {
	out := []string{}
	if p.queue == nil {
		return out
	}
	o := p.queue.Offloads()
	for _, f := range []struct {
		bit  frame.Offloads
		name string
	}{
		{frame.OffloadChecksum, "csum"}, {frame.OffloadTSO4, "tso4"}, {frame.OffloadTSO6, "tso6"},
		{frame.OffloadUSO4, "uso4"}, {frame.OffloadUSO6, "uso6"},
	} {
		if o.Has(f.bit) {
			out = append(out, f.name)
		}
	}
	return out
}

// FDB implements api.Backend. Only the keys are sorted, eight octets an entry:
// rows are made one by one.
func (d *Daemon) FDB() iter.Seq[api.Entry] {
	return d.entries(func(fdb.Entry) bool { return true })
}

// entries yields the table's entries that keep selects, by network and address.
func (d *Daemon) entries(keep func(fdb.Entry) bool) iter.Seq[api.Entry] {
	return func(yield func(api.Entry) bool) {
		n, now := *d.names.Load(), tick()
		var keys []fdb.Key
		d.table.Walk(func(e fdb.Entry) bool {
			if keep(e) {
				keys = append(keys, fdb.MakeKey(e.VID, e.MAC))
			}
			return true
		})
		slices.SortFunc(keys, func(a, b fdb.Key) int {
			return cmp.Or(cmp.Compare(a.VID(), b.VID()), cmp.Compare(a, b))
		})
		for _, k := range keys {
			if e, ok := d.table.Entry(k); ok && !yield(entryRow(n, e, now)) {
				return
			}
		}
	}
}

func entryRow(n names, e fdb.Entry, now fdb.Tick) api.Entry {
	row := api.Entry{
		Network: n.network(e.VID), VLAN: int(e.VID), MAC: e.MAC, Port: n.port(e.Port),
		Kind: "dynamic", AgeS: int(e.Age(now).Seconds()), Moves: e.Moves,
	}
	if peer, ok := n.peers[e.Port]; ok {
		row.Port, row.Peer = "", peer
	}
	if e.Static {
		row.Kind = "static"
	}
	return row
}

// tick is the filtering database's present.
func tick() fdb.Tick {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0 // cannot happen: the clock exists since Linux 2.6
	}
	return fdb.TickAt(time.Duration(ts.Nano()))
}

// Flush implements api.Backend.
func (d *Daemon) Flush(r api.FlushRequest) (api.FlushReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var f fdb.Filter
	if r.Network != "" {
		if f.VID = d.st.VLANs[r.Network]; f.VID == 0 {
			return api.FlushReply{}, d.noNetwork(r.Network)
		}
	}
	if r.Port != "" {
		if f.Port = d.portID(r.Port); f.Port == 0 {
			return api.FlushReply{}, d.noPort(r.Port)
		}
	}
	if r.MAC != "" {
		m, err := frame.ParseMAC(r.MAC)
		if err != nil {
			return api.FlushReply{}, &api.Error{Code: 2, Msg: err.Error()}
		}
		f.MAC = m
	}
	return api.FlushReply{Removed: d.table.Flush(f)}, nil
}

func (d *Daemon) noNetwork(name string) error {
	return &api.Error{Code: 5, Msg: fmt.Sprintf("no network %q", clip(name)), Hint: "networks: " + strings.Join(slices.Sorted(maps.Keys(d.eff.Networks)), ", ")}
}

// portID is the number of a port, or of a peer written peer/NAME; 0 = there is
// none. The caller holds mu.
func (d *Daemon) portID(name string) frame.PortID {
	if peer, ok := strings.CutPrefix(name, peerPrefix); ok {
		return d.st.Peers[peer]
	}
	if p := d.ports[name]; p != nil {
		return p.id
	}
	return 0
}

func (d *Daemon) noPort(name string) error {
	return &api.Error{Code: 5, Msg: fmt.Sprintf("no port %q", clip(name)), Hint: "`tapestry port ls` lists the ports"}
}

// clip keeps what a user wrote short enough for a message.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

// Events implements api.Backend.
func (d *Daemon) Events(ctx context.Context, kinds []string, since time.Time) <-chan api.Event {
	return d.hub.subscribe(ctx, kinds, since)
}

// Happened implements api.Backend.
func (d *Daemon) Happened(r api.HappenedRequest) []api.Event {
	return d.hub.past(journal.Filter{Kinds: r.Kinds, Port: r.Port, Peer: r.Peer, Since: r.Since, Limit: r.Limit})
}

// Upgrade implements api.Backend. When it returns without an error another
// worker stands by, and this one ends as soon as the answer is out. Changes are
// put off meanwhile; questions are answered.
func (d *Daemon) Upgrade(ctx context.Context) (api.UpgradeReply, error) {
	d.mu.Lock() // a change under way comes to its end first
	busy := !d.upgrading.CompareAndSwap(false, true)
	d.mu.Unlock()
	if busy {
		return api.UpgradeReply{}, errUpgrading
	}
	if err := d.keeper.Upgrade(ctx); err != nil {
		d.upgrading.Store(false)
		return api.UpgradeReply{}, refusal("the worker in force goes on", err)
	}
	d.handOver()
	return api.UpgradeReply{OldPID: os.Getpid(), Generation: d.generation + 1}, nil
}

// errUpgrading puts a change off until the next worker is there to make it.
var errUpgrading = &api.Error{Code: api.CodeConflict, Msg: "an upgrade is under way", Hint: "try again in a second", Retry: true}

// begin takes the lock for a change, unless an upgrade is under way.
func (d *Daemon) begin() error {
	d.mu.Lock()
	if d.upgrading.Load() {
		d.mu.Unlock()
		return errUpgrading
	}
	return nil
}
