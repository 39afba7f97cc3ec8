package syntax

import (
	"fmt"
	"unicode/utf8"

	"github.com/tapestry-net/tapestry/internal/spell"
)

// Error says what is wrong with an expression, and where.
type Error struct {
	Column int // of the offending word, in characters from 1
	Msg    string
	Hint   string // a likely mend; may be empty
}

// Error implements error: "column 6: …".
func (e *Error) Error() string { return fmt.Sprintf("column %d: %s", e.Column, e.Msg) }

func (e *Error) hint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

func (l *lexer) errorf(at int, format string, args ...any) *Error {
	return &Error{Column: utf8.RuneCountInString(l.text[:min(at, len(l.text))]) + 1, Msg: fmt.Sprintf(format, args...)}
}

// nearest is the word within two edits of s, or empty.
func nearest(s string, words []string) string {
	best, least := "", min(3, len(s))
	for _, w := range words {
		if d := spell.Distance(s, w); d < least {
			best, least = w, d
		}
	}
	return best
}
