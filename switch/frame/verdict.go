package frame

import "fmt"

// Action is what the switch does with a frame.
type Action uint8

// Actions.
const (
	Drop    Action = iota
	Forward        // one copy, to the port the FDB names
	Flood          // a copy to each member of the network that may hear it
	Local          // taken up by the switch itself
	// NumActions is the length of an array indexed by Action.
	NumActions
)

// String returns the contract's name: drop, forward, flood, local.
func (a Action) String() string {
	return [...]string{"drop", "forward", "flood", "local", "invalid"}[min(a, NumActions)]
}

// MarshalText implements encoding.TextMarshaler with the name.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Action) UnmarshalText(b []byte) error {
	for i := range NumActions {
		if i.String() == string(b) {
			*a = i
			return nil
		}
	}
	return fmt.Errorf("unknown action %q", clip(string(b)))
}

// Verdict is the switch's decision about one frame. Counters, captures, traces
// and explanations all read this one record.
type Verdict struct {
	Action Action
	Reason Reason
	VID    VID    // the network the frame was classified to; 0 when it was dropped before
	Out    PortID // where a Forward goes; 0 otherwise
	// Fresh is set when the source address was learned or moved by this frame.
	Fresh bool
}
