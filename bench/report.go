package bench

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tapestry-net/tapestry/bench/machine"
)

// Target is what a row should reach.
type Target struct {
	Of    string  `json:"of"` // ratio or value
	Op    string  `json:"op"` // >=, <= or <
	Limit float64 `json:"limit"`
}

// met reports whether v reaches the target. Not a number reaches none.
func (t Target) met(v float64) bool {
	switch t.Op {
	case ">=":
		return v >= t.Limit
	case "<=":
		return v <= t.Limit
	}
	return v < t.Limit
}

var signs = map[string]string{">=": "≥", "<=": "≤", "<": "<"}

// Row is one workload with all its rounds.
type Row struct {
	Name   string  `json:"name"`
	What   string  `json:"what"`
	Unit   string  `json:"unit"`
	Beside string  `json:"beside,omitempty"` // what Base is: kernel, 2 ports, …
	Base   float64 `json:"base,omitempty"`   // median
	Ours   float64 `json:"ours"`             // median
	Ratio  float64 `json:"ratio,omitempty"`  // median of the rounds' ratios
	Low    float64 `json:"ratio_low,omitempty"`
	High   float64 `json:"ratio_high,omitempty"`
	Target *Target `json:"target,omitempty"`
	Met    *bool   `json:"met,omitempty"`
	Note   string  `json:"note,omitempty"`
	Error  string  `json:"error,omitempty"` // why it could not be measured
	Rounds []Round `json:"rounds"`
}

// settle works out the row's figures from its rounds.
func (r *Row) settle() {
	if len(r.Rounds) == 0 {
		return
	}
	value := func(s Sample) float64 { return s.Value }
	r.Ours = ours(r.Rounds, value)
	judged := r.Ours
	if q := ratios(r.Rounds); len(q) > 0 {
		r.Base = base(r.Rounds, value)
		r.Ratio, r.Low, r.High = median(q), q[0], q[len(q)-1]
	}
	if r.Target == nil {
		return
	}
	if r.Target.Of == "ratio" {
		judged = r.Ratio
	}
	met := r.Error == "" && r.Target.met(judged)
	r.Met = &met
}

// Report is one whole run.
type Report struct {
	machine.Description
	Date    time.Time `json:"date"`
	Version string    `json:"version"`
	Rounds  int       `json:"rounds"`
	WindowS float64   `json:"window_s"`
	Rows    []Row     `json:"rows"`
}

// Failed are the names of the rows that could not be measured.
func (r *Report) Failed() (names []string) {
	for _, row := range r.Rows {
		if row.Error != "" {
			names = append(names, row.Name)
		}
	}
	return names
}

// headline says on what and how the numbers were taken.
func (r *Report) headline() []string {
	return []string{
		fmt.Sprintf("tapestry %s, %s, Linux %s, %d × %s, %.1f GB", r.Version, r.Go, r.Kernel, r.CPUs, r.CPU, float64(r.MemoryMB)/1e3),
		fmt.Sprintf("%s, median of %d interleaved rounds of %g s; the machine was %.0f %% busy before",
			r.Date.UTC().Format("2006-01-02 15:04 UTC"), r.Rounds, r.WindowS, r.BusyBefore*100),
	}
}

var columns = []string{"workload", "kernel", "tapestry", "ratio (of all rounds)", "target", "met"}

// cells are the row's columns.
func (r *Row) cells() []string {
	c := []string{r.What, "–", "–", "–", "–", "–"}
	if r.Base != 0 {
		c[1] = figure(r.Base) + " " + r.Unit
		if r.Beside != besideKernel {
			c[1] += " (" + r.Beside + ")"
		}
		c[3] = fmt.Sprintf("%.2f× (%.2f–%.2f)", r.Ratio, r.Low, r.High)
	}
	if len(r.Rounds) > 0 {
		c[2] = figure(r.Ours) + " " + r.Unit
	}
	if t := r.Target; t != nil {
		c[4] = signs[t.Op] + " " + figure(t.Limit)
		if t.Of == "ratio" {
			c[4] += "×"
		} else {
			c[4] += " " + r.Unit
		}
	}
	switch {
	case r.Error != "":
		c[5] = "failed"
	case r.Met != nil && *r.Met:
		c[5] = "yes"
	case r.Met != nil:
		c[5] = "no"
	}
	return c
}

// remark is the row's note, or why there is no number.
func (r *Row) remark() string {
	if r.Error != "" {
		return r.Error
	}
	return r.Note
}

// figure shows three significant digits, and no more than a whole number needs.
func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return trimZeros(fmt.Sprintf("%.2f", v))
	}
	return trimZeros(fmt.Sprintf("%.3f", v))
}

func trimZeros(s string) string { return strings.TrimRight(strings.TrimRight(s, "0"), ".") }

// Text writes the report for a terminal.
func (r *Report) Text(w io.Writer) {
	lines := [][]string{columns}
	for i := range r.Rows {
		lines = append(lines, r.Rows[i].cells())
	}
	width := make([]int, len(columns))
	for _, l := range lines {
		for i, c := range l {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	for _, l := range r.headline() {
		fmt.Fprintln(w, l)
	}
	fmt.Fprintln(w)
	for i, l := range lines {
		for k, c := range l {
			fmt.Fprint(w, c)
			if k < len(l)-1 {
				fmt.Fprint(w, strings.Repeat(" ", width[k]-utf8.RuneCountInString(c)+2))
			}
		}
		fmt.Fprintln(w)
		if i == 0 {
			continue
		}
		if s := r.Rows[i-1].remark(); s != "" {
			fmt.Fprintf(w, "    %s: %s\n", r.Rows[i-1].Name, s)
		}
	}
}

// Markdown writes the report for a page.
func (r *Report) Markdown(w io.Writer) {
	for _, l := range r.headline() {
		fmt.Fprintf(w, "%s  \n", l)
	}
	fmt.Fprintf(w, "\n| name | %s | note |\n|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)+2))
	for i := range r.Rows {
		row := &r.Rows[i]
		note := strings.NewReplacer("|", `\|`, "\n", " ").Replace(row.remark())
		fmt.Fprintf(w, "| `%s` | %s | %s |\n", row.Name, strings.Join(row.cells(), " | "), note)
	}
}
