package api_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/api/apitest"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

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
