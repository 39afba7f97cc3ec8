package keeper_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/internal/netns"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/internal/watch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// everything is a filter that passes whole packets.
var everything = []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K, K: 1 << 18}}

// namespaceOf returns the inode of the namespace that a socket lives in.
func namespaceOf(t *testing.T, fd int) uint64 {
	t.Helper()
	const siocgskns = 0x894c // SIOCGSKNS of linux/sockios.h
	ns, err := unix.IoctlRetInt(fd, siocgskns)
	if err != nil {
		t.Fatal(err)
	}
	return inode(t, ns)
}

// A worker may look into the namespaces of held ports and of the daemon, and
// into no other.
func TestWatch(t *testing.T) {
	b := machineBed(t)
	own := netnstest.New(t) // a container's
	home, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	w := b.run()
	c1 := tap("c1")
	c1.Netns, c1.Addresses = own.Path(), []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24")}
	p, _ := mustOpen(t, w, c1)

	for port, inode := range map[string]uint64{"c1": own.Inode(), "": home.Inode()} {
		at := keeper.Place{Port: port}
		fd, all, err := w.Watch(keeper.WatchRequest{Place: at})
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if got := namespaceOf(t, fd); got != inode {
			t.Errorf("port %q: the socket is in namespace %d, want %d", port, got, inode)
		}
		if lo := slices.IndexFunc(all, func(i keeper.Interface) bool { return i.Name == "lo" && i.Loop && i.Up }); lo < 0 {
			t.Errorf("port %q: got %+v, want lo among them", port, all)
		}
		for _, v6 := range []bool{false, true} {
			raw, err := w.OpenRaw(keeper.RawRequest{Place: at, IPv6: v6})
			if err != nil {
				t.Fatal(err)
			}
			if got := namespaceOf(t, raw); got != inode {
				t.Errorf("port %q: the raw socket is in namespace %d, want %d", port, got, inode)
			}
			unix.Close(raw)
		}
	}

	all, err := w.Interfaces(keeper.Place{Port: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(i keeper.Interface) bool { return i.Index == p.Ifindex })
	if i < 0 || all[i].Name != "eth0" || all[i].Kind != "tuntap" || all[i].Port != "c1" || !all[i].Carrier || all[i].MAC != p.MAC ||
		!slices.Contains(all[i].Addresses, c1.Addresses[0]) {
		t.Errorf("got %+v, want eth0 of port c1 as it was made", all)
	}
	refuseWatch(t, w)
}

func refuseWatch(t *testing.T, w *worker) {
	t.Helper()
	for _, c := range []struct {
		r    keeper.WatchRequest
		want keeper.Code
	}{
		{keeper.WatchRequest{Place: keeper.Place{Port: "c2"}}, keeper.CodeNotFound},
		{keeper.WatchRequest{Place: keeper.Place{Port: "../x"}}, keeper.CodeInvalid},
		{keeper.WatchRequest{Ifname: "eth7"}, keeper.CodeNotFound},
		{keeper.WatchRequest{Ifname: "a/b"}, keeper.CodeInvalid},
	} {
		if _, _, err := w.Watch(c.r); code(err) != c.want {
			t.Errorf("%+v: got %v, want %s", c.r, err, c.want)
		}
		if _, err := w.OpenRaw(keeper.RawRequest{Place: c.r.Place}); c.r.Port != "" && code(err) != c.want {
			t.Errorf("raw %+v: got %v, want %s", c.r.Place, err, c.want)
		}
	}
	for _, op := range []string{"watch", "interfaces", "raw"} {
		if err := w.RawSet(nil, nil, op); code(err) != keeper.CodeInvalid {
			t.Errorf("%s without a place: got %v, want %s", op, err, keeper.CodeInvalid)
		}
	}
}

// Nothing reaches a watching socket before its reader's filter.
func TestWatchBeginsDeaf(t *testing.T) {
	b := machineBed(t)
	netnstest.Require(t, "ping")
	own := netnstest.New(t)
	w := b.run()
	c1 := tap("c1")
	c1.Netns = own.Path()
	mustOpen(t, w, c1)
	fd, all, err := w.Watch(keeper.WatchRequest{Place: keeper.Place{Port: "c1"}, Ifname: "lo"})
	if err != nil || len(all) < 2 {
		t.Fatalf("got %+v, %v, want all interfaces, the watched one or not", all, err)
	}
	own.Run("ping", "-c1", "-W1", "127.0.0.1")
	s, err := watch.New(fd, watch.Options{Filter: everything})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	own.Run("ping", "-c1", "-W1", "127.0.0.2")
	got, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if first := string(got[0].Data); !strings.Contains(first, "\x7f\x00\x00\x02") {
		t.Errorf("first packet % x, want the first one after the filter was attached", first)
	}
}

// A namespace may have more interfaces than one message takes.
func TestInterfacesInPages(t *testing.T) {
	b := machineBed(t)
	netnstest.Require(t, "ip")
	own := netnstest.New(t)
	w := b.run()
	c1 := tap("c1")
	c1.Netns = own.Path()
	mustOpen(t, w, c1)
	const n = 600
	own.Run("sh", "-c", "for i in $(seq 300); do echo link add veth$i type veth peer name peer$i; done | ip -batch -")
	all, err := w.Interfaces(keeper.Place{Port: "c1"})
	if err != nil || len(all) != n+2 {
		t.Fatalf("got %d interfaces, %v, want %d", len(all), err, n+2)
	}
	for i := range all[1:] {
		if all[i].Index >= all[i+1].Index {
			t.Fatalf("interface %d is followed by %d", all[i].Index, all[i+1].Index)
		}
	}
}
