package daemon

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// adopt puts the first desired state of this worker into force: ports that the
// keeper holds are taken over, the others opened. A port that can't be opened is
// down with its reason and tried again; it does not keep the others from
// forwarding.
func (d *Daemon) adopt(cfg *config.Config, st state, saved bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.starting = true
	defer func() { d.starting = false }()
	if err := st.assign(cfg); err != nil {
		return err
	}
	d.cfg, d.st, d.eff = cfg, st, d.resolve(cfg, &st)
	if err := d.readFirst(cfg, saved); err != nil {
		return err
	}
	held, err := d.keeper.List()
	if err != nil {
		return err
	}
	d.takeOver(held)
	for _, name := range slices.Sorted(maps.Keys(cfg.Ports)) {
		if d.ports[name] != nil {
			continue
		}
		p := newPort(name, st.Ports[name].ID, request(d.eff, name))
		p.netns = st.Ports[name].NetnsID
		d.ports[name] = p
		if err := d.open(p); err != nil {
			p.fail(err)
			d.log.Warn("port is down", "port", name, "err", err)
			d.tellPort(name, p.reason)
			continue
		}
		d.st.note(p)
	}
	if !saved {
		if err := d.remember(cfg, &d.st); err != nil {
			return err
		}
	}
	if err := d.enforce(); err != nil {
		return err
	}
	removed, err := d.keeper.Sweep(slices.Sorted(maps.Keys(cfg.Ports)))
	if err != nil {
		d.log.Warn("sweep leftovers", "err", err)
	}
	for _, name := range removed {
		d.log.Info("removed a leftover interface", "device", name)
	}
	return nil
}

// takeOver uses the descriptors that the keeper holds for ports that are still
// as they were opened, and closes the others.
func (d *Daemon) takeOver(held []keeper.Held) {
	for _, h := range held {
		name := h.Request.Name
		if _, wanted := d.eff.Ports[name]; !wanted {
			closeFD(h.FD)
			continue
		}
		req := request(d.eff, name)
		p := newPort(name, d.st.Ports[name].ID, req)
		p.netns = d.st.Ports[name].NetnsID
		// A port that the worker before found to refuse GSO frames stays plain.
		p.plain = h.Request.NoGSO && !req.NoGSO
		h.Request.NoGSO = req.NoGSO
		if !sameRequest(h.Request, req) {
			closeFD(h.FD) // opening it brings the differences into force
			continue
		}
		if err := p.take(h.Reply, h.FD); err != nil {
			p.fail(err)
		}
		d.ports[name] = p
	}
}

// change is a desired state on its way into force, and the one that it follows.
// Each step that changes an interface or a file leaves behind how to undo it.
type change struct {
	cfg  *config.Config // as written
	eff  *config.Config // resolved
	st   state
	undo []func()
	gone []*port // closed and removed once the switch has let go of them

	oldCfg, oldEff *config.Config
	oldState       state
	oldPorts       map[string]*port
	oldOwn         []netip.Addr
	oldWays        map[netip.Addr]int
	oldCred        *credentials
	replaced       map[*port]bool // their interfaces have been taken away
}

// rollback brings the former state back. The switch lets go of what is new
// first: a queue must not be closed while it is polled.
func (d *Daemon) rollback(c *change) {
	d.cfg, d.eff, d.st, d.ports, d.own, d.ways, d.cred = c.oldCfg, c.oldEff, c.oldState, c.oldPorts, c.oldOwn, c.oldWays, c.oldCred
	first := d.enforce()
	for _, f := range slices.Backward(c.undo) {
		f()
	}
	if err := errors.Join(first, d.enforce()); err != nil {
		d.log.Error("the former state is not back in force", "err", err)
	}
}

// commit makes cfg the desired state: all or nothing. It returns the
// differences, one line each. Keys and certificates are read when others are
// named. The caller holds mu.
func (d *Daemon) commit(cfg *config.Config, edit func(*state)) ([]string, error) {
	return d.commitWith(cfg, edit, !sameDTLS(d.cfg, cfg))
}

// commitReading is commit for a whole file: what keys and certificates hold may
// have changed, though the file has not.
func (d *Daemon) commitReading(cfg *config.Config) ([]string, error) {
	return d.commitWith(cfg, nil, true)
}

func (d *Daemon) commitWith(cfg *config.Config, edit func(*state), read bool) ([]string, error) {
	if err := config.Validate(cfg); err != nil {
		return nil, invalid(err)
	}
	if err := supported(cfg); err != nil {
		return nil, err
	}
	cred := d.cred
	if read {
		var err error
		if cred, err = readCredentials(cfg); err != nil {
			return nil, err
		}
	}
	diff := config.Diff(d.cfg, cfg)
	if len(diff) == 0 && cred.same(d.cred) {
		return nil, nil
	}
	c := &change{
		cfg: cfg, st: d.st.clone(), oldCfg: d.cfg, oldEff: d.eff, oldState: d.st, oldPorts: d.ports,
		oldOwn: slices.Clone(d.own), replaced: map[*port]bool{}, oldWays: d.ways, oldCred: d.cred,
	}
	if err := c.st.assign(cfg); err != nil {
		return nil, err
	}
	c.st.Revision++
	c.eff = d.resolve(cfg, &c.st)
	if edit != nil {
		edit(&c.st)
	}
	d.cred = cred
	if err := d.carryOut(c); err != nil {
		d.rollback(c)
		return nil, err
	}
	lines := make([]string, len(diff))
	for i, x := range diff {
		lines[i] = x.Text
	}
	if !cred.same(c.oldCred) && sameDTLS(c.oldCfg, cfg) {
		lines = append(lines, credentialsChanged)
	}
	d.log.Info("configuration changed", "changes", strings.Join(lines, "; "))
	d.tellCommit(c, lines)
	return lines, nil
}

// carryOut is commit's sequence. Until the switch has the new spec everything
// can be undone; after that nothing is left that could fail.
func (d *Daemon) carryOut(c *change) error {
	d.ports = maps.Clone(c.oldPorts)
	if err := d.clear(c); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(c.cfg.Ports)) {
		if err := d.bring(c, name); err != nil {
			return err
		}
	}
	for name, p := range c.oldPorts {
		if _, stays := c.cfg.Ports[name]; !stays {
			delete(d.ports, name)
			c.gone = append(c.gone, p)
		}
	}
	if err := d.remember(c.cfg, &c.st); err != nil {
		return err
	}
	c.undo = append(c.undo, func() {
		if err := c.oldState.save(int(d.state.Fd())); err != nil {
			d.log.Error("the saved state is ahead of the switch", "err", err)
		}
	})
	d.cfg, d.eff, d.st = c.cfg, c.eff, c.st
	if err := d.enforce(); err != nil {
		return err
	}
	d.letGo(c.gone)
	return nil
}

// spot is where an interface is: no two ports can have the same.
type spot struct{ netns, name string }

func spotOf(r keeper.PortRequest) spot { return spot{r.Netns, r.Ifname + r.Device + r.Adopt} }

// clear takes those interfaces away that stand where another port's shall be.
func (d *Daemon) clear(c *change) error {
	owner := make(map[spot]string, len(c.cfg.Ports))
	for name := range c.cfg.Ports {
		owner[spotOf(request(c.eff, name))] = name
	}
	for _, name := range slices.Sorted(maps.Keys(c.oldPorts)) {
		old := c.oldPorts[name]
		if now, wanted := owner[spotOf(old.req)]; wanted && now != name {
			if err := d.replace(c, old); err != nil {
				return err
			}
		}
	}
	return nil
}

// bring makes one port of the new state ready: opened if it is new, changed in
// place if its interface stays, replaced otherwise.
func (d *Daemon) bring(c *change, name string) error {
	req := request(c.eff, name)
	old := d.ports[name]
	if old != nil && old.id == c.st.Ports[name].ID && sameRequest(old.req, req) {
		return nil
	}
	p := newPort(name, c.st.Ports[name].ID, req)
	if old != nil && old.req.Netns == req.Netns {
		p.netns, p.heals = old.netns, old.heals
	}
	if old != nil && !sameInterface(old.req, req) {
		if err := d.replace(c, old); err != nil {
			return err
		}
	}
	if err := d.open(p); err != nil {
		return refusal("", err)
	}
	d.ports[name] = p
	c.undo = append(c.undo, func() { d.putBack(old, p) })
	if old != nil {
		c.gone = append(c.gone, &port{name: "", queue: old.queue, fd: old.fd})
	}
	c.st.note(p)
	return nil
}

// replace takes the interface of a port away, because the new one may need its
// name. The switch lets go of it first.
func (d *Daemon) replace(c *change, old *port) error {
	if c.replaced[old] {
		return nil
	}
	c.replaced[old] = true
	if err := d.enforceWithout(old.name); err != nil {
		return err
	}
	if err := d.keeper.Remove(old.name); err != nil {
		return refusal(fmt.Sprintf("port %s: remove its old interface", old.name), err)
	}
	c.undo = append(c.undo, func() {
		old.queue, old.fd = nil, -1
		if err := d.open(old); err != nil {
			old.fail(err)
			d.log.Error("the former interface is not back", "port", old.name, "err", err)
		}
	})
	return nil
}

// putBack undoes open for p: a new port is removed, a changed one set back.
func (d *Daemon) putBack(old, p *port) {
	p.close()
	var err error
	switch {
	case old == nil:
		err = d.keeper.Remove(p.name)
	case sameInterface(old.req, p.req):
		var fd int
		if _, fd, err = d.keeper.Open(old.req); err == nil {
			closeFD(fd)
		}
	default:
		err = d.keeper.Remove(p.name)
	}
	if err != nil {
		d.log.Error("undo of a change failed", "port", p.name, "err", err)
	}
}

// letGo closes ports that the switch no longer knows and has their interfaces
// removed. What fails is tried again by the sweep of the next start.
func (d *Daemon) letGo(gone []*port) {
	for _, p := range gone {
		p.close()
		if p.name == "" {
			continue // only the descriptor was exchanged
		}
		if err := d.keeper.Remove(p.name); err != nil {
			d.log.Error("remove interface", "port", p.name, "err", err)
		}
	}
}

// remember writes the desired state to disk: from here on it survives any crash.
func (d *Daemon) remember(cfg *config.Config, st *state) error {
	st.Config = string(cfg.Marshal())
	if err := st.save(int(d.state.Fd())); err != nil {
		return &api.Error{Code: 1, Msg: err.Error(), Hint: "make room in " + d.stateDir + " or make it writable; nothing was changed"}
	}
	return nil
}

// enforce gives the switch the spec of the desired state with the ports as they
// are, and sets the static entries right.
func (d *Daemon) enforce() error {
	d.publishNames()
	loosen, err := d.applySpec(d.ports)
	if err != nil {
		return fmt.Errorf("switch: %w", err)
	}
	d.table.SetLimit(min(d.eff.FDBLimit, d.tableLimit))
	if err := d.setStatics(); err != nil {
		return err
	}
	if err := loosen(); err != nil {
		return fmt.Errorf("switch: %w", err)
	}
	d.keepSockets()
	return nil
}

// enforceWithout takes one port's queue from the switch and closes it.
func (d *Daemon) enforceWithout(name string) error {
	p := d.ports[name]
	if p == nil || p.queue == nil {
		return nil
	}
	without := maps.Clone(d.ports)
	down := *p
	down.queue = nil
	without[name] = &down
	loosen, err := d.applySpec(without)
	if err != nil {
		return fmt.Errorf("switch: %w", err)
	}
	p.close()
	return loosen()
}

// setStatics makes the static entries of the table those of the desired state.
func (d *Daemon) setStatics() error {
	want := map[fdb.Key]*port{}
	for _, e := range d.eff.FDB {
		want[fdb.MakeKey(d.st.VLANs[e.Network], e.MAC)] = d.ports[e.Port]
	}
	var stale []fdb.Key
	d.table.Walk(func(e fdb.Entry) bool {
		k := fdb.MakeKey(e.VID, e.MAC)
		if e.Static && want[k] == nil {
			stale = append(stale, k)
		}
		return true
	})
	for _, k := range stale {
		d.table.Delete(k)
	}
	var errs []error
	for k, p := range want {
		if p != nil {
			errs = append(errs, d.table.AddStatic(k, p.id))
		}
	}
	return errors.Join(errs...)
}

func (d *Daemon) publishNames() {
	n := &names{ports: map[frame.PortID]string{}, peers: map[frame.PortID]string{}, networks: map[frame.VID]string{}}
	for name, r := range d.st.Ports {
		n.ports[r.ID] = name
	}
	for name, id := range d.st.Peers {
		n.ports[id], n.peers[id] = peerPrefix+name, name
	}
	for name := range d.eff.Networks {
		n.networks[d.st.VLANs[name]] = name
	}
	d.names.Store(n)
}

// resolve fills every default in and notes the VLANs that were chosen.
func (d *Daemon) resolve(cfg *config.Config, st *state) *config.Config {
	st.VLANs = config.AssignVLANs(cfg, st.VLANs)
	eff := cfg.Resolved(d.hostname, st.VLANs)
	d.meetOwn(eff)
	d.ways = lookUpWays(eff, d.others(eff))
	d.fitNetworks(cfg, eff)
	return eff
}

// sameRequest reports whether a port opened by a would be opened by b alike.
func sameRequest(a, b keeper.PortRequest) bool {
	a.NetnsID, b.NetnsID, a.Reopen, b.Reopen = 0, 0, false, false
	return reflect.DeepEqual(a, b)
}

// sameInterface reports whether b only changes settings of a's interface.
func sameInterface(a, b keeper.PortRequest) bool {
	return a.Kind == b.Kind && a.Netns == b.Netns && a.Ifname == b.Ifname && a.Adopt == b.Adopt && a.Device == b.Device && a.NoGSO == b.NoGSO
}
