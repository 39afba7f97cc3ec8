package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	maxText  = 4 << 20 // octets of a file
	maxNodes = 250_000 // YAML nodes: about 10,000 ports with every key
)

// ReadFile returns the text of a file for Parse. Of a file that is too large, or
// a device that has no end, it returns as much as Parse needs to refuse it.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxText+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return text, nil
}

// Parse reads a whole file; name stands in error positions. The error is
// Errors: everything wrong with the file, in its order.
func Parse(name string, text []byte) (*Config, error) {
	c := new(Config)
	d, err := decodeText(name, text, reflect.ValueOf(c).Elem(), "", "", false)
	if err != nil {
		return nil, err
	}
	if err := d.finish(name, c); err != nil {
		return nil, err
	}
	return c, nil
}

// decodeText reads one document into v. The error, which is Errors, is for a
// text that is no YAML tree; what is wrong inside the tree is in the decoder.
func decodeText(name string, text []byte, v reflect.Value, path, key string, clear bool) (*decoder, error) {
	root, err := parseTree(text)
	if err != nil {
		err.File = name
		return nil, Errors{err}
	}
	d := &decoder{places: make(map[string]place), clear: clear}
	if root != nil {
		d.decode(root, v, path, key)
	}
	return d, nil
}

// finish validates c and returns every error in the order of the file.
// Validation says nothing about a field that could not be read, nor about what
// is around it.
func (d *decoder) finish(name string, c *Config) error {
	errs := slices.Clone(d.errs)
	unread, around := make(map[string]bool), make(map[string]bool)
	for _, e := range d.errs {
		unread[e.Field] = true
		for f := range outward(e.Field) {
			around[f] = true
		}
	}
	for _, e := range validate(c, d.place, "") {
		hidden := around[e.Field]
		for f := range outward(e.Field) {
			hidden = hidden || unread[f]
		}
		if !hidden {
			errs = append(errs, e)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	for _, e := range errs {
		e.File = name
	}
	slices.SortStableFunc(errs, func(a, b *Error) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Col - b.Col
	})
	return errs
}

// outward yields path and every field around it, the whole file ("") last.
func outward(path string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for path != "" {
			if !yield(path) {
				return
			}
			path = path[:max(0, strings.LastIndexAny(path, ".["))]
		}
		yield("")
	}
}

// place returns where path stands, else where the nearest field around it does.
func (d *decoder) place(path string) place {
	for f := range outward(path) {
		if p, ok := d.places[f]; ok {
			return p
		}
	}
	return place{}
}

// parseTree returns the root of the only document, nil when it is empty.
func parseTree(text []byte) (*yaml.Node, *Error) {
	if len(text) > maxText {
		return nil, &Error{Msg: "file is larger than 4 MiB"}
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, syntaxError(err)
	}
	if err := dec.Decode(&second); err == nil {
		return nil, &Error{Line: second.Line, Col: second.Column, Msg: "a second document begins here; a file holds one"}
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxError(err)
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	if n := countNodes(&doc, maxNodes); n > maxNodes {
		return nil, &Error{Msg: "file has more than 250000 values"}
	}
	return doc.Content[0], nil
}

// countNodes counts the nodes below n and stops soon after limit. Aliases are
// not followed.
func countNodes(n *yaml.Node, limit int) int {
	count := 1
	for _, c := range n.Content {
		if count > limit {
			break
		}
		count += countNodes(c, limit-count)
	}
	return count
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// syntaxError turns the YAML library's text into an Error with a line.
func syntaxError(err error) *Error {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	e := &Error{Line: 1, Col: 1} // the library leaves out the number of the first line
	if strings.Contains(msg, "control characters") || strings.Contains(msg, "UTF-8") {
		e.Line = 0 // nor does it know the line of a bad character
	}
	if m := yamlLine.FindStringSubmatch(msg); m != nil {
		e.Line, _ = strconv.Atoi(m[1])
		msg = msg[len(m[0]):]
	}
	e.Msg = "is no YAML: " + safe(msg)
	return e
}
