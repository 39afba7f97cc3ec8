package dtls_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tapestry-net/tapestry/tunnel/dtls"
	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

// hellos are the client randoms that have left a wire's hosts since datagram n.
func (w *wire) hellos(n int) map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]bool{}
	for _, s := range w.log[n:] {
		if h, ok := record.Parse(s.b); ok && h.Epoch == 0 && h.Type == record.Handshake && s.b[record.HeaderLen] == 1 {
			all[hex.EncodeToString(s.b[record.HeaderLen+12+2:][:32])] = true
		}
	}
	return all
}

func (w *wire) carried() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.log)
}

// TestKeyLogIsOfNow asks for the secrets while a link is up, and while a handshake
// is under way: those of the past, which a capture of now can't need and one of
// then could, are not told; those of a handshake that is seen whole are.
func TestKeyLogIsOfNow(t *testing.T) {
	for name, before := range map[string]time.Duration{"up": time.Second, "rekeying": 250 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, a, b := up(t, dtls.Options{})
				defer w.close()
				w.delay(100 * time.Millisecond)
				if before < time.Second {
					b.e.Renew()
				}
				settle(before)
				from := w.carried()
				var log bytes.Buffer
				a.e.SetKeyLog(&log)
				if log.Len() > 0 {
					t.Errorf("at once it has told %q", log.String())
				}
				a.e.Renew()
				settle(3 * time.Second)
				w.setFate(nil)
				talk(t, a, b)
				w.delay(100 * time.Millisecond)
				a.e.SetKeyLog(nil)
				told := log.String()
				seen := 0
				for line := range strings.Lines(told) {
					f := strings.Fields(line)
					if len(f) != 3 || f[0] != "CLIENT_RANDOM" || len(f[2]) != 96 {
						t.Fatalf("line %q", line)
					}
					if w.hellos(from)[f[1]] {
						seen++
					}
				}
				if seen != 1 {
					t.Errorf("%d handshakes are told that were seen whole, want one: %q", seen, told)
				}
				if secret := strings.Repeat("0", 96); strings.Contains(told, secret) {
					t.Error("a secret was cleared before it was told")
				}
				a.e.Renew()
				settle(3 * time.Second)
				if s := a.status("b"); log.String() != told || s.Generation < 3 {
					t.Errorf("after its end it has told more, or there were no new keys: %+v", s)
				}
			})
		})
	}
}
