package daemon

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel"
)

// applySpec gives the switch its spec with those ports, and the tunnel its own.
// Between the two a VID may mean one network here and another one there. So the
// tunnel is told what tightens first, and what loosens when the switch has let go
// of the former state; loosen does that, and is the caller's to call when nothing
// else can fail.
//
//	tunnel, changed networks closed ──> switch ──> loosen
//
// With an error nothing has changed but that those networks may be closed.
func (d *Daemon) applySpec(ports map[string]*port) (loosen func() error, err error) {
	next, err := d.wantedTunnel()
	if err != nil {
		return nil, err
	}
	former := d.vtep
	d.vtep = next
	loosen, err = d.applyBoth(ports, former)
	if err != nil {
		d.vtep = former
		if next != nil && next != former {
			err = errors.Join(err, next.Close()) // nobody has heard of it
		}
		return nil, err
	}
	if former != next {
		d.replaced(former)
	}
	d.forgetPeers()
	maps.DeleteFunc(d.peerRefused, func(id frame.PortID, _ tunnel.Drops) bool { return d.vtep == nil || d.vtep.Peer(id) == nil })
	return loosen, nil
}

// applyBoth is applySpec with d.vtep in the place of the tunnel that the switch
// has, former, which may be the same.
func (d *Daemon) applyBoth(ports map[string]*port, former *vtep) (loosen func() error, err error) {
	loosen = func() error { return nil }
	var gone []frame.VID
	if v := d.vtep; v != nil {
		whole := d.tunnelSpec(d.eff)
		first := whole
		if former != nil {
			first, gone = tightened(former.told, whole)
		}
		if slices.ContainsFunc(first.Networks, func(n tunnel.Network) bool { return n.Closed }) {
			loosen = func() error { return v.tell(whole) }
		}
		if err := v.tell(first); err != nil {
			return nil, err
		}
	}
	s := spec(d.eff, d.st.VLANs, ports)
	s.Receivers = append(s.Receivers, d.inject)
	d.addPeers(&s)
	if err := d.sw.Apply(s); err != nil {
		return nil, err
	}
	for _, vid := range gone {
		d.table.Flush(fdb.Filter{VID: vid}) // what was learned is another network's
	}
	return loosen, nil
}

// tightened is s with every network closed that isn't what was says of its VID,
// and the VIDs of was that are no longer the same network's.
func tightened(was []tunnel.Network, s tunnel.Spec) (first tunnel.Spec, gone []frame.VID) {
	now := map[frame.VID]*tunnel.Network{}
	first = s
	first.Networks = slices.Clone(s.Networks)
	for i := range first.Networks {
		n := &first.Networks[i]
		n.Closed, now[n.VID] = true, n
	}
	for _, w := range was {
		n := now[w.VID]
		if n == nil || n.VNI != w.VNI {
			gone = append(gone, w.VID)
			continue
		}
		n.Closed = w.Closed || n.Encrypt != w.Encrypt
	}
	return first, gone
}

// replaced closes the tunnel that the switch has let go of, nil for none, now that
// d.vtep has taken its place.
func (d *Daemon) replaced(former *vtep) {
	if former != nil {
		d.missing.look(former.Overflow(), time.Now())
		d.retire(former)
		if err := former.Close(); err != nil {
			d.log.Warn("close the former tunnel", "err", err)
		}
	}
	if d.vtep == nil {
		return
	}
	d.missing.begin(d.vtep.Overflow()) // its socket may be the same
	if d.keys.read() {
		d.vtep.KeyLog(&d.keys)
	}
}

// keepSockets has the keeper close the receiving sockets that are not, or no
// longer, in use. Failing that, they wait for the next change.
func (d *Daemon) keepSockets() {
	var keep keeper.UDPKeep
	if d.vtep != nil {
		keep = keeper.UDPKeep{Tunnel: d.vtep.listen, DTLS: d.vtep.dtls.listen}
	}
	if d.kept != nil && *d.kept == keep {
		return
	}
	if err := d.keeper.KeepUDP(keep); err != nil {
		d.log.Error("close unused sockets of the tunnel", "err", err)
		return
	}
	d.kept = &keep
}
