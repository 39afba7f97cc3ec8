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

// Subjects of two hosts on the wire whose first one floods: to the second alone,
// or to 64 peers, of which the others receive and are silent.
const (
	fabricFlood = "fabric-flood"
	fabricAlone = "fabric-alone"
	floodPeers  = 64
)

func floods(name string) bool { return name == fabricFlood || name == fabricAlone }

// silentPeers is how many peers of a subject are not there, and silent where peer
// i of them is.
func silentPeers(name string) int {
	if name == fabricFlood {
		return floodPeers - 1
	}
	return 0
}

func silent(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(128 + i)}) }

// flooding is what one more copy of a broadcast costs: the difference between
// broadcasts to many peers and to one.
func flooding() workload {
	return workload{
		name: "tun-flood", what: fmt.Sprintf("a broadcast of 60 octets to %d peers, switch CPU a copy", floodPeers), unit: "µs", target: value("<=", 2.5),
		ours: func(ctx context.Context, r *rig, p plan) (Sample, error) {
			many, rate, err := r.broadcast(ctx, fabricFlood, p)
			if err != nil {
				return Sample{}, err
			}
			one, _, err := r.broadcast(ctx, fabricAlone, p)
			return Sample{Value: (many - one) / (floodPeers - 1), SwitchCPU: one, Offered: rate}, err
		},
		note: func(rounds []Round) string {
			return fmt.Sprintf("one at a time, %s a second; the first copy, with receiving the frame and the answer to it, %s µs",
				figure(ours(rounds, func(s Sample) float64 { return s.Offered })), figure(ours(rounds, func(s Sample) float64 { return s.SwitchCPU })))
		},
	}
}

// broadcast is how many µs of processor time one broadcast and the answer to it
// take the first host's switch, and how many there were a second.
func (r *rig) broadcast(ctx context.Context, name string, p plan) (cost, rate float64, err error) {
	s, err := r.subject(ctx, name)
	if err != nil {
		return 0, 0, err
	}
	m := machine.Meter{PIDs: s.daemon.pids[:2]}
	f := pktgen.Flow{Kind: pktgen.PingPong, Size: 18, Warm: p.warm(), Window: p.window}
	got, err := pktgen.Measure(ctx, r.program, s.ends, f, m.Begin, m.End)
	if err == nil {
		err = m.Err
	}
	if err == nil && got.Packets == 0 {
		err = fmt.Errorf("nothing arrived in %v", p.window)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", name, err)
	}
	return m.Used.Seconds() * 1e6 / float64(got.Packets), float64(got.Packets) / got.Seconds, nil
}

// floodText is what the first host's file has besides: its other peers, no storm
// control, and no spinning between two broadcasts, which would count as their cost.
func floodText(name, text string) string {
	var b strings.Builder
	b.WriteString("offload: {spin: 0us}\n")
	b.WriteString(strings.Replace(text, "access: bench}", "access: bench, storm: {broadcast: 100000000/s}}", 1))
	for i := range silentPeers(name) {
		fmt.Fprintf(&b, "    silent%d: {address: %v}\n", i, silent(i))
	}
	return b.String()
}

// buildFlood makes the container of the first host send broadcasts, and the silent
// peers a part of the second host that throws away what it gets.
func buildFlood(hosts [2]*netns.Handle, name string) error {
	const second = "02:00:5e:00:53:02"
	err := inside(hosts[1],
		fmt.Sprintf("ip link set %s address %s", underlayName, second),
		"ip route add blackhole 192.0.2.128/25")
	if err != nil {
		return err
	}
	lines := []string{fmt.Sprintf("ip -n %s-a neigh replace %v lladdr ff:ff:ff:ff:ff:ff dev %s nud permanent", name, addrB.Addr(), ifname)}
	for i := range silentPeers(name) {
		lines = append(lines, fmt.Sprintf("ip neigh replace %v lladdr %s dev %s nud permanent", silent(i), second, underlayName))
	}
	return inside(hosts[0], lines...)
}
