package daemon

import (
	"encoding/hex"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/tapestry-net/tapestry/capture/dissect"
	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// History implements api.Backend.
func (d *Daemon) History(r api.HistoryRequest) ([]api.Taught, error) {
	d.mu.Lock()
	vid, err := d.vlanOf(r.Network)
	port := d.portID(r.Port)
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if r.Port != "" && port == 0 {
		return nil, d.noPort(r.Port)
	}
	records := d.table.History(math.MaxInt)
	if !r.MAC.IsZero() {
		records = slices.DeleteFunc(records, func(e fdb.Record) bool { return e.MAC != r.MAC })
	}
	rates := ratesOf(records)
	n := *d.names.Load()
	out := []api.Taught{}
	for i := len(records) - 1; i >= 0 && (r.Limit == 0 || len(out) < r.Limit); i-- {
		e := records[i]
		if vid != 0 && e.VID != vid || port != 0 && e.Port != port && e.Old != port || e.Wall < r.Since.UnixNano() && !r.Since.IsZero() {
			continue
		}
		out = append(out, taught(n, e, rates[i]))
	}
	slices.Reverse(out)
	return out, nil
}

// vlanOf is the VLAN of a network, 0 for no name. The caller holds mu.
func (d *Daemon) vlanOf(network string) (frame.VID, error) {
	if network == "" {
		return 0, nil
	}
	v := d.st.VLANs[network]
	if v == 0 {
		return 0, d.noNetwork(network)
	}
	return v, nil
}

// moveRate is what the history tells of a station's moves in the FlapWindow before
// one of them.
type moveRate struct{ moves, returns int }

// flaps reports whether the station moved to and fro.
func (r moveRate) flaps() bool { return r.moves >= fdb.FlapMoves && r.returns >= 2 }

// window is the moves of one station in the FlapWindow up to the last of them.
type window struct {
	moves []fdb.Record
	to    map[frame.PortID]int // how many of them went there
}

// add takes the next move, and lets go of those that are too old.
func (w *window) add(e fdb.Record) moveRate {
	for len(w.moves) > 0 && w.moves[0].Wall < e.Wall-int64(fdb.FlapWindow) {
		p := w.moves[0].Port
		if w.to[p]--; w.to[p] == 0 {
			delete(w.to, p)
		}
		w.moves = w.moves[1:]
	}
	w.moves = append(w.moves, e)
	w.to[e.Port]++
	fresh := len(w.to) // ports that it had not been at before
	if w.to[w.moves[0].Old] > 0 {
		fresh--
	}
	return moveRate{len(w.moves), len(w.moves) - fresh}
}

// ratesOf returns the rate at each record, zero where it is no move.
func ratesOf(records []fdb.Record) []moveRate {
	recent := map[fdb.Key]*window{}
	out := make([]moveRate, len(records))
	for i, e := range records {
		if e.Event != fdb.EventMoved {
			continue
		}
		k := fdb.MakeKey(e.VID, e.MAC)
		if recent[k] == nil {
			recent[k] = &window{to: map[frame.PortID]int{}}
		}
		out[i] = recent[k].add(e)
	}
	return out
}

func taught(n names, e fdb.Record, r moveRate) api.Taught {
	row := api.Taught{
		Time: time.Unix(0, e.Wall), Event: e.Event.String(), Network: n.network(e.VID), VLAN: int(e.VID),
		MAC: e.MAC, Port: n.port(e.Port), OldPort: n.port(e.Old), Head: hex.EncodeToString(e.Head), Missed: e.Missed,
		Rate: r.moves, Flapping: r.flaps(),
	}
	if len(e.Head) > 0 {
		row.Frame = fmt.Sprintf("%s (%d octets)", dissect.Line(e.Head), e.Len)
	}
	return row
}

// At implements api.Backend.
func (d *Daemon) At(r api.PastRequest) (api.Past, iter.Seq[api.PastEntry], error) {
	d.mu.Lock()
	vid, err := d.vlanOf(r.Network)
	d.mu.Unlock()
	if err != nil {
		return api.Past{}, nil, err
	}
	if now := time.Now(); r.Time.After(now) {
		return api.Past{}, nil, &api.Error{Code: 2, Msg: fmt.Sprintf("time %s is still to come: it is %s", r.Time.Format(time.RFC3339), now.Format(time.RFC3339)),
			Hint: "`tapestry fdb ls` shows the present"}
	}
	p := d.table.At(r.Time.UnixNano(), vid, tick())
	n := *d.names.Load()
	rows := func(yield func(api.PastEntry) bool) {
		for e := range p.Rows() {
			row := api.PastEntry{Entry: entryRow(n, e.Entry, 0), Known: e.Known}
			switch {
			case e.Static:
			case e.Heard == 0:
				row.AgeS = -1
			default:
				row.AgeS = int(time.Duration(r.Time.UnixNano() - e.Heard).Seconds())
			}
			if !yield(row) {
				return
			}
		}
	}
	return api.Past{Time: r.Time, Reach: time.Unix(0, p.Reach), Missed: p.Missed}, rows, nil
}

// Why implements api.Backend.
func (d *Daemon) Why(mac string) (api.Why, error) {
	m, err := frame.ParseMAC(mac)
	if err != nil {
		return api.Why{}, &api.Error{Code: 2, Msg: err.Error()}
	}
	n := *d.names.Load()
	records := d.table.HistoryOf(m)
	rates := ratesOf(records)
	w := api.Why{MAC: m, Entries: []api.Belief{}, History: []api.Taught{}, Reach: time.Unix(0, d.table.Reach())}
	for i, e := range records {
		w.History = append(w.History, taught(n, e, rates[i]))
	}
	now := time.Now()
	d.mu.Lock()
	flaps := d.flaps(now)
	d.mu.Unlock()
	for e := range d.entries(func(e fdb.Entry) bool { return e.MAC == m }) {
		w.Entries = append(w.Entries, d.belief(e, &w, flaps, now))
	}
	if len(w.Entries)+len(w.History) == 0 {
		return w, &api.Error{Code: 5, Msg: fmt.Sprintf("%s is not in the FDB, and the history, which reaches back to %s, does not know it", m, w.Reach.Format(time.DateTime)),
			Hint: "`tapestry fdb ls` lists the addresses that are known"}
	}
	return w, nil
}

// teacher is the record of the frame that put e where it is; none is known when
// something else has happened to the station since. It is belief's rule.
func (d *Daemon) teacher(e fdb.Entry) (fdb.Record, bool) {
	r, ok := d.table.Latest(fdb.MakeKey(e.VID, e.MAC))
	return r, ok && !e.Static && r.Port == e.Port && (r.Event == fdb.EventLearned || r.Event == fdb.EventMoved)
}

// belief adds to an entry of the present what the history and the flaps know.
func (d *Daemon) belief(e api.Entry, w *api.Why, flaps []api.Flap, now time.Time) api.Belief {
	b := api.Belief{Entry: e}
	for i := range w.History {
		h := &w.History[i]
		if h.VLAN != e.VLAN {
			continue
		}
		switch h.Event {
		case "learned", "moved":
			b.TaughtBy = h
			if h.Event == "moved" && now.Sub(h.Time) <= fdb.FlapWindow {
				b.Rate++
			}
		default:
			b.TaughtBy = nil
		}
	}
	place := e.Port
	if e.Peer != "" {
		place = peerPrefix + e.Peer
	}
	if e.Kind == "static" || b.TaughtBy != nil && b.TaughtBy.Port != place {
		b.TaughtBy = nil
	}
	for i, f := range flaps {
		if f.MAC == e.MAC && f.VLAN == e.VLAN {
			b.Flap = &flaps[i]
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.eff.Networks[e.Network]; n != nil && e.Kind == "dynamic" {
		if ageing := int(duration(n.Ageing).Seconds()); ageing > 0 {
			b.AgeingLeft = max(1, ageing-e.AgeS)
		}
	}
	return b
}
