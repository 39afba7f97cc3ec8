package vswitch

import "github.com/tapestry-net/tapestry/switch/frame"

// Step is one stage of an explanation.
type Step struct {
	Stage  string // classify, filter, learn, lookup, then drop, forward or flood, and verdict
	What   string
	Result string
}

// Explanation is what the switch would do with a frame.
type Explanation struct {
	Steps   []Step
	Verdict frame.Verdict
	Copies  []Copy
}
