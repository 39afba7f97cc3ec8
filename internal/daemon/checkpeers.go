package daemon

import (
	"context"
	"errors"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/tapestry-net/tapestry/internal/audit"
	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel"
)

// refusedBy is a reason for which datagrams of a peer, or with peer 0 of
// strangers, are refused.
type refusedBy struct {
	peer   frame.PortID
	reason frame.Reason
}

// refusedLately is how many were, and when the last was counted.
type refusedLately struct {
	n  uint64
	at time.Time
}

// lateFor is how long a refusal counts as one of late.
const lateFor = time.Minute

// noteRefused reads the counters of what the tunnel refuses. What they grew by
// is remembered for a minute.
func (d *Daemon) noteRefused(list iter.Seq[tunnel.Status], now time.Time) {
	counts := map[refusedBy]uint64{}
	add := func(id frame.PortID, drops tunnel.Drops) {
		for why, n := range drops {
			if r := frame.Reason(why); n > 0 && r.Stage() == frame.StageTunnel && r != frame.NotEncryptedYet {
				counts[refusedBy{id, r}] = n
			}
		}
	}
	for s := range list {
		add(s.ID, s.Drops)
	}
	add(0, d.strangersRefused())
	d.cutsMu.Lock()
	defer d.cutsMu.Unlock()
	for by, n := range counts {
		if before := d.refused[by]; n > before {
			d.lately[by] = refusedLately{d.lately[by].n + n - before, now}
		}
	}
	d.refused = counts
	maps.DeleteFunc(d.lately, func(_ refusedBy, l refusedLately) bool { return now.Sub(l.at) > lateFor })
}

// refusals adds to the datagrams that were seen those that were only counted.
func (d *Daemon) refusals(seen *audit.Refusals) *audit.Refusals {
	list := d.peerList()
	d.noteRefused(slices.Values(list), time.Now())
	addresses := map[frame.PortID]netip.Addr{}
	for _, s := range list {
		addresses[s.ID] = s.Address.Addr()
	}
	d.cutsMu.Lock()
	defer d.cutsMu.Unlock()
	for by, l := range d.lately {
		if !seen.Has(by.peer, by.reason) {
			seen.Add(audit.Refusal{Peer: by.peer, From: addresses[by.peer], Reason: by.reason}, l.n)
		}
	}
	return seen
}

// peersToCheck is what is known of the peers.
func (d *Daemon) peersToCheck() []audit.Peer {
	var out []audit.Peer
	rows := map[frame.PortID][]string{}
	for _, p := range d.Peers() {
		rows[p.ID] = p.Networks
	}
	for _, s := range d.peerList() {
		n, _ := d.sw.PortStats(s.ID)
		out = append(out, audit.Peer{
			ID: s.ID, Name: s.Name, Address: s.Address, State: s.State.String(), Since: time.Since(s.Since),
			RX: n.RX.Frames, TX: n.TX.Frames, Networks: rows[s.ID],
		})
	}
	return out
}

// How often the counters are read before they are said to be wrong.
const (
	lawReadings = 40
	lawEvery    = 5 * time.Millisecond
)

// checkCounters reads the counters until they obey the law, or often enough.
func (d *Daemon) checkCounters(ctx context.Context) []audit.Finding {
	t := time.NewTicker(lawEvery)
	defer t.Stop()
	var readings []audit.Counters
	for {
		s := d.sw.Stats()
		readings = append(readings, audit.Counters{
			RxFrames: s.RxFrames, Verdicts: s.Verdicts, Decided: s.Decided, Sent: s.Sent, Refused: s.Refused, Drops: s.Drops,
		})
		found := audit.Conservation(readings)
		if len(found) == 0 || len(readings) == lawReadings {
			return found
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// codeOf is the keeper's code of a refusal, empty for another error.
func codeOf(err error) keeper.Code {
	if e, ok := errors.AsType[*keeper.Error](err); ok {
		return e.Code
	}
	return ""
}
