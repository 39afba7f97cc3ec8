// Package vswitch is the forwarding engine: it takes frames from ports, learns
// where stations are, and decides for each frame which ports it leaves by.
//
//	receive → classify → filter → learn → look up → decide → group by egress → coalesce → transmit
package vswitch
