package journal_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/internal/journal"
)

var begin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func open(t testing.TB, dir string, failed func(error)) *journal.Journal {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	j := journal.Open(int(d.Fd()), failed)
	t.Cleanup(func() { j.Close(); d.Close() })
	return j
}

func record(i int, kind, port, peer string) journal.Record {
	return journal.Record{Time: begin.Add(time.Duration(i) * time.Second), Kind: kind, What: fmt.Sprint("thing ", i), Port: port, Peer: peer}
}

func whats(list []journal.Record) (s string) {
	for _, r := range list {
		s += strings.TrimPrefix(r.What, "thing ") + " "
	}
	return strings.TrimSpace(s)
}

func TestSelect(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, nil)
	for i, r := range []journal.Record{
		record(0, "port", "c1", ""), record(1, "peer", "", "h1"), record(2, "worker", "", ""),
		record(3, "port", "c2", ""), record(4, "loop", "c1", ""), record(5, "port", "c1", ""),
	} {
		r.Fields = map[string]any{"n": float64(i)}
		j.Append(r)
	}
	check := func(j *journal.Journal) {
		t.Helper()
		for _, c := range []struct {
			f    journal.Filter
			want string
		}{
			{journal.Filter{}, "0 1 2 3 4 5"},
			{journal.Filter{Port: "c1"}, "0 2 4 5"},
			{journal.Filter{Peer: "h1"}, "1 2"},
			{journal.Filter{Kinds: []string{"port", "peer"}}, "0 1 3 5"},
			{journal.Filter{Since: begin.Add(4 * time.Second)}, "4 5"},
			{journal.Filter{Limit: 2}, "4 5"},
			{journal.Filter{Port: "c9", Kinds: []string{"port"}}, ""},
		} {
			if got := whats(j.Select(c.f)); got != c.want {
				t.Errorf("%+v: got %q, want %q", c.f, got, c.want)
			}
		}
	}
	check(j)
	j.Close()
	j.Close()
	next := open(t, dir, nil)
	check(next)
	if d := cmp.Diff(j.Select(journal.Filter{}), next.Select(journal.Filter{})); d != "" {
		t.Errorf("the next process (-before +after):\n%s", d)
	}
	j.Append(record(9, "port", "c1", ""))
	if got := whats(j.Select(journal.Filter{Limit: 1})); got != "9" {
		t.Errorf("after Close: %q", got)
	}
}

// TestBounds compares with a list that keeps everything: a line has its newest
// records, and a busy one costs the others nothing.
func TestBounds(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		own, err := os.MkdirTemp(dir, "")
		if err != nil {
			rt.Fatal(err)
		}
		j := open(t, own, nil)
		var all []journal.Record
		ports := rapid.SliceOfN(rapid.IntRange(0, 9), 1, 300).Draw(rt, "ports")
		for i, p := range ports {
			r := record(i, "port", fmt.Sprint("c", p), "")
			all = append(all, r)
			j.Append(r)
		}
		for p := range 10 {
			var want []journal.Record
			for _, r := range all {
				if r.Port == fmt.Sprint("c", p) {
					want = append(want, r)
				}
			}
			got := j.Select(journal.Filter{Port: fmt.Sprint("c", p)})
			if want = want[max(0, len(want)-journal.LineLen):]; len(got) < len(want) || whats(got[len(got)-len(want):]) != whats(want) {
				rt.Fatalf("port c%d: got %q, want %q at the end", p, whats(got), whats(want))
			}
		}
		j.Close()
	})
}

func TestManySubjects(t *testing.T) {
	j := open(t, t.TempDir(), nil)
	for i := range 50 {
		j.Append(record(i, "port", "quiet", ""))
	}
	for i := range 3 * journal.TotalLen {
		j.Append(record(i, "port", fmt.Sprint("p", i%3000), ""))
		j.Append(record(i, "storm", "noisy", ""))
	}
	if n := j.Total(); n != journal.TotalLen {
		t.Errorf("%d records, want %d", n, journal.TotalLen)
	}
	if n := len(j.Select(journal.Filter{Port: "noisy"})); n == 0 || n > journal.LineLen {
		t.Errorf("%d records of the noisy port", n)
	}
	if n := len(j.Select(journal.Filter{Port: "quiet"})); n == 0 {
		t.Error("the quiet port is forgotten")
	}
}

// TestFiles fills more than one file, damages what is there, and reads it back.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, func(err error) { t.Error(err) })
	const n = 6000
	for i := range n {
		r := record(i, "port", fmt.Sprint("c", i%100), "")
		r.Fields = map[string]any{"text": strings.Repeat("x", 100)}
		j.Append(r)
		if i%500 == 0 { // let the disk keep up
			j.Close()
			j = open(t, dir, func(err error) { t.Error(err) })
		}
	}
	j.Close()
	for _, name := range []string{"journal", "journal.1"} {
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil || fi.Size() > journal.MaxFile || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
	path := filepath.Join(dir, "journal")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, "{}\n\x00garbage\n%s\n{\"time\":\"2026-01", strings.Repeat("y", 3*journal.MaxRecord))
	f.Close()
	j = open(t, dir, nil)
	if got := j.Select(journal.Filter{Limit: 1}); whats(got) != fmt.Sprint(n-1) {
		t.Errorf("last record %+v", got)
	}
	j.Append(record(n, "port", "c1", ""))
	j.Close()
	if got := open(t, dir, nil).Select(journal.Filter{Limit: 1}); whats(got) != fmt.Sprint(n) {
		t.Errorf("behind a line that was cut off: %+v", got)
	}
}

// TestUnwritable keeps in memory what the disk doesn't take, and says so once.
func TestUnwritable(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "journal"), 0o700); err != nil {
		t.Fatal(err)
	}
	var errs []error
	j := open(t, dir, func(err error) { errs = append(errs, err) })
	for i := range 9 {
		j.Append(record(i, "port", "c1", ""))
	}
	j.Close()
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "write journal") {
		t.Errorf("told %v", errs)
	}
	if n := len(j.Select(journal.Filter{})); n != 9 || j.Missed() != 0 {
		t.Errorf("%d records, %d missed", n, j.Missed())
	}
}

func TestLongRecord(t *testing.T) {
	r := record(1, "config", "", "")
	r.What, r.Fields = strings.Repeat("\x01", 5000), map[string]any{"changes": strings.Repeat("z", 5000)}
	b := journal.Encode(r)
	if len(b) > journal.MaxRecord {
		t.Errorf("a line of %d octets, want at most %d", len(b), journal.MaxRecord)
	}
	if got := journal.Decode(bytes.NewReader(b)); len(got) != 1 || got[0].Kind != "config" {
		t.Errorf("read back: %+v", got)
	}
}

// FuzzDecode: whatever a file holds, reading it ends, and what is read can be
// written and read again.
func FuzzDecode(f *testing.F) {
	f.Add(journal.Encode(record(1, "port", "c1", "")))
	f.Add([]byte("{\"time\":\"2026-01-02T03:04:05Z\",\"kind\":\"x\",\"fields\":{\"a\":[1,{}]}}\n\n{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, r := range journal.Decode(bytes.NewReader(b)) {
			line := journal.Encode(r)
			if len(line) > journal.MaxRecord+1 {
				t.Errorf("a line of %d octets", len(line))
			}
			if got := journal.Decode(bytes.NewReader(line)); len(got) != 1 || got[0].Kind != r.Kind {
				t.Errorf("%q is read back as %+v", line, got)
			}
		}
	})
}
