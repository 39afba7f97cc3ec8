package tracer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tapestry-net/tapestry/capture/trace"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel"
)

const (
	// maxAsked is how many peers a trace asks.
	maxAsked = 64
	// startTime is how long peers have to begin to watch before the probe leaves,
	// and fetchTime how long each has to tell what it saw.
	startTime = 600 * time.Millisecond
	fetchTime = 2 * time.Second
)

// witness is a peer that was asked to watch for a trace.
type witness struct {
	id     frame.PortID
	name   string // as the file here calls it
	host   string // as it calls itself
	sealed bool   // it is asked by the encrypted link alone
	token  uint64 // that it has given us, to be heard in clear
	offset time.Duration
	trip   time.Duration // of the question that offset is from
	err    error
	report trace.Report
}

// secrecy is who may be told the addresses of a trace.
type secrecy struct {
	on   bool
	vids []frame.VID // the encrypted networks that it is about, as far as they are known
}

// allows reports whether p may be told: with addresses of encrypted networks only
// who carries one of them, by the link.
func (s *secrecy) allows(p *Peer) bool {
	return !s.on || p.Sealed && (len(s.vids) == 0 || slices.ContainsFunc(s.vids, func(v frame.VID) bool { return slices.Contains(p.VIDs, v) }))
}

// witnesses are the peers that can be asked, and notes about those that can't.
func (t *Tracer) witnesses(s *secrecy) (list []*witness, notes []string) {
	var down, left []string
	peers := t.host.Here().Peers
	for i := range peers {
		switch p := &peers[i]; {
		case p.Passive: // it is no tapestry
		case !s.allows(p):
			left = append(left, p.Name)
		case p.Down:
			down = append(down, p.Name)
		case len(list) == maxAsked:
			notes = append(notes, fmt.Sprintf("only the first %d peers are asked", maxAsked))
			return list, append(notes, absent(down, left)...)
		default:
			list = append(list, &witness{id: p.ID, name: p.Name, host: p.Name, sealed: p.Sealed})
		}
	}
	return list, absent(down, left)
}

// absent says who is not asked.
func absent(down, left []string) (notes []string) {
	for i, list := range [][]string{down, left} {
		const most = 5
		if len(list) == 0 {
			continue
		}
		who := strings.Join(list[:min(len(list), most)], ", ")
		if len(list) > most {
			who += fmt.Sprintf(" and %d more", len(list)-most)
		}
		why := "down: what would be seen there is missing"
		if i > 0 {
			why = "not asked: only peers that carry the encrypted network are, by the link"
		}
		notes = append(notes, fmt.Sprintf("%s %s", map[bool]string{true: "peers " + who + " are", false: "peer " + who + " is"}[len(list) > 1], why))
	}
	return notes
}

// ask asks a peer, once more if it wants to see that we hear what it says.
func (t *Tracer) ask(ctx context.Context, w *witness, a *trace.Ask) (trace.Tell, error) {
	told, err := t.askOnce(ctx, w, a)
	if told.Token == 0 || told.Token == w.token {
		return told, err
	}
	w.token = told.Token
	return t.askOnce(ctx, w, a)
}

// askOnce asks a peer, and corrects what is known of its clock.
func (t *Tracer) askOnce(ctx context.Context, w *witness, a *trace.Ask) (trace.Tell, error) {
	q := *a
	q.Token = w.token
	r, err := t.host.Ask(ctx, w.id, trace.Marshal(q), w.sealed)
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
	w := &witness{id: h.Peers[i].ID, name: host, sealed: h.Peers[i].Sealed}
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
	return target{addr: a, mac: told.MAC, secret: told.Secret}, err
}
