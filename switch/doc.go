// Package vswitch is the forwarding engine: it takes frames from ports, learns
// where stations are, and decides for each frame which ports it leaves by.
//
//	receive → classify → filter → learn → look up → decide → group by egress → coalesce → transmit
//	loop.go   classify   filter   learn   decide.go          egress.go
//
// The files follow a frame. view.go holds what a spec is compiled into, guard.go
// what storm control and the loop guard remember, explain.go and observe.go the
// two ways of watching, switch.go the outside.
//
// # Stages
//
// A loop takes up to 64 frames from one port, or from a Receiver, which hears
// several ports and names that of each frame. All are classified and filtered,
// then all sources are learned, then each is decided about and its copies are
// listed by egress port, then the lists are transmitted. decide is a pure
// function of the view, the table and the frame's header; Explain calls it too.
// What has a memory of its own (storm control, loop guard) is asked afterwards,
// and only about frames that would be flooded.
//
// Every frame ends in one verdict, and every copy decided is sent or refused
// with a reason: Stats states the sums that hold.
//
// # Modes
//
// In a network with an uplink, what in sends to out (rows) is, where it is not
// allowed outright, a split_horizon drop, or leaves by the one uplink when it is
// unicast:
//
//	         bridge  vepa  private  uplink
//	bridge   yes     no    no       yes
//	vepa     no      no    no       yes
//	private  no      no    no       yes
//	uplink   yes     yes   yes      yes
//
// A frame that the uplink reflects, known by a source that lives on a sibling,
// reaches the siblings except its sender, those in private mode, and, when its
// sender is in bridge mode, those in bridge mode, who heard it directly. One of
// a private sibling reaches nobody. It teaches nothing, so a station that moves
// from a sibling of such a network to beyond the uplink is found again when its
// entry has aged.
//
// # Ownership
//
// Receive memory belongs to the loops, none to an idle port. Bytes are immutable
// from Receive to Transmit; all copies of a flood share them. Queues and the
// filtering database belong to the caller.
//
// # Concurrency
//
// A loop owns a thread, an epoll instance and the ports whose ID has its number
// as remainder; the first loop polls all Receivers. Loops share the view, which is immutable and replaced as a
// whole, and the filtering database, which they read without a lock. A counter
// has one writer. Apply, Stop and Close ask the loops for an answer between two
// batches, and so know that nothing is under way.
//
// # Standards
//
// IEEE 802.1Q-2022 clauses 6.9 (tags on ingress and egress), 8.6 (forwarding),
// 8.8 (filtering database); differences: reserved addresses can be relayed
// per network, a frame tagged for an access port's own VLAN is dropped. Modes
// are those of Linux macvlan and of IEEE 802.1Qbg clause 40 (reflective relay).
package vswitch
