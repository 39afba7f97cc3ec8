package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"syscall"
)

// Codes of Error, which are the exit codes of the command line.
const (
	CodeFailed       = 1 // failed while doing it
	CodeInvalid      = 2 // wrong usage or invalid input; nothing was touched
	CodeUnreachable  = 3 // the daemon cannot be reached
	CodeNotPermitted = 4
	CodeNotFound     = 5
	CodeConflict     = 6 // the name, address or MAC is owned already
)

// Errorf makes an Error with a code and a message as by fmt.Sprintf.
func Errorf(code int, format string, args ...any) *Error {
	return &Error{Code: code, Msg: fmt.Sprintf(format, args...)}
}

// WithHint returns a copy of e that names a mend.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// AsError returns err as the Error it is or wraps, keeping the whole message.
// Any other error has CodeFailed. A nil err gives nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return &Error{Code: e.Code, Msg: err.Error(), Hint: e.Hint, Retry: e.Retry}
	}
	return &Error{Code: CodeFailed, Msg: err.Error()}
}

// FileError is err, of a file that a user named, with the code and the hint that
// its cause deserves.
func FileError(err error) *Error {
	e := AsError(err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Code = CodeNotFound
		if dir, err := os.Getwd(); err == nil {
			return e.WithHint("give its path from %s, or from /", dir)
		}
	case errors.Is(err, fs.ErrPermission):
		e.Code = CodeNotPermitted
		return e.WithHint("run the command as who may open it: `ls -l` shows")
	case errors.Is(err, syscall.EISDIR):
		e.Code = CodeInvalid
		return e.WithHint("name a file in it")
	}
	return e
}

// status is the HTTP status of a code.
func status(code int) int {
	switch code {
	case CodeInvalid:
		return http.StatusBadRequest
	case CodeNotPermitted:
		return http.StatusForbidden
	case CodeNotFound:
		return http.StatusNotFound
	case CodeConflict:
		return http.StatusConflict
	}
	return http.StatusInternalServerError
}
