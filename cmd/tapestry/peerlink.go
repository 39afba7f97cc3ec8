package main

import (
	"fmt"
	"time"

	"github.com/tapestry-net/tapestry/internal/api"
)

// encryption is whether frames to a peer are encrypted, and why they are dropped
// if they should be and can't.
func encryption(p api.Peer) string {
	switch l := p.Link; {
	case l == nil:
		return p.Encryption
	case l.Up():
		return "dtls"
	case l.Reason != "":
		return "no link: " + api.Clean(l.Reason)
	}
	return "no link yet"
}

// printLink prints what an auditor asks of an encrypted link.
func printLink(t *table, p api.Peer) {
	l := p.Link
	t.row("link", l.State)
	t.row("dtls address", l.Address)
	if l.Up() {
		t.row("cipher", p.Cipher)
		t.row("key age", time.Duration(l.KeyAge)*time.Second)
		t.row("keys", fmt.Sprintf("%d, epoch %d in records, %d older that still open", p.Epoch, l.RecordEpoch, l.OlderKeys))
		t.row("records", fmt.Sprintf("%d sealed, %d left, new keys after %d", l.Sealed, l.Left, l.RekeyAt))
	}
	t.row("handshakes", l.Handshakes)
	if !l.LastHandshake.IsZero() {
		t.row("last handshake", clock(l.LastHandshake))
	}
	if l.Reason != "" {
		why := api.Clean(l.Reason)
		if l.Detail != "" {
			why += ": " + api.Clean(l.Detail)
		}
		t.row("last failure", fmt.Sprintf("%s (%s)", why, clock(l.FailedAt)))
	}
	t.row("mtu by the link", p.SealedMTU)
}
