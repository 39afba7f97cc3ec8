package daemon

import (
	"strconv"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// names translates the numbers of the switch into the user's names. It is
// replaced as a whole and never changed.
type names struct {
	ports    map[frame.PortID]string // a peer's is peer/NAME
	peers    map[frame.PortID]string
	networks map[frame.VID]string
}

// port is the name of id; a port that has gone is known by its number only.
func (n names) port(id frame.PortID) string {
	if s, ok := n.ports[id]; ok {
		return s
	}
	if id == 0 {
		return ""
	}
	return "#" + strconv.Itoa(int(id))
}

// network is the name of the network with the given VLAN, or its number.
func (n names) network(v frame.VID) string {
	if s, ok := n.networks[v]; ok {
		return s
	}
	if v == 0 {
		return ""
	}
	return "vlan" + strconv.Itoa(int(v))
}
