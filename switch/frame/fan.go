package frame

// Fan transmits for several ports with few system calls, as the tunnel does for
// its peers: a flood is encapsulated once.
type Fan interface {
	// TransmitTo writes frame i of b by the queue of port to[i], in order, and
	// otherwise does as Transmit of each queue would.
	TransmitTo(to []PortID, b *Batch) (sent int, err error)
}

// Fanned is a queue whose frames a Fan may transmit together with those of its
// other queues.
type Fanned interface {
	Fan() Fan
}
