package daemon

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/internal/udpio"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

// vtep is a tunnel, what it was opened with and the networks it was told of last.
type vtep struct {
	*tunnel.Tunnel
	manner
	told []tunnel.Network
}

// manner is what a tunnel can't change while it is open.
type manner struct {
	listen     netip.AddrPort
	noChecksum bool
	dtls       links
}

// links is what encrypted links can't change while they are up.
type links struct {
	listen netip.AddrPort // invalid = none
	host   string
}

// tell makes the tunnel be as s says.
func (v *vtep) tell(s tunnel.Spec) error {
	if err := v.Apply(s); err != nil {
		return &api.Error{Code: 2, Msg: err.Error(), Hint: applyHint(err)}
	}
	v.told = s.Networks
	return nil
}

// tunnelSpec is what the tunnel is told. c is resolved.
func (d *Daemon) tunnelSpec(c *config.Config) tunnel.Spec {
	s := tunnel.Spec{NoCoalesce: !isOn(c.Offload.Coalesce)}
	if c.Tunnel == nil {
		return s
	}
	if c.Tunnel.VXLANReserved == config.ReservedIgnore {
		s.Reserved = vxlan.IgnoreReserved
	}
	if l := c.Tunnel.DTLS; l != nil {
		s.RekeyRecords, s.RekeyAfter = l.Rekey.Records, duration(l.Rekey.After)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Networks)) {
		n := c.Networks[name]
		if n.VNI == 0 {
			continue
		}
		s.Networks = append(s.Networks, tunnel.Network{
			VID: d.st.VLANs[name], VNI: vxlan.VNI(n.VNI), MTU: n.MTU,
			Encrypt: n.Encrypt == config.EncryptRequired, Addresses: hostAddresses(c, name),
		})
	}
	for _, p := range d.others(c) {
		t := tunnel.PeerSpec{
			ID: d.st.Peers[p.Name], Name: p.Name, Address: p.Address,
			DTLS:        netip.AddrPortFrom(p.Address.Addr(), c.Tunnel.Peers[p.Name].DTLSPort),
			UnderlayMTU: d.ways[p.Address.Addr()],
		}
		for _, name := range slices.Sorted(maps.Keys(c.Networks)) {
			if c.Networks[name].VNI != 0 && (len(p.Networks) == 0 || slices.Contains(p.Networks, name)) {
				t.VIDs = append(t.VIDs, d.st.VLANs[name])
			}
		}
		s.Peers = append(s.Peers, t)
	}
	if d.cred != nil {
		s.Credentials = d.cred.Credentials
	}
	return s
}

// hostAddresses are this host's own in a network: those of its host ports.
func hostAddresses(c *config.Config, network string) []netip.Addr {
	var own []netip.Addr
	for _, name := range slices.Sorted(maps.Keys(c.Ports)) {
		p := c.Ports[name]
		if p.Kind() != keeper.KindHost || p.Untagged() != network {
			continue
		}
		for _, a := range p.Interface().Address {
			own = append(own, a.Addr())
		}
	}
	return own
}

// wantedManner is that of the tunnel of the desired state, which has one.
func (d *Daemon) wantedManner() manner {
	t := d.eff.Tunnel
	m := manner{listen: t.Listen, noChecksum: !isOn(t.UDPChecksum)}
	if l := t.DTLS; l != nil {
		m.dtls = links{listen: l.Listen, host: d.eff.Host}
	}
	return m
}

// wantedTunnel is the tunnel that the desired state needs: the present one, a new
// one that knows no peer yet, or nil.
func (d *Daemon) wantedTunnel() (*vtep, error) {
	if d.eff.Tunnel == nil {
		return nil, nil
	}
	m := d.wantedManner()
	if d.vtep != nil && d.vtep.manner == m {
		return d.vtep, nil
	}
	t, err := d.openTunnel(&m)
	if err != nil {
		return nil, err
	}
	return &vtep{Tunnel: t, manner: m}, nil
}

func (d *Daemon) openTunnel(m *manner) (*tunnel.Tunnel, error) {
	d.kept = nil // the keeper holds what is opened now besides
	fd, err := d.keeper.OpenUDP(keeper.UDPRequest{Listen: m.listen, Early: d.starting})
	if err != nil {
		return nil, refusal("tunnel", err)
	}
	o := tunnel.Options{
		Socket: fd, NoChecksum: m.noChecksum, Events: d.onPeer, Asked: d.tracer.Asked, Observers: &d.observers,
		Open: func(o udpio.SenderOptions) (int, error) {
			return d.keeper.OpenUDP(keeper.UDPRequest{Local: o.Local, Slot: o.Slot, NoChecksum: o.NoChecksum})
		},
	}
	if m.dtls.listen.IsValid() {
		if o.Encryption, err = d.openLinks(&m.dtls); err != nil {
			closeFD(fd)
			return nil, err
		}
	}
	t, err := tunnel.New(o)
	if err != nil {
		closeFD(fd)
		if o.Encryption != nil {
			closeFD(o.Encryption.Socket)
		}
		return nil, fmt.Errorf("tunnel: %w", err)
	}
	return t, nil
}

// addPeers adds the peers' ports to the switch's spec.
func (d *Daemon) addPeers(s *vswitch.Spec) {
	if d.vtep == nil {
		return
	}
	for _, p := range d.tunnelSpec(d.eff).Peers {
		if q := d.vtep.Peer(p.ID); q != nil {
			s.Ports = append(s.Ports, vswitch.Port{
				ID: p.ID, Name: peerPrefix + p.Name, Queue: q, Tagged: p.VIDs, Group: tunnel.Group, OwnMTU: true, Bare: true,
			})
		}
	}
	for _, r := range d.vtep.Receivers() {
		s.Receivers = append(s.Receivers, r)
	}
}

// onPeer sees to a peer that has gone, and tells. It must not take mu.
func (d *Daemon) onPeer(e tunnel.Event) {
	if e.State == tunnel.Down {
		d.table.Flush(fdb.Filter{Port: e.ID})
	}
	d.tellPeer(e.Status, e.Time)
}

// retire keeps what a tunnel has refused that is about to be closed: the
// counters of peers go on in the next one.
func (d *Daemon) retire(v *vtep) {
	for why, n := range v.Refused() {
		d.refusedBefore[why] += n
	}
	for _, s := range v.Status() {
		sum := d.peerRefused[s.ID]
		for why, n := range s.Drops {
			sum[why] += n
		}
		d.peerRefused[s.ID] = sum
	}
}

// strangersRefused is what the running tunnel has refused of who is no peer.
func (d *Daemon) strangersRefused() (n tunnel.Drops) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.vtep != nil {
		n = d.vtep.Strangers()
	}
	return n
}

// refusedByTunnel is what never became a frame.
func (d *Daemon) refusedByTunnel() (n [frame.NumReasons]uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n = d.refusedBefore
	if d.vtep != nil {
		for why, m := range d.vtep.Refused() {
			n[why] += m
		}
	}
	return n
}
