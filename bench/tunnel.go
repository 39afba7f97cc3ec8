package bench

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tapestry-net/tapestry/bench/machine"
	"github.com/tapestry-net/tapestry/bench/pktgen"
	"github.com/tapestry-net/tapestry/internal/netns"
)

// Subjects of two hosts. On the wire real packets of 1,500 octets cross the
// underlay; offloaded it carries super-frames whole, as between two hosts on one
// machine.
const (
	vxlanWire    = "vxlan-wire"
	vxlanOffload = "vxlan-offload"
	fabricWire   = "fabric-wire"
	fabricOffl   = "fabric-offload"
	fabricMany   = "fabric-many"        // on the wire, 1,000 peers configured
	fabricSealed = "fabric-sealed-wire" // on the wire, encrypted
)

const (
	besideVXLAN  = "kernel vxlan"
	besideOne    = "1 peer"
	idlePeers    = 1000
	innerMTU     = 1400 // of every subject, as other tunnels need it
	underlayName = "under0"
)

func underlayAddr(host int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(host + 1)}) }

// tunnelWorkloads are the rows of two hosts.
func tunnelWorkloads() []workload {
	tcp1 := pktgen.Flow{Kind: pktgen.TCP, Streams: 1}
	tcp4 := pktgen.Flow{Kind: pktgen.TCP, Streams: 4}
	small := pktgen.Flow{Kind: pktgen.Flood, Size: 18}
	rtt := pktgen.Flow{Kind: pktgen.PingPong, Size: 64, Apart: true}
	list := []workload{
		against("tun-tcp1", "two hosts on a wire, TCP, 1 stream", vxlanWire, fabricWire, tcp1, atLeast(1.0)),
		against("tun-tcp4", "two hosts on a wire, TCP, 4 streams", vxlanWire, fabricWire, tcp4, atLeast(0.7)),
		against("tun-udp60", "two hosts on a wire, UDP, 60-byte frames", vxlanWire, fabricWire, small, atLeast(3.0)),
		against("tun-rtt", "two hosts on a wire, UDP round trip p50", vxlanWire, fabricWire, rtt, atMost(0.5)),
		against("tun-off-tcp1", "two hosts, offloaded underlay, TCP, 1 stream", vxlanOffload, fabricOffl, tcp1, atLeast(0.85)),
		against("enc-tcp1", "two hosts on a wire, encrypted, TCP, 1 stream", vxlanWire, fabricSealed, tcp1, atLeast(0.8)),
		against("enc-udp60", "two hosts on a wire, encrypted, UDP, 60-byte frames", vxlanWire, fabricSealed, small, atLeast(3.0)),
		against("tun-many-tcp1", "as tun-tcp1 with 1,000 peers, one active", fabricWire, fabricMany, tcp1, atLeast(0.98)),
		against("tun-many-udp60", "as tun-udp60 with 1,000 peers, one active", fabricWire, fabricMany, small, atLeast(0.98)),
	}
	for i := range list {
		w, kind := &list[i], pktgen.TCP
		switch {
		case strings.HasSuffix(w.name, "udp60"):
			kind = pktgen.Flood
		case strings.HasSuffix(w.name, "rtt"):
			kind = pktgen.PingPong
		}
		w.beside = besideVXLAN
		if strings.HasPrefix(w.name, "tun-many") {
			w.beside = besideOne
		}
		beside := w.beside
		w.note = func(rounds []Round) string { return costs(kind, beside, rounds) }
	}
	return append(list, flooding(), peerMemory())
}

// TunnelNames are the names of the rows of two hosts.
func TunnelNames() []string {
	var names []string
	for _, w := range tunnelWorkloads() {
		names = append(names, w.name)
	}
	return names
}

// peerMemory is what a peer costs that is configured and silent.
func peerMemory() workload {
	return workload{
		name: "tun-peer-memory", what: "worker memory for each of 1,000 idle peers", unit: "KB", target: value("<=", 4), once: true,
		ours: func(ctx context.Context, r *rig, p plan) (Sample, error) {
			var rss [2]float64
			for i, name := range []string{fabricWire, fabricMany} {
				if _, err := send(name, pktgen.Flow{Kind: pktgen.TCP, Streams: 1})(ctx, r, p); err != nil {
					return Sample{}, err
				}
				all, _, _, err := machine.RSS(r.subjects[name].daemon.pids[1])
				if err != nil {
					return Sample{}, err
				}
				rss[i] = all
			}
			return Sample{Value: (rss[1] - rss[0]) * 1000 / idlePeers}, nil
		},
	}
}

// buildTwoHosts makes a subject of two hosts, whose containers are there already.
func (r *rig) buildTwoHosts(ctx context.Context, name string) (*daemon, error) {
	var hosts [2]*netns.Handle
	var err error
	for i := range hosts {
		if hosts[i], err = r.space(fmt.Sprintf("%s-h%d", name, i)); err != nil {
			return nil, err
		}
	}
	if err := buildUnderlay(hosts, name, strings.HasSuffix(name, "offload")); err != nil {
		return nil, err
	}
	if strings.HasPrefix(name, "vxlan") {
		return nil, buildVXLAN(hosts, name)
	}
	var first *daemon
	for i, side := range []string{"a", "b"} {
		id := fmt.Sprintf("%s-h%d", name, i)
		text, dir := fabricText(name, side, i), filepath.Join(r.dir, id)
		if floods(name) && i == 0 {
			text = floodText(name, text)
		}
		if name == fabricSealed {
			if err := writeKey(dir); err != nil {
				return first, err
			}
		}
		d, err := startDaemon(ctx, r.program, dir, text, 1, "ip", "netns", "exec", id)
		if err != nil {
			return first, err
		}
		if first == nil {
			first = d
			continue
		}
		// Both carry the flow: the first answers for the costs of both.
		first.pids = append(first.pids, d.pids...)
		first.beside = d
	}
	if floods(name) {
		return first, buildFlood(hosts, name)
	}
	return first, nil
}

// buildUnderlay joins two hosts.
func buildUnderlay(hosts [2]*netns.Handle, name string, offload bool) error {
	if err := inside(hosts[0], fmt.Sprintf("ip link add %s type veth peer name %s netns %s-h1", underlayName, underlayName, name)); err != nil {
		return err
	}
	for i, h := range hosts {
		lines := []string{
			fmt.Sprintf("ip addr add %v/24 dev %s", underlayAddr(i), underlayName),
			fmt.Sprintf("ip link set %s up", underlayName),
			// Where the silent peers are: nobody answers, nothing is sent.
			"ip link set lo up", "ip route add blackhole 198.18.0.0/15",
		}
		if !offload {
			lines = append(lines, fmt.Sprintf("ethtool -K %s gso off tso off tx-udp-segmentation off gro on", underlayName))
		}
		if err := inside(h, lines...); err != nil {
			return err
		}
	}
	return nil
}

// buildVXLAN is the rival: the kernel's VXLAN device and bridge on each host.
func buildVXLAN(hosts [2]*netns.Handle, name string) error {
	for i, side := range []string{"a", "b"} {
		addr := []netip.Prefix{addrA, addrB}[i]
		err := inside(hosts[i],
			fmt.Sprintf("ip link add vx0 type vxlan id 10010 local %v remote %v dstport 4789 udpcsum", underlayAddr(i), underlayAddr(1-i)),
			"ip link add br0 type bridge", "ip link set vx0 master br0", "ip link set vx0 up", "ip link set br0 up",
			fmt.Sprintf("ip link add v0 type veth peer name %s netns %s-%s", ifname, name, side),
			"ip link set v0 master br0", "ip link set v0 up",
			fmt.Sprintf("ip -n %s-%s link set %s mtu %d up", name, side, ifname, innerMTU),
			fmt.Sprintf("ip -n %s-%s addr add %v dev %s", name, side, addr, ifname))
		if err != nil {
			return err
		}
	}
	return nil
}

// fabricText is the file of one of two hosts.
func fabricText(name, side string, host int) string {
	var b strings.Builder
	encrypt, dtls := "", ""
	if name == fabricSealed {
		encrypt, dtls = ", encrypt: required", "  dtls: {psk_file: "+keyFile+"}\n"
	}
	fmt.Fprintf(&b, "host: h%d\nnetworks:\n  bench: {vlan: 10, vni: 10010, mtu: %d%s}\nports:\n", host, innerMTU, encrypt)
	fmt.Fprintf(&b, "  %s: {tap: {netns: %s-%s, ifname: %s, address: [%v]}, access: bench}\n", side, name, side, ifname, []netip.Prefix{addrA, addrB}[host])
	fmt.Fprintf(&b, "tunnel:\n%s  peers:\n    h0: {address: %v}\n    h1: {address: %v}\n", dtls, underlayAddr(0), underlayAddr(1))
	if name == fabricMany {
		for i := range idlePeers - 1 {
			fmt.Fprintf(&b, "    idle%d: {address: 198.18.%d.%d}\n", i, i/250, 1+i%250)
		}
	}
	return b.String()
}

// keyFile is the shared key of the encrypted subject, beside each host's file.
const keyFile = "key"

// writeKey makes the shared key, the same for both hosts.
func writeKey(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	text := base64.StdEncoding.EncodeToString([]byte("a key for measurements only, 32+"))
	if err := os.WriteFile(filepath.Join(dir, keyFile), []byte(text), 0o600); err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	return nil
}

// inside runs programs in a namespace.
func inside(ns *netns.Handle, lines ...string) error {
	return ns.Do(func() error {
		for _, line := range lines {
			words := strings.Fields(line)
			if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", line, err, strings.TrimSpace(string(out)))
			}
		}
		return nil
	})
}
