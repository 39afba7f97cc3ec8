package tracer

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
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
	// tokenTime is how long a token is good, at least.
	tokenTime = time.Minute
)

// errands are the traces that this host watches for its peers.
type errands struct {
	busy   chan struct{} // one token a question being answered
	secret [32]byte      // that tokens are made with
	ending sync.WaitGroup

	mu     sync.Mutex
	all    map[trace.ID]*errand
	closed bool
}

// errand is one of them.
type errand struct {
	peer   frame.PortID
	sealed bool // it was asked for by the encrypted link
	over   *time.Timer
	ready  chan struct{} // closed when it watches
	*lookout

	told  sync.Once
	parts [][]byte // what is told, from the first time that it was asked for
	err   error
}

func newErrands() *errands {
	r := &errands{busy: make(chan struct{}, maxAnswers), all: map[trace.ID]*errand{}}
	_, _ = rand.Read(r.secret[:]) // never fails
	return r
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

// answer does what a peer asks and fills in told. In clear nothing is done for who
// doesn't hear what is told to the peer.
func (t *Tracer) answer(q *tunnel.Question, a *trace.Ask, told *trace.Tell) error {
	if !q.Sealed && !t.errands.hears(q.ID, a.Token, q.Heard) {
		told.Token = t.errands.token(q.ID, q.Heard)
		return api.Errorf(api.CodeFailed, "asked in clear: ask again with the token of this answer")
	}
	switch a.Op {
	case trace.OpWatch:
		return t.takeErrand(q, a)
	case trace.OpFetch:
		return t.errands.tell(q, a, told)
	case trace.OpEnd:
		t.errands.drop(q.ID, a.ID)
		return nil
	}
	return t.find(q, a, told)
}

// find tells the addresses of a port that the peer may know.
func (t *Tracer) find(q *tunnel.Question, a *trace.Ask, told *trace.Tell) error {
	const most = 8 // addresses fit in one answer
	here := t.host.Here()
	p, ok := here.Ports[a.Port]
	if !ok || !here.mayKnow(q, &p) {
		return api.Errorf(api.CodeNotFound, "no port %q", clip(a.Port)).
			WithHint("`tapestry port ls` lists the ports; a peer is told those of networks that it carries, of encrypted ones by the link")
	}
	told.MAC, told.Addresses, told.Secret = p.Reply.MAC, t.addressesOf(&here, a.Port), len(here.encrypted(p.VIDs)) > 0
	told.Addresses = told.Addresses[:min(len(told.Addresses), most)]
	return nil
}

// mayKnow reports whether who asks may be told the addresses of p: one that is in a
// network that the peer carries, or in one that stays on this host and is joined to
// others by routers. Of an encrypted network only those are told that carry it, by
// the link.
func (h *Here) mayKnow(q *tunnel.Question, p *Port) bool {
	carried := h.carried(q.ID)
	shared := false
	for _, v := range p.VIDs {
		n, carries := h.Network(v), slices.Contains(carried, v)
		if n.Encrypt && !(carries && q.Sealed) {
			return false
		}
		shared = shared || carries || n.VNI == 0
	}
	return shared
}

// carried are the networks that a peer carries.
func (h *Here) carried(peer frame.PortID) []frame.VID {
	for i := range h.Peers {
		if h.Peers[i].ID == peer {
			return h.Peers[i].VIDs
		}
	}
	return nil
}

// token is what a peer must show to be heard in clear at a time: who only writes
// its address into a datagram never gets to see it.
func (r *errands) token(peer frame.PortID, when time.Time) uint64 {
	var b [10]byte
	binary.BigEndian.PutUint16(b[:], uint16(peer))
	binary.BigEndian.PutUint64(b[2:], uint64(when.Unix()/int64(tokenTime/time.Second)))
	h := hmac.New(sha256.New, r.secret[:])
	_, _ = h.Write(b[:]) // never fails
	return max(binary.BigEndian.Uint64(h.Sum(nil)), 1)
}

// hears reports whether a token is one that the peer has been given lately.
func (r *errands) hears(peer frame.PortID, token uint64, now time.Time) bool {
	return token == r.token(peer, now) || token == r.token(peer, now.Add(-tokenTime))
}

// takeErrand begins to watch for a peer. To be asked again changes nothing.
func (t *Tracer) takeErrand(q *tunnel.Question, a *trace.Ask) error {
	e, fresh, err := t.errands.take(q, a)
	if err != nil {
		return err
	}
	if fresh {
		here := t.host.Here()
		e.lookout = t.lookOut(a.Key, a.Walls, here.portWith(a.Key.Src), here.portWith(a.Key.Dst))
		close(e.ready)
	}
	<-e.ready
	return nil
}

// take is the errand for a trace, and whether it is new: then the caller makes it
// ready.
func (r *errands) take(q *tunnel.Question, a *trace.Ask) (e *errand, fresh bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch e := r.all[a.ID]; {
	case e != nil && (e.peer != q.ID || e.sealed != q.Sealed):
		return nil, false, api.Errorf(api.CodeConflict, "trace %v is another peer's", a.ID)
	case e != nil:
		return e, false, nil
	case len(r.all) >= maxErrands:
		return nil, false, api.Errorf(api.CodeFailed, "%d traces of peers are watched already", maxErrands)
	case r.closed:
		return nil, false, api.Errorf(api.CodeFailed, "the switch is stopping")
	}
	e = &errand{peer: q.ID, sealed: q.Sealed, ready: make(chan struct{})}
	e.over = time.AfterFunc(time.Duration(a.For)*time.Millisecond, func() { r.drop(q.ID, a.ID) })
	r.all[a.ID] = e
	return e, true, nil
}

// drop ends an errand of a peer.
func (r *errands) drop(peer frame.PortID, id trace.ID) {
	r.mu.Lock()
	e := r.all[id]
	if e == nil || e.peer != peer {
		r.mu.Unlock()
		return
	}
	delete(r.all, id)
	r.ending.Add(1)
	r.mu.Unlock()
	defer r.ending.Done()
	e.end()
}

// end waits until the errand watches, and ends it.
func (e *errand) end() {
	e.over.Stop()
	<-e.ready
	e.close()
}

// close ends all errands.
func (r *errands) close() {
	r.mu.Lock()
	all := r.all
	r.all, r.closed = nil, true
	r.mu.Unlock()
	for _, e := range all {
		e.end()
	}
	r.ending.Wait()
}

// tell fills in one part of what was seen.
func (r *errands) tell(q *tunnel.Question, a *trace.Ask, t *trace.Tell) error {
	r.mu.Lock()
	e := r.all[a.ID]
	r.mu.Unlock()
	if e == nil || e.peer != q.ID || e.sealed != q.Sealed {
		return api.Errorf(api.CodeNotFound, "trace %v is not watched", a.ID)
	}
	<-e.ready
	e.told.Do(func() { e.parts, e.err = e.report(a.Lost, !e.sealed).Parts() })
	switch {
	case e.err != nil:
		return e.err
	case a.Part >= len(e.parts):
		return api.Errorf(api.CodeNotFound, "part %d of %d", a.Part, len(e.parts))
	}
	t.Part, t.Parts, t.Chunk = a.Part, len(e.parts), e.parts[a.Part]
	return nil
}
