package audit

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Areas of findings.
const (
	AreaKernel   = "kernel"
	AreaFDB      = "fdb"
	AreaTraffic  = "traffic"
	AreaPeer     = "peer"
	AreaCounters = "counters"
)

// Finding is one thing that disagrees.
type Finding struct {
	Area    string `json:"area"`
	Subject string `json:"subject"` // port c1, peer h130, …
	What    string `json:"what"`    // one sentence, with both values
	Want    string `json:"want"`
	Got     string `json:"got"`
	Hint    string `json:"hint"` // what mends it
}

// MaxTold is how many findings one comparison tells. A person mends no more at a
// time, and who sends what he likes makes as many as he likes.
const MaxTold = 100

// list is the findings of one comparison: the first MaxTold, and how many more
// there are.
type list struct {
	found []Finding
	more  int
}

// note adds a finding whose sentence is "SUBJECT: WHAT".
func (l *list) note(area, subject, want, got, hint, format string, args ...any) {
	if len(l.found) == MaxTold {
		l.more++
		return
	}
	l.found = append(l.found, Finding{
		Area: area, Subject: subject, What: subject + ": " + fmt.Sprintf(format, args...), Want: want, Got: got, Hint: hint,
	})
}

// told is what was noted, and behind it that there is more.
func (l *list) told() []Finding {
	if l.more == 0 {
		return l.found
	}
	return append(l.found, Finding{
		Area: l.found[0].Area, Subject: "others", What: fmt.Sprintf("and %d more like these", l.more), Want: "nothing that disagrees",
		Got: count(MaxTold+l.more, "finding"), Hint: "mend these, and look again: tapestry check --live",
	})
}

// count is a number of things: 1 frame, 2 frames.
func count[N int | int64 | uint64](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// inside is command run where an interface is.
func inside(netns, command string) string {
	switch {
	case netns == "":
		return command
	case strings.HasPrefix(netns, "pid:"):
		return "nsenter -t " + netns[len("pid:"):] + " -n " + command
	case strings.Contains(netns, "/"):
		return "nsenter --net=" + netns + " " + command
	}
	return "ip netns exec " + netns + " " + command
}

// missing are those of want that got lacks.
func missing(want, got []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(want), func(p netip.Prefix) bool { return slices.Contains(got, p) })
}
