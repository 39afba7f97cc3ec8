package dtls_test

import (
	"bytes"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tapestry-net/tapestry/tunnel/dtls"
	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

// TestHotPathsAllocateNothing holds sealing and opening to no allocation.
func TestHotPathsAllocateNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, b := up(t, dtls.Options{})
		defer w.close()
		out, in := a.e.Link("b"), b.e.Link("a")
		var writer record.Writer
		var reader record.Reader
		buf := make([]byte, 1400+record.Overhead)
		if n := testing.AllocsPerRun(100, func() {
			if !out.Reserve(&writer, 1) || !writer.Seal(record.ApplicationData, buf) {
				t.Fatal("not sealed")
			}
			if _, _, v := in.Open(&reader, a.addr, buf); v != dtls.Delivered {
				t.Fatal("not delivered")
			}
			if _, _, v := in.Open(&reader, a.addr, buf); v != dtls.Replayed {
				t.Fatalf("verdict %v", v)
			}
		}); n != 0 {
			t.Errorf("%v allocations, want 0", n)
		}
		a.apply(nil, "b")
		if n := testing.AllocsPerRun(100, func() { out.Reserve(&writer, 1) }); n != 0 {
			t.Errorf("closed: %v allocations, want 0", n)
		}
	})
}

// TestMemoryOfALink holds an established link, its replay window apart, to 4 KB.
func TestMemoryOfALink(t *testing.T) {
	const links = 100
	synctest.Test(t, func(t *testing.T) {
		c := newCA(t)
		cred := map[string]*dtls.Credentials{"a": c.credentials("a"), "b": c.credentials("b")}
		heap := func() uint64 {
			runtime.GC()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		// Goroutines that have ended leave some memory for the next: it is there
		// before, so that no link pays for those of its handshake.
		var wg sync.WaitGroup
		gate := make(chan struct{})
		for range 40 * links {
			wg.Go(func() { <-gate })
		}
		close(gate)
		wg.Wait()
		var wires []*wire
		defer func() {
			for _, w := range wires {
				w.close()
			}
		}()
		// Endpoints without a link first: what they cost isn't the link's.
		for range links {
			w := newWire(t)
			w.record = false
			w.host("a", dtls.Options{}, nil, "b")
			w.host("b", dtls.Options{}, nil, "a")
			wires = append(wires, w)
		}
		settle(time.Second)
		before, goroutines := heap(), runtime.NumGoroutine()
		for _, w := range wires {
			w.hosts["a"].apply(cred["a"], "b")
			w.hosts["b"].apply(cred["b"], "a")
		}
		settle(2 * time.Minute) // the server's last flight is forgotten
		for _, w := range wires {
			talk(t, w.hosts["a"], w.hosts["b"])
		}
		after := heap()
		if n := runtime.NumGoroutine(); n > goroutines {
			t.Errorf("%d links have %d goroutines of their own, want none", 2*links, n-goroutines)
		}
		each := (int64(after) - int64(before)) / (2 * links)
		t.Logf("%d octets a link, of which 1,032 are the replay window", each)
		if each > 4096+1032 {
			t.Errorf("%d octets a link, want at most 4,096 and the replay window", each)
		}
	})
}

// FuzzDatagram gives a link what the network may: nothing that nobody sealed is
// delivered, and the link stays.
func FuzzDatagram(f *testing.F) {
	f.Add(forgedHello(0, 0xfefd, 7, nil, 0xc02b))
	f.Add(forgedHello(1, 0xfefd, 7, make([]byte, 20), 0xc02b))
	f.Add(clearRecord(record.Alert, 0, 1, []byte{2, 40}))
	f.Add(clearRecord(record.Handshake, 0, 0, handshakeMessage(3, 0, append([]byte{0xfe, 0xff, 20}, make([]byte, 20)...))))
	f.Add(clearRecord(record.ApplicationData, 1, 5, make([]byte, 40)))
	f.Fuzz(func(t *testing.T, b []byte) {
		synctest.Test(t, func(t *testing.T) {
			w := newWire(t)
			defer w.close()
			k := shared(t, 1)
			a := w.host("a", dtls.Options{}, k, "b")
			w.carry(sent{"b", "a", b}, nil) // to a client
			z := w.host("b", dtls.Options{}, k, "a")
			settle(2 * time.Second)
			w.carry(sent{"b", "a", b}, nil)
			w.carry(sent{"a", "b", bytes.Repeat(b, 2)}, nil)
			settle(time.Second)
			if got := append(a.heard(), z.heard()...); len(got) != 0 {
				t.Fatalf("delivered %q", got)
			}
			settle(20 * time.Second)
			talk(t, a, z)
		})
	})
}
