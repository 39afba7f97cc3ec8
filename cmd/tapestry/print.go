package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tapestry-net/tapestry/internal/api"
)

// output remembers the first error of writing, so that text can be written
// without a check at each line.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(b []byte) (n int, err error) {
	if o.err == nil {
		n, o.err = o.w.Write(b)
	}
	return n, o.err
}

// print writes v as JSON when that was asked for, else lets text write it.
func (c *cli) print(v any, text func()) error {
	if c.json {
		return api.Encode(c.out, v)
	}
	out := &output{w: c.out}
	defer func() { c.out = out.w }()
	c.out = out
	text()
	return out.err
}

// printf writes text whose string arguments come from outside.
func (c *cli) printf(format string, args ...any) {
	for i, a := range args {
		if s, ok := a.(string); ok {
			args[i] = api.Clean(s)
		}
	}
	fmt.Fprintf(c.out, format, args...)
}

// table collects rows and aligns their columns when it is flushed.
type table struct{ w *tabwriter.Writer }

func (c *cli) table(head ...any) *table {
	t := &table{tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)}
	if len(head) > 0 {
		t.row(head...)
	}
	return t
}

// row adds a line; a cell without text shows as a dash.
func (t *table) row(cells ...any) {
	text := make([]string, len(cells))
	for i, v := range cells {
		if text[i] = api.Clean(fmt.Sprint(v)); text[i] == "" {
			text[i] = "-"
		}
	}
	fmt.Fprintln(t.w, strings.Join(text, "\t"))
}

func (t *table) flush() { t.w.Flush() }

// cleanLines is api.Clean for a message that may have several lines.
func cleanLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = api.Clean(lines[i])
	}
	return strings.Join(lines, "\n")
}

// drops writes counts by reason, the largest first.
func (c *cli) drops(d map[string]uint64) {
	keys := slices.SortedFunc(maps.Keys(d), func(a, b string) int {
		return cmp.Or(cmp.Compare(d[b], d[a]), strings.Compare(a, b))
	})
	t := c.table()
	for _, k := range keys {
		t.row("  "+k, d[k], reasonDoc(k))
	}
	t.flush()
}

// total is the sum of all counts.
func total(d map[string]uint64) (n uint64) {
	for _, v := range d {
		n += v
	}
	return n
}

// seconds shows a number of seconds as 1h2m3s.
func seconds[N int | int64](n N) string { return (time.Duration(n) * time.Second).String() }

// ageing shows an ageing time, of which 0 means for ever.
func ageing(n int) string {
	if n == 0 {
		return "never"
	}
	return seconds(n)
}

// clock shows when something happened, with the date unless it was today. What
// has not happened yet, as a peer's first tick, is empty.
func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	if y, m, d := t.Date(); time.Since(t) > 24*time.Hour || d != time.Now().Day() {
		return fmt.Sprintf("%04d-%02d-%02d %s", y, m, d, t.Format("15:04:05"))
	}
	return t.Format("15:04:05")
}

// changes prints what a command changed, one line each.
func (c *cli) changes(r api.ApplyReply) error {
	return c.print(r, func() {
		if len(r.Changes) == 0 {
			c.printf("no change\n")
		}
		for _, line := range r.Changes {
			c.printf("%s\n", line)
		}
	})
}

// showOne prints the item of list whose name is want, or says which there are.
func showOne[T any](c *cli, kind, want string, list []T, name func(T) string, show func(T)) error {
	var names []string
	for _, item := range list {
		if name(item) == want {
			return c.print(item, func() { show(item) })
		}
		names = append(names, name(item))
	}
	return notFound(kind, want, names)
}
