package integration_test

import (
	endian "encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/wire/wiretest"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// outer is one UDP datagram as it stands on an underlay, its VXLAN header taken
// apart.
type outer struct {
	leaves   bool // the host whose interface was watched
	src, dst netip.AddrPort
	ttl, tos uint8
	df       bool // always so over IPv6
	sum      uint16
	vxlan    [8]byte
	inner    []byte
}

func (o *outer) vni() uint32 { return endian.BigEndian.Uint32(o.vxlan[4:]) >> 8 }

// parseOuter takes apart an Ethernet frame. It returns nil when that isn't one
// whole UDP datagram with room for a VXLAN header, or when a checksum is wrong:
// no kernel delivers that.
func parseOuter(b []byte) *outer {
	if len(b) < 14 {
		return nil
	}
	o := new(outer)
	t, p := endian.BigEndian.Uint16(b[12:]), b[14:]
	var pseudo []byte
	var src, dst netip.Addr
	switch {
	case t == unix.ETH_P_IP && len(p) >= 28 && p[0] == 0x45 && p[9] == unix.IPPROTO_UDP:
		n := int(endian.BigEndian.Uint16(p[2:]))
		if fragment := endian.BigEndian.Uint16(p[6:])&0x3fff != 0; fragment || n < 28 || n > len(p) || onesSum(p[:20]) != 0xffff {
			return nil
		}
		o.tos, o.ttl, o.df = p[1], p[8], p[6]&0x40 != 0
		src, dst = netip.AddrFrom4([4]byte(p[12:])), netip.AddrFrom4([4]byte(p[16:]))
		pseudo, p = p[12:20], p[20:n]
	case t == unix.ETH_P_IPV6 && len(p) >= 48 && p[0]>>4 == 6 && p[6] == unix.IPPROTO_UDP:
		n := 40 + int(endian.BigEndian.Uint16(p[4:]))
		if n < 48 || n > len(p) {
			return nil
		}
		o.tos, o.ttl, o.df = p[0]<<4|p[1]>>4, p[7], true
		src, dst = netip.AddrFrom16([16]byte(p[8:])), netip.AddrFrom16([16]byte(p[24:]))
		pseudo, p = p[8:40], p[40:n]
	default:
		return nil
	}
	if n := int(endian.BigEndian.Uint16(p[4:])); n != len(p) || n < 16 {
		return nil
	}
	if o.sum = endian.BigEndian.Uint16(p[6:]); o.sum != 0 {
		// RFC 768: addresses, protocol and length belong to it.
		all := append(append([]byte{0, unix.IPPROTO_UDP, p[4], p[5]}, pseudo...), p...)
		if onesSum(all) != 0xffff {
			return nil
		}
	}
	o.src, o.dst = netip.AddrPortFrom(src, endian.BigEndian.Uint16(p)), netip.AddrPortFrom(dst, endian.BigEndian.Uint16(p[2:]))
	o.vxlan, o.inner = [8]byte(p[8:]), p[16:]
	return o
}

// onesSum is the one's complement sum of b in 16-bit words.
func onesSum(b []byte) uint16 {
	var sum uint32
	for i, v := range b {
		if i%2 == 0 {
			sum += uint32(v) << 8
		} else {
			sum += uint32(v)
		}
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// sniffer collects the good datagrams of VXLAN that cross a host's underlay
// interface, both ways, less the messages of liveness, which have VNI 0.
type sniffer struct {
	t    *testing.T
	fd   int
	seen []*outer
}

// sniff watches the underlay interface of host i from now on.
func (f *fabric) sniff(i int) *sniffer {
	f.t.Helper()
	s := &sniffer{t: f.t, fd: -1}
	all := uint16(unix.ETH_P_ALL)
	f.hosts[i-1].underlay.Do(func() (err error) {
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(all<<8|all>>8))
		if err == nil {
			err = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20)
		}
		return err
	})
	f.t.Cleanup(func() { unix.Close(s.fd) })
	return s
}

// read returns everything seen so far.
func (s *sniffer) read() []*outer {
	s.t.Helper()
	for b := make([]byte, 1<<16); ; {
		n, from, err := unix.Recvfrom(s.fd, b, 0)
		if err == unix.ENETDOWN {
			continue
		}
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			s.t.Fatalf("watch %s: %v", wiretest.Interface, err)
		}
		link, ok := from.(*unix.SockaddrLinklayer)
		if !ok || link.Pkttype == unix.PACKET_OTHERHOST {
			continue // the kernel takes no notice of it either
		}
		if o := parseOuter(append([]byte(nil), b[:n]...)); o != nil && o.vni() != 0 {
			o.leaves = link.Pkttype == unix.PACKET_OUTGOING
			s.seen = append(s.seen, o)
		}
	}
	st, err := unix.GetsockoptTpacketStats(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil || st.Drops != 0 {
		s.t.Fatalf("watch %s: %d frames missed, error %v", wiretest.Interface, st.Drops, err)
	}
	return s.seen
}

// leaving and arriving are what has left the host and what has come to it so
// far, with the text somewhere in the inner frame.
func (s *sniffer) leaving(text string) []*outer  { return s.with(true, text) }
func (s *sniffer) arriving(text string) []*outer { return s.with(false, text) }

func (s *sniffer) with(leaves bool, text string) (some []*outer) {
	s.t.Helper()
	for _, o := range s.read() {
		if o.leaves == leaves && strings.Contains(string(o.inner), text) {
			some = append(some, o)
		}
	}
	return some
}

// to is the MAC address that an inner frame goes to.
func (o *outer) to() frame.MAC {
	if len(o.inner) < frame.HeaderLen {
		return frame.MAC{}
	}
	return frame.MAC(o.inner[:6])
}
