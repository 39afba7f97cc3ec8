package join

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tapestry-net/tapestry/internal/pki"
)

// Live is a token whose listener is open.
type Live struct {
	ID        string           `json:"id"`
	Host      string           `json:"host,omitempty"` // empty = anybody
	Expires   time.Time        `json:"expires"`
	Addresses []netip.AddrPort `json:"addresses"`
	PID       int              `json:"pid"` // of the listening process
}

func fileOf(id string) string { return "token-" + id + ".json" }

// enter puts a token into the CA's folder, locked, and removes those whose
// process has ended without doing so. Closing the lock makes the token a dead one.
func enter(f *pki.Folder, t Token) (io.Closer, error) {
	all, err := f.Lock("lock")
	if err != nil {
		return nil, err
	}
	defer all.Close()
	names, err := f.Names()
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if idOf(n) != "" && !f.Held(n) {
			_ = f.Remove(n) // if it stays, it is still nobody's
		}
	}
	b, err := json.Marshal(Live{t.ID(), t.Host, t.Expires, t.Addresses, os.Getpid()})
	if err != nil {
		return nil, fmt.Errorf("enter token: %w", err)
	}
	name := fileOf(t.ID())
	if err := f.Create(name, append(b, '\n')); err != nil {
		return nil, fmt.Errorf("enter token: %w", err)
	}
	l, err := f.Lock(name)
	if err != nil {
		return nil, errors.Join(err, f.Remove(name))
	}
	return l, nil
}

// idOf is the ID of the token whose file name is, or empty.
func idOf(name string) string {
	id, ok := strings.CutPrefix(name, "token-")
	id, json := strings.CutSuffix(id, ".json")
	if !ok || !json || len(id) != 8 || strings.Trim(id, "0123456789abcdef") != "" {
		return ""
	}
	return id
}

// Tokens lists the tokens of a CA that live, by ID.
func Tokens(ca *pki.CA) ([]Live, error) {
	f := ca.Folder()
	names, err := f.Names()
	if err != nil {
		return nil, err
	}
	list := []Live{}
	for _, n := range names {
		if idOf(n) == "" || !f.Held(n) {
			continue
		}
		var t Live
		b, err := f.Read(n)
		if errors.Is(err, pki.ErrNotFound) {
			continue // it has just ended
		}
		if err == nil {
			err = json.Unmarshal(b, &t)
		}
		if err != nil {
			return nil, fmt.Errorf("read token: %w", err)
		}
		list = append(list, t)
	}
	return list, nil
}

// Remove ends a token's life; its listener notices at once when somebody tries
// to use it, and otherwise soon. One that doesn't live is pki.ErrNotFound.
func Remove(ca *pki.CA, id string) error {
	if f := ca.Folder(); idOf(fileOf(id)) == "" || !f.Held(fileOf(id)) {
		return fmt.Errorf("token %q %w", id, pki.ErrNotFound)
	}
	return ca.Folder().Remove(fileOf(id))
}

// reachable lists where others can connect to a listener: its own address, or if
// that is unspecified this host's global ones, that of the default route first.
func reachable(at netip.AddrPort) ([]netip.AddrPort, error) {
	if !at.Addr().IsUnspecified() {
		return []netip.AddrPort{at}, nil
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list own addresses: %w", err)
	}
	var own []netip.AddrPort
	for _, a := range list {
		n, ok := a.(*net.IPNet)
		if !ok || !n.IP.IsGlobalUnicast() {
			continue
		}
		ip, _ := netip.AddrFromSlice(n.IP)
		if ip = ip.Unmap(); at.Addr().Is4() && !ip.Is4() {
			continue
		}
		own = append(own, netip.AddrPortFrom(ip, at.Port()))
	}
	first := preferred()
	slices.SortStableFunc(own, func(a, b netip.AddrPort) int { return rank(a, first) - rank(b, first) })
	own = own[:min(len(own), maxAddresses)]
	if len(own) == 0 {
		return nil, fmt.Errorf("own address: this host has none that others can reach")
	}
	return own, nil
}

func rank(a netip.AddrPort, first netip.Addr) int {
	switch {
	case a.Addr() == first:
		return 0
	case a.Addr().Is4():
		return 1
	}
	return 2
}

// preferred is the address from which this host speaks to the world, if it does.
// Connecting a UDP socket sends nothing.
func preferred() netip.Addr {
	c, err := net.Dial("udp4", "192.0.2.1:9") // of TEST-NET-1, RFC 5737
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close()
	return addrPort(c.LocalAddr()).Addr()
}

// addrPort is a TCP or UDP address without a zone, IPv4 as such.
func addrPort(a net.Addr) netip.AddrPort {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
