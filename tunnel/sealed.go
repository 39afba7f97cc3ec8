package tunnel

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/udpio"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel/dtls"
	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

// Encryption is what a tunnel needs for encrypted links, fixed for its life.
type Encryption struct {
	// Socket is what udpio.OpenBoth returned, and becomes the tunnel's.
	Socket int
	// Host is this host's name, as peers know it.
	Host string
	// Events is told what happened to links, by a goroutine of the tunnel. It
	// must not call Apply or Close. nil for none.
	Events func(dtls.Event)
	// Handed is what Hand of another process's tunnel has returned; the first Apply
	// clears it. nil for nothing.
	Handed []byte
}

// secure is the encrypted side of a tunnel.
type secure struct {
	endpoint *dtls.Endpoint
	sock     *udpio.Socket // rx closes it
	rx       *receiver
	listen   netip.AddrPort
}

// outlet is a Sender, and what seals for it.
type outlet struct {
	*udpio.Sender
	writer record.Writer
	holder *Peer // whose numbers writer has, for the rest of the batch
}

func newOutlet() *outlet { return &outlet{Sender: udpio.NewSender()} }

// ListenDTLS is where encrypted links are bound; invalid without them.
func (t *Tunnel) ListenDTLS() netip.AddrPort {
	if t.secure == nil {
		return netip.AddrPort{}
	}
	return t.secure.listen
}

// Encrypts reports whether the network with that VNI is an encrypted one.
func (t *Tunnel) Encrypts(vni vxlan.VNI) bool {
	n := t.view.Load().network(vni)
	return n != nil && n.Encrypt
}

// secureWith makes the encrypted side.
func (t *Tunnel) secureWith(o *Encryption) (*secure, error) {
	sock, err := udpio.NewSocket(o.Socket)
	if err != nil {
		return nil, err
	}
	rx, err := newReceiver(t, o.Socket)
	if err != nil {
		return nil, err
	}
	rx.opening = &opening{}
	s := &secure{sock: sock, rx: rx, listen: rx.udp.Addr()}
	rx.listen = s.listen
	s.endpoint, err = dtls.New(dtls.Options{
		Host: o.Host, Send: s.send, Events: func(e dtls.Event) { t.onLink(o, e) },
		Handed: o.Handed,
	})
	return s, err
}

// send sends a datagram of the endpoint's own. What the kernel refuses is as good
// as lost on the way.
func (s *secure) send(to netip.AddrPort, b []byte) error {
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	if to.Addr().Is4() {
		sa = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	return unix.Sendto(s.sock.FD(), b, unix.MSG_DONTWAIT, sa)
}

// onLink follows a peer to where it was last found to be, and tells.
func (t *Tunnel) onLink(o *Encryption, e dtls.Event) {
	for _, c := range t.view.Load().list {
		if c.peer.name == e.Peer && c.link != nil {
			c.peer.aim(e.Address)
		}
	}
	if o.Events != nil {
		o.Events(e)
	}
}

// aim makes sealed frames go to address to.
func (p *Peer) aim(to netip.AddrPort) {
	if was := p.sealedTo.Load(); was == nil || was.Addr() != to {
		p.sealedTo.Store(udpio.NewDest(to))
	}
}

// linkAll gives the endpoint those peers of v that carry an encrypted network, and
// them their links.
func (t *Tunnel) linkAll(v *view, s *Spec) error {
	if t.secure == nil {
		return nil
	}
	var peers []dtls.Peer
	for i, c := range v.list {
		if !c.encrypts {
			continue
		}
		to := s.Peers[i].DTLS
		if listen := t.secure.listen.Addr(); to.Addr().Is6() != listen.Is6() && !listen.IsUnspecified() || to.Addr().Is6() && listen.Is4() {
			return fmt.Errorf("peer %q: address %v: encrypted links listen on %v, which is of the other family", c.peer.name, to, t.secure.listen)
		}
		peers = append(peers, dtls.Peer{Name: c.peer.name, Address: to})
	}
	if err := t.secure.endpoint.Apply(s.Credentials, peers); err != nil {
		return err
	}
	t.secure.endpoint.RekeyAt(s.RekeyRecords, s.RekeyAfter)
	for _, c := range v.list {
		if c.encrypts {
			c.link = t.secure.endpoint.Link(c.peer.name)
		}
	}
	return nil
}

// linked reports whether frames can leave sealed.
//
// Hot path: no allocation.
func (p *Peer) linked() bool {
	l := p.link.Load()
	return l != nil && l.Sealing()
}

// sealFrame gathers frame f with tag i as one record, or says why not. n is how
// many frames to the same peer are left, f included.
//
// Hot path: no allocation.
func (p *Peer) sealFrame(s *outlet, f *frame.Frame, c *parcel, i, n int) frame.Reason {
	l, to := p.link.Load(), p.sealedTo.Load()
	if l == nil || to == nil {
		return frame.NotEncryptedYet
	}
	if s.holder != p {
		if !l.Reserve(&s.writer, n) {
			return frame.NotEncryptedYet
		}
		if n > 1 {
			s.holder = p
		}
	}
	_, tos := flow(f.Data, f.Data[c.after:])
	inner := c.packet + frame.HeaderLen
	b := s.Begin(p.t.secure.sock, to, tos, record.Overhead+vxlan.HeaderLen+inner)
	vxlan.Put(b[record.Headroom:], c.net.VNI)
	at := record.Headroom + vxlan.HeaderLen
	at += copy(b[at:], f.Data[:12])
	at += copy(b[at:], f.Data[c.after:])
	for _, part := range f.Frags {
		at += copy(b[at:], part)
	}
	if !s.writer.Seal(record.ApplicationData, b) {
		s.Abandon()
		return frame.NotEncryptedYet
	}
	s.End(i)
	return frame.ReasonNone
}

// sealMessage gathers m, with a text if there is one, padded to size octets, as
// one record.
func (t *Tunnel) sealMessage(p *Peer, m *message, text []byte, size, tag int) syscall.Errno {
	l, to := p.link.Load(), p.sealedTo.Load()
	if size > record.MaxPlaintext {
		return unix.EMSGSIZE
	}
	if l == nil || to == nil || !l.Reserve(&t.own.writer, 1) {
		return unix.ENETDOWN
	}
	b := t.own.Begin(t.secure.sock, to, tosControl, record.Overhead+size)
	clear(b[record.Headroom:])
	m.put(b[record.Headroom:])
	if text != nil {
		binary.BigEndian.PutUint16(b[record.Headroom+messageLen:], uint16(len(text)))
		copy(b[record.Headroom+talkHeadLen:], text)
	}
	if !t.own.writer.Seal(record.ApplicationData, b) {
		t.own.Abandon()
		return unix.ENETDOWN
	}
	t.own.End(tag)
	return 0
}

// opening is what a receiver of records needs besides.
type opening struct {
	reader record.Reader
	plain  []byte // opened, and without room in the last batch
	start  int    // of the plaintext opened last, in the run
	done   int    // octets of the datagram under way that are dealt with
}

// takeSealed is take for the socket of encrypted links. A datagram may hold
// several records, and some are the link's own.
//
// Hot path: no allocation.
func (r *receiver) takeSealed(v *view, b *frame.Batch, d *udpio.Datagram) bool {
	o, c := r.opening, v.carrier(d.From.Addr())
	for n := d.Segments(); r.next < n; r.next++ {
		datagram := d.Segment(r.next)
		for o.plain != nil || o.done == 0 || o.done < len(datagram) {
			plain := o.plain
			if plain == nil {
				plain = r.openNext(v, c, d, datagram)
			}
			if o.plain = nil; plain == nil || r.join(c, d.TOS, plain) {
				if o.done == 0 {
					break // an empty datagram
				}
				continue
			}
			r.seal(b)
			if len(b.Frames) == cap(b.Frames) {
				o.plain = plain
				return false
			}
			r.place(v, c, b, d, plain, o.start)
		}
		o.done = 0
	}
	return true
}

// openNext opens the next record of datagram, a part of d that c has sent, and
// returns the plaintext when it is the peer's.
//
// Hot path: no allocation.
func (r *receiver) openNext(v *view, c *carrier, d *udpio.Datagram, datagram []byte) []byte {
	o := r.opening
	sealed := datagram[o.done:]
	switch {
	case c == nil:
		o.done = len(datagram)
		r.refuseUnopened(v, c, d, sealed, frame.UnknownPeer)
		return nil
	case c.link == nil:
		o.done = len(datagram)
		r.refuseUnopened(v, c, d, sealed, frame.BadRecord)
		return nil
	}
	o.start = r.next*d.Size + o.done + record.Headroom
	plain, rest, verdict := c.link.Open(&o.reader, d.From, sealed)
	o.done = len(datagram) - len(rest)
	switch verdict {
	case dtls.Delivered:
		return plain
	case dtls.BadRecord:
		r.refuseUnopened(v, c, d, sealed[:len(sealed)-len(rest)], frame.BadRecord)
	case dtls.Replayed:
		r.refuse(c, d, sealed[:len(sealed)-len(rest)], 0, frame.Replayed)
	}
	return nil
}

// refuseUnopened refuses b, which is no record of c's, for that reason or as what it
// is besides: a frame of an encrypted network in clear.
//
// Hot path: no allocation while nobody looks.
func (r *receiver) refuseUnopened(v *view, c *carrier, d *udpio.Datagram, b []byte, why frame.Reason) {
	vid := frame.VID(0)
	if n := v.exposed(b); n != nil {
		vid, why = n.VID, frame.PlaintextRefused
	}
	r.refuse(c, d, b, vid, why)
}

// KeyLog makes the secrets of all links be written to w, which must not block; nil
// ends it. The links get new keys, since who hasn't seen a handshake can't use
// its secrets. See dtls.Endpoint.SetKeyLog.
func (t *Tunnel) KeyLog(w io.Writer) {
	if t.secure == nil {
		return
	}
	t.secure.endpoint.SetKeyLog(w)
	if w != nil {
		t.secure.endpoint.Renew()
	}
}

// Hand ends all encrypted links without a word to the peers, and returns what
// another process needs to go on with them, nil without links. It is secret. The
// tunnel is to be closed then. See dtls.Endpoint.Hand.
func (t *Tunnel) Hand() []byte {
	if t.secure == nil {
		return nil
	}
	return t.secure.endpoint.Hand()
}
