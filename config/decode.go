package config

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tapestry-net/tapestry/internal/spell"
)

// place is where a field stands in a file; the zero value is nowhere.
type place struct{ line, col int }

// decoder walks a YAML tree and a Go value side by side. A field is named
// twice: path is what the user reads (ports.c1.access), key is the row of the
// table (ports.*.access).
type decoder struct {
	errs   Errors
	places map[string]place
	// clear makes null remove a value, as an edit of one item does.
	clear bool
}

func (d *decoder) fail(n *yaml.Node, path, format string, args ...any) {
	d.errs = append(d.errs, &Error{Line: n.Line, Col: n.Column, Field: path, Msg: fmt.Sprintf(format, args...)})
}

// decode fills v, which is settable, from n.
func (d *decoder) decode(n *yaml.Node, v reflect.Value, path, key string) {
	d.places[path] = place{n.Line, n.Column}
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		d.fail(n, path, "anchors and aliases are not accepted; write the value out")
		return
	}
	null := n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
	if null && d.clear {
		v.SetZero()
		return
	}
	if parse, ok := scalars[v.Type()]; ok {
		d.scalar(n, v, parse, path, key)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.decode(n, v.Elem(), path, key)
	case reflect.Struct:
		d.mapping(n, v, path, key, null)
	case reflect.Map:
		d.named(n, v, path, key, null)
	case reflect.Slice:
		d.list(n, v, path, key+"[]", null)
	default: // GroupMask, the only list that is one value
		d.groups(n, v, path, null)
	}
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, parse scalarFunc, path, key string) {
	switch {
	case n.Kind != yaml.ScalarNode:
		d.fail(n, path, "is a %s; want %s", kindOf(n), wanted(key))
	case n.ShortTag() == "!!null":
		d.fail(n, path, "has no value; want %s, or leave the key out", wanted(key))
	default:
		if err := parse(v, n.Value, keyByPath[key]); err != nil {
			d.fail(n, path, "%s", err)
		}
	}
}

// pairs reports duplicate keys and calls f for each other pair.
func (d *decoder) pairs(n *yaml.Node, path string, f func(name, val *yaml.Node)) {
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, val := n.Content[i], n.Content[i+1]
		field := join(path, segment(k.Value))
		switch first, dup := seen[k.Value]; {
		case k.Kind != yaml.ScalarNode || k.Anchor != "":
			d.fail(k, path, "a key is a %s; want a plain word", kindOf(k))
		case dup:
			d.fail(k, field, "key given twice, first in line %d; keep one", first)
		default:
			seen[k.Value] = k.Line
			f(k, val)
		}
	}
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path, key string, null bool) {
	if null {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "is a %s; want keys with values: %s", kindOf(n), strings.Join(children[key], ", "))
		return
	}
	d.pairs(n, path, func(k, val *yaml.Node) {
		f := fieldByTag(v, k.Value)
		below := join(key, k.Value)
		_, plain := keyByPath[below]
		_, list := keyByPath[below+"[]"]
		if !f.IsValid() || !plain && !list {
			d.fail(k, join(path, segment(k.Value)), "unknown key%s", suggest(k.Value, children[key]))
			return
		}
		d.decode(val, f, join(path, k.Value), below)
	})
}

func (d *decoder) named(n *yaml.Node, v reflect.Value, path, key string, null bool) {
	if null {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "is a %s; want names with values", kindOf(n))
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	d.pairs(n, path, func(k, val *yaml.Node) {
		item := reflect.New(v.Type().Elem().Elem())
		field := join(path, segment(k.Value))
		v.SetMapIndex(reflect.ValueOf(k.Value), item)
		d.decode(val, item.Elem(), field, key+".*")
		d.places[field] = place{k.Line, k.Column}
	})
	if v.Len() == 0 {
		v.SetZero()
	}
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, path, key string, null bool) {
	if null {
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.fail(n, path, "is a %s; want a list, [like, this]", kindOf(n))
		return
	}
	if len(n.Content) == 0 {
		if strings.HasSuffix(key, ".sources[]") || strings.HasSuffix(key, ".peers.*.networks[]") {
			d.fail(n, path, "is empty, which is not none but any; name some or leave the key out")
		}
		v.SetZero()
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		d.decode(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i), key)
	}
}

func (d *decoder) groups(n *yaml.Node, v reflect.Value, path string, null bool) {
	if null {
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.fail(n, path, "is a %s; want a list such as [lldp, lacp]", kindOf(n))
		return
	}
	var mask uint64
	for i, item := range n.Content {
		bit, ok := groupBit(item.Value)
		if item.Kind != yaml.ScalarNode || !ok {
			d.fail(item, fmt.Sprintf("%s[%d]", path, i), "%s is no reserved group address; want one of %s, or 00 to 0f", quote(item.Value), strings.Join(groupWords(), " "))
			continue
		}
		mask |= 1 << bit
	}
	v.SetUint(mask)
}

// wanted is what the table says about a key, for messages.
func wanted(key string) string {
	k := keyByPath[key]
	if k.Path == "" {
		return "a value"
	}
	return k.typeText()
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "map"
	case yaml.SequenceNode:
		return "list"
	case yaml.AliasNode:
		return "alias"
	}
	return "single value"
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// fieldByTag returns the field of struct v whose yaml tag is name.
func fieldByTag(v reflect.Value, name string) reflect.Value {
	t := v.Type()
	for i := range t.NumField() {
		if tag := t.Field(i).Tag.Get("yaml"); tag != "" && tag == name {
			return v.Field(i)
		}
	}
	return reflect.Value{}
}

// suggest returns `; did you mean x?` for the nearest of words, or a list of a
// few. It does not search through many, to keep the time of a bad file bounded.
func suggest(got string, words []string) string {
	best, least := "", 3
	if len(got) <= 64 && len(words) <= 1000 {
		for _, w := range words {
			if n := spell.Distance(got, w); n < least && n < len(w) {
				best, least = w, n
			}
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf("; did you mean %s?", best)
	case len(words) == 0 || len(words) > 20:
		return ""
	}
	return "; known: " + strings.Join(words, ", ")
}
