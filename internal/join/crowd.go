package join

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
)

// Bounds of what is open at once, in connections. A source is an IPv4 address, or
// an IPv6 network of 64 bits, which is one host's as a rule.
const (
	maxAtOnce    = 64
	maxPerSource = 8
)

// errMadeRoom is the end of a connection whose place another has taken.
var errMadeRoom = errors.New("it made room for another connection")

// crowd is the connections that are open. Who has proved nothing yet makes room
// for those that come, so that nobody can keep others out by waiting.
type crowd struct {
	mu     sync.Mutex
	guests []*guest // the oldest first
}

// guest is one connection.
type guest struct {
	conn   net.Conn
	source netip.Prefix
	gone   chan struct{} // closed when it has made room
	stays  bool          // its request is being answered; guarded by crowd's mu
}

// why is what a guest's connection failed for: not err if it has made room.
func (g *guest) why(err error) error {
	select {
	case <-g.gone:
		return errMadeRoom
	default:
		return err
	}
}

func sourceOf(a netip.Addr) netip.Prefix {
	bits := 32
	if a = a.Unmap(); a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // invalid for an invalid address only
	return p
}

// enter takes a connection in, and closes another one if need be: the source's
// oldest when that has its share, else the oldest of the source that has most. It
// returns nil when all stay.
func (c *crowd) enter(conn net.Conn) *guest {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := &guest{conn: conn, source: sourceOf(addrPort(conn.RemoteAddr()).Addr()), gone: make(chan struct{})}
	has := map[netip.Prefix]int{}
	for _, o := range c.guests {
		has[o.source]++
	}
	most := -1
	if has[g.source] >= maxPerSource {
		most = slices.IndexFunc(c.guests, func(o *guest) bool { return !o.stays && o.source == g.source })
	} else if len(c.guests) >= maxAtOnce {
		for i, o := range c.guests {
			if !o.stays && (most < 0 || has[o.source] > has[c.guests[most].source]) {
				most = i
			}
		}
	} else {
		c.guests = append(c.guests, g)
		return g
	}
	if most < 0 {
		return nil
	}
	close(c.guests[most].gone)
	c.guests[most].conn.Close()
	c.guests = append(slices.Delete(c.guests, most, most+1), g)
	return g
}

// keep says whether a guest must not, or may again, be sent away. It reports
// false when that has happened already.
func (c *crowd) keep(g *guest, stays bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	g.stays = stays
	return slices.Contains(c.guests, g)
}

// leave gives a guest's place back.
func (c *crowd) leave(g *guest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.guests = slices.DeleteFunc(c.guests, func(o *guest) bool { return o == g })
}
