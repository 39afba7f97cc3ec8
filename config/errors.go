package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Error is one thing wrong with a configuration. Line and Col count from 1 and
// are 0 for a Config that was built, not parsed.
type Error struct {
	File      string
	Line, Col int
	Field     string // path such as ports.c1.tap.address[0]; "" = the whole file
	Msg       string // what is wrong and the likely mend
	// Owner is the path of the field that has already what this one wants for
	// itself; "" = the error is no such conflict.
	Owner string
}

// Error implements error: FILE:LINE:COL: FIELD: MSG, without what is unknown.
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(safe(e.File) + ":")
	}
	if e.Line > 0 {
		fmt.Fprintf(&b, "%d:%d:", e.Line, e.Col)
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	b.WriteString(e.Msg)
	return b.String()
}

// Errors is everything wrong with a configuration, in the order of the file.
type Errors []*Error

// Error implements error: one line each.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Conflict reports whether nothing is wrong but that values belong to something
// else already.
func (es Errors) Conflict() bool {
	return len(es) > 0 && !slices.ContainsFunc(es, func(e *Error) bool { return e.Owner == "" })
}

// Unwrap lets errors.As find each Error.
func (es Errors) Unwrap() []error {
	out := make([]error, len(es))
	for i, e := range es {
		out[i] = e
	}
	return out
}

// quote makes s safe to print on a terminal: quoted, escaped, at most 40
// characters of it.
func quote(s string) string {
	const most = 40
	n := 0
	for i := range s {
		if n == most {
			return strconv.QuoteToASCII(s[:i]) + "…"
		}
		n++
	}
	return strconv.QuoteToASCII(s)
}

// safe returns s itself when it is plain text, else quoted without clipping.
func safe(s string) string {
	for _, r := range s {
		if !strconv.IsPrint(r) || r == '\ufffd' {
			return strconv.QuoteToASCII(s)
		}
	}
	return s
}

// segment returns name as it stands in a field path.
func segment(name string) string {
	if validName(name) {
		return name
	}
	return quote(name)
}
