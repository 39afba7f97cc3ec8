package frame

import "time"

// Copy is one copy of an observed or explained frame.
type Copy struct {
	Port PortID
	// Tag is the tag it carries on the wire; the zero Tag is none.
	Tag Tag
	// Refused is why the copy did not leave, ReasonNone when it did.
	Refused Reason
}

// Observation is one frame and what became of it. It belongs to the loop that
// shows it: who needs its octets or copies takes copies of them.
type Observation struct {
	Time    time.Time // when its batch was read; frames of one batch are 1 ns apart
	In      PortID
	Frame   *Frame
	Verdict Verdict
	Copies  []Copy
}
