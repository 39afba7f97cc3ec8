package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/tunnel"
	"github.com/tapestry-net/tapestry/tunnel/dtls"
	"github.com/tapestry-net/tapestry/tunnel/vxlan"
)

// credentialsChanged is the line of a change that stands in no configuration.
const credentialsChanged = "~ tunnel dtls: keys or certificates have changed"

// sameDTLS reports whether a and b name the same keys and certificates.
func sameDTLS(a, b *config.Config) bool {
	files := func(c *config.Config) *config.DTLS {
		if c == nil || c.Tunnel == nil {
			return nil
		}
		return c.Tunnel.DTLS
	}
	return reflect.DeepEqual(files(a), files(b))
}

// readFirst reads keys and certificates when a worker starts. With a saved state
// the switch starts without them if need be: nothing of an encrypted network
// leaves, and everything else goes on. The caller holds mu.
func (d *Daemon) readFirst(cfg *config.Config, saved bool) error {
	d.cred, d.credErr = readCredentials(cfg)
	if d.credErr == nil || !saved {
		return d.credErr
	}
	d.log.Error("no encrypted link can be made", "err", d.credErr)
	return nil
}

// openLinks opens what encrypted links need.
func (d *Daemon) openLinks(l *links) (*tunnel.Encryption, error) {
	fd, err := d.keeper.OpenUDP(keeper.UDPRequest{Listen: l.listen, DTLS: true, Early: d.starting})
	if err != nil {
		return nil, refusal("tunnel.dtls", err)
	}
	return &tunnel.Encryption{Socket: fd, Host: l.host, Events: d.onLink, Handed: d.handed}, nil
}

// applyHint says what would mend a tunnel's refusal, if that is known.
func applyHint(err error) string {
	if strings.Contains(err.Error(), "apply credentials") {
		return "`host:` in the file, the name in the certificate and the name by which the other hosts list this one are one and the same"
	}
	return ""
}

// toldLink is what was told of a link last.
type toldLink struct {
	up         bool
	generation uint64
	reason     dtls.Reason
	failed     time.Time
}

// onLink tells of links that come, get new keys, go, and can't be made: one line
// for each reason, however often it comes again. It must not take mu.
func (d *Daemon) onLink(e dtls.Event) {
	d.cutsMu.Lock()
	defer d.cutsMu.Unlock()
	old := d.links[e.Peer]
	now := toldLink{up: e.State.Encrypted(), generation: e.Generation, reason: e.Failure.Reason, failed: e.Failure.Time}
	d.links[e.Peer] = now
	failure := api.Clean(e.Failure.Reason.String())
	if e.Failure.Detail != "" {
		failure += ": " + api.Clean(e.Failure.Detail)
	}
	what, level := "", d.log.Info
	switch {
	case now.up && !old.up && e.Taken:
		what = fmt.Sprintf("encrypted link to %s at %v goes on with the keys of the worker before: %s", e.Peer, e.Address, e.Cipher)
	case now.up && !old.up:
		what = fmt.Sprintf("encrypted link to %s at %v is established: %s", e.Peer, e.Address, e.Cipher)
	case now.up && now.generation != old.generation:
		what = fmt.Sprintf("encrypted link to %s has new keys (%d)", e.Peer, e.Generation)
	case old.up && !now.up && e.State == dtls.Closed:
		what = fmt.Sprintf("encrypted link to %s is closed: it isn't wanted any more", e.Peer)
	case old.up && !now.up:
		what, level = fmt.Sprintf("encrypted link to %s is lost: %s", e.Peer, failure), d.log.Warn
	case now.reason != dtls.ReasonNone && now.reason != old.reason:
		what, level = fmt.Sprintf("no encrypted link to %s: %s", e.Peer, failure), d.log.Warn
	default:
		return
	}
	level(what, "peer", e.Peer, "address", e.Address, "state", e.State, "reason", e.Failure.Reason)
	d.hub.publish(api.Event{
		Time: e.Time, Kind: "peer", What: what, Peer: e.Peer,
		Fields: map[string]any{"link": e.State.String(), "cipher": e.Cipher, "generation": e.Generation, "reason": e.Failure.Reason.String()},
	})
}

// linkRow is a link as the API shows it.
func linkRow(s *dtls.Status, now time.Time) *api.Link {
	if s == nil {
		return nil
	}
	l := &api.Link{
		State: s.State.String(), Address: s.Address.String(), RecordEpoch: int(s.Epoch), Sealed: s.Sealed, Left: s.Left,
		RekeyAt: s.RekeyAt, Handshakes: s.Handshakes, LastHandshake: s.LastHandshake, OlderKeys: s.Older,
		Reason: s.Failure.Reason.String(), Detail: s.Failure.Detail, FailedAt: s.Failure.Time,
	}
	if s.State.Encrypted() {
		l.KeyAge = int64(now.Sub(s.Established).Seconds())
	}
	return l
}

// linkProblems says which links are not there, and why. The caller holds mu.
func (d *Daemon) linkProblems(peers []tunnel.Status, now time.Time) []api.Problem {
	var out []api.Problem
	if d.credErr != nil && d.cred == nil {
		p := api.Problem{What: "no encrypted link can be made: " + d.credErr.Error(), Hint: "mend that, then `tapestry apply -c FILE`"}
		var e *api.Error
		if errors.As(d.credErr, &e) && e.Hint != "" {
			p.Hint = e.Hint + "; then `tapestry apply -c FILE`"
		}
		out = append(out, p)
	}
	for _, p := range peers {
		l := p.Link
		if l == nil || l.State.Encrypted() || l.Failure.Reason == dtls.ReasonNone {
			continue
		}
		what := fmt.Sprintf("no encrypted link to peer %s at %v: %s", p.Name, l.Address, api.Clean(l.Failure.Reason.String()))
		if l.Failure.Detail != "" {
			what += ", " + api.Clean(l.Failure.Detail)
		}
		out = append(out, api.Problem{What: what, Hint: linkHint(p.Name, l)})
	}
	return append(out, d.expiring(now)...)
}

// expireSoon is how long before this host's certificate runs out it is a problem.
const expireSoon = 14 * 24 * time.Hour

// expiring names what of this host's own credentials runs out soon, or has. The
// caller holds mu.
func (d *Daemon) expiring(now time.Time) []api.Problem {
	out := d.listProblems(now)
	if d.cred == nil || d.cred.Expires().IsZero() || d.cred.Expires().Sub(now) > expireSoon {
		return out
	}
	at, what := d.cred.Expires().Format(time.DateTime), "this host's certificate expires on %s"
	if d.cred.Expires().Before(now) {
		what = "this host's certificate has expired (%s)"
	}
	return append(out, api.Problem{
		What: fmt.Sprintf(what, at),
		Hint: "make a new one (`tapestry pki issue HOST --renew`, or a token with --renew), then `tapestry apply -c FILE`",
	})
}

// linkHint says what would mend a link.
func linkHint(peer string, l *dtls.Status) string {
	switch l.Failure.Reason {
	case dtls.NoAnswer, dtls.Silent:
		return fmt.Sprintf("see whether that host runs encrypted links, and whether UDP port %d passes both ways: tapestry peer show %s", l.Address.Port(), peer)
	case dtls.WrongCA, dtls.SelfSigned, dtls.NoCertificate, dtls.BadSignature, dtls.WeakKey:
		return fmt.Sprintf("give %s a certificate from the CA in tunnel.dtls.ca: tapestry pki issue %s", peer, peer)
	case dtls.Expired:
		return fmt.Sprintf("renew its certificate: tapestry pki issue %s; and compare the clocks of both hosts", peer)
	case dtls.Revoked:
		return "nothing, if that is meant: take the peer out of tunnel.peers"
	case dtls.WrongName:
		return "`host:` there, the name in its certificate and its name under tunnel.peers here are one and the same"
	case dtls.WrongKey:
		return "copy the same psk_file to both hosts, then `tapestry apply -c FILE` on both"
	case dtls.WeakSuite, dtls.WrongVersion:
		return "the other end must speak DTLS 1.2 with AES-GCM and extended master secret"
	case dtls.PeerRefused:
		return fmt.Sprintf("look there, it knows why: tapestry status on %s", peer)
	}
	return "tapestry peer show " + peer
}

// sealed reports whether a frame of a network from that peer would come by its
// encrypted link, and the link is there.
func (v *vtep) sealed(from netip.Addr, vni vxlan.VNI) bool {
	for s := range v.All() {
		if s.Address.Addr() == from.Unmap() {
			return s.Link != nil && s.Link.State.Encrypted() && v.Encrypts(vni)
		}
	}
	return false
}
