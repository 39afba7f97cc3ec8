package dtls_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapestry-net/tapestry/tunnel/dtls"
)

// settle lets d pass, and everything that is to happen in it.
func settle(d time.Duration) {
	time.Sleep(d) // of a bubble's clock
	synctest.Wait()
}

// talk sends a frame each way and fails the test unless both arrive.
func talk(t *testing.T, a, b *host) {
	t.Helper()
	for _, p := range [][2]*host{{a, b}, {b, a}} {
		from, to := p[0], p[1]
		if !from.say(to.name, " "+from.name+" to "+to.name) {
			t.Errorf("%s may send nothing to %s: %+v", from.name, to.name, from.status(to.name))
			continue
		}
		if diff := cmp.Diff([]string{canary + " " + from.name + " to " + to.name}, to.heard()); diff != "" {
			t.Errorf("%s heard (-want +got):\n%s", to.name, diff)
		}
	}
}

func TestLinkComesUp(t *testing.T) {
	for name, credentials := range map[string]func(t *testing.T) (a, b *dtls.Credentials){
		"certificates": func(t *testing.T) (a, b *dtls.Credentials) {
			c := newCA(t)
			return c.credentials("a"), c.credentials("b")
		},
		"shared key": func(t *testing.T) (a, b *dtls.Credentials) { return shared(t, 1), shared(t, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWire(t)
				defer w.close()
				ca, cb := credentials(t)
				a := w.host("a", dtls.Options{}, ca, "b")
				if a.say("b", "too early") {
					t.Error("a frame left before there was a link")
				}
				b := w.host("b", dtls.Options{}, cb, "a")
				settle(2 * time.Second)
				talk(t, a, b)
				s := a.status("b")
				if s.State != dtls.Established || s.Epoch != 1 || s.Generation != 1 || s.Left == 0 || s.Cipher == "" {
					t.Errorf("status %+v", s)
				}
				w.noLeaks()
			})
		})
	}
}
