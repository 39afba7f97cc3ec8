package join

import (
	"context"
	"crypto/hmac"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/internal/pki"
)

// Bounds of a listener.
const (
	patience  = 10 * time.Second // for one connection
	penalty   = time.Second      // until a wrong proof is answered
	maxLines  = 1000             // of log
	lookEvery = 250 * time.Millisecond
)

// How a token ends without having been used.
var (
	ErrExpired = errors.New("the token has expired")
	ErrRemoved = errors.New("the token was removed")
)

// Offer is what a token gives, and to whom.
type Offer struct {
	Host      string           // who may join; empty = anybody
	For       time.Duration    // how long the token lives
	Life      time.Duration    // of the certificate; 0 = pki.DefaultLife
	Renew     bool             // although the host has a certificate
	Listen    string           // TCP address; port 0 = any
	Addresses []netip.AddrPort // where others find it, port 0 = the listener's; none = what this host has
	File      *config.Config   // whose networks and peers the host is told; nil = none
	Log       *slog.Logger
}

// Joined is who has used a token.
type Joined struct {
	Host     string     `json:"host"`
	Address  netip.Addr `json:"address"`
	Serial   string     `json:"serial"`
	NotAfter time.Time  `json:"not_after"`
	Lost     bool       `json:"lost,omitempty"` // the host hasn't said that it has its certificate
}

// Listener serves one token.
type Listener struct {
	ca    *pki.CA
	offer Offer
	token Token
	tcp   net.Listener
	tls   *tls.Config
	entry io.Closer // the locked file

	penalty time.Duration // until a wrong proof is answered
	crowd   crowd

	mu    sync.Mutex
	used  bool
	lines int
}

// Listen makes a token and opens its listener. Serve closes it. ca stays the
// caller's.
func Listen(ca *pki.CA, o Offer) (*Listener, error) {
	if o.For <= 0 {
		return nil, fmt.Errorf("token's life of %v %w", o.For, pki.ErrInvalid)
	}
	if err := free(ca, o); err != nil {
		return nil, err
	}
	o.Addresses = slices.Clone(o.Addresses)
	l := &Listener{ca: ca, offer: o, penalty: penalty}
	var err error
	if l.tcp, err = net.Listen("tcp", o.Listen); err != nil {
		return nil, fmt.Errorf("open listener: %w", err)
	}
	if err := l.prepare(); err != nil {
		l.tcp.Close()
		return nil, err
	}
	return l, nil
}

// free refuses a token for a host that could not use it.
func free(ca *pki.CA, o Offer) error {
	if o.Host == "" {
		return nil
	}
	if err := pki.CheckHost(o.Host); err != nil {
		return err
	}
	hosts, _, err := ca.Hosts()
	if err != nil {
		return err
	}
	if _, taken := hosts[o.Host]; taken && !o.Renew {
		return fmt.Errorf("certificate of %s %w", o.Host, pki.ErrExists)
	}
	return nil
}

func (l *Listener) prepare() error {
	at := addrPort(l.tcp.Addr())
	for i, a := range l.offer.Addresses {
		if a.Port() == 0 {
			l.offer.Addresses[i] = netip.AddrPortFrom(a.Addr(), at.Port())
		}
	}
	if len(l.offer.Addresses) == 0 {
		var err error
		if l.offer.Addresses, err = reachable(at); err != nil {
			return err
		}
	}
	t := newToken(Token{Fingerprint: l.ca.Fingerprint(), Expires: time.Now().Add(l.offer.For), Host: l.offer.Host, Addresses: l.offer.Addresses})
	if err := t.check(len(t.Addresses)); err != nil {
		return fmt.Errorf("make token: %w: %w", pki.ErrInvalid, err)
	}
	der, key, err := l.ca.TransientCertificate(serverName, t.Expires.Add(patience))
	if err != nil {
		return err
	}
	l.token = t
	l.tls = &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der, l.ca.Certificate().Raw}, PrivateKey: key}},
	}
	l.entry, err = enter(l.ca.Folder(), t)
	return err
}

// Token is what is handed to the host.
func (l *Listener) Token() Token { return l.token }

// Serve waits until a host has joined, and then or when the token ends closes
// the listener. The error is ErrExpired, ErrRemoved or ctx's.
func (l *Listener) Serve(ctx context.Context) (Joined, error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	expiry := time.AfterFunc(time.Until(l.token.Expires), func() { end(ErrExpired) })
	defer expiry.Stop()
	var all sync.WaitGroup
	defer all.Wait()
	defer func() {
		l.tcp.Close()
		_ = l.ca.Folder().Remove(fileOf(l.token.ID())) // gone already if that was the reason
		l.entry.Close()
	}()
	joined := make(chan Joined, 1)
	all.Go(func() { l.accept(ctx, end, joined) })
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case j := <-joined:
			end(nil)
			return j, nil
		case <-look.C:
			if !l.ca.Folder().Has(fileOf(l.token.ID())) {
				end(ErrRemoved)
			}
		case <-ctx.Done():
			return l.last(ctx, joined)
		}
	}
}

// last is the end of a token whose time is over: a host that joined at the same
// moment has joined.
func (l *Listener) last(ctx context.Context, joined <-chan Joined) (Joined, error) {
	l.mu.Lock()
	used := l.used
	l.used = true
	l.mu.Unlock()
	if used {
		return <-joined, nil
	}
	return Joined{}, context.Cause(ctx)
}

// accept serves connections until the listener is closed.
func (l *Listener) accept(ctx context.Context, end context.CancelCauseFunc, joined chan<- Joined) {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		conn, err := l.tcp.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				end(fmt.Errorf("accept: %w", err))
			}
			return
		}
		g := l.crowd.enter(conn)
		if g == nil {
			conn.Close()
			continue
		}
		all.Go(func() {
			defer l.crowd.leave(g)
			j, err := l.serve(ctx, g)
			switch {
			case j != nil:
				l.log(slog.LevelInfo, "host joined", "host", j.Host, "from", conn.RemoteAddr(), "confirmed", !j.Lost)
				joined <- *j
			case err != nil:
				l.log(slog.LevelWarn, "join refused", "from", conn.RemoteAddr(), "reason", err)
			}
		})
	}
}

// log writes one line. Of those that strangers cause there are only so many.
func (l *Listener) log(level slog.Level, msg string, args ...any) {
	l.mu.Lock()
	l.lines++
	quiet := l.lines > maxLines && level == slog.LevelWarn
	l.mu.Unlock()
	if !quiet {
		l.offer.Log.Log(context.Background(), level, msg, append(args, "token", l.token.ID())...)
	}
}

// serve speaks with one host. It returns who has joined, or why nobody has.
func (l *Listener) serve(ctx context.Context, g *guest) (*Joined, error) {
	conn := g.conn
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	c := tls.Server(conn, l.tls)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, g.why(fmt.Errorf("handshake: %w", err))
	}
	var q request
	if err := receive(c, maxRequest, &q); err != nil {
		return nil, g.why(errors.Join(err, send(c, reply{Refused: Invalid, Why: "the request can't be read"})))
	}
	if !l.crowd.keep(g, true) {
		return nil, errMadeRoom
	}
	answer, joined := l.answer(c.ConnectionState(), &q, addrPort(conn.RemoteAddr()).Addr(), addrPort(conn.LocalAddr()).Addr())
	if joined != nil {
		stop() // the end of the token doesn't cut off who has used it
	} else {
		l.crowd.keep(g, false)
	}
	if answer.wrong {
		l.hold(ctx, g)
	}
	err := send(c, answer)
	if joined == nil {
		return nil, &RefusedError{answer.Refused, answer.Why}
	}
	if err == nil {
		// The host says one octet when it has everything on disk. That it closes
		// its side would prove nothing: TLS takes the end of the stream for it.
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	joined.Lost = err != nil
	return joined, nil
}

// hold lets who said a wrong proof wait for the answer. It is no guess that could
// come right, of 128 bits: it costs a handshake, and there shall be fewer.
func (l *Listener) hold(ctx context.Context, g *guest) {
	t := time.NewTimer(l.penalty)
	defer t.Stop()
	select {
	case <-t.C:
	case <-g.gone:
	case <-ctx.Done():
	}
}

// answer judges a request. Nothing of it counts before its proof does.
func (l *Listener) answer(s tls.ConnectionState, q *request, from, to netip.Addr) (reply, *Joined) {
	no := func(r Refusal, format string, args ...any) (reply, *Joined) {
		return reply{Refused: r, Why: clip(fmt.Sprintf(format, args...), maxMessage)}, nil
	}
	want, err := proof(l.token, s)
	if err != nil {
		return no(Failed, "%v", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.used:
		return no(Denied, "the token has been used, or is over")
	case !hmac.Equal(q.Proof, want):
		return reply{Refused: Denied, Why: "the token's secret is wrong", wrong: true}, nil
	case !l.ca.Folder().Has(fileOf(l.token.ID())):
		return no(Denied, "%v", ErrRemoved)
	case time.Now().After(l.token.Expires):
		return no(Denied, "%v", ErrExpired)
	case l.token.Host != "" && q.Host != l.token.Host:
		return no(Denied, "the token is for host %s", l.token.Host)
	}
	key, err := q.check()
	if err != nil {
		return no(Invalid, "%v", err)
	}
	if !q.Address.IsValid() {
		q.Address = from
	}
	r := reply{Address: q.Address}
	if r.CA, r.CRL, err = l.ca.Files(); err != nil {
		return no(Failed, "%v", err)
	}
	if r.File, err = l.file(q.Host, to); err != nil {
		return no(Failed, "%v", err)
	}
	made, cert, err := l.ca.Sign(pki.Order{Host: q.Host, Life: l.offer.Life, Renew: l.offer.Renew && l.token.Host != "", Address: q.Address}, key)
	switch {
	case errors.Is(err, pki.ErrExists):
		return no(Taken, "%v", err)
	case err != nil:
		return no(Failed, "%v", err)
	}
	r.Cert, l.used = cert, true
	return r, &Joined{Host: made.Host, Address: q.Address, Serial: made.Serial, NotAfter: made.NotAfter}
}
