// Package bench measures this machine: the switch beside the kernel's own bridge,
// in one run, and reports ratios.
//
//	tapestry bench
//	  └─ inside          network and mount namespaces of its own; private /run
//	       ├─ kernel     kernel-a ── veth ── bridge ── veth ── kernel-b
//	       ├─ tap        tap-a ── TAP ── tapestry up ── TAP ── tap-b
//	       ├─ veth       veth-a ── veth and tc ── tapestry up ── veth-b
//	       ├─ wide       as tap, and 1,000 idle ports in one more namespace
//	       └─ bench-traffic   a server and a client for each measurement
//
// Each round of a workload measures the kernel and the switch one after the
// other, in changing order; the ratio is taken within the round, and the median
// over the rounds counts. README.md describes the method and each row.
//
// # Ownership
//
// Nothing outside the namespaces is touched. All processes are children that the
// kernel ends with their parent, and interfaces, namespaces and files go with
// the last process, so an interrupted run leaves nothing behind either.
//
// # Concurrency
//
// One measurement runs at a time.
package bench
