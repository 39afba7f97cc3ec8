package dtls

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

// This file is how the keys of links come from one process to the next. Numbers are
// big-endian; a text has its length, 4 octets, before it.
//
//	magic, version   8      associations, newest first of each link, up to the end:
//	host             text   peer, address, remote   texts
//	digest           32     suite 2, flags 1, generation 8, made, last, until 8 each
//	                        certificates, their number 2, texts
//	                        what record.Hand appends

const handMagic = "tpsykey\x01" // the last octet is the version

// Flags of an association that is handed over.
const (
	handedClient  = 1 << iota
	handedFresh   // the peer is known to have these keys
	handedSealing // it is what the link seals with
)

// renewTaken is how long keys that were handed over are used until new ones are asked
// for: they are to be gone soon, but a handshake that another upgrade, or a crash,
// breaks off at once may keep the next one waiting. The host with the higher name
// waits twice as long.
const renewTaken = 2 * time.Second

// stale reports whether a was taken so long ago that it is to be renewed.
func (l *Link) stale(a *association, now time.Time) bool {
	wait := renewTaken
	if l.e.o.Host > l.name {
		wait *= 2
	}
	return !a.taken.IsZero() && now.Sub(a.taken) >= wait
}

// handed is one association that was handed over.
type handed struct {
	peer    string
	address netip.AddrPort // of the peer, as configured then
	sealing bool
	*association
}

// Hand ends all links without a word to the peers, which keep their keys, and
// returns those of this end for Options.Handed of the next process's Endpoint, nil
// if there are none. Nothing is sealed or opened with them here any more, whichever
// goroutine comes late. The Endpoint is closed then. What is returned is secret,
// and good for one Endpoint.
func (e *Endpoint) Hand() []byte {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	var b []byte
	now := time.Now()
	for _, l := range e.links {
		l.abort()
		for _, a := range l.associations() {
			b = l.hand(b, a, now)
		}
	}
	if len(b) > 0 {
		b = append(e.cred.handHeader(e.o.Host), b...)
	}
	e.mu.Unlock()
	e.cancel()
	e.workers.Wait()
	return b
}

// handHeader is what stands before the associations.
func (c *Credentials) handHeader(host string) []byte {
	b := putText([]byte(handMagic), host)
	d := c.digest()
	return append(b, d[:]...)
}

// digest tells shared keys apart, and tells nothing about them. Certificates have
// none: what the peers have shown is verified anew.
func (c *Credentials) digest() (d [sha256.Size]byte) {
	if c.key != nil {
		m := hmac.New(sha256.New, c.key)
		m.Write([]byte(handMagic))
		m.Sum(d[:0])
	}
	return d
}

// hand retires a, and appends it to b unless it has come to its end.
func (l *Link) hand(b []byte, a *association, now time.Time) []byte {
	if a.ended.Load() || a.spent.Load() || a.seal.Left() == 0 {
		a.seal.Retire()
		return b
	}
	b = putText(b, l.name)
	for _, at := range []netip.AddrPort{l.address, a.remote} {
		b = putText(b, at.String())
	}
	if a.heard.Load() {
		a.last = now
	}
	b = binary.BigEndian.AppendUint16(b, uint16(a.suite))
	b = append(b, flag(handedClient, a.client)|flag(handedFresh, a.fresh.Load())|flag(handedSealing, l.sealing.Load() == a))
	b = binary.BigEndian.AppendUint64(b, a.generation)
	for _, t := range []time.Time{a.made, a.last, a.until} {
		b = putTime(b, t)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(a.certificates)))
	for _, c := range a.certificates {
		b = putText(b, string(c))
	}
	return record.Hand(b, a.seal, a.open)
}

// resume gives the links, which are new, what a former process has handed over, as
// far as the peers and credentials of now allow. Endpoint.mu is held.
func (e *Endpoint) resume(b []byte, now time.Time) {
	header := e.cred.handHeader(e.o.Host)
	if len(b) < len(header) || !hmac.Equal(b[:len(header)], header) {
		return
	}
	list, err := parseHanded(b[len(header):], now)
	if err != nil {
		return
	}
	for _, h := range list {
		if l := e.links[h.peer]; l != nil && l.accepts(&h, now) {
			l.resume(&h, now)
		}
	}
}

// forgetHanded lets nothing be taken a second time. Endpoint.mu is held.
func (e *Endpoint) forgetHanded() {
	clear(e.o.Handed)
	e.o.Handed = nil
}

// accepts reports whether the link may go on with h. What it may not is made anew
// by a handshake.
func (l *Link) accepts(h *handed, now time.Time) bool {
	o, c := &l.e.o, l.e.cred
	shared := h.suite == record.PSKWithAES128GCM
	switch age := now.Sub(h.made); {
	case h.address != l.address || h.remote.Addr() != l.address.Addr() || len(l.associations()) >= maxAssociations:
		return false
	case age < 0 || age >= o.keysEnd() || !h.until.IsZero() && now.After(h.until):
		return false
	case h.last.After(now) || now.Sub(h.last) >= 3*o.Keepalive: // the peer has given them up
		return false
	case h.seal.Left() == 0 || h.seal.Sealed()+h.seal.Left() > o.MaxRecords || shared != (c.key != nil):
		return false
	case shared:
		return true
	}
	var err error
	h.expires, err = c.verify(h.certificates, l.name, now)
	return err == nil
}

// resume makes l go on with h.
func (l *Link) resume(h *handed, now time.Time) {
	a := h.association
	a.cred, a.taken, a.begun = l.e.cred, now, a.made
	l.setOpening(append(slices.Clip(l.associations()), a))
	l.counted.handshakes = max(l.counted.handshakes, a.generation)
	if a.made.After(l.counted.lastHandshake) {
		l.counted.lastHandshake = a.made
	}
	if h.sealing {
		l.remote, l.counted.generation = a.remote, a.generation
		l.sealing.Store(a)
	}
}

var errHanded = errors.New("not what was handed over")

// parseHanded reads the associations behind the header: all or none of them. It
// comes from a process of ours, and is read as if it came from anybody.
func parseHanded(b []byte, now time.Time) (list []handed, err error) {
	r := &handReader{b: b, now: now}
	for len(r.b) > 0 {
		h := handed{peer: string(r.text()), association: &association{}}
		h.address, h.remote = r.address(), r.address()
		head := r.take(2 + 1 + 8)
		if r.bad {
			return nil, errHanded
		}
		h.suite, h.generation = record.Suite(binary.BigEndian.Uint16(head)), binary.BigEndian.Uint64(head[3:])
		h.client, h.sealing = head[2]&handedClient != 0, head[2]&handedSealing != 0
		h.fresh.Store(head[2]&handedFresh != 0)
		h.made, h.last, h.until = r.time(), r.time(), r.time()
		for range binary.BigEndian.Uint16(r.take(2)) {
			if h.certificates = append(h.certificates, bytes.Clone(r.text())); r.bad {
				break
			}
		}
		if r.bad {
			return nil, errHanded
		}
		if h.seal, h.open, r.b, err = record.Take(h.suite, r.b); err != nil {
			return nil, err
		}
		list = append(list, h)
	}
	return list, nil
}

// handReader reads from the beginning of b. When b is too short, or wrong, it
// becomes bad, and all that is read is zeros.
type handReader struct {
	b   []byte
	now time.Time
	bad bool
}

var handZeros [2 + 1 + 8]byte

// take takes n octets; no more than handZeros has, or than b.
func (r *handReader) take(n int) []byte {
	if r.bad || len(r.b) < n {
		r.bad = true
		return handZeros[:min(n, len(handZeros))]
	}
	taken := r.b[:n]
	r.b = r.b[n:]
	return taken
}

func (r *handReader) text() []byte {
	n := binary.BigEndian.Uint32(r.take(4))
	if uint64(n) > uint64(len(r.b)) {
		r.bad = true
	}
	if r.bad {
		return nil
	}
	return r.take(int(n))
}

func (r *handReader) address() netip.AddrPort {
	a, err := netip.ParseAddrPort(string(r.text()))
	r.bad = r.bad || err != nil
	return a
}

// time is a time of the wall clock, as this process's clock counts it from now on.
func (r *handReader) time() time.Time {
	n := int64(binary.BigEndian.Uint64(r.take(8)))
	if n == 0 {
		return time.Time{}
	}
	return r.now.Add(time.Unix(0, n).Sub(r.now.Round(0)))
}

func flag(bit byte, set bool) byte {
	if !set {
		return 0
	}
	return bit
}

func putTime(b []byte, t time.Time) []byte {
	n := int64(0)
	if !t.IsZero() {
		n = t.UnixNano()
	}
	return binary.BigEndian.AppendUint64(b, uint64(n))
}

func putText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}
