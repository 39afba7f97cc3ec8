package trace

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Op is what one host asks another to do for a trace.
type Op string

// Ops.
const (
	OpWatch Op = "watch" // watch for Key, Seconds long
	OpFetch Op = "fetch" // tell part Part of what was seen
	OpEnd   Op = "end"   // watch no more
	OpFind  Op = "find"  // which addresses has Port
)

// Ask is a question between two hosts.
type Ask struct {
	Op   Op   `json:"op"`
	ID   ID   `json:"id"`
	Key  *Key `json:"key,omitempty"` // of OpWatch
	For  int  `json:"for,omitempty"` // milliseconds
	Part int  `json:"part,omitempty"`
	// Walls asks to follow the packet through the firewall, too.
	Walls bool `json:"walls,omitempty"`
	// Lost asks to explain why nothing went on from there: drop counters and what
	// the host's kernel would do with the packet.
	Lost bool   `json:"lost,omitempty"`
	Port string `json:"port,omitempty"` // of OpFind
	// Token is the one that the other host has given last: who asks in clear must
	// show that it hears what is told to the peer.
	Token uint64 `json:"token,omitempty"`
}

// Tell is the answer to an Ask.
type Tell struct {
	Host  string `json:"host"`
	Heard int64  `json:"heard"` // the question, by the host's clock: nanoseconds since 1970
	Told  int64  `json:"told"`
	// Report is cut in Parts, each of which is a Tell's Chunk.
	Part  int    `json:"part,omitempty"`
	Parts int    `json:"parts,omitempty"`
	Chunk []byte `json:"chunk,omitempty"`
	// Addresses and MAC are of OpFind.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	MAC       frame.MAC      `json:"mac"`
	// Secret says that they are of an encrypted network.
	Secret bool `json:"secret,omitempty"`
	// Token is what a question in clear must bear: ask again.
	Token    uint64 `json:"token,omitempty"`
	Error    string `json:"error,omitempty"`
	NotFound bool   `json:"not_found,omitempty"`
	Hint     string `json:"hint,omitempty"`
}

// Report is what a host has seen of a trace.
type Report struct {
	Events []Event  `json:"events"`
	Lost   int      `json:"lost,omitempty"`   // more of them
	Notes  []string `json:"notes,omitempty"`  // what could not be watched
	Moved  []Moved  `json:"moved,omitempty"`  // of a trace that was lost
	Causes []Cause  `json:"causes,omitempty"` // likewise
}

// Moved is a drop counter that went up while a trace was under way.
type Moved struct {
	Host   string `json:"host"`
	Port   string `json:"port"` // of a tunnel peer peer/NAME
	Reason string `json:"reason"`
	Frames uint64 `json:"frames"`
	// Also says that no packet of the trace is known to have moved it.
	Also bool `json:"also,omitempty"`
}

// Cause is why a kernel goes no further with a packet.
type Cause struct {
	What string `json:"what"`
	Hint string `json:"hint,omitempty"` // the likely mend
	// Firewall is set where nothing but a firewall is left as the cause, and it
	// was not followed.
	Firewall bool `json:"firewall,omitempty"`
}

const (
	// MaxWatch is how long a host watches for another: as long as an answer may
	// take, and until all have told what they saw.
	MaxWatch = 15 * time.Second
	// chunkLen octets of a report, in base 64 and with everything else that a Tell
	// says, fit in a tunnel's message.
	chunkLen = 640
	// MaxParts bounds a report, to 40 kB.
	MaxParts = 64
)

// Parts cuts r to pieces for Tells. Events that don't fit are counted as lost.
func (r Report) Parts() ([][]byte, error) {
	slices.SortStableFunc(r.Events, func(a, b Event) int { return int(min(max(a.Time-b.Time, -1), 1)) })
	if n := len(r.Events); n > MaxHops {
		r.Events, r.Lost = r.Events[:MaxHops], r.Lost+n-MaxHops
	}
	for {
		b, err := json.Marshal(r)
		if err != nil {
			return nil, fmt.Errorf("write report: %w", err)
		}
		parts := slices.Collect(slices.Chunk(b, chunkLen))
		if len(parts) <= MaxParts {
			return parts, nil
		}
		switch n := len(r.Events); {
		case n > 0:
			r.Events, r.Lost = r.Events[:n-1], r.Lost+1
		case len(r.Moved)+len(r.Notes)+len(r.Causes) > 0:
			r.Moved, r.Notes, r.Causes = nil, nil, nil
		default:
			return nil, errors.New("write report: too long without an event")
		}
	}
}

// ParseReport puts the pieces of a report together.
func ParseReport(parts [][]byte) (Report, error) {
	if len(parts) > MaxParts {
		return Report{}, fmt.Errorf("read report: %d parts, want %d at most", len(parts), MaxParts)
	}
	var r Report
	if err := json.Unmarshal(slices.Concat(parts...), &r); err != nil {
		return Report{}, fmt.Errorf("read report: %w", err)
	}
	if len(r.Events) > MaxHops {
		return Report{}, fmt.Errorf("read report: %d events, want %d at most", len(r.Events), MaxHops)
	}
	for i := range r.Events {
		if e := &r.Events[i]; e.What >= numWhat || e.At != AtSwitch && e.At != AtIn && e.At != AtOut {
			return Report{}, fmt.Errorf("read report: event %d is of no kind that is known", i)
		}
	}
	return r, nil
}

// ParseAsk reads and checks a question.
func ParseAsk(b []byte) (Ask, error) {
	var a Ask
	if err := json.Unmarshal(b, &a); err != nil {
		return Ask{}, fmt.Errorf("read question: %w", err)
	}
	switch a.Op {
	case OpWatch:
		if a.Key == nil {
			return Ask{}, errors.New("read question: no key to watch for")
		}
		if err := a.Key.Check(); err != nil {
			return Ask{}, fmt.Errorf("read question: %w", err)
		}
		if a.Key.ID != a.ID || a.For < 1 || time.Duration(a.For)*time.Millisecond > MaxWatch {
			return Ask{}, fmt.Errorf("read question: watch for trace %v, %d ms", a.ID, a.For)
		}
	case OpFetch:
		if a.Part < 0 || a.Part >= MaxParts {
			return Ask{}, fmt.Errorf("read question: part %d", a.Part)
		}
	case OpEnd, OpFind:
	default:
		return Ask{}, fmt.Errorf("read question: unknown op %.20q", a.Op)
	}
	return a, nil
}

// ParseTell reads and checks an answer.
func ParseTell(b []byte) (Tell, error) {
	var t Tell
	if err := json.Unmarshal(b, &t); err != nil {
		return Tell{}, fmt.Errorf("read answer: %w", err)
	}
	if t.Parts < 0 || t.Parts > MaxParts || t.Part < 0 || t.Part > 0 && t.Part >= t.Parts {
		return Tell{}, fmt.Errorf("read answer: part %d of %d", t.Part, t.Parts)
	}
	return t, nil
}

// Marshal writes an Ask or a Tell, whose fields always can be.
func Marshal[T Ask | Tell](v T) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return nil // no field of theirs fails to marshal
	}
	return b
}
