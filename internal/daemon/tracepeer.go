package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/tapestry-net/tapestry/capture/trace"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel"
)

const (
	// maxErrands is how many traces of peers are watched at a time, and maxAnswers
	// how many of their questions are worked on.
	maxErrands = 8
	maxAnswers = 8
	// maxAsked is how many peers a trace asks.
	maxAsked = 64
	// startTime is how long peers have to begin to watch before the probe leaves,
	// and fetchTime how long each has to tell what it saw.
	startTime = 600 * time.Millisecond
	fetchTime = 2 * time.Second
)

// errands are the traces that this host watches for its peers.
type errands struct {
	busy chan struct{} // one token a question being answered

	mu  sync.Mutex
	all map[trace.ID]*errand
}

// errand is one of them.
type errand struct {
	*lookout
	peer  frame.PortID
	over  *time.Timer
	parts [][]byte // what is told, from the first time that it was asked for
}

func newErrands() *errands {
	return &errands{busy: make(chan struct{}, maxAnswers), all: map[trace.ID]*errand{}}
}

// onAsked takes a peer's question. It must not take mu, and not wait: a tunnel
// is closed with it held.
func (d *Daemon) onAsked(q tunnel.Question) {
	select {
	case d.errands.busy <- struct{}{}:
	default:
		return // as good as lost: the peer asks again
	}
	d.work.Go(func() {
		defer func() { <-d.errands.busy }()
		a, err := trace.ParseAsk(q.Text)
		t := trace.Tell{Heard: q.Heard.UnixNano()}
		if err == nil {
			err = d.answer(&q, &a, &t)
		}
		if err != nil {
			e := api.AsError(err)
			t.Error, t.Hint, t.NotFound = clip(e.Msg), clip(e.Hint), e.Code == api.CodeNotFound
		}
		d.mu.Lock()
		t.Host = d.eff.Host
		d.mu.Unlock()
		t.Told = time.Now().UnixNano()
		if err := q.Answer(trace.Marshal(t)); err != nil {
			d.log.Debug("answer to peer lost", "peer", q.Peer, "err", err)
		}
	})
}

// answer does what a peer asks and fills in t.
func (d *Daemon) answer(q *tunnel.Question, a *trace.Ask, t *trace.Tell) error {
	switch a.Op {
	case trace.OpWatch:
		return d.takeErrand(q, a)
	case trace.OpFetch:
		return d.errands.tell(q, a, t)
	case trace.OpEnd:
		d.errands.drop(q.ID, a.ID)
		return nil
	}
	d.mu.Lock()
	p := d.ports[a.Port]
	if p != nil {
		t.MAC = p.reply.MAC
	}
	d.mu.Unlock()
	if p == nil {
		return d.noPort(a.Port)
	}
	t.Addresses = d.addressesOf(a.Port)
	t.Addresses = t.Addresses[:min(len(t.Addresses), 8)]
	return nil
}

// takeErrand begins to watch for a peer. To be asked again changes nothing.
func (d *Daemon) takeErrand(q *tunnel.Question, a *trace.Ask) error {
	r := d.errands
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.all[a.ID]; e != nil {
		if e.peer != q.ID {
			return api.Errorf(api.CodeConflict, "trace %v is another peer's", a.ID)
		}
		return nil
	}
	if len(r.all) >= maxErrands {
		return api.Errorf(api.CodeFailed, "%d traces of peers are watched already", maxErrands)
	}
	l := d.lookOut(a.Key, a.Walls, d.portWith(a.Key.Src), d.portWith(a.Key.Dst))
	r.all[a.ID] = &errand{lookout: l, peer: q.ID, over: time.AfterFunc(time.Duration(a.For)*time.Millisecond, func() { r.drop(q.ID, a.ID) })}
	return nil
}

// drop ends an errand of a peer.
func (r *errands) drop(peer frame.PortID, id trace.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.all[id]; e != nil && e.peer == peer {
		delete(r.all, id)
		e.over.Stop()
		e.close()
	}
}

// close ends all errands.
func (r *errands) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, e := range r.all {
		delete(r.all, id)
		e.over.Stop()
		e.close()
	}
}

// tell fills in one part of what was seen.
func (r *errands) tell(q *tunnel.Question, a *trace.Ask, t *trace.Tell) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.all[a.ID]
	if e == nil || e.peer != q.ID {
		return api.Errorf(api.CodeNotFound, "trace %v is not watched", a.ID)
	}
	if e.parts == nil {
		var err error
		if e.parts, err = e.report(a.Lost).Parts(); err != nil {
			return err
		}
	}
	if a.Part >= len(e.parts) {
		return api.Errorf(api.CodeNotFound, "part %d of %d", a.Part, len(e.parts))
	}
	t.Part, t.Parts, t.Chunk = a.Part, len(e.parts), e.parts[a.Part]
	return nil
}

// witness is a peer that was asked to watch for a trace.
type witness struct {
	id     frame.PortID
	name   string // as the file here calls it
	host   string // as it calls itself
	offset time.Duration
	trip   time.Duration // of the question that offset is from
	err    error
	report trace.Report
}

// witnesses are the peers that can be asked, and notes about those that can't.
func (d *Daemon) witnesses() (list []*witness, notes []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.vtep == nil {
		return nil, nil
	}
	for _, s := range d.vtep.Status() {
		switch {
		case s.Passive: // it is no tapestry
		case s.State == tunnel.Down:
			notes = append(notes, fmt.Sprintf("peer %s is down: what it would see is missing", s.Name))
		case len(list) == maxAsked:
			notes = append(notes, fmt.Sprintf("only the first %d peers are asked", maxAsked))
			return list, notes
		default:
			list = append(list, &witness{id: s.ID, name: s.Name, host: s.Name})
		}
	}
	return list, notes
}

// ask asks a peer, and corrects what is known of its clock.
func (d *Daemon) ask(ctx context.Context, w *witness, a *trace.Ask) (trace.Tell, error) {
	d.mu.Lock()
	v := d.vtep
	d.mu.Unlock()
	if v == nil {
		return trace.Tell{}, errors.New("the tunnel was taken out of the configuration")
	}
	r, err := v.Ask(ctx, w.id, trace.Marshal(*a))
	if err != nil {
		return trace.Tell{}, err
	}
	t, err := trace.ParseTell(r.Text)
	if err != nil {
		return trace.Tell{}, err
	}
	w.host = cmp.Or(clip(api.Clean(t.Host)), w.name)
	offset, trip := trace.Offset(r.Asked, time.Unix(0, t.Heard), time.Unix(0, t.Told), r.Came)
	if w.trip == 0 || trip < w.trip {
		w.offset, w.trip = offset, max(trip, 1)
	}
	if t.Error != "" {
		code := api.CodeFailed
		if t.NotFound {
			code = api.CodeNotFound
		}
		return t, api.Errorf(code, "%s says: %s", w.host, api.Clean(t.Error)).WithHint("%s", api.Clean(t.Hint))
	}
	return t, nil
}

// each runs do for all witnesses that have not failed, at once, and keeps their
// errors. It returns when all have, or the time is over.
func each(ctx context.Context, list []*witness, within time.Duration, do func(context.Context, *witness) error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var all sync.WaitGroup
	for _, w := range list {
		if w.err == nil {
			all.Go(func() { w.err = do(ctx, w) })
		}
	}
	all.Wait()
}

// fetch collects what a peer saw.
func (d *Daemon) fetch(ctx context.Context, w *witness, id trace.ID, lost bool) error {
	var parts [][]byte
	for n := 1; len(parts) < n; {
		t, err := d.ask(ctx, w, &trace.Ask{Op: trace.OpFetch, ID: id, Part: len(parts), Lost: lost})
		if err != nil {
			return err
		}
		n, parts = t.Parts, append(parts, t.Chunk)
	}
	r, err := trace.ParseReport(parts)
	if err != nil {
		return err
	}
	w.report = r
	return nil
}

// askTarget asks the peer host for the address of one of its ports.
func (d *Daemon) askTarget(ctx context.Context, host, port string, own []netip.Prefix) (target, error) {
	d.mu.Lock()
	var w *witness
	var names []string
	for _, p := range d.peerSpecs() {
		names = append(names, p.Name)
		if p.Name == host {
			w = &witness{id: p.ID, name: p.Name}
		}
	}
	here := d.eff.Host
	d.mu.Unlock()
	if w == nil {
		slices.Sort(names)
		e := api.Errorf(api.CodeNotFound, "no peer %q", clip(host))
		if len(names) == 0 {
			return target{}, e.WithHint("this host is %s and has no peers: see tunnel.peers in the file, or `tapestry peer add`", here)
		}
		return target{}, e.WithHint("this host is %s; `tapestry peer ls` lists the others", here)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	t, err := d.ask(ctx, w, &trace.Ask{Op: trace.OpFind, Port: port})
	if err != nil {
		if _, ok := errors.AsType[*api.Error](err); ok {
			return target{}, err
		}
		if errors.Is(err, tunnel.ErrNoAnswer) {
			err = errors.New("it does not answer")
		}
		return target{}, api.Errorf(api.CodeFailed, "%s can't be asked for the address of its port %s: %v", host, clip(port), err).
			WithHint("`tapestry peer show %s` says whether it is up; an address can be traced without asking", host)
	}
	a, err := pickAddress(host+"/"+port, t.Addresses, own)
	return target{addr: a, mac: t.MAC}, err
}
