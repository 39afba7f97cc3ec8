package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Encode writes v as one JSON document and a newline. Slices and maps that are
// nil become [] and {}, as the contract shows them, and characters that a
// terminal would obey are escaped. A slice or an iter.Seq of entries is written
// element by element, so that a long list needs no memory of its own length.
// The entries of a past are written that way too.
func Encode(w io.Writer, v any) error {
	bw := bufio.NewWriter(w)
	var err error
	rv := reflect.ValueOf(v)
	if rows, ok := v.(iter.Seq[Entry]); ok {
		err = encodeList(bw, func(yield func(reflect.Value) bool) {
			rows(func(e Entry) bool { return yield(reflect.ValueOf(e)) })
		})
	} else if p, ok := v.(pastReply); ok {
		err = p.encode(bw)
	} else if rv.Kind() == reflect.Slice {
		err = encodeList(bw, func(yield func(reflect.Value) bool) {
			for i := 0; i < rv.Len() && yield(rv.Index(i)); i++ {
			}
		})
	} else {
		err = encodeOne(bw, rv)
	}
	if err != nil {
		return err
	}
	bw.WriteByte('\n')
	return bw.Flush()
}

func encodeList(bw *bufio.Writer, items iter.Seq[reflect.Value]) error {
	bw.WriteByte('[')
	first := true
	for v := range items {
		if !first {
			bw.WriteByte(',')
		}
		first = false
		if err := encodeOne(bw, v); err != nil {
			return err
		}
	}
	return bw.WriteByte(']')
}

func encodeOne(w *bufio.Writer, v reflect.Value) error {
	b, err := json.Marshal(filled(v).Interface())
	if err != nil {
		return fmt.Errorf("encode %s: %w", v.Type(), err)
	}
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case unicode.IsPrint(r):
			w.Write(b[:n])
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(w, `\u%04x\u%04x`, hi, lo)
		default:
			// Marshal leaves such characters inside strings only.
			fmt.Fprintf(w, `\u%04x`, r)
		}
		b = b[n:]
	}
	return nil
}

// filled returns v, or a copy of it in which no slice and no map is nil. The
// original is not touched: it may be the Backend's own snapshot.
func filled(v reflect.Value) reflect.Value {
	if !fillable(v.Type()) {
		return v
	}
	switch v.Kind() {
	case reflect.Map:
		if v.IsNil() {
			return reflect.MakeMap(v.Type())
		}
	case reflect.Slice:
		out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			out.Index(i).Set(filled(v.Index(i)))
		}
		return out
	case reflect.Struct:
		out := reflect.New(v.Type()).Elem()
		out.Set(v)
		for i := range v.NumField() {
			if out.Field(i).CanSet() {
				out.Field(i).Set(filled(v.Field(i)))
			}
		}
		return out
	}
	return v
}

// fillable reports whether a value of type t can hold a nil slice or map.
func fillable(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Slice, reflect.Map:
		return true
	case reflect.Struct:
		for i := range t.NumField() {
			if f := t.Field(i); f.IsExported() && fillable(f.Type) {
				return true
			}
		}
	}
	return false
}

// Clean returns s with every character escaped that a terminal or a log would
// obey instead of show, such as newlines and escape codes.
func Clean(s string) string {
	bad := func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
	if strings.IndexFunc(s, bad) < 0 {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		s = s[n:]
	}
	return b.String()
}
