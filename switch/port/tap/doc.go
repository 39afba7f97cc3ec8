// Package tap is the TAP port: an interface that the kernel gives to a
// container, or to the host, and whose frames the switch reads and writes.
//
//	read, write:  virtio_net_hdr (12 or 10 octets, absent on a plain TAP) | Ethernet frame
//
// It has two halves. Open, OpenVeth and Remove are for the privileged process:
// they make the interface inside its namespace, or find again the one that an
// earlier process made, and return a descriptor. NewQueue turns a descriptor
// into a port's queue and, like States and Name, needs no privilege.
//
// netlink makes the device, because the vnet header is a property that only the
// first queue can give it; water then attaches the queue that is kept. The
// device is persistent: it outlives the process that made it, and is recognised
// by the owner's mark in its ifalias.
//
// # Ownership
//
// The descriptor of a Device belongs to the caller. NewQueue takes it over.
//
// # Concurrency
//
// Queue.Receive is called by one goroutine at a time, Transmit by any number.
//
// # Standards
//
// Linux Documentation/networking/tuntap.rst, virtio 1.2 clause 5.1.6.
package tap
