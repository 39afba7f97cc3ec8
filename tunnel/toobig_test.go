package tunnel_test

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/fdb"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/mem"
	"github.com/tapestry-net/tapestry/switch/switchtest"
	"github.com/tapestry-net/tapestry/tunnel"
)

// tooLong is a packet number id that no path takes, with DF.
func tooLong(from, to switchtest.Station, id uint16) []byte {
	f := switchtest.UDPFrame(from, to, switchtest.Pattern(1600))
	binary.BigEndian.PutUint16(f[18:], id)
	f[20] |= 0x40
	binary.BigEndian.PutUint16(f[24:], 0)
	return f
}

// answers collects the ICMP errors that the local port hears until one quotes
// packet last, and returns the numbers of the packets quoted, in order.
func answers(t *testing.T, q *mem.Port, last uint16) (quoted []uint16) {
	t.Helper()
	const quote = 14 + 20 + 8
	until(t, fmt.Sprint("the error about packet ", last), func() bool {
		for _, f := range q.Drain() {
			if len(f.Data) > quote+20 && f.Data[23] == 1 {
				quoted = append(quoted, binary.BigEndian.Uint16(f.Data[quote+4:]))
			}
		}
		return len(quoted) > 0 && quoted[len(quoted)-1] == last
	})
	return quoted
}

// TestTooBigTeachesNothing floods packets that don't fit to two peers. The sender
// hears of each once, in the name of a station whose place nobody learns by that,
// so that what is short enough finds it, and no peer is said to have sent it.
func TestTooBigTeachesNothing(t *testing.T) {
	h, q := loopHost(t, nil)
	var far []*vtep
	for i := range 2 {
		far = append(far, newVTEP(t, fmt.Sprintf("127.0.0.%d:0", i+2), h.tun.Listen()))
		h.peer(far[i].at())
	}
	for id := range uint16(3) {
		q.Inject(tooLong(alice, bob, id+1))
	}
	if got := answers(t, q, 3); len(got) != 3 {
		t.Errorf("errors about packets %v, want one for each of 1 to 3", got)
	}
	if _, known := h.table.Lookup(fdb.MakeKey(blue, bob.MAC)); known {
		t.Error("the error has taught where its sender is, which nobody knows")
	}
	q.Inject(switchtest.Padded(switchtest.UDPFrame(alice, bob, []byte("short"))))
	for _, p := range far {
		p.hear()
	}
	for _, p := range h.peers {
		st, _ := h.sw.PortStats(p.ID)
		if st.RX != (vswitch.Counter{}) || st.Drops[frame.MTUExceeded] != 3 {
			t.Errorf("%s: received %+v, %d too long; want nothing and 3", p.Name, st.RX, st.Drops[frame.MTUExceeded])
		}
	}
	if s := h.sw.Stats(); s.Own != 3 {
		t.Errorf("%d frames of this host's own, want 3", s.Own)
	}
	h.conserve()
}

// TestTooBigBudget has one station send more than is answered in a tick, after
// much that no error is due about: neither silences another station, and with the
// next tick the first one hears again.
func TestTooBigBudget(t *testing.T) {
	ticks := make(chan time.Time)
	h, q := loopHost(t, func(o *tunnel.Options) { o.Ticks = ticks })
	far := newVTEP(t, "127.0.0.2:0", h.tun.Listen())
	id := h.peer(far.at())
	refused := func() uint64 {
		st, _ := h.sw.PortStats(id)
		return st.Drops[frame.MTUExceeded]
	}
	other := switchtest.Station4(3)
	for n := byte(4); h.tun.ShareOf(blue, other.MAC) == h.tun.ShareOf(blue, alice.MAC); n++ {
		other = switchtest.Station4(n)
	}
	for range 10 {
		f := tooLong(alice, bob, 1)
		f[20] = 0 // may be cut
		before := refused()
		for range 50 {
			q.Inject(f)
		}
		until(t, "all to be refused", func() bool { return refused() == before+50 })
	}
	for i := range uint16(30) {
		q.Inject(tooLong(alice, bob, 1+i))
	}
	q.Inject(tooLong(other, bob, 1000))
	got := answers(t, q, 1000)
	if len(got) != 21 || got[0] != 1 || got[19] != 20 {
		t.Errorf("errors about packets %v, want one for each of 1 to 20 and 1000", got)
	}
	ticks <- time.Unix(1e9, 0)
	ticks <- time.Unix(1e9, 0) // taken when the first is done with
	q.Inject(tooLong(alice, bob, 30))
	if got := answers(t, q, 30); len(got) != 1 {
		t.Errorf("after a tick errors about %v, want 30 alone", got)
	}
	h.conserve()
}
