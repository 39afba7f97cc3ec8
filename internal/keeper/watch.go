package keeper

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/watch"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// Place names a namespace: that of a held port, or the daemon's own. A worker
// looks into no other. That of a device and of an adopted veth is the daemon's.
type Place struct {
	Port string `json:"port,omitempty"` // empty = the daemon's own
}

// WatchRequest asks for a socket that hears the interfaces of a place, and
// passes nothing until its reader attaches a filter; see package watch.
type WatchRequest struct {
	Place
	Ifname string `json:"ifname,omitempty"` // empty = every interface
}

// RawRequest asks for a socket that sends whole IP packets from a place.
type RawRequest struct {
	Place
	IPv6 bool `json:"ipv6,omitempty"`
}

// InterfacesRequest asks for the interfaces of a place.
type InterfacesRequest struct {
	Place
	After int `json:"after,omitempty"` // those with a greater index
}

// Interface is one interface of a namespace as it was when it was looked at.
type Interface struct {
	Index     int            `json:"index"`
	Name      string         `json:"name"`
	Kind      string         `json:"kind"` // the kernel's word: tuntap, veth, bridge, device, …
	MAC       frame.MAC      `json:"mac"`  // zero = it has none
	MTU       int            `json:"mtu"`
	Up        bool           `json:"up"`
	Carrier   bool           `json:"carrier"`
	Loop      bool           `json:"loop,omitempty"`
	Master    int            `json:"master,omitempty"`    // index of the bridge or bond that it belongs to
	Port      string         `json:"port,omitempty"`      // the port of this switch whose mark it bears
	Addresses []netip.Prefix `json:"addresses,omitempty"` // at most maxAddresses of them
	Gateways  []netip.Addr   `json:"gateways,omitempty"`  // outside the daemon's own namespace: of default routes, at most maxAddresses
	Redirect  int            `json:"redirect,omitempty"`  // in the daemon's own namespace: index of the interface that our tc filter takes its frames to
}

func (p *Place) validate(what string) error {
	if p.Port != "" && !nameOK(p.Port) {
		return invalid("%s: port name %.80q: want the pattern %s", what, p.Port, namePattern)
	}
	return nil
}

func (r *WatchRequest) validate() error {
	if r.Ifname != "" && !ifnameOK(r.Ifname) {
		return invalid("watch: interface name %.80q: want 1 to 15 printable characters without / : %% or quotes", r.Ifname)
	}
	return r.Place.validate("watch")
}

// inside runs do on a thread in the namespace of p.
func (k *keeper) inside(p Place, do func() error) error {
	if p.Port == "" {
		return k.dev.Inside(nil, do)
	}
	h := k.held[p.Port]
	if h == nil {
		return &Error{Code: CodeNotFound, Msg: fmt.Sprintf("port %s isn't open", p.Port)}
	}
	return k.dev.Inside(h, do)
}

// pass opens a descriptor in the namespace of p for the worker alone.
func (k *keeper) pass(p Place, open func() (int, error)) (reply, []int, error) {
	fd := -1
	err := k.inside(p, func() (err error) {
		fd, err = open()
		return err
	})
	if err != nil {
		return reply{}, nil, err
	}
	k.passing = append(k.passing, fd)
	return reply{}, []int{fd}, nil
}

func (k *keeper) watch(r *WatchRequest) (reply, []int, error) {
	if r == nil {
		return reply{}, nil, invalid("watch: no place given")
	}
	if err := r.validate(); err != nil {
		return reply{}, nil, err
	}
	return k.pass(r.Place, func() (int, error) { return watch.Open(r.Ifname) })
}

func (k *keeper) openRaw(r *RawRequest) (reply, []int, error) {
	if r == nil {
		return reply{}, nil, invalid("raw: no place given")
	}
	if err := r.validate("raw"); err != nil {
		return reply{}, nil, err
	}
	return k.pass(r.Place, func() (int, error) { return watch.OpenRaw(r.IPv6) })
}

func (k *keeper) interfaces(r *InterfacesRequest) (reply, []int, error) {
	if r == nil {
		return reply{}, nil, invalid("interfaces: no place given")
	}
	if err := r.validate("interfaces"); err != nil {
		return reply{}, nil, err
	}
	var rep reply
	err := k.inside(r.Place, func() (err error) {
		rep.Interfaces, rep.More, err = interfacesOf(r.After, k.opts.Instance, r.Port == "")
		return err
	})
	return rep, nil, err
}

// interfacesOf lists interfaces of the calling thread's namespace by index, as
// many as one message takes, and whether there are more. With own it looks for our
// tc filters, too.
func interfacesOf(after int, instance string, own bool) (page []Interface, more bool, err error) {
	c, err := link.Open(nil)
	if err != nil {
		return nil, false, err
	}
	defer c.Close()
	links, err := c.List()
	if err != nil {
		return nil, false, err
	}
	addresses, err := c.AllAddresses()
	if err != nil {
		return nil, false, err
	}
	var gateways map[int][]netip.Addr
	if !own { // whose routes may be many
		if gateways, err = c.Gateways(); err != nil {
			return nil, false, err
		}
	}
	slices.SortFunc(links, func(a, b link.Link) int { return a.Index - b.Index })
	room := maxMessage - maxText
	for _, l := range links {
		if l.Index <= after {
			continue
		}
		i := describe(l, instance, addresses[l.Index])
		i.Gateways = gateways[l.Index][:min(len(gateways[l.Index]), maxAddresses)]
		if own && (l.Kind == "veth" || l.Kind == "tuntap") {
			if i.Redirect, err = c.SplicedTo(l.Index); err != nil {
				return nil, false, err
			}
		}
		b, err := json.Marshal(i)
		if err != nil {
			return nil, false, fmt.Errorf("list interface %d: %w", l.Index, err)
		}
		if room -= len(b) + 1; room < 0 {
			return page, true, nil
		}
		page = append(page, i)
	}
	return page, false, nil
}

func describe(l link.Link, instance string, addresses []netip.Prefix) Interface {
	i := Interface{
		Index: l.Index, Name: l.Name, Kind: l.Kind, MAC: l.MAC, MTU: l.MTU, Up: l.Up, Carrier: l.Alive, Loop: l.Loop, Master: l.Master,
		Addresses: addresses[:min(len(addresses), maxAddresses)],
	}
	if l.Owner.Instance == instance && nameOK(l.Owner.Port) {
		i.Port = l.Owner.Port
	}
	return i
}

// Watch returns a socket that hears interface ifname of a place, or with an
// empty name all of them, and the interfaces of that place by index. Nothing
// waits in the socket, which is the caller's, before watch.New has taken it over. The code of a refusal is CodeNotFound when the port,
// its namespace or the interface isn't there.
func (c *Client) Watch(r WatchRequest) (fd int, all []Interface, err error) {
	a, err := c.call(request{Op: opWatch, Watch: &r}, 1)
	if err != nil {
		return -1, nil, err
	}
	if all, err = c.Interfaces(r.Place); err != nil {
		closeAll(a.fds)
		return -1, nil, err
	}
	return a.fds[0], all, nil
}

// Interfaces returns the interfaces of a place by index.
func (c *Client) Interfaces(p Place) ([]Interface, error) {
	var all []Interface
	for after := 0; ; {
		a, err := c.call(request{Op: opInterfaces, Interfaces: &InterfacesRequest{Place: p, After: after}}, 0)
		if err != nil {
			return nil, err
		}
		all = append(all, a.Interfaces...)
		if !a.More || len(a.Interfaces) == 0 {
			return all, nil
		}
		after = all[len(all)-1].Index
	}
}

// OpenRaw returns a non-blocking socket that sends whole IP packets from a
// place, for a probe; see watch.OpenRaw. It belongs to the caller.
func (c *Client) OpenRaw(r RawRequest) (fd int, err error) {
	a, err := c.call(request{Op: opRaw, Raw: &r}, 1)
	if err != nil {
		return -1, err
	}
	return a.fds[0], nil
}
