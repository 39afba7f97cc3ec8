package audit

import (
	"fmt"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Counters are the switch's totals at one moment.
type Counters struct {
	RxFrames      uint64
	Verdicts      [frame.NumActions]uint64
	Decided, Sent uint64
	Refused       uint64
	Drops         [frame.NumReasons]uint64
}

// gaps is by how much each equation of the law fails: frames without a verdict,
// copies that were neither sent nor refused, and drops without a reason.
func (c *Counters) gaps() [3]int64 {
	var verdicts, drops uint64
	for _, n := range c.Verdicts {
		verdicts += n
	}
	for _, n := range c.Drops {
		drops += n
	}
	return [3]int64{
		int64(c.RxFrames - verdicts),
		int64(c.Decided - c.Sent - c.Refused),
		int64(c.Verdicts[frame.Drop] + c.Refused - drops),
	}
}

// law names the equations of gaps.
var law = [3]struct{ what, want string }{
	{"more frames were received than have a verdict", "received = forward + flood + drop + local"},
	{"more copies were decided than sent or refused", "copies decided = sent + refused"},
	{"more frames and copies were dropped than have a reason", "Σ drops = dropped frames + refused copies"},
}

// Conservation compares several readings of the counters with the law that
// nothing vanishes. A reading in the middle of a batch may be off by what that
// batch holds; what is missing for good is missing in every one.
func Conservation(readings []Counters) []Finding {
	var out list
	if len(readings) == 0 {
		return nil
	}
	for i, l := range law {
		least := readings[0].gaps()[i]
		for _, r := range readings[1:] {
			if g := r.gaps()[i]; abs(g) < abs(least) {
				least = g
			}
		}
		if least != 0 {
			out.note(AreaCounters, "the switch", l.want, fmt.Sprintf("%+d", least), "report this with the output of `tapestry stats --json`: it is a fault of the switch",
				"%d %s", least, l.what)
		}
	}
	return out.told()
}

func abs(n int64) int64 {
	if n < 0 {
		return -n
	}
	return n
}
