package tap

import (
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/netns"
)

// VethRequest describes a container's veth whose host end is spliced to a TAP
// of the switch. The host end and the TAP are in the calling thread's namespace.
type VethRequest struct {
	Name     string        // of the container's end; empty with Adopt
	Adopt    string        // a host end that somebody else made, to take over
	Owner    link.Owner    //
	Settings link.Settings // of the container's end; with Adopt only MTU counts
	NoGSO    bool
}

// Veth is an open veth port.
type Veth struct {
	Device            // the TAP; its Link is in the daemon's namespace
	Peer    link.Link // the container's end; zero when adopted
	HostEnd link.Link
}

// HostNames are the names of the two interfaces that a veth port of owner o has
// in the daemon's namespace. They depend on o alone, so that a later process
// finds them.
func HostNames(o link.Owner) (hostEnd, splice string) {
	id := nameID(o)
	return "tpv" + id, "tps" + id
}

// nameID is what makes interface names of owner o its own: ten octets, since a
// name has at most fifteen.
func nameID(o link.Owner) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(o.String()))
	return fmt.Sprintf("%010x", h.Sum64()&0xff_ffff_ffff)
}

// OpenVeth makes the pair and the TAP and splices them, or finds them again.
// Errors are as for Open.
func OpenVeth(ns *netns.Handle, r VethRequest) (*Veth, error) {
	v, err := openVeth(ns, r)
	if err != nil {
		return nil, fmt.Errorf("open veth %s%s: %w", r.Name, r.Adopt, err)
	}
	return v, nil
}

func openVeth(ns *netns.Handle, r VethRequest) (*Veth, error) {
	c, err := link.Open(nil)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	v := &Veth{}
	made := false
	if r.Adopt != "" {
		v.HostEnd, err = adopt(c, r)
	} else {
		made, err = v.pair(c, ns, r)
	}
	if err != nil {
		return nil, err
	}
	if err = v.splice(c, r); err == nil && r.Adopt == "" {
		if err = v.configure(ns, r); err == nil && r.Settings.Up {
			err = c.AwaitCarrier(v.HostEnd.Index)
		}
	}
	if err != nil && made {
		_ = c.Delete(v.HostEnd.Name, r.Owner)
	}
	if err != nil {
		return nil, err
	}
	return v, nil
}

// adopt finds a host end that somebody else made. It gets no mark: only our
// filter on it is ours.
func adopt(c *link.Conn, r VethRequest) (link.Link, error) {
	l, err := c.ByName(r.Adopt)
	if err != nil {
		return l, err
	}
	if l.Kind != "veth" || !l.Owner.IsZero() {
		return l, fmt.Errorf("%w: %s; adopt takes the host end of a veth that nobody else uses", link.ErrConflict, l.Describe())
	}
	return l, nil
}

// pair finds the owner's pair or makes it.
func (v *Veth) pair(c *link.Conn, ns *netns.Handle, r VethRequest) (made bool, err error) {
	if ns == nil {
		return false, errors.New("a veth needs the container's namespace")
	}
	host, _ := HostNames(r.Owner)
	pc, err := link.Open(ns)
	if err != nil {
		return false, err
	}
	defer pc.Close()
	h, err := c.ByName(host)
	switch {
	case err == nil && h.Owner != r.Owner:
		return false, fmt.Errorf("%w: %s", link.ErrConflict, h.Describe())
	case err == nil:
		p, err := pc.ByName(r.Name)
		if err == nil && p.Owner == r.Owner {
			v.HostEnd, v.Peer, v.Reattached = h, p, true
			return false, nil
		}
		// The pair leads to another namespace or name than it shall.
		if err := c.Delete(host, r.Owner); err != nil {
			return false, err
		}
	case !errors.Is(err, link.ErrNotFound):
		return false, err
	}
	v.HostEnd, v.Peer, err = c.AddVeth(link.Veth{
		Host: host, Peer: r.Name, PeerNS: ns,
		MAC: r.Settings.MAC, MTU: r.Settings.MTU, Owner: r.Owner,
	})
	return err == nil, err
}

// splice opens the TAP and joins the host end to it.
func (v *Veth) splice(c *link.Conn, r VethRequest) error {
	_, name := HostNames(r.Owner)
	mtu := r.Settings.MTU
	if mtu == 0 {
		mtu = v.HostEnd.MTU
	}
	d, err := open(nil, Request{
		Name: name, Owner: r.Owner, NoGSO: r.NoGSO,
		Settings: link.Settings{MTU: mtu, Up: true},
	}, true)
	if err != nil {
		return err
	}
	if r.Adopt == "" {
		if err = c.Silence(v.HostEnd); err == nil {
			err = c.Configure(v.HostEnd.Index, link.Settings{MTU: mtu, Up: true})
		}
	}
	if err == nil {
		err = c.Splice(v.HostEnd, d.Link)
	}
	if err != nil {
		_ = d.Close()
		if !d.Reattached {
			_ = c.Delete(name, r.Owner)
		}
		return err
	}
	d.Reattached = d.Reattached && (v.Reattached || r.Adopt != "")
	v.Device = *d
	return nil
}

func (v *Veth) configure(ns *netns.Handle, r VethRequest) error {
	pc, err := link.Open(ns)
	if err == nil {
		err = pc.Configure(v.Peer.Index, r.Settings)
		pc.Close()
	}
	if err != nil {
		_ = v.Close()
		return err
	}
	return nil
}

// RemoveVeth takes a veth port away: the TAP, and the pair or, of an adopted
// host end, our filter alone. What is gone already is no error.
func RemoveVeth(o link.Owner, adopted string) error {
	c, err := link.Open(nil)
	if err != nil {
		return fmt.Errorf("remove veth: %w", err)
	}
	defer c.Close()
	host, splice := HostNames(o)
	errs := []error{c.Delete(splice, o)}
	if adopted == "" {
		errs = append(errs, c.Delete(host, o))
	} else if l, err := c.ByName(adopted); err == nil {
		errs = append(errs, c.Unsplice(l.Index))
	}
	return errors.Join(errs...)
}
