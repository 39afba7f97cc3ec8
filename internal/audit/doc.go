// Package audit compares what there is with what there should be, and names
// what disagrees: it is given both and touches nothing.
//
//	kernel    interfaces as they are          ports as they were opened
//	fdb       entries of the table            ports, memberships, static entries
//	traffic   frames seen for a moment        entries of the table
//	peer      what was heard and refused      what is configured here
//	counters  frames in, copies out           the law that nothing vanishes
//
// # Bounds
//
// Who sends frames chooses their addresses, and who sends datagrams their VNI. So a
// Traffic and a Refusals remember so many and count the rest, and a comparison
// tells MaxTold findings and how many more there are.
//
// # Concurrency
//
// A Traffic and a Refusals belong to one goroutine each; everything else is a function.
//
// # Standards
//
// IEEE 802.1Q-2022 clause 8.8 for what a filtering database should hold, RFC
// 7348 for what a peer may send.
package audit
