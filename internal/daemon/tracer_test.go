package daemon

import (
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/fdb"
)

// TestTraceEntry: a trace is told of the entry that a decision found, and of the
// frame that put it there, by the rule that `fdb why` has.
func TestTraceEntry(t *testing.T) {
	d := remembering(t)
	k := fdb.MakeKey(10, mac(7))
	teach := &fdb.Teacher{Wall: time.Now().UnixNano(), Len: 60, Head: make([]byte, 60)}
	check := func(when, port string, found, taught bool) {
		t.Helper()
		at := d.portID(port)
		if e, by := (traced{d}).Entry(10, mac(7), at); (e != "") != found || (by != "") != taught {
			t.Errorf("%s, at %s: entry %q, taught by %q, want one %v, the other %v", when, port, e, by, found, taught)
		}
	}
	check("unknown", "a", false, false)
	d.table.Learn(k, 1, tick(), teach)
	check("learned", "a", true, true)
	check("where the decision did not find it", "b", false, false)
	d.table.Learn(k, 2, tick(), teach)
	check("moved", "b", true, true)
	d.table.Flush(fdb.Filter{MAC: mac(7)})
	check("flushed", "b", false, false)
	d.table.Learn(k, 2, tick(), nil)
	check("learned from no frame", "b", true, false)
	if err := d.table.AddStatic(k, 2); err != nil {
		t.Fatal(err)
	}
	check("static", "b", true, false)
}
