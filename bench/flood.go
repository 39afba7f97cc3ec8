package bench

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/tapestry-net/tapestry/bench/machine"
	"github.com/tapestry-net/tapestry/bench/pktgen"
	"github.com/tapestry-net/tapestry/internal/netns"
)

// fabricFlood is two hosts on the wire, of which the first has 64 peers: the
// second, and others that receive and are silent.
const (
	fabricFlood = "fabric-flood"
	floodPeers  = 64
)

// silent is the address of peer i that is not there.
func silent(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i)}) }

// flooding is what a copy of a broadcast to one of many peers costs.
func flooding() workload {
	return workload{
		name: "tun-flood", what: fmt.Sprintf("a broadcast of 60 octets to %d peers, switch CPU a copy", floodPeers), unit: "µs", target: value("<=", 2.5),
		ours: func(ctx context.Context, r *rig, p plan) (Sample, error) {
			s, err := r.subject(ctx, fabricFlood)
			if err != nil {
				return Sample{}, err
			}
			m := machine.Meter{PIDs: s.daemon.pids[:2]} // of the host that floods
			f := pktgen.Flow{Kind: pktgen.PingPong, Size: 18, Warm: p.warm(), Window: p.window}
			got, err := pktgen.Measure(ctx, r.program, s.ends, f, m.Begin, m.End)
			if err == nil {
				err = m.Err
			}
			if err != nil {
				return Sample{}, fmt.Errorf("%s: %w", fabricFlood, err)
			}
			if got.Packets == 0 {
				return Sample{}, fmt.Errorf("%s: nothing arrived in %v", fabricFlood, p.window)
			}
			return Sample{Value: m.Used.Seconds() * 1e6 / float64(got.Packets*floodPeers), Offered: float64(got.Packets) / got.Seconds}, nil
		},
		note: func(rounds []Round) string {
			return fmt.Sprintf("one at a time, %s a second; receiving it, and the answer to it, included",
				figure(ours(rounds, func(s Sample) float64 { return s.Offered })))
		},
	}
}

// floodText is what the first host's file has besides: its other peers, no storm
// control, and no spinning between two broadcasts, which would count as their cost.
func floodText(text string) string {
	var b strings.Builder
	b.WriteString("offload: {spin: 0us}\n")
	b.WriteString(strings.Replace(text, "access: bench}", "access: bench, storm: {broadcast: 100000000/s}}", 1))
	for i := range floodPeers - 1 {
		fmt.Fprintf(&b, "    silent%d: {address: %v}\n", i, silent(i))
	}
	return b.String()
}

// buildFlood makes the container of the first host send broadcasts, and the silent
// peers a part of the second host that throws away what it gets.
func buildFlood(hosts [2]*netns.Handle, name string) error {
	const second = "02:00:5e:00:53:02"
	if err := inside(hosts[1], fmt.Sprintf("ip link set %s address %s", underlayName, second)); err != nil {
		return err
	}
	lines := []string{fmt.Sprintf("ip -n %s-a neigh replace %v lladdr ff:ff:ff:ff:ff:ff dev %s nud permanent", name, addrB.Addr(), ifname)}
	for i := range floodPeers - 1 {
		lines = append(lines, fmt.Sprintf("ip neigh replace %v lladdr %s dev %s nud permanent", silent(i), second, underlayName))
	}
	return inside(hosts[0], lines...)
}
