package dtls

import (
	"encoding/binary"
	"iter"

	"github.com/tapestry-net/tapestry/tunnel/dtls/record"
)

// message is the type of a handshake message (RFC 5246 clause 7.4).
type message uint8

const (
	clientHello        message = 1
	serverHello        message = 2
	helloVerify        message = 3
	certificate        message = 11
	serverKeyExchange  message = 12
	certificateRequest message = 13
	serverHelloDone    message = 14
	certificateVerify  message = 15
	clientKeyExchange  message = 16
)

// expects reports whether a client, or a server, takes message m of the other.
func expects(client bool, m message) bool {
	switch m {
	case clientHello, certificateVerify, clientKeyExchange:
		return !client
	case serverHello, helloVerify, serverKeyExchange, certificateRequest, serverHelloDone:
		return client
	}
	return m == certificate
}

// handshakeHeaderLen is type, length, sequence, fragment offset and fragment
// length (RFC 6347 clause 4.2.2).
const handshakeHeaderLen = 12

const (
	// firstVersion may stand in a client's first record: DTLS 1.0 (RFC 6347 clause
	// 4.2.1).
	firstVersion = 0xfeff
	// finishedLen is the length of a sealed Finished: 12 octets of verify_data (RFC
	// 5246 clause 7.4.9), which nobody sends in fragments.
	finishedLen = record.NonceLen + handshakeHeaderLen + 12 + record.TagLen
	// noCertificate is the length of a Certificate without any.
	noCertificate = 3
	// maxMessages is more than one side's messages in a handshake.
	maxMessages = 16
)

// hello is what a link has to know of a ClientHello.
type hello struct {
	number uint64 // of the record
	cookie string // at most 255 octets
}

// parseHello reads the datagram b if it begins with a whole ClientHello.
// Everything read is behind a check of what is left.
func parseHello(b []byte) (h hello, ok bool) {
	r, ok := record.Parse(b)
	if !ok || r.Type != record.Handshake || r.Epoch != 0 {
		return h, false
	}
	b = b[record.HeaderLen:][:r.Length]
	if !isPart(r, b, false) || len(b) < handshakeHeaderLen+2+32+1 || message(b[0]) != clientHello {
		return h, false
	}
	b = b[handshakeHeaderLen+2:]
	h.number = r.Sequence
	session := int(b[32])
	if b = b[33:]; len(b) < session+1 {
		return h, false
	}
	cookie := int(b[session])
	if b = b[session+1:]; len(b) < cookie {
		return h, false
	}
	h.cookie = string(b[:cookie])
	return h, true
}

// parseVerify returns the cookie of the HelloVerifyRequest that b begins with.
func parseVerify(b []byte) (cookie string, ok bool) {
	r, ok := record.Parse(b)
	if !ok || r.Type != record.Handshake || r.Epoch != 0 {
		return "", false
	}
	b = b[record.HeaderLen:][:r.Length]
	if len(b) < handshakeHeaderLen+3 || message(b[0]) != helloVerify {
		return "", false
	}
	n := int(b[handshakeHeaderLen+2])
	if b = b[handshakeHeaderLen+3:]; n == 0 || len(b) < n {
		return "", false
	}
	return string(b[:n]), true
}

// clearOctets is how many octets of datagram b are messages in clear.
func clearOctets(b []byte) (n int) {
	for h, r := range records(b) {
		if h.Type == record.Handshake && h.Epoch == 0 {
			n += len(r)
		}
	}
	return n
}

// renumber gives the records in clear of datagram b numbers of ours, from next on,
// and returns the next. Their own are anybody's: the library would take one forged
// with a high number for the latest, and those of the peer for replays. Nothing
// depends on them; messages have numbers of their own.
func renumber(b []byte, next uint64) uint64 {
	for h, r := range records(b) {
		if h.Epoch == 0 {
			binary.BigEndian.PutUint64(r[3:], next)
			next++
		}
	}
	return next
}

// isPart reports whether a record may be part of the handshake under way of a client,
// or of a server: its messages, the change of the cipher, the Finished sealed with
// the new keys. No alert is, and no data, whatever the epoch, and nothing that the
// library would answer with an alert because it can't be read.
func isPart(h record.Header, body []byte, client bool) bool {
	switch {
	case h.Version != record.Version && h.Version != firstVersion:
		return false
	case h.Type == record.ChangeCipherSpec:
		return h.Epoch == 0 && len(body) == 1 && body[0] == 1
	case h.Type == record.Handshake && h.Epoch == 0:
		return areMessages(body, client)
	}
	return isFinished(h)
}

// fragment is a handshake message, or a part of it.
type fragment struct {
	message
	number uint16
	length int  // of the whole message
	ends   bool // it has the last octet of the message
}

// parseFragment reads the fragment at the beginning of b. Everything read is behind
// a check of what is left.
func parseFragment(b []byte) (f fragment, rest []byte, ok bool) {
	if len(b) < handshakeHeaderLen {
		return f, nil, false
	}
	length, offset, n := uint24(b[1:]), uint24(b[6:]), uint24(b[9:])
	f = fragment{message(b[0]), binary.BigEndian.Uint16(b[4:]), length, offset+n == length}
	if b = b[handshakeHeaderLen:]; f.number >= maxMessages || length > maxOctets || offset+n > length || n > len(b) {
		return f, nil, false
	}
	return f, b[n:], true
}

// areMessages reports whether b is messages, or fragments of them, that a client,
// or a server, takes.
func areMessages(b []byte, client bool) bool {
	if len(b) == 0 {
		return false
	}
	for len(b) > 0 {
		f, rest, ok := parseFragment(b)
		if !ok || !expects(client, f.message) {
			return false
		}
		b = rest
	}
	return true
}

// uint24 reads the first three octets of b.
func uint24(b []byte) int { return int(b[0])<<16 | int(b[1])<<8 | int(b[2]) }

// isFinished reports whether a record has the size and place of a sealed Finished.
func isFinished(h record.Header) bool {
	return h.Epoch == 1 && h.Type == record.Handshake && h.Length == finishedLen && h.Version == record.Version
}

// holdsFinished reports whether datagram b has a sealed Finished.
func holdsFinished(b []byte) bool {
	return someRecord(b, func(h record.Header, _ []byte) bool { return isFinished(h) })
}

// sealsOther reports whether datagram b, of the library's making, has a record of
// an epoch that is ours, and that isn't a Finished.
func sealsOther(b []byte) bool {
	return someRecord(b, func(h record.Header, _ []byte) bool { return h.Epoch > 0 && !isFinished(h) })
}

// clashes reports whether datagram b, of the library's making, has a record whose
// random nonce is one that a Sealer may use: they all begin with the epoch.
func clashes(b []byte) bool {
	return someRecord(b, func(h record.Header, r []byte) bool {
		n, ok := record.Number(h, r)
		return ok && n>>48 == uint64(h.Epoch)
	})
}

// someRecord reports whether f is true of one of b's records.
func someRecord(b []byte, f func(h record.Header, r []byte) bool) bool {
	for h, r := range records(b) {
		if f(h, r) {
			return true
		}
	}
	return false
}

// records are those of datagram b with their headers, up to what isn't a whole one.
func records(b []byte) iter.Seq2[record.Header, []byte] {
	return func(yield func(record.Header, []byte) bool) {
		for len(b) > 0 {
			h, ok := record.Parse(b)
			if !ok || !yield(h, b[:record.HeaderLen+h.Length]) {
				return
			}
			b = b[record.HeaderLen+h.Length:]
		}
	}
}

// alert is level and description of an alert (RFC 5246 clause 7.2).
type alert struct{ level, description uint8 }

const (
	warning     = 1
	fatal       = 2
	closeNotify = 0
)

func (a alert) ends() bool { return a.level == fatal || a.description == closeNotify }

// parseAlert reads an alert in clear, which may be anybody's.
func parseAlert(b []byte) (alert, bool) {
	h, ok := record.Parse(b)
	if !ok || h.Type != record.Alert || h.Epoch != 0 || h.Length != 2 {
		return alert{}, false
	}
	a := binary.BigEndian.Uint16(b[record.HeaderLen:])
	return alert{uint8(a >> 8), uint8(a)}, true
}
