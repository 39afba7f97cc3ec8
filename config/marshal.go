package config

import (
	"bytes"
	"encoding"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"

	"github.com/tapestry-net/tapestry/switch/frame"
	"go.yaml.in/yaml/v3"
)

// Clone returns a copy that shares nothing with c.
func (c *Config) Clone() *Config {
	return deepCopy(reflect.ValueOf(c)).Interface().(*Config)
}

// deepCopy copies pointers, maps and slices. Types that are one value in the
// file are copied as they are.
func deepCopy(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	out.Set(v)
	if _, ok := scalars[v.Type()]; ok {
		return out
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			out.Set(reflect.New(v.Type().Elem()))
			out.Elem().Set(deepCopy(v.Elem()))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			out.Field(i).Set(deepCopy(v.Field(i)))
		}
	case reflect.Map:
		if !v.IsNil() {
			out.Set(reflect.MakeMapWithSize(v.Type(), v.Len()))
			for it := v.MapRange(); it.Next(); {
				out.SetMapIndex(it.Key(), deepCopy(it.Value()))
			}
		}
	case reflect.Slice:
		if !v.IsNil() {
			out.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
			for i := range v.Len() {
				out.Index(i).Set(deepCopy(v.Index(i)))
			}
		}
	}
	return out
}

// Marshal returns the canonical text: keys in the order of the reference, names
// sorted, one line for each network, port, peer and entry. Parse reads back an
// equal Config, if c is valid.
func (c *Config) Marshal() []byte {
	n := encode(reflect.ValueOf(c).Elem(), 0)
	if len(n.Content) == 0 {
		return nil
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	// Encoding a tree of plain nodes into memory cannot fail.
	_ = enc.Encode(n)
	_ = enc.Close()
	return b.Bytes()
}

// encode returns the node of v, which stands depth maps or lists below the
// root. The second level, and in the tunnel the third, is written on one line.
func encode(v reflect.Value, depth int) *yaml.Node {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if _, ok := scalars[v.Type()]; ok {
		return scalarNode(v)
	}
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	if depth >= 2 {
		n.Style = yaml.FlowStyle
	}
	switch v.Kind() {
	case reflect.Map:
		for _, k := range slices.Sorted(maps.Keys(stringKeys(v))) {
			n.Content = append(n.Content, stringNode(k), encode(v.MapIndex(reflect.ValueOf(k)), depth+1))
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[Tunnel]() || v.Type() == reflect.TypeFor[Router]() {
			n.Style, depth = 0, 0
		}
		for i := range v.NumField() {
			if f := v.Field(i); !absent(f) {
				n.Content = append(n.Content, stringNode(v.Type().Field(i).Tag.Get("yaml")), encode(f, depth+1))
			}
		}
	case reflect.Slice:
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		for i := range v.Len() {
			n.Content = append(n.Content, encode(v.Index(i), depth+1))
		}
	default: // GroupMask
		n.Kind, n.Tag, n.Style = yaml.SequenceNode, "!!seq", yaml.FlowStyle
		for _, w := range GroupMask(v.Uint()).Names() {
			n.Content = append(n.Content, stringNode(w))
		}
	}
	if len(n.Content) == 0 {
		n.Style = yaml.FlowStyle
	}
	return n
}

// absent tells whether v is what Parse makes of a key that is left out, or an
// empty list or map, which mean the same.
func absent(v reflect.Value) bool {
	return v.IsZero() || (v.Kind() == reflect.Map || v.Kind() == reflect.Slice) && v.Len() == 0
}

func stringKeys(v reflect.Value) map[string]struct{} {
	out := make(map[string]struct{}, v.Len())
	for it := v.MapRange(); it.Next(); {
		out[it.Key().String()] = struct{}{}
	}
	return out
}

// stringNode leaves the tag out where the text would be read back as something
// else, so that the encoder quotes it.
func stringNode(s string) *yaml.Node {
	n := new(yaml.Node)
	n.SetString(s)
	return n
}

func scalarNode(v reflect.Value) *yaml.Node {
	plain := func(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }
	switch x := v.Interface().(type) {
	case bool:
		return plain(onOff(x))
	case Duration:
		return plain(x.String())
	case Rate:
		return plain(x.String())
	case MACPin:
		return x.node()
	case frame.MAC:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: x.String(), Style: yaml.DoubleQuotedStyle}
	case PeerAddr:
		return stringNode(x.String())
	case netip.AddrPort:
		return stringNode(x.String())
	case encoding.TextMarshaler: // netip.Addr and netip.Prefix
		text, _ := x.MarshalText()
		return stringNode(string(text))
	}
	if v.Kind() == reflect.String {
		return stringNode(v.String())
	}
	return plain(fmt.Sprint(v.Interface()))
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// String returns the rate as in the file.
func (r Rate) String() string {
	if r == 0 {
		return "off"
	}
	return strconv.FormatUint(uint64(r), 10) + "/s"
}

// String returns the address as in the file.
func (a PeerAddr) String() string {
	if ap := netip.AddrPort(a); ap.Port() != 0 {
		return ap.String()
	}
	return netip.AddrPort(a).Addr().String()
}

func (p MACPin) node() *yaml.Node {
	if p.MAC.IsZero() {
		return &yaml.Node{Kind: yaml.ScalarNode, Value: strconv.FormatBool(p.On)}
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Value: p.MAC.String(), Style: yaml.DoubleQuotedStyle}
}

// sortedKeys returns the names of m in order.
func sortedKeys[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
