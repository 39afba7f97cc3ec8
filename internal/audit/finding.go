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

// note adds a finding whose sentence is "SUBJECT: WHAT".
func note(out *[]Finding, area, subject, want, got, hint, format string, args ...any) {
	*out = append(*out, Finding{
		Area: area, Subject: subject, What: subject + ": " + fmt.Sprintf(format, args...), Want: want, Got: got, Hint: hint,
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
