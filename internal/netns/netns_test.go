package netns_test

import (
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/netns"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

func TestOpenFindsOneNamespaceByEverySpec(t *testing.T) {
	ns := netnstest.New(t)
	for _, spec := range []string{ns.Name(), ns.Path(), "/run/netns/" + ns.Name()} {
		h, err := netns.Open(spec)
		if err != nil {
			t.Fatal(err)
		}
		if h.Inode() != ns.Inode() {
			t.Errorf("Open(%q).Inode() = %d, want %d", spec, h.Inode(), ns.Inode())
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		if err := h.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	}
}

func TestOpenPID(t *testing.T) {
	netnstest.Require(t, "netns")
	own, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	h, err := netns.Open("pid:" + strconv.Itoa(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if h.Inode() != own.Inode() {
		t.Errorf("Inode() = %d, want %d", h.Inode(), own.Inode())
	}
}

func TestOpenErrors(t *testing.T) {
	for spec, want := range map[string]error{
		"nosuch":                        netns.ErrNotFound,
		"pid:2147483646":                netns.ErrNotFound,
		"/run/netns/nosuch":             netns.ErrNotFound,
		"":                              netns.ErrInvalid,
		"../etc/passwd":                 netns.ErrInvalid,
		"..":                            netns.ErrInvalid,
		"-n":                            netns.ErrInvalid,
		"a/b":                           netns.ErrInvalid,
		"a\nb":                          netns.ErrInvalid,
		"\x1b[31m":                      netns.ErrInvalid,
		strings.Repeat("a", 300):        netns.ErrInvalid,
		"/run/netns/../netns/x":         netns.ErrInvalid,
		"/run/x\n":                      netns.ErrInvalid,
		"/dev/null":                     netns.ErrInvalid,
		"/proc/self/ns/mnt":             netns.ErrInvalid,
		"pid:0":                         netns.ErrInvalid,
		"pid:-1":                        netns.ErrInvalid,
		"pid:1/../..":                   netns.ErrInvalid,
		"/" + strings.Repeat("a", 5000): netns.ErrInvalid,
	} {
		h, err := netns.Open(spec)
		if !errors.Is(err, want) {
			t.Errorf("Open(%.20q) = %v, want %v", spec, err, want)
		}
		if err == nil {
			h.Close()
		} else if strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 400 {
			t.Errorf("Open(%.20q): unsafe message %q", spec, err)
		}
	}
}

func TestDoRunsInsideAndComesBack(t *testing.T) {
	ns := netnstest.New(t)
	own, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	for range 100 {
		ns.Do(func() error {
			h, err := netns.Current()
			if err != nil {
				return err
			}
			defer h.Close()
			if h.Inode() != ns.Inode() {
				t.Errorf("inside: namespace %d, want %d", h.Inode(), ns.Inode())
			}
			ifs, err := net.Interfaces()
			if err == nil && (len(ifs) != 1 || ifs[0].Name != "lo") {
				t.Errorf("inside: interfaces %v, want lo alone", ifs)
			}
			return err
		})
		h, err := netns.Current()
		if err != nil {
			t.Fatal(err)
		}
		if h.Inode() != own.Inode() {
			t.Fatalf("outside: namespace %d, want %d", h.Inode(), own.Inode())
		}
		h.Close()
	}
}

func TestDoPassesTheError(t *testing.T) {
	ns := netnstest.New(t)
	want := errors.New("no")
	if err := ns.Handle.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("Do = %v, want %v", err, want)
	}
}

func TestRunStartsTheProgramInside(t *testing.T) {
	netnstest.Require(t, "ip")
	ns := netnstest.New(t)
	if out := ns.Run("ip", "-o", "link"); strings.Count(out, "\n") != 1 || !strings.Contains(out, "lo") {
		t.Errorf("ip link = %q, want lo alone", out)
	}
}
