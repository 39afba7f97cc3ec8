package api_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/api/apitest"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

// TestKeysAreForRoot: of those who may speak to the switch, only root and who runs
// it capture the secrets of encrypted links.
func TestKeysAreForRoot(t *testing.T) {
	const another = 65532
	for uid, want := range map[uint32]int{0: http.StatusOK, uint32(os.Geteuid()): http.StatusOK, another: http.StatusForbidden} {
		h := api.NewServer(apitest.New(), slog.New(slog.DiscardHandler)).HandlerFor(uid)
		for _, c := range []struct {
			query string
			want  int
		}{{"keys=true&count=1", want}, {"keys=1&format=json&count=1", want}, {"keys=false&count=1", http.StatusOK}, {"count=1", http.StatusOK}} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/capture?"+c.query, nil))
			if w.Code != c.want {
				t.Errorf("uid %d, %s: got status %d: %s; want %d", uid, c.query, w.Code, w.Body, c.want)
			}
			if c.want == http.StatusForbidden && !strings.Contains(w.Body.String(), "for root only") {
				t.Errorf("uid %d, %s: got %s", uid, c.query, w.Body)
			}
		}
	}
}

// TestKeysOverSocket: who is told by the kernel, not by the caller.
func TestKeysOverSocket(t *testing.T) {
	netnstest.Require(t, "root")
	const uid, gid = 65532, 65533
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err := errors.Join(err, os.Chmod(filepath.Dir(dir), 0o711), os.Chmod(dir, 0o711), os.Chown(socket, 0, gid), os.Chmod(socket, 0o660)); err != nil {
		t.Fatal(err)
	}
	srv := api.NewServer(apitest.New(), slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	defer func() {
		if err := errors.Join(srv.Close(), <-done); err != nil {
			t.Error(err)
		}
	}()
	for _, c := range []struct {
		query string
		uid   int
		want  int
	}{{"keys=true&count=1", uid, http.StatusForbidden}, {"count=1", uid, http.StatusOK}, {"keys=true&count=1", 0, http.StatusOK}} {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
			return dialAs(socket, c.uid, gid)
		}}}
		r, err := client.Get("http://switch/v1/capture?" + c.query)
		if err != nil {
			t.Errorf("uid %d, %s: %v", c.uid, c.query, err)
			continue
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if r.StatusCode != c.want {
			t.Errorf("uid %d, %s: got status %d: %.200s; want %d", c.uid, c.query, r.StatusCode, body, c.want)
		}
	}
}

// dialAs connects as another user, who belongs to one group.
func dialAs(socket string, uid, gid int) (c net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with its user
		for _, call := range [][4]uintptr{{unix.SYS_SETGROUPS}, {unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)}, {unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)}} {
			if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
				err = errno
				return
			}
		}
		c, err = net.Dial("unix", socket)
	}()
	<-done
	return c, err
}
