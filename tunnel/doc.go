// Package tunnel carries networks between hosts in VXLAN: each remote VTEP is a
// port of the switch, and what arrives from anybody else is refused.
//
//	            Peer (a Queue that only transmits)                 sending sockets by flow
//	frame ──> VID → VNI, path MTU, TOS, flow hash ──> gather list ──> sendmmsg, UDP_SEGMENT
//
//	            Receivers (hear the frames of all peers)           one unconnected socket
//	frame <── In, VID, GSO <── admission by source and VNI <── cut <── recvmmsg, UDP_GRO
//
// A peer port is a tagged member of its networks, in one split-horizon group
// with all other peers: the engine knows nothing of VXLAN. The tunnel knows a
// frame's network by the tag that the switch would have it carry, and sends the
// frame untagged.
//
// # Admission
//
// A datagram becomes a frame when it comes from a configured peer, its header is
// good, its VNI is a network's and one that this peer may carry, the inner frame
// has a header and no 802.1Q tag, and the network isn't an encrypted one. What
// fails is counted under its own reason, by peer where there is one, and teaches
// nothing. Outer CE on an inner packet that isn't ECN-capable is a drop by RFC
// 6040 clause 4.2, counted as bad_header: the two headers contradict each other.
//
// Observers are shown each refused datagram as an Ethernet frame: with the outer
// IP and UDP headers as far as a socket tells them, and zero for the rest. When
// nobody looks that costs one load of a pointer for a refused datagram, and
// nothing for an admitted one.
//
// # Encryption
//
// A peer that carries an encrypted network has a link (package dtls), on a socket of
// its own that sends and receives. Frames of that network leave sealed or not at
// all: without keys they are refused as not_encrypted_yet, and what comes for it in
// clear is plaintext_refused, whoever sends it and to whichever socket. Plain networks stay in clear, to the same peer too;
// one of their frames that comes by the link is taken, since nobody but the peer
// can have sealed it.
//
// Each frame is one record, gathered and sealed where it leaves from, and opened
// where it arrived. Records of one size leave as one message. Probes go by the link
// while it is up, and to a peer with encrypted networks alone by nothing else;
// questions and answers (tell.go), which may be about its frames, by the link alone.
//
// # Checksums
//
// No frame is vouched for: whether the outer checksum was there and right can't
// be told from a socket, so the inner one goes on to the container, or is
// verified before frames are coalesced. On a virtual underlay a kernel VTEP leaves the
// inner checksum unfilled, and the inner frame uncut: such frames get the offload
// metadata that they had.
//
// # Joining
//
// What the other side cut from one super-frame arrives as a run of datagrams. The
// receiver makes one frame of it again, in the run's own memory, before the switch
// sees it (offload.Train): one look-up and one write instead of some fifty. Only
// what Egress.Plan would coalesce is joined, checksums verified, floods never, and
// nothing at all with Spec.NoCoalesce.
//
// # Liveness and path MTU
//
// Peers of our kind answer probes (message.go), which any other VTEP discards
// since nothing has VNI 0. A peer that has answered and stops is down: frames to
// it are refused as egress_down, and its own, should they still come, are
// delivered and teach nothing. One that never answered and sends frames is up and
// passive. A probe in clear proves nothing, since anybody can send one: a passive
// peer that asks and doesn't answer is connecting again as soon as its frames
// stop, and sent to all the same. Package pathmtu says which sizes to probe, since no datagram is
// ever fragmented.
//
// A peer in use is asked once an interval, by 72 octets and one packet of the
// present size; one without frames for ten intervals every fifth. A search takes
// some 60 KB on a path of 1,500 octets, within three intervals. A larger size is
// looked for every 60 intervals, and at once when the device takes more.
//
// The path to a passive peer isn't probed, since nothing would answer, and the ICMP
// that a router on it may send isn't believed: its MTU is what leaves this host,
// and where the path is narrower, longer packets are lost on the way.
//
// An inner packet that doesn't fit, and that no router may cut, is answered with
// ICMP, from the network's own address where there is one: once, however many
// peers it was for. The answer has the source address of the station that was
// written to, and teaches nothing, since nobody knows by it where that station
// is. Stations, by network and address, share 64 budgets of 20 answers in a fifth
// of an interval. The rest is counted as mtu_exceeded like these, and answered
// when it is sent again.
//
// # Explanations
//
// What becomes of a frame or datagram is decided by functions that change
// nothing (judge.go). Peer.Explain and Tunnel.Explain call them as the hot paths
// do, and a test compares what they say with what then happens.
//
// # Questions
//
// Tunnels of our kind carry each other's questions and answers (tell.go): a
// trace asks what other hosts saw. Only configured peers are heard, by address
// as ever; an answer counts when it comes from the peer that was asked and
// returns the question's token, which nobody else has seen. A question is padded
// to 1,200 octets and an answer never longer, so a forged question gains its
// sender nothing; 200 a second and peer are handed over, 64 wait at most, and a
// question is sent four times before its peer counts as silent.
//
// # Ownership
//
// A Tunnel owns its receiving socket and the sockets that Options.Open returned.
// Received frames share the receiver's memory and are good until its next
// Receive.
//
// # Concurrency
//
// The Receivers belong to one loop. Peer.Transmit may be called by several
// loops at once. Everything else may be called from any goroutine. What the hot
// paths use is an immutable view behind an atomic pointer.
//
// # Standards
//
// RFC 7348; RFC 6040 (ECN, normal mode); RFC 2983 (DSCP, uniform model at encapsulation,
// pipe at decapsulation); RFC 8899 (path MTU by probes); RFC 1191, 8201, 792,
// 4443 (what is told to the sender). Differences: reserved bits (package vxlan);
// inner tags are always refused.
package tunnel
