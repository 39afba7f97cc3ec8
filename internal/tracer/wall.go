package tracer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/tapestry-net/tapestry/capture/trace"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/internal/nftrace"
)

// maxSteps is how many steps through a firewall are kept.
const maxSteps = 256

// wall follows a probe and its answer through the firewall of one namespace.
type wall struct {
	place    keeper.Place
	listener *nftrace.Listener
	legacy   []string // tables of iptables-legacy, which can't be followed
	stop     context.CancelFunc
	done     chan struct{}

	mu    sync.Mutex
	steps []nftrace.Step
}

// followFirewall opens a wall for the packets of k.
func (t *Tracer) followFirewall(p keeper.Place, k *trace.Key) (*wall, error) {
	probe := nftrace.Probe{Src: k.Src, Dst: k.Dst, Protocol: k.Protocol(), SrcPort: k.SourcePort(), DstPort: k.Port}
	if k.Proto == trace.ICMP {
		probe.SrcPort = 0
		probe.ID, _ = k.Echo()
	}
	w := &wall{place: p, done: make(chan struct{})}
	var err error
	if w.listener, w.legacy, err = t.keeper.Firewall(keeper.FirewallRequest{Place: p, Probe: probe}); err != nil {
		return nil, err
	}
	var ctx context.Context
	ctx, w.stop = context.WithCancel(context.Background())
	go func() {
		defer close(w.done)
		w.read(ctx)
	}()
	return w, nil
}

// read keeps what the probe meets until the wall is closed.
func (w *wall) read(ctx context.Context) {
	for {
		steps, err := w.listener.Read(ctx)
		if err != nil && !errors.Is(err, nftrace.ErrLost) {
			return
		}
		w.mu.Lock()
		w.steps = append(w.steps, steps[:min(len(steps), maxSteps-len(w.steps))]...)
		w.mu.Unlock()
	}
}

// close ends the wall's goroutine and takes its table away.
func (w *wall) close() {
	w.stop()
	<-w.done
	_ = w.listener.Close() // nothing was written
}

// final is the step at which the firewall kept a packet.
func (w *wall) final() (nftrace.Step, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.steps {
		if s.Final() {
			return s, true
		}
	}
	return nftrace.Step{}, false
}

// wallCause puts the rule that kept a packet into words.
func (t *Tracer) wallCause(w *wall) (trace.Cause, bool) {
	at := placeName(t.host.Here().Host, w.place.Port)
	s, ok := w.final()
	if !ok {
		if len(w.legacy) > 0 {
			return trace.Cause{What: fmt.Sprintf("%s: iptables-legacy has rules in %s, which can't be followed", at, strings.Join(w.legacy, ", ")),
				Hint: "iptables-legacy -vnL shows which of them count"}, true
		}
		return trace.Cause{}, false
	}
	what := "the probe"
	if s.Reply {
		what = "the answer"
	}
	rule, hint, err := t.keeper.Rule(keeper.RuleRequest{Place: w.place, At: s.At})
	by := fmt.Sprintf("the firewall rule `%s`", api.Clean(rule.Text))
	switch {
	case err != nil:
		by = fmt.Sprintf("firewall rule %d", s.Handle)
	case rule.Text == "":
		by = fmt.Sprintf("the policy %s", rule.Policy)
	}
	where := fmt.Sprintf("of chain %s in table %v %s", api.Clean(s.Chain), s.Family, api.Clean(s.Table))
	if rule.Hook != "" {
		where += ", hook " + rule.Hook
	}
	did := map[bool]string{true: "took", false: "handed over"}[s.Verdict == nftrace.Drop]
	return trace.Cause{What: fmt.Sprintf("%s: %s %s %s %s", at, by, where, did, what), Hint: hint}, true
}

// placeName is a namespace for people: HOST, or HOST/PORT for a port's.
func placeName(host, port string) string {
	if port == "" {
		return host
	}
	return host + "/" + port
}
