package tracer

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

// Asked takes a peer's question and does not wait.
func (t *Tracer) Asked(q tunnel.Question) {
	select {
	case t.errands.busy <- struct{}{}:
	default:
		return // as good as lost: the peer asks again
	}
	t.work.Go(func() {
		defer func() { <-t.errands.busy }()
		a, err := trace.ParseAsk(q.Text)
		told := trace.Tell{Heard: q.Heard.UnixNano()}
		if err == nil {
			err = t.answer(&q, &a, &told)
		}
		if err != nil {
			e := api.AsError(err)
			told.Error, told.Hint, told.NotFound = clip(e.Msg), clip(e.Hint), e.Code == api.CodeNotFound
		}
		told.Host = t.host.Here().Host
		told.Told = time.Now().UnixNano()
		if err := q.Answer(trace.Marshal(told)); err != nil {
			t.log.Debug("answer to peer lost", "peer", q.Peer, "err", err)
		}
	})
}

// answer does what a peer asks and fills in told.
func (t *Tracer) answer(q *tunnel.Question, a *trace.Ask, told *trace.Tell) error {
	switch a.Op {
	case trace.OpWatch:
		return t.takeErrand(q, a)
	case trace.OpFetch:
		return t.errands.tell(q, a, told)
	case trace.OpEnd:
		t.errands.drop(q.ID, a.ID)
		return nil
	}
	const most = 8 // addresses fit in one answer
	here := t.host.Here()
	p, ok := here.Ports[a.Port]
	if !ok {
		return noPort(a.Port)
	}
	told.MAC, told.Addresses = p.Reply.MAC, t.addressesOf(&here, a.Port)
	told.Addresses = told.Addresses[:min(len(told.Addresses), most)]
	return nil
}

// takeErrand begins to watch for a peer. To be asked again changes nothing.
func (t *Tracer) takeErrand(q *tunnel.Question, a *trace.Ask) error {
	r := t.errands
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
	here := t.host.Here()
	l := t.lookOut(a.Key, a.Walls, here.portWith(a.Key.Src), here.portWith(a.Key.Dst))
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
func (t *Tracer) witnesses() (list []*witness, notes []string) {
	for _, p := range t.host.Here().Peers {
		switch {
		case p.Passive: // it is no tapestry
		case p.Down:
			notes = append(notes, fmt.Sprintf("peer %s is down: what it would see is missing", p.Name))
		case len(list) == maxAsked:
			return list, append(notes, fmt.Sprintf("only the first %d peers are asked", maxAsked))
		default:
			list = append(list, &witness{id: p.ID, name: p.Name, host: p.Name})
		}
	}
	return list, notes
}

// ask asks a peer, and corrects what is known of its clock.
func (t *Tracer) ask(ctx context.Context, w *witness, a *trace.Ask) (trace.Tell, error) {
	r, err := t.host.Ask(ctx, w.id, trace.Marshal(*a))
	if err != nil {
		return trace.Tell{}, err
	}
	told, err := trace.ParseTell(r.Text)
	if err != nil {
		return trace.Tell{}, err
	}
	w.host = cmp.Or(clip(api.Clean(told.Host)), w.name)
	offset, trip := trace.Offset(r.Asked, time.Unix(0, told.Heard), time.Unix(0, told.Told), r.Came)
	if w.trip == 0 || trip < w.trip {
		w.offset, w.trip = offset, max(trip, 1)
	}
	if told.Error != "" {
		code := api.CodeFailed
		if told.NotFound {
			code = api.CodeNotFound
		}
		return told, api.Errorf(code, "%s says: %s", w.host, api.Clean(told.Error)).WithHint("%s", api.Clean(told.Hint))
	}
	return told, nil
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
func (t *Tracer) fetch(ctx context.Context, w *witness, id trace.ID, lost bool) error {
	var parts [][]byte
	for n := 1; len(parts) < n; {
		told, err := t.ask(ctx, w, &trace.Ask{Op: trace.OpFetch, ID: id, Part: len(parts), Lost: lost})
		if err != nil {
			return err
		}
		n, parts = told.Parts, append(parts, told.Chunk)
	}
	r, err := trace.ParseReport(parts)
	if err != nil {
		return err
	}
	w.report = r
	return nil
}

// askTarget asks the peer host for the address of one of its ports.
func (t *Tracer) askTarget(ctx context.Context, h *Here, host, port string, own []netip.Prefix) (target, error) {
	i := slices.IndexFunc(h.Peers, func(p Peer) bool { return p.Name == host })
	if i < 0 {
		e := api.Errorf(api.CodeNotFound, "no peer %q", clip(host))
		if len(h.Peers) == 0 {
			return target{}, e.WithHint("this host is %s and has no peers: see tunnel.peers in the file, or `tapestry peer add`", h.Host)
		}
		return target{}, e.WithHint("this host is %s; `tapestry peer ls` lists the others", h.Host)
	}
	w := &witness{id: h.Peers[i].ID, name: host}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	told, err := t.ask(ctx, w, &trace.Ask{Op: trace.OpFind, Port: port})
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
	a, err := pickAddress(host+"/"+port, told.Addresses, own)
	return target{addr: a, mac: told.MAC}, err
}
