package integration_test

import (
	endian "encoding/binary"
	"fmt"
	"maps"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/wire/wiretest"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// TestTunnelConservesOverAll runs numbered datagrams and floods among three hosts
// over wires that lose, double, reorder and corrupt, and part one host for a
// while. Every frame that a host says it sent is on its wire, every datagram
// that reached a host whole became a frame or a drop with a reason, and a
// container hears each text as often as it reached its host: what comes twice is
// the wire's doing.
func TestTunnelConservesOverAll(t *testing.T) {
	t.Parallel()
	const hosts = 3
	f := newFabric(t, hosts)
	var wires []*sniffer
	// A frame for each datagram, so that both can be counted.
	const plain = "offload: {coalesce: off}\n"
	var sinks []*sink
	for i := range hosts {
		wires = append(wires, f.sniff(i+1))
		f.up(i+1, plain+f.file(false, 4789, i+1))
		sinks = append(sinks, f.sink(i+1))
		// What waits for a neighbour's address and is dropped then, nobody counts.
		f.hosts[i].underlay.Run("ping", "-c", "1", underlayAddr((i+1)%hosts+1, false))
	}
	// Nothing arrives until everybody knows everybody: a stranger's probe would be
	// refused, one of a peer isn't counted.
	f.cut(true)
	for _, h := range f.hosts {
		h.node.write(plain + f.file(false, 4789, 1, 2, 3))
		h.node.cli("apply", "-c", h.node.config)
	}
	f.cut(false)
	for i := range hosts {
		f.meet(i+1, (i+1)%hosts+1)
	}
	texts := 0
	talk := func(rounds int) {
		for range rounds {
			texts++
			for i := range hosts {
				f.numbered(i+1, (i+1)%hosts+1, texts)
			}
			if texts%20 == 0 {
				f.shout(1, texts)
				time.Sleep(time.Millisecond) // the pace of a sender, not a wait for something
			}
		}
	}
	bad := wiretest.Link{Loss: 0.03, Duplicate: 0.05, Reorder: 0.05, Delay: time.Millisecond, HoldBack: 4 * time.Millisecond}
	for _, w := range f.lan.Wires {
		w.SetWay(wiretest.BToA, bad)
	}
	bad.Corrupt = 0.05 // one way: two wrong bits can make a right checksum
	for _, w := range f.lan.Wires {
		w.SetWay(wiretest.AToB, bad)
	}
	talk(400)
	f.lan.Wires[2].Cut(true)
	talk(200)
	f.lan.Wires[2].Cut(false)
	talk(400)
	for _, w := range f.lan.Wires {
		w.Set(wiretest.Link{})
	}
	for i := range hosts {
		f.meet(i+1, (i+1)%hosts+1)
	}
	f.conserved()
	c := f.lan.Counts()
	if c.Lost == 0 || c.Duplicated == 0 || c.Corrupted == 0 || c.Reordered == 0 || c.Cut == 0 {
		t.Errorf("the wires were too good: %+v", c)
	}
	for i := range hosts {
		f.accountFor(i+1, wires[i], sinks[i])
	}
}

// accountFor compares what host i counts, what was on its wire and what its
// container heard.
func (f *fabric) accountFor(i int, wire *sniffer, heard *sink) {
	f.t.Helper()
	n := f.hosts[i-1].node
	var sent, received, left, came uint64
	own := switchtest.Station4(byte(i)).MAC
	var arrived, got map[string]int
	ok := eventually(func() bool {
		sent, received, left, came = 0, n.stats().Refused, 0, 0
		for _, p := range n.peers() {
			sent, received = sent+p.TX.Frames, received+p.RX.Frames
		}
		arrived = map[string]int{}
		for _, o := range wire.read() {
			if o.leaves {
				left++
				continue
			}
			came++
			if text := sinkText(o); text != "" && (o.to() == own || o.to() == frame.Broadcast) {
				arrived[text]++
			}
		}
		got = heard.all()
		maps.DeleteFunc(got, func(text string, _ int) bool { return strings.Contains(text, fmt.Sprintf("from %d to", i)) }) // the kernel lets a sender hear its own broadcast
		return sent == left && received == came && maps.Equal(arrived, got)
	})
	if ok {
		return
	}
	if sent != left || received != came {
		f.t.Errorf("host %d says it sent %d frames and received or refused %d; on its wire are %d and %d", i, sent, received, left, came)
	}
	for text, n := range arrived {
		if got[text] != n {
			f.t.Errorf("container %d heard %q %d times; it reached the host %d times", i, text, got[text], n)
		}
	}
	for text, n := range got {
		if arrived[text] == 0 {
			f.t.Errorf("container %d heard %q %d times, which never reached its host", i, text, n)
		}
	}
}

// sinkText is what a datagram to a sink says inside, "" for all else.
func sinkText(o *outer) string {
	const udp, text = frame.HeaderLen + 20, frame.HeaderLen + 20 + 8
	b := o.inner
	if len(b) < text || endian.BigEndian.Uint16(b[12:]) != unix.ETH_P_IP || b[23] != unix.IPPROTO_UDP || endian.BigEndian.Uint16(b[udp+2:]) != sinkPort {
		return ""
	}
	return string(b[text : udp+int(endian.BigEndian.Uint16(b[udp+4:]))])
}

// numbered sends a datagram from one station to another's sink.
func (f *fabric) numbered(from, to, number int) {
	f.t.Helper()
	f.speak(from, f.end(to).v4, fmt.Sprintf("%d from %d to %d", number, from, to))
}

// shout sends a datagram to all sinks.
func (f *fabric) shout(from, number int) {
	f.t.Helper()
	f.speak(from, "10.1.0.255", fmt.Sprintf("%d from %d to all", number, from))
}

// speak sends a datagram to a sink from a socket that each station has.
func (f *fabric) speak(from int, to, text string) {
	f.t.Helper()
	h := f.hosts[from-1]
	if h.voice == nil {
		h.container.Do(func() (err error) {
			h.voice, err = listen(f.end(from).v4+":0", func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1) })
			return err
		})
		f.t.Cleanup(func() { h.voice.Close() })
	}
	if _, err := h.voice.WriteTo([]byte(text), &net.UDPAddr{IP: net.ParseIP(to), Port: sinkPort}); err != nil {
		f.t.Fatal(err)
	}
}
