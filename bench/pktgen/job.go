package pktgen

import (
	"net/netip"
	"time"
)

// Command is the first argument that the program is started with to become a
// traffic process; the second goes to Main.
const Command = "bench-traffic"

// Kind is a pattern of traffic.
type Kind string

// Kinds of traffic.
const (
	TCP      Kind = "tcp"      // bulk, one way
	Flood    Kind = "flood"    // UDP datagrams, one way, as fast as they go
	PingPong Kind = "pingpong" // one UDP datagram there and back at a time
)

// Flow is the traffic of one measurement.
type Flow struct {
	Kind    Kind          `json:"kind"`
	Streams int           `json:"streams"` // TCP connections; 0 = 1
	Size    int           `json:"size"`    // payload octets of a datagram
	Warm    time.Duration `json:"warm"`    // before counting starts
	Window  time.Duration `json:"window"`  // counted

	// Apart puts the client on the first processor and the server on the last,
	// so that neither wakes the other by leaving its own processor to it.
	Apart bool `json:"apart"`
}

// Result is what was counted in the window.
type Result struct {
	Seconds float64 `json:"seconds"` // length of the window
	Bytes   uint64  `json:"bytes"`   // payload octets received
	Packets uint64  `json:"packets"` // datagrams received, or round trips

	Offered     float64 `json:"offered,omitempty"`     // Flood: datagrams a second that the sender sent, over its whole run
	Retransmits uint64  `json:"retransmits,omitempty"` // TCP: segments, over the whole run
	P50         float64 `json:"p50,omitempty"`         // PingPong: µs of a round trip
	P99         float64 `json:"p99,omitempty"`         // PingPong: µs
	Lost        uint64  `json:"lost,omitempty"`        // PingPong: no answer in 200 ms
}

// job is what one process is told.
type job struct {
	Flow
	Server  bool           `json:"server"`
	Address netip.AddrPort `json:"address"` // of the server
}

// meters reports whether this process is the one that counts.
func (j *job) meters() bool { return j.Server != (j.Kind == PingPong) }

// Marks that a process prints, one a line.
const (
	markReady  = "ready"
	markBegin  = "begin"
	markEnd    = "end"
	markResult = "result " // followed by JSON
)

// serverPort is where servers listen; their namespaces belong to the measurement.
const serverPort = 7707
