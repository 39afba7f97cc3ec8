package tracer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/capture/trace"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/inject"
)

// settleTime is how long after an answer what the kernel has to tell may come.
const settleTime = 40 * time.Millisecond

// run sends the probe, or one for each router, and tells what became of it.
func (j *journey) run(ctx context.Context, take func(api.Traced) error) error {
	if !j.req.Traceroute {
		_, err := j.probe(ctx, j.ttl, take)
		return err
	}
	for ttl := uint8(1); ttl <= j.ttl; ttl++ {
		end, err := j.probe(ctx, ttl, take)
		if err != nil || end.Reached {
			return err
		}
		j.key.ID = trace.ID(rand.Uint64())
	}
	return nil
}

// probe sends one probe, watches for it and its answer, and tells all. If it is
// lost and nothing but a firewall is left as the cause, a second one finds the
// rule: following packets through firewalls means to change them for a moment.
func (j *journey) probe(ctx context.Context, ttl uint8, take func(api.Traced) error) (api.TraceEnd, error) {
	if err := take(api.Traced{Kind: "probe", Probe: j.describe(ttl)}); err != nil {
		return api.TraceEnd{}, err
	}
	r := j.attempt(ctx, ttl, false)
	if r.lost && !j.req.Traceroute && slices.ContainsFunc(r.end.Causes, func(c trace.Cause) bool { return c.Firewall }) {
		j.key.ID = trace.ID(rand.Uint64())
		if again := j.attempt(ctx, ttl, true); again.lost {
			r = again
			r.notes = append(r.notes, "a second probe was sent, and followed through the firewalls")
		}
	}
	if ctx.Err() != nil {
		return api.TraceEnd{}, ctx.Err()
	}
	for i := range r.hops {
		if err := take(api.Traced{Kind: "hop", Hop: &r.hops[i]}); err != nil {
			return api.TraceEnd{}, err
		}
	}
	for _, n := range r.notes {
		if err := take(note("%s", n)); err != nil {
			return api.TraceEnd{}, err
		}
	}
	return r.end, take(api.Traced{Kind: "end", End: &r.end})
}

// result is what became of one probe.
type result struct {
	hops  []trace.Hop
	notes []string
	end   api.TraceEnd
	lost  bool
}

// attempt sends one probe; with walls it is followed through firewalls.
func (j *journey) attempt(ctx context.Context, ttl uint8, walls bool) result {
	l := j.t.lookOut(&j.key, walls, j.from.name, j.to.port)
	defer l.close()
	peers, notes := j.summon(ctx, walls)
	defer j.dismiss(peers)
	sent := time.Now()
	refused := j.send(ttl)
	wait := j.wait
	if refused != nil {
		wait = settleTime // for what the firewall has to tell
	}
	j.await(ctx, l, wait)
	r := result{lost: !j.done(l)}
	own := l.report(r.lost, false)
	accounts, more := j.collect(ctx, peers, r.lost)
	accounts = append(accounts, trace.Account{Host: j.host, Events: own.Events})
	r.notes = slices.Concat(notes, own.Notes, more)
	r.hops = trace.Merge(j.key.ID, accounts)
	r.end = j.conclude(r.hops, sent, refused)
	r.end.Moved, r.end.Causes = own.Moved, append(own.Causes, r.end.Causes...)
	if len(r.hops) == 0 && len(r.end.Causes) == 0 {
		r.end.Causes = j.t.unroutable(&j.from, &j.key)
	}
	for _, w := range peers {
		r.end.Moved = append(r.end.Moved, w.report.Moved...)
		r.end.Causes = append(r.end.Causes, elsewhere(w.host, w.report.Causes)...)
	}
	slices.SortStableFunc(r.end.Moved, later)
	suspect := func(c trace.Cause) bool { return c.Firewall }
	if known := slices.DeleteFunc(slices.Clone(r.end.Causes), suspect); len(known) > 0 {
		r.end.Causes = known
	}
	if r.lost && r.end.Hint == "" && len(r.end.Causes) > 0 {
		r.end.Hint = r.end.Causes[0].Hint
	}
	return r
}

// elsewhere makes the hints of another host say so.
func elsewhere(host string, causes []trace.Cause) []trace.Cause {
	for i := range causes {
		if c := &causes[i]; c.Hint != "" {
			c.Hint = fmt.Sprintf("on %s: %s", host, c.Hint)
		}
	}
	return causes
}

// summon asks the peers to watch and returns those that do.
func (j *journey) summon(ctx context.Context, walls bool) (peers []*witness, notes []string) {
	peers, notes = j.t.witnesses(&j.secrecy)
	watch := trace.Ask{Op: trace.OpWatch, ID: j.key.ID, Key: &j.key, Walls: walls, For: int(watchTime(j.wait).Milliseconds())}
	each(ctx, peers, startTime, func(ctx context.Context, w *witness) error {
		_, err := j.t.ask(ctx, w, &watch)
		return err
	})
	return peers, notes
}

// watchTime is how long a peer must watch for a probe whose answer may take that
// long: the slowest peer may begin last, and what was seen is fetched then.
func watchTime(wait time.Duration) time.Duration { return startTime + wait + 2*fetchTime }

// collect fetches what the peers saw.
func (j *journey) collect(ctx context.Context, peers []*witness, lost bool) (accounts []trace.Account, notes []string) {
	each(ctx, peers, fetchTime, func(ctx context.Context, w *witness) error { return j.t.fetch(ctx, w, j.key.ID, lost) })
	for _, w := range peers {
		if w.err != nil {
			notes = append(notes, fmt.Sprintf("host %s did not tell what it saw: %v", w.host, w.err))
			continue
		}
		for _, n := range w.report.Notes {
			notes = append(notes, fmt.Sprintf("host %s: %s", w.host, n))
		}
		accounts = append(accounts, trace.Account{Host: w.host, Offset: w.offset, Events: w.report.Events})
	}
	return accounts, notes
}

// dismiss tells the peers to watch no more, and waits for none of them: a host
// that doesn't hear it ends by itself.
func (j *journey) dismiss(peers []*witness) {
	end := trace.Ask{Op: trace.OpEnd, ID: j.key.ID}
	j.t.work.Go(func() {
		each(context.Background(), peers, startTime, func(ctx context.Context, w *witness) error {
			_, err := j.t.ask(ctx, w, &end)
			return err
		})
	})
}

// done reports whether the trace came to its end: the destination has answered,
// or the router that its TTL was meant for.
func (j *journey) done(l *lookout) bool {
	seen, _ := l.watcher.Seen()
	meant := j.req.TTL != 0 || j.req.Traceroute
	return slices.ContainsFunc(seen, func(s trace.Seen) bool {
		return j.isBack(s) && (s.Reached() || meant && s.What == trace.TimeExceeded)
	})
}

// back reports whether an answer came back to where the probe started.
func (j *journey) back(l *lookout) bool {
	seen, _ := l.watcher.Seen()
	return slices.ContainsFunc(seen, j.isBack)
}

func (j *journey) describe(ttl uint8) *api.TraceProbe {
	p := &api.TraceProbe{
		Trace: j.key.ID, Host: j.host, Port: j.from.name, To: j.req.To, Proto: string(j.key.Proto),
		Src: j.key.Src.String(), Dst: j.key.Dst.String(), DPort: int(j.key.Port), TTL: int(ttl), Sent: "from",
	}
	if !j.from.raw {
		p.Sent = "at"
	}
	return p
}

// send lets the probe go. An error says why the kernel or the switch took none.
func (j *journey) send(ttl uint8) error {
	packet := j.key.Packet(ttl)
	if !j.from.raw {
		f := inject.Frame{In: j.from.id, Data: trace.Frame(j.to.mac, j.from.mac, j.from.tag, packet)}
		if !j.t.host.Inject(f) {
			return errors.New("too many injected frames wait for the switch")
		}
		return nil
	}
	fd, err := j.t.keeper.OpenRaw(keeper.RawRequest{Place: j.from.place, IPv6: j.key.Src.Is6()})
	if err != nil {
		return err
	}
	defer unix.Close(fd) // only written to
	var to unix.Sockaddr = &unix.SockaddrInet6{Addr: j.key.Dst.As16()}
	if j.key.Dst.Is4() {
		to = &unix.SockaddrInet4{Addr: j.key.Dst.As4()}
	}
	return unix.Sendto(fd, packet, 0, to)
}

// await returns when an answer has left by the port that the probe started at,
// and what follows it had time to come, or when the wait is over.
func (j *journey) await(ctx context.Context, l *lookout, wait time.Duration) {
	over := time.NewTimer(wait)
	defer over.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-over.C:
			return
		case <-l.watcher.Ready():
			if j.back(l) {
				over.Reset(settleTime)
			}
		}
	}
}

// isBack reports whether s is the answer on its way into the source.
func (j *journey) isBack(s trace.Seen) bool {
	return s.Answer() && slices.ContainsFunc(s.Copies(), func(c frame.Copy) bool { return c.Port == j.from.id && c.Refused == frame.ReasonNone })
}

// conclude says what became of the probe.
func (j *journey) conclude(hops []trace.Hop, sent time.Time, refused error) api.TraceEnd {
	var end api.TraceEnd
	if refused != nil {
		end.Host = j.host
		end.Lost, end.Hint = j.unsent(refused)
		end.Causes = j.t.unroutable(&j.from, &j.key)
		if errors.Is(refused, unix.EPERM) {
			end.Causes = []trace.Cause{{What: fmt.Sprintf("%s/%s: a rule of the output chain", j.host, j.from.name), Hint: "nft list ruleset", Firewall: true}}
		}
		return end
	}
	for i := len(hops) - 1; i >= 0; i-- {
		h := &hops[i]
		if h.Direction == trace.Answer && h.Host == j.host && h.At == trace.Egress && h.Port == j.from.name && h.Action == "send" {
			end.Answered, end.Answer, end.By, end.Reached = true, h.Packet, h.From, h.Reached()
			end.RTTUS = max(h.Time.Sub(sent).Microseconds(), 0)
			break
		}
	}
	end.Host, end.Lost = j.lastSeen(hops)
	if end.Answered {
		end.Host, end.Lost = turning(hops), ""
	}
	return end
}

// turning is the host at which the request was seen last: it answered.
func turning(hops []trace.Hop) string {
	host := ""
	for i := range hops {
		if h := &hops[i]; h.Direction == trace.Request && h.Action != "ignore" && !h.Drops() {
			host = h.Host
		}
	}
	return host
}

// unsent explains an error of sending.
func (j *journey) unsent(err error) (lost, hint string) {
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		return fmt.Sprintf("the probe never left: the namespace of %s has no way to %v", j.from.name, j.key.Dst), ""
	case errors.Is(err, unix.EPERM):
		return fmt.Sprintf("the probe never left: the firewall in the namespace of %s refuses it", j.from.name), ""
	}
	return fmt.Sprintf("the probe never left: %v", err), keeperHint(err)
}

// lastTaken is the last of the hops whose packet was for whoever saw it.
func lastTaken(hops []trace.Hop) *trace.Hop {
	for i := len(hops) - 1; i > 0; i-- {
		if hops[i].Action != "ignore" {
			return &hops[i]
		}
	}
	return &hops[0]
}

// lastSeen says where a probe or its answer was seen last, and what that means.
func (j *journey) lastSeen(hops []trace.Hop) (host, lost string) {
	if len(hops) == 0 {
		return j.host, fmt.Sprintf("the probe did not come out of the namespace of %s", j.from.name)
	}
	h := lastTaken(hops)
	for i := range hops {
		if hops[i].Direction == h.Direction && hops[i].Drops() {
			h = &hops[i]
		}
	}
	what := "the probe"
	if h.Direction == trace.Answer {
		what = "the answer (" + h.Packet + ")"
	}
	switch {
	case h.Drops():
		return h.Host, fmt.Sprintf("the switch of %s dropped %s at %s: %s", h.Host, what, h.Port, h.Reason)
	case h.At == trace.Egress:
		return h.Host, fmt.Sprintf("%s left the switch of %s by %s, and nothing came back", what, h.Host, h.Port)
	case h.At == trace.Encap:
		return h.Host, fmt.Sprintf("%s left %s for the peer %s, where nobody saw it", what, h.Host, h.Port)
	case h.At != trace.Wire:
		return h.Host, fmt.Sprintf("%s was seen last on %s at %s", what, h.Host, h.Port)
	case h.Action == "send":
		return h.Host, fmt.Sprintf("%s left %s by %s, and was seen no more", what, h.Host, h.Port)
	case h.Netns != "":
		return h.Host, fmt.Sprintf("the container behind %s/%s received %s, and went no further with it", h.Host, h.Far, what)
	}
	return h.Host, fmt.Sprintf("the kernel of %s received %s on %s, and went no further with it", h.Host, what, h.Port)
}
