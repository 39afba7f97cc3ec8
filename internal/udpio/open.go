package udpio

import "net/netip"

// Slots is how many sending sockets a Pool has at most.
const Slots = 256

// OpenReceiver opens a non-blocking socket on listen, with all options that
// Receiver needs. An unspecified IPv6 address receives IPv4 too.
func OpenReceiver(listen netip.AddrPort) (fd int, err error) { return -1, nil }

// SenderOptions describe a sending socket.
type SenderOptions struct {
	Local      netip.Addr // source address; unspecified 0.0.0.0 or :: = by route, and chooses the family
	Slot       int        // 0 to Slots-1: which stratum of 49152-65535 the source port comes from
	NoChecksum bool       // outer UDP checksum 0; IPv4 only
}

// OpenSender opens a non-blocking sending socket.
func OpenSender(o SenderOptions) (fd int, err error) { return -1, nil }
