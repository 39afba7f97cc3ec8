// Package offload makes what is queued for a port into what that port's driver
// can carry: it cuts GSO frames, completes partial checksums, and coalesces
// runs of one flow into GSO frames. It moves no payload and makes no system call.
//
//	virtio_net_hdr, little-endian (virtio 1.2 clause 5.1.6)
//	0      1         2        4         6           8            10
//	flags  gso_type  hdr_len  gso_size  csum_start  csum_offset  [num_buffers]
//
//	in    Data  eth [tags] IP L4 payload
//	out   Data  eth [tags] IP L4            new, in the arena of Egress
//	      Frags                 payload …   slices of in
//
// # Ownership
//
// The octets of the frames that enter are never written. New headers live in an
// arena that belongs to the Egress, so an outgoing frame is good until the next
// Plan of that Egress and as long as the batch that its payload came from.
//
// # Concurrency
//
// The functions are pure. An Egress belongs to one goroutine.
//
// # Trust
//
// A frame and its metadata come from a container that may be hostile: every
// offset is derived from the octets and compared with their length, and the
// metadata only has to agree. A checksum is filled in anew only where the old
// one is partial (local, by definition undamaged), vouched for by the kernel, or
// has been verified here, so that damage is never given a good checksum.
//
// # IPv4 identification
//
// Cutting numbers the segments upwards from the number of the GSO frame, as
// the kernel does. Datagrams are coalesced when their numbers rise by one, so
// that cutting them again restores every octet. Atomic datagrams (DF set) are
// also coalesced when all have the same number, as unconnected sockets send
// them; those come out numbered upwards, which RFC 6864 section 4.1 lets nobody
// notice.
//
// # Standards
//
// virtio 1.2 clause 5.1.6; RFC 1071 and 1624 (checksum), RFC 791, 8200, 9293,
// 768; RFC 3168 (CWR, CE); RFC 6864 (identification). IPv6 hop-by-hop and
// destination options are cut along; any other extension header, and any
// fragment, makes a GSO frame one that is refused and a plain one that passes as it is.
package offload
