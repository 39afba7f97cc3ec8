package daemon

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

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

// vtep is the running tunnel and what it was opened with.
type vtep struct {
	*tunnel.Tunnel
	manner
}

// manner is what a tunnel can't change while it is open.
type manner struct {
	listen     netip.AddrPort
	reserved   config.Reserved
	noChecksum bool
	noCoalesce bool
	underlay   int // MTU
	dtls       links
}

// links is what encrypted links can't change while they are up.
type links struct {
	listen  netip.AddrPort // invalid = none
	host    string
	records uint64
	after   time.Duration
}

// tunnelSpec is what the tunnel is told. c is resolved.
func (d *Daemon) tunnelSpec(c *config.Config) tunnel.Spec {
	var s tunnel.Spec
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
			DTLS: netip.AddrPortFrom(p.Address.Addr(), c.Tunnel.Peers[p.Name].DTLSPort),
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

// bringTunnel makes the tunnel be as the desired state says, a new one where its
// socket or its manner changes. The former one is the caller's to close when the
// switch has let go of it; nil when it goes on.
func (d *Daemon) bringTunnel() (former *vtep, err error) {
	t := d.eff.Tunnel
	if t == nil {
		former, d.vtep = d.vtep, nil
		if former != nil {
			err = d.keeper.CloseUDP(true)
		}
		return former, err
	}
	want := vtep{manner: manner{
		listen: t.Listen, reserved: t.VXLANReserved, underlay: narrowest(d.others(d.eff)).mtu,
		noChecksum: !isOn(t.UDPChecksum), noCoalesce: !isOn(d.eff.Offload.Coalesce),
	}}
	if l := t.DTLS; l != nil {
		want.dtls = links{listen: l.Listen, host: d.eff.Host, records: l.Rekey.Records, after: duration(l.Rekey.After)}
	}
	if d.vtep == nil || d.vtep.manner != want.manner {
		if want.Tunnel, err = d.openTunnel(&want); err != nil {
			return nil, err
		}
		former, d.vtep = d.vtep, &want
		if !want.dtls.listen.IsValid() {
			if err := d.keeper.CloseUDP(false); err != nil {
				return former, err
			}
		}
	}
	if err := d.vtep.Apply(d.tunnelSpec(d.eff)); err != nil {
		return former, &api.Error{Code: 2, Msg: err.Error(), Hint: applyHint(err)}
	}
	return former, nil
}

func (d *Daemon) openTunnel(v *vtep) (*tunnel.Tunnel, error) {
	fd, err := d.keeper.OpenUDP(keeper.UDPRequest{Listen: v.listen})
	if err != nil {
		return nil, refusal("tunnel", err)
	}
	o := tunnel.Options{
		Socket: fd, NoChecksum: v.noChecksum, NoCoalesce: v.noCoalesce, Events: d.onPeer,
		Asked: d.tracer.Asked, UnderlayMTU: v.underlay, Observers: &d.observers,
		Open: func(o udpio.SenderOptions) (int, error) {
			return d.keeper.OpenUDP(keeper.UDPRequest{Local: o.Local, Slot: o.Slot, NoChecksum: o.NoChecksum})
		},
	}
	if v.reserved == config.ReservedIgnore {
		o.Reserved = vxlan.IgnoreReserved
	}
	if v.dtls.listen.IsValid() {
		if o.Encryption, err = d.openLinks(&v.dtls); err != nil {
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
	d.lookForMissing() // the new one may have the same socket
	d.missing.begin(t.Overflow())
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

// applySpec gives the switch its spec with those ports, and the tunnel its own.
func (d *Daemon) applySpec(ports map[string]*port) error {
	former, err := d.bringTunnel()
	if err == nil {
		s := spec(d.eff, d.st.VLANs, ports)
		s.Receivers = append(s.Receivers, d.inject)
		d.addPeers(&s)
		err = d.sw.Apply(s)
	}
	if err != nil {
		if former != nil {
			// The switch may still use it: the rollback's own spec comes first.
			d.stale = append(d.stale, former)
		}
		return err
	}
	if former != nil {
		for _, v := range append(d.stale, former) {
			d.retire(v)
			err = errors.Join(err, v.Close())
		}
		d.stale = nil
	}
	d.forgetPeers()
	if former != nil && d.vtep != nil && d.keys.read() {
		d.vtep.KeyLog(&d.keys)
	}
	maps.DeleteFunc(d.peerRefused, func(id frame.PortID, _ tunnel.Drops) bool { return d.vtep == nil || d.vtep.Peer(id) == nil })
	return err
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
