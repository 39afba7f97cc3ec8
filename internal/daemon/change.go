package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// Apply implements api.Backend: the running switch becomes what the file says.
// Ports given by attach are not in any file and stay.
func (d *Daemon) Apply(_ context.Context, r api.ApplyRequest) (api.ApplyReply, error) {
	name := r.File
	if name == "" {
		name = "configuration"
	}
	cfg, err := config.Parse(name, []byte(r.YAML))
	if err != nil {
		// Two owners in one file are a mistake in it, no conflict with the switch.
		return api.ApplyReply{}, &api.Error{Code: 2, Msg: err.Error()}
	}
	if filepath.IsAbs(r.File) {
		cfg.Anchor(filepath.Dir(r.File))
	}
	if err := d.begin(); err != nil {
		return api.ApplyReply{}, err
	}
	defer d.mu.Unlock()
	for port, rec := range d.st.Ports {
		if rec.Attached == "" {
			continue
		}
		if _, taken := cfg.Ports[port]; taken {
			return api.ApplyReply{}, &api.Error{Code: 6, Msg: fmt.Sprintf("ports.%s: the name is taken by a port attached to %s", port, rec.Attached),
				Hint: "give the port another name, or detach that one first"}
		}
		if cfg.Ports == nil {
			cfg.Ports = map[string]*config.Port{}
		}
		cfg.Ports[port] = d.cfg.Ports[port]
	}
	if r.DryRun {
		return d.dryRun(cfg)
	}
	return d.reply(d.commitReading(cfg))
}

// dryRun validates and compares, and touches nothing.
func (d *Daemon) dryRun(cfg *config.Config) (api.ApplyReply, error) {
	if err := config.Validate(cfg); err != nil {
		return api.ApplyReply{}, invalid(err)
	}
	if err := supported(cfg); err != nil {
		return api.ApplyReply{}, err
	}
	var lines []string
	for _, c := range config.Diff(d.cfg, cfg) {
		lines = append(lines, c.Text)
	}
	cred, err := readCredentials(cfg)
	if err != nil {
		return api.ApplyReply{}, err
	}
	if !cred.same(d.cred) {
		lines = append(lines, credentialsChanged)
	}
	return d.reply(lines, nil)
}

func (d *Daemon) reply(lines []string, err error) (api.ApplyReply, error) {
	if lines == nil {
		lines = []string{}
	}
	return api.ApplyReply{Changes: lines}, err
}

// Item implements api.Backend: one network, port or static entry.
func (d *Daemon) Item(_ context.Context, r api.ItemRequest) (api.ApplyReply, error) {
	if err := d.begin(); err != nil {
		return api.ApplyReply{}, err
	}
	defer d.mu.Unlock()
	if r.Op != "add" && r.Op != "set" && r.Op != "rm" {
		return api.ApplyReply{}, &api.Error{Code: 2, Msg: fmt.Sprintf("operation %q: want add, set or rm", clip(r.Op))}
	}
	var err error
	var done bool
	switch r.Kind {
	case "network":
		err = d.checkNetwork(r)
	case "port":
		err = d.checkPort(r)
	case "peer":
		err = d.checkPeer(r)
	case "fdb":
		done, err = d.checkFDB(r)
	default:
		err = &api.Error{Code: 2, Msg: fmt.Sprintf("kind %q: want network, port, peer or fdb", clip(r.Kind))}
	}
	if err != nil || done {
		return d.reply(nil, err)
	}
	cfg, err := config.Edit(d.cfg, r.Op, r.Kind, r.Name, r.YAML)
	if err != nil {
		return api.ApplyReply{}, invalid(err)
	}
	return d.reply(d.commit(cfg, nil))
}

// checkNetwork refuses what the rest of the configuration stands against.
func (d *Daemon) checkNetwork(r api.ItemRequest) error {
	_, exists := d.cfg.Networks[r.Name]
	if err := d.checkOp(r, exists, d.noNetwork); err != nil || r.Op != "rm" {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(d.cfg.Ports)) {
		if slices.Contains(d.cfg.Ports[name].Networks(), r.Name) {
			return &api.Error{Code: 6, Msg: fmt.Sprintf("network %s: port %s is a member of it", r.Name, name), Hint: "tapestry port rm " + name}
		}
	}
	return nil
}

func (d *Daemon) checkPort(r api.ItemRequest) error {
	_, exists := d.cfg.Ports[r.Name]
	if err := d.checkOp(r, exists, d.noPort); err != nil {
		return err
	}
	switch r.Op {
	case "rm":
		for _, e := range d.cfg.FDB {
			if e.Port == r.Name {
				return &api.Error{Code: 6, Msg: fmt.Sprintf("port %s: the static entry %s of network %s names it", r.Name, e.MAC, e.Network),
					Hint: fmt.Sprintf("tapestry fdb rm %s %s", e.Network, e.MAC)}
			}
		}
		return nil
	case "set":
		return nil
	}
	p, err := config.ParsePort(r.Name, r.YAML)
	if err != nil {
		return invalid(err)
	}
	for _, n := range p.Networks() {
		if _, ok := d.cfg.Networks[n]; !ok {
			return d.noNetwork(n)
		}
	}
	return d.owner(r.Name, p)
}

func (d *Daemon) checkPeer(r api.ItemRequest) error {
	exists := false
	if d.cfg.Tunnel != nil {
		_, exists = d.cfg.Tunnel.Peers[r.Name]
	}
	return d.checkOp(r, exists, func(name string) error {
		return &api.Error{Code: 5, Msg: fmt.Sprintf("no peer %q", clip(name)), Hint: "`tapestry peer ls` lists the peers"}
	})
}

// checkFDB carries out the one edit that concerns no configuration: removing an
// entry that was learned.
func (d *Daemon) checkFDB(r api.ItemRequest) (done bool, err error) {
	e, err := config.ParseFDBEntry(r.YAML)
	if err != nil {
		return false, invalid(err)
	}
	vid := d.st.VLANs[e.Network]
	if vid == 0 {
		return false, d.noNetwork(e.Network)
	}
	if _, ok := d.cfg.Ports[e.Port]; r.Op == "add" && !ok {
		return false, d.noPort(e.Port)
	}
	at := slices.IndexFunc(d.cfg.FDB, func(x config.FDBEntry) bool { return x.Network == e.Network && x.MAC == e.MAC })
	switch {
	case r.Op == "rm" && at < 0 && d.table.Delete(fdb.MakeKey(vid, e.MAC)):
		return true, nil
	case r.Op == "rm" && at < 0:
		return false, &api.Error{Code: 5, Msg: fmt.Sprintf("%s is not known in network %s", e.MAC, e.Network), Hint: "`tapestry fdb ls` lists the entries"}
	case r.Op == "add" && at >= 0:
		return false, &api.Error{Code: 6, Msg: fmt.Sprintf("%s in network %s is static on port %s already", e.MAC, e.Network, d.cfg.FDB[at].Port),
			Hint: fmt.Sprintf("tapestry fdb rm %s %s", e.Network, e.MAC)}
	}
	return false, nil
}

// checkOp refuses to add what is there and to change what isn't.
func (d *Daemon) checkOp(r api.ItemRequest, exists bool, missing func(string) error) error {
	switch {
	case r.Op == "add" && exists:
		hint := "`tapestry apply` changes it"
		if r.Kind == "port" {
			hint = fmt.Sprintf("tapestry port set %s … changes it", r.Name)
		}
		return &api.Error{Code: 6, Msg: fmt.Sprintf("%s %s exists already", r.Kind, r.Name), Hint: hint}
	case r.Op != "add" && !exists:
		return missing(r.Name)
	}
	return nil
}

// owner refuses a port whose address, MAC or interface another port has.
func (d *Daemon) owner(name string, p *config.Port) error {
	for _, other := range slices.Sorted(maps.Keys(d.cfg.Ports)) {
		if other == name {
			continue
		}
		what := common(p, d.cfg.Ports[other])
		if i := p.Interface(); what == "" && i != nil && !i.MAC.IsZero() && i.MAC == d.ports[other].reply.MAC {
			what = "MAC " + i.MAC.String() // of an interface to which none was given
		}
		if what != "" {
			return &api.Error{Code: 6, Msg: fmt.Sprintf("port %s: %s belongs to port %s already", name, what, other), Hint: "tapestry port show " + other}
		}
	}
	return nil
}

// common names what two ports can't both have, or "". Two networks may use the
// same addresses.
func common(p, q *config.Port) string {
	if name := foreign(p); name != "" && name == foreign(q) {
		return "interface " + name
	}
	a, b := p.Interface(), q.Interface()
	if a == nil || b == nil {
		return ""
	}
	if a.MAC == b.MAC && !a.MAC.IsZero() {
		return "MAC " + a.MAC.String()
	}
	sameNetwork := slices.ContainsFunc(p.Networks(), func(n string) bool { return slices.Contains(q.Networks(), n) })
	for _, x := range a.Address {
		for _, y := range b.Address {
			if sameNetwork && x.Addr() == y.Addr() {
				return "address " + x.Addr().String()
			}
		}
	}
	if a.Netns != "" && a.Netns == b.Netns && cmp.Or(a.Ifname, "eth0") == cmp.Or(b.Ifname, "eth0") {
		return fmt.Sprintf("interface %s of namespace %s", cmp.Or(a.Ifname, "eth0"), a.Netns)
	}
	return ""
}

// foreign is the existing interface that a port takes, or "".
func foreign(p *config.Port) string {
	switch {
	case p.Device != nil:
		return p.Device.Name
	case p.Veth != nil:
		return p.Veth.Adopt
	}
	return ""
}

// Attach implements api.Backend.
func (d *Daemon) Attach(_ context.Context, r api.AttachRequest) (api.Port, error) {
	if err := d.begin(); err != nil {
		return api.Port{}, err
	}
	defer d.mu.Unlock()
	p, err := attachment(r)
	if err != nil {
		return api.Port{}, err
	}
	name := r.Port
	if name == "" {
		name = d.portName(r.Label, p.Interface().Ifname)
	}
	if _, taken := d.cfg.Ports[name]; taken {
		return api.Port{}, &api.Error{Code: 6, Msg: fmt.Sprintf("port %s exists already (namespace %s, interface %s)", name, d.ports[name].req.Netns, d.ports[name].device()),
			Hint: "choose another name with --port, or detach that one first"}
	}
	if _, ok := d.eff.Networks[r.Network]; !ok {
		return api.Port{}, d.noNetwork(r.Network)
	}
	if err := d.owner(name, p); err != nil {
		return api.Port{}, err
	}
	cfg := d.cfg.Clone()
	if cfg.Ports == nil {
		cfg.Ports = map[string]*config.Port{}
	}
	cfg.Ports[name] = p
	_, err = d.commit(cfg, func(s *state) {
		rec := s.Ports[name]
		rec.Attached = r.Label
		if rec.Attached == "" {
			rec.Attached = r.Netns
		}
		s.Ports[name] = rec
	})
	if err != nil {
		return api.Port{}, err
	}
	return d.portRow(name), nil
}

// attachment is the port that a request asks for.
func attachment(r api.AttachRequest) (*config.Port, error) {
	i := &config.Interface{Netns: r.Netns, Ifname: r.Ifname}
	if i.Ifname == "" {
		i.Ifname = "eth0"
	}
	for _, a := range r.Addresses {
		prefix, err := config.ParsePrefix(a)
		if err != nil {
			return nil, &api.Error{Code: 2, Msg: fmt.Sprintf("address: %v", err), Hint: "give it with its prefix length: 10.1.0.5/24"}
		}
		i.Address = append(i.Address, prefix)
	}
	if r.Gateway != "" {
		g, err := config.ParseAddr(r.Gateway)
		if err != nil {
			return nil, &api.Error{Code: 2, Msg: fmt.Sprintf("gateway: %v", err), Hint: "give it without a prefix length: 10.1.0.1"}
		}
		i.Gateway = g
	}
	if r.MAC != "" {
		m, err := frame.ParseMAC(r.MAC)
		if err != nil {
			return nil, &api.Error{Code: 2, Msg: err.Error()}
		}
		i.MAC = m
	}
	p := &config.Port{Access: r.Network}
	switch r.Via {
	case "", "tap":
		p.Tap = i
	case "veth":
		p.Veth = i
	default:
		return nil, &api.Error{Code: 2, Msg: fmt.Sprintf("via %q is not known; want tap or veth", clip(r.Via)),
			Hint: "tap is the fastest; veth for software that insists on one"}
	}
	return p, nil
}

// notInName matches what a port's name can't hold: foreign characters, and dots
// in a row, which are no name of a file.
var notInName = regexp.MustCompile(`[^a-z0-9._-]+|\.{2,}`)

// portName makes a port's name of what the user called the container.
func (d *Daemon) portName(label, ifname string) string {
	if ifname != "eth0" {
		label += "-" + ifname
	}
	name := notInName.ReplaceAllString(strings.ToLower(label), "-")
	name = strings.TrimLeft(name, "-._")
	name = strings.TrimRight(name[:min(len(name), 48)], "-._")
	return cmp.Or(name, "port")
}

// Detach implements api.Backend.
func (d *Daemon) Detach(_ context.Context, r api.DetachRequest) error {
	if err := d.begin(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	ifname := r.Ifname
	if ifname == "" {
		ifname = "eth0"
	}
	for name, p := range d.ports {
		rec := d.st.Ports[name]
		mine := r.Netns == p.req.Netns || (r.Label != "" && r.Label == rec.Attached) || (r.NetnsID != 0 && r.NetnsID == p.reply.NetnsID)
		if !mine || p.req.Ifname != ifname {
			continue
		}
		cfg := d.cfg.Clone()
		cfg.FDB = slices.DeleteFunc(cfg.FDB, func(e config.FDBEntry) bool { return e.Port == name })
		delete(cfg.Ports, name)
		_, err := d.commit(cfg, nil)
		return err
	}
	what := r.Label
	if what == "" {
		what = r.Netns
	}
	return &api.Error{Code: 5, Msg: fmt.Sprintf("no port has interface %s in %q", clip(ifname), clip(what)), Hint: "`tapestry port ls` lists the ports with their namespaces"}
}

// invalid gives errors of package config the exit code of the contract. A name
// or address that is taken is a conflict.
func invalid(err error) error {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e
	}
	code := 2
	if list, ok := errors.AsType[config.Errors](err); ok && list.Conflict() {
		code = 6
	}
	return &api.Error{Code: code, Msg: err.Error()}
}
