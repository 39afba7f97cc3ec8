package nftrace

// Take is what Read makes of one datagram.
func Take(b []byte, p Probe) []Step {
	l := Listener{probe: p, known: make(map[uint32]bool)}
	return l.take(b)
}
