package daemon

import (
	"fmt"
	"slices"
	"time"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel"
)

// peerPrefix stands before a peer's name where a port's is expected. No port's
// name has a slash.
const peerPrefix = "peer/"

// Peers implements api.Backend.
func (d *Daemon) Peers() []api.Peer {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := []api.Peer{}
	if d.vtep == nil {
		return out
	}
	carried := map[frame.PortID][]string{}
	for _, p := range d.tunnelSpec(d.eff).Peers {
		for _, v := range p.VIDs {
			carried[p.ID] = append(carried[p.ID], d.names.Load().network(v))
		}
	}
	now := time.Now()
	for _, s := range d.vtep.Status() {
		out = append(out, d.peerRow(s, carried[s.ID], now))
	}
	return out
}

// peerRow is one row of `peer ls`.
func (d *Daemon) peerRow(s tunnel.Status, networks []string, now time.Time) api.Peer {
	n, _ := d.sw.PortStats(s.ID)
	for why, m := range s.Drops {
		n.Drops[why] += m + d.peerRefused[s.ID][why]
	}
	slices.Sort(networks)
	row := api.Peer{
		Name: s.Name, ID: s.ID, Address: s.Address.String(), State: s.State.String(), Passive: s.Passive, Since: s.Since,
		Encryption: "none", Link: linkRow(s.Link, now), Networks: append([]string{}, networks...), MTU: s.MTU, Entries: d.table.PortLen(s.ID), Moves: d.table.PortMoves(s.ID),
		RX: api.Counter(n.RX), TX: api.Counter(n.TX), Drops: drops(&n.Drops),
	}
	if s.State == tunnel.Up {
		row.Established = int64(now.Sub(s.Since).Seconds())
	}
	if l := s.Link; l != nil {
		row.Encryption, row.Cipher, row.Epoch, row.SealedMTU = "dtls", l.Cipher, l.Generation, s.SealedMTU
		row.Established = int64(row.Link.KeyAge)
	}
	return row
}

// peersOf are the peers that carry a network. The caller holds mu.
func (d *Daemon) peersOf(v frame.VID) []tunnel.PeerSpec {
	return slices.DeleteFunc(d.peerSpecs(), func(p tunnel.PeerSpec) bool { return !slices.Contains(p.VIDs, v) })
}

// peersStatus adds the peers, and what is wrong with the tunnel, to s. The
// caller holds mu.
func (d *Daemon) peersStatus(s *api.Status) {
	if d.vtep == nil {
		return
	}
	for _, p := range d.vtep.Status() {
		switch p.State {
		case tunnel.Up:
			s.Peers.Up++
		case tunnel.Connecting:
			s.Peers.Connecting++
		case tunnel.Down:
			s.Peers.Down++
			s.Problems = append(s.Problems, api.Problem{
				What: fmt.Sprintf("peer %s at %v has not answered since %s", p.Name, p.Address, p.Since.Format(time.DateTime)),
				Hint: fmt.Sprintf("see whether that host is up, and whether UDP port %d passes both ways: ping %s", p.Address.Port(), p.Address.Addr()),
			})
		}
	}
	s.Problems = append(s.Problems, d.absent()...)
	s.Problems = append(s.Problems, d.missing.problems(time.Now())...)
	s.Problems = append(s.Problems, narrowPaths(d.eff, d.vtep.Status(), d.tunnelSpec(d.eff))...)
	s.Problems = append(s.Problems, d.linkProblems(d.vtep.Status(), time.Now())...)
}

// narrowPaths names the peers whose path carries less than a network's MTU.
func narrowPaths(c *config.Config, peers []tunnel.Status, spec tunnel.Spec) []api.Problem {
	var out []api.Problem
	carried := map[frame.PortID][]frame.VID{}
	for _, p := range spec.Peers {
		carried[p.ID] = p.VIDs
	}
	for _, p := range peers {
		if p.State != tunnel.Up {
			continue
		}
		for _, name := range sortedNames(c.Networks) {
			n, carries := c.Networks[name], p.MTU
			if n.Encrypt == config.EncryptRequired {
				carries = p.SealedMTU
			}
			if slices.Contains(carried[p.ID], n.VLAN) && n.MTU > carries {
				out = append(out, api.Problem{
					What: fmt.Sprintf("the path to peer %s carries packets of %d octets, network %s has MTU %d", p.Name, carries, name, n.MTU),
					Hint: fmt.Sprintf("raise the underlay's MTU by %d, or set networks.%s.mtu to %d", n.MTU-carries, name, carries),
				})
			}
		}
	}
	return out
}

// peerSpecs are the peers of the running tunnel. The caller holds mu.
func (d *Daemon) peerSpecs() []tunnel.PeerSpec {
	if d.vtep == nil {
		return nil
	}
	return d.tunnelSpec(d.eff).Peers
}
