package daemon

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// flaps are the stations that move to and fro, those that move most first, each
// with its likely cause. The caller holds mu.
func (d *Daemon) flaps(now time.Time) []api.Flap {
	list := d.table.Flaps(now.UnixNano())
	if len(list) == 0 {
		return nil
	}
	n := *d.names.Load()
	owners := map[frame.MAC][]string{}
	for _, name := range sortedNames(d.ports) {
		if m := d.ports[name].reply.MAC; !m.IsZero() && !d.ports[name].reply.Packet {
			owners[m] = append(owners[m], name)
		}
	}
	out := make([]api.Flap, len(list))
	group := map[string]int{}
	for i, f := range list {
		out[i] = api.Flap{
			Network: n.network(f.VID), VLAN: int(f.VID), MAC: f.MAC, Rate: f.PerMinute(), Least: f.Least, Since: time.Unix(0, f.First),
		}
		for _, p := range f.Ports {
			out[i].Ports = append(out[i].Ports, n.port(p))
		}
		group[flapGroup(out[i])]++
	}
	for i := range out {
		out[i].Cause, out[i].Hint = flapCause(out[i], group[flapGroup(out[i])], owners[out[i].MAC])
	}
	return out
}

// flapGroup is what the stations have in common that flap for one reason.
func flapGroup(f api.Flap) string {
	return "between " + strings.Join(f.Ports, " and ") + " in network " + f.Network
}

// loopStations is how many stations have to flap between the same ports for a
// loop to be more likely than as many duplicate addresses.
const loopStations = 3

// flapCause is the likely reason why f flaps, and what mends it. others counts
// the stations of its group, owners names the ports whose interface has its
// address.
func flapCause(f api.Flap, others int, owners []string) (cause, hint string) {
	between := strings.Join(f.Ports, " and ")
	far := slices.IndexFunc(f.Ports, func(p string) bool { return strings.HasPrefix(p, peerPrefix) })
	m := f.MAC.String()
	switch {
	case others >= loopStations:
		return fmt.Sprintf("a loop: %d stations flap between the same ports, so there is a second path between them", others),
			"take the second path between " + between + " away; `loop_guard: on`, which profile strict sets, cuts it by itself"
	case strings.HasPrefix(m, "00:00:5e:00:01:") || strings.HasPrefix(m, "00:00:5e:00:02:"):
		return "the virtual address of VRRP (RFC 9568): two routers are its master at the same time",
			"let the routers behind " + between + " hear each other's advertisements: IP protocol 112 to 224.0.0.18 or ff02::12"
	case len(owners) >= 2:
		return "a duplicate address: the interfaces of the ports " + strings.Join(owners, " and ") + " both have it",
			"give one of them another: ports." + owners[1] + ": mac"
	case len(owners) == 1 && slices.Contains(f.Ports, owners[0]):
		return "the address of the interface of port " + owners[0] + ", which another port hears too: its frames come back, or another machine has the address",
			"look which frames bring it: tapestry capture --filter 'ether src " + m + "'"
	case far >= 0:
		return "the station speaks on two hosts: one address on two machines, or a path between the hosts beside the tunnel",
			"give one of the machines another address, or take the path beside the tunnel away"
	}
	return "a duplicate address on two machines, or one machine whose bond sends by several ports",
		"give one of the machines another address; a bond on ports that are not aggregated wants mode active-backup"
}

// maxFlapProblems bounds the problems that flapping stations are told as.
const maxFlapProblems = 8

// flapProblems tells of flaps, one problem for all that have one reason.
func flapProblems(flaps []api.Flap) []api.Problem {
	var out []api.Problem
	count, first := map[string]int{}, map[string]api.Flap{}
	var order []string
	for _, f := range flaps {
		g := flapGroup(f)
		if count[g]++; count[g] == 1 {
			order, first[g] = append(order, g), f
		}
	}
	for i, g := range order {
		if i == maxFlapProblems {
			out = append(out, api.Problem{What: fmt.Sprintf("stations flap between %d more sets of ports", len(order)-i), Hint: "tapestry fdb history"})
			break
		}
		f := first[g]
		what := fmt.Sprintf("station %s flaps %s, %s", f.MAC, g, flapRate(f))
		if count[g] > 1 {
			what = fmt.Sprintf("%d stations flap %s, %s most: %s", count[g], g, f.MAC, flapRate(f))
		}
		out = append(out, api.Problem{What: what + ": likely " + f.Cause, Hint: f.Hint})
	}
	return out
}

func flapRate(f api.Flap) string {
	s := ""
	if f.Least {
		s = "at least "
	}
	return fmt.Sprintf("%s%.0f moves a minute", s, f.Rate)
}
