package integration_test

import (
	endian "encoding/binary"
	"math/rand/v2"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// TestCaptureHostile: ten thousand malformed frames through a port that is captured,
// traced and watched: the same worker, a file that tshark reads, no line with a
// control character, and beside it a stream that loses nothing and whose datagrams
// have all come before the next of twenty portions.
func TestCaptureHostile(t *testing.T) {
	netnstest.Require(t, "tshark")
	a, b, c := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	n := start(t, trio(a, b, c))
	pid := n.workerPID()
	f := startFlow(t, a, b, "10.1.0.3")
	file := filepath.Join(n.dir, "f.pcapng")
	r := n.record(file)
	lines := n.follow("capture", "--port", "c3", "--direction", "in")
	others := []*following{
		n.follow("trace", "--watch", "not udp port 7000", "--kernel"),
		n.follow("events", "--kind", "frame"),
		n.follow("events", "--kind", "frame", "--json"),
	}
	n.until("all of them look", func() bool {
		ping(t, c, "10.1.0.2", 1)
		return !slices.ContainsFunc(append(others, lines), func(f *following) bool { return f.out.String() == "" })
	})
	const seed = 4
	t.Logf("seed %d", seed)
	frames := malformed(t, rand.New(rand.NewPCG(seed, seed)), 10000)
	// In portions that the container's own queue of 1000 frames takes, so that all
	// reach the switch.
	for portion := range slices.Chunk(frames, 500) {
		before := f.sent.Load()
		inject(t, c, portion...)
		f.until("what was sent before the portion has arrived", func() bool { return f.got.Load() >= before })
		f.pass(5)
	}
	probe := n.cli("trace", "c1", "c2")
	t.Logf("the longest wait was %v", f.finish())
	a.Run("ip", "neigh", "flush", "dev", "eth0") // it may have believed some
	n.until("it is heard again where it is", func() bool {
		_, _ = a.Try("ping", "-n", "-q", "-c", "1", "-W", "1", "10.1.0.4") // after all that others have said
		_, err := c.Try("ping", "-n", "-q", "-c", "1", "-W", "1", "10.1.0.2")
		return err == nil
	})
	ping(t, c, "10.1.0.2", 3)
	n.grows(file, "icmp.seq == 3", 2)
	for _, f := range append(others, lines) {
		f.interrupt()
		printable(t, strings.Join(f.cmd.Args[3:], " "), f.out.String()+f.errs.String())
	}
	printable(t, "trace", probe)
	r.stop()
	if got := n.workerPID(); got != pid {
		t.Errorf("worker %d was replaced by %d", pid, got)
	}
	if got := switchtest.TShark(t, file, "frame.len"); len(got) < len(frames) {
		t.Errorf("%d packets in the file, want at least %d", len(got), len(frames))
	}
	if out, err := netnstest.Try("capinfos", file); err != nil {
		t.Errorf("capinfos: %v\n%s", err, out)
	}
	if got := strings.Count(lines.out.String(), "  c3       in   "); got < len(frames) {
		t.Errorf("%d lines, want at least %d", got, len(frames))
	}
	if got := len(followedLine.FindAllString(others[0].out.String(), -1)); got < 100 {
		t.Errorf("the trace has followed %d packets, want at least 100 of %d", got, len(frames))
	}
	for _, f := range others[1:] {
		if got := strings.Count(f.out.String(), "c3: "); got < 100 {
			t.Errorf("%d events, want at least 100 of %d", got, len(frames))
		}
	}
	conserved(t, n)
}

// followedLine begins what a watching trace says of a packet.
var followedLine = regexp.MustCompile(`(?m)^packet \d+`)

// interrupt ends the command as Ctrl-C does and demands success.
func (f *following) interrupt() {
	f.n.t.Helper()
	_ = f.cmd.Process.Signal(syscall.SIGINT)
	f.n.until("the command to end", f.done)
}

// printable demands that text can be shown on a terminal.
func printable(t *testing.T, what, text string) {
	t.Helper()
	if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
		t.Errorf("%s: the lines hold a control character: %q", what, text[max(0, i-100):i+1])
	}
}

// malformed is n frames, as many of each protocol that is decoded, each cut or
// bent.
func malformed(t *testing.T, r *rand.Rand, n int) [][]byte {
	good := corpus(t)
	out := make([][]byte, n)
	for i := range out {
		b := slices.Clone(good[i%len(good)])
		switch i / len(good) % 5 {
		case 0: // cut anywhere behind the EtherType
			b = b[:14+r.IntN(len(b)-13)]
		case 1: // octets changed
			for range 1 + r.IntN(8) {
				b[12+r.IntN(len(b)-12)] = byte(r.Uint32())
			}
		case 2: // a length or a type that is far off
			at := 12 + 2*r.IntN((len(b)-12)/2)
			endian.BigEndian.PutUint16(b[at:], [...]uint16{0, 1, 0xffff, 0x7fff, uint16(r.Uint32())}[r.IntN(5)])
		case 3: // the beginning of one and the end of another
			other := good[r.IntN(len(good))]
			b = append(b[:14+r.IntN(len(b)-13)], other[14+r.IntN(len(other)-13):]...)
		case 4: // noise behind, where options and names go on
			for range r.IntN(64) {
				b = append(b, byte(r.Uint32()))
			}
			b[len(b)-1-r.IntN(min(40, len(b)-14))] = byte(r.Uint32())
		}
		out[i] = b
	}
	return out
}

// corpus is a good frame of each protocol, to all IPv6 hosts so that every port
// gets it.
func corpus(t *testing.T) [][]byte {
	t.Helper()
	src := net.HardwareAddr{2, 0, 0, 0, 0, 0x10}
	eth := func(t layers.EthernetType) *layers.Ethernet {
		return &layers.Ethernet{SrcMAC: src, DstMAC: net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, EthernetType: t}
	}
	eth4, eth6 := eth(layers.EthernetTypeIPv4), eth(layers.EthernetTypeIPv6)
	ip4 := func(p layers.IPProtocol) *layers.IPv4 {
		return &layers.IPv4{Version: 4, TTL: 64, Protocol: p, SrcIP: net.IPv4(10, 1, 0, 4), DstIP: net.IPv4(10, 1, 0, 3)}
	}
	ip6 := func(p layers.IPProtocol) *layers.IPv6 {
		return &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: p, SrcIP: net.ParseIP("fe80::4"), DstIP: net.ParseIP("ff02::1")}
	}
	udp := func(port uint16) *layers.UDP {
		return &layers.UDP{SrcPort: layers.UDPPort(port), DstPort: layers.UDPPort(port)}
	}
	options := ip4(layers.IPProtocolTCP)
	options.Options = []layers.IPv4Option{{OptionType: 7, OptionLength: 7, OptionData: []byte{4, 0, 0, 0, 0}}, {OptionType: 0}}
	tcp := &layers.TCP{SrcPort: 40000, DstPort: 80, Seq: 1, SYN: true, Window: 1000, Options: []layers.TCPOption{
		{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{5, 180}}, {OptionType: layers.TCPOptionKindSACKPermitted, OptionLength: 2}}}
	dns := &layers.DNS{ID: 1, RD: true, Questions: []layers.DNSQuestion{{Name: []byte("www.example"), Type: layers.DNSTypeAAAA, Class: layers.DNSClassIN}},
		Answers: []layers.DNSResourceRecord{{Name: []byte("www.example"), Type: layers.DNSTypeA, Class: layers.DNSClassIN, TTL: 60, IP: net.IPv4(192, 0, 2, 1)}}}
	dhcp := &layers.DHCPv4{Operation: layers.DHCPOpRequest, HardwareType: layers.LinkTypeEthernet, HardwareLen: 6, ClientHWAddr: src, Options: layers.DHCPOptions{
		layers.NewDHCPOption(layers.DHCPOptMessageType, []byte{1}), layers.NewDHCPOption(layers.DHCPOptHostname, []byte("web"))}}
	raw := func(b ...byte) gopacket.Payload { return b }
	var out [][]byte
	add := func(list ...gopacket.SerializableLayer) {
		t.Helper()
		b := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, list...); err != nil {
			t.Fatal(err)
		}
		out = append(out, slices.Clone(b.Bytes()))
	}
	arp := &layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: 1,
		SourceHwAddress: src, SourceProtAddress: []byte{10, 1, 0, 4}, DstHwAddress: make([]byte, 6), DstProtAddress: []byte{10, 1, 0, 3}}
	add(eth(layers.EthernetTypeARP), arp)
	add(eth4, ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 1, Seq: 1}, raw(1, 2, 3))
	add(eth4, ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4)}, raw(0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6))
	add(eth4, options, tcp, raw(1, 2, 3))
	add(eth4, ip4(layers.IPProtocolUDP), udp(7), raw(1, 2, 3))
	add(eth4, ip4(layers.IPProtocolUDP), udp(53), dns)
	add(eth4, ip4(layers.IPProtocolUDP), udp(67), dhcp)
	add(eth4, ip4(layers.IPProtocolUDP), udp(4789), &layers.VXLAN{ValidIDFlag: true, VNI: 10010}, eth4, ip4(layers.IPProtocolUDP), udp(53), dns)
	add(eth6, ip6(layers.IPProtocolTCP), tcp)
	add(eth6, ip6(layers.IPProtocolUDP), udp(5353), dns)
	// Extension headers: hop-by-hop, destination, routing, fragment, and UDP.
	add(eth6, ip6(layers.IPProtocolIPv6HopByHop), raw(60, 0, 5, 2, 0, 0, 1, 0, 43, 0, 1, 4, 0, 0, 0, 0, 44, 2, 4, 0), raw(make([]byte, 20)...),
		raw(17, 0, 0, 0, 0, 0, 0, 7), raw(0, 7, 0, 7, 0, 8, 0, 0))
	for _, nd := range [][]byte{
		append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, append(net.ParseIP("fe80::3"), 1, 1, 2, 0, 0, 0, 0, 16)...),    // neighbour solicitation
		append([]byte{136, 0, 0, 0, 0x60, 0, 0, 0}, append(net.ParseIP("fe80::4"), 2, 1, 2, 0, 0, 0, 0, 16)...), // advertisement
		{133, 0, 0, 0, 0, 0, 0, 0}, // router solicitation
		append([]byte{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 64, 0xc0}, make([]byte, 28)...), // router advertisement with a prefix
		append([]byte{143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0}, net.ParseIP("ff02::fb")...),                       // MLDv2 report
		append([]byte{2, 0, 0, 0, 0, 0, 5, 0, 0x60}, make([]byte, 39)...),                                      // packet too big
	} {
		add(eth6, ip6(layers.IPProtocolICMPv6), raw(nd...))
	}
	vlan := func(id uint16, t layers.EthernetType) *layers.Dot1Q {
		return &layers.Dot1Q{VLANIdentifier: id, Type: t}
	}
	add(eth(layers.EthernetTypeDot1Q), vlan(10, layers.EthernetTypeARP), arp)
	add(eth(layers.EthernetTypeQinQ), vlan(20, layers.EthernetTypeDot1Q), vlan(10, layers.EthernetTypeIPv4), ip4(layers.IPProtocolUDP), udp(53), dns)
	add(eth(layers.EthernetTypeLinkLayerDiscovery), raw(2, 7, 4, 2, 0, 0, 0, 0, 16, 4, 2, 7, 'x', 6, 2, 0, 120, 0, 0))
	add(eth(0x26), raw(0x42, 0x42, 3, 0, 0, 0, 0, 0, 0x80)) // 802.3 and LLC, as a BPDU
	return out
}
