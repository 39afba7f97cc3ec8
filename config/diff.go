package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Change is one difference between two configurations.
type Change struct {
	Op   string // add, change, remove
	Kind string // network, port, fdb, peer, router, or the section's key: host, ageing, tunnel …
	Name string // of the network, port, peer or router; network and MAC address of an FDB entry
	Text string // one readable line that begins with +, ~ or -
}

// String returns the line.
func (c Change) String() string { return c.Text }

// Diff returns what turns old into new, in a stable order; nothing means that
// they are equal. A nil Config is an empty one.
func Diff(old, new *Config) []Change {
	a, b := orEmpty(old), orEmpty(new)
	var out []Change
	out = append(out, diffSection("", top(a), top(b))...)
	out = append(out, diffNamed("network", a.Networks, b.Networks)...)
	out = append(out, diffNamed("port", a.Ports, b.Ports)...)
	out = append(out, diffNamed("fdb", entryMap(a.FDB), entryMap(b.FDB))...)
	out = append(out, diffSection("tunnel", tunnelTop(a), tunnelTop(b))...)
	out = append(out, diffNamed("peer", peers(a), peers(b))...)
	return append(out, diffNamed("router", a.Routers, b.Routers)...)
}

func orEmpty(c *Config) *Config {
	if c == nil {
		return new(Config)
	}
	return c
}

// top is c without its named items.
func top(c *Config) *Config {
	return &Config{Host: c.Host, Profile: c.Profile, Offload: c.Offload, Ageing: c.Ageing, FDBLimit: c.FDBLimit}
}

func tunnelTop(c *Config) *Tunnel {
	if c.Tunnel == nil {
		return nil
	}
	t := *c.Tunnel
	t.Peers = nil
	return &t
}

func peers(c *Config) map[string]*Peer {
	if c.Tunnel == nil {
		return nil
	}
	return c.Tunnel.Peers
}

func entryMap(list []FDBEntry) map[string]*FDBEntry {
	out := make(map[string]*FDBEntry, len(list))
	for i, e := range list {
		out[segment(e.Network)+" "+e.MAC.String()] = &list[i]
	}
	return out
}

// diffSection compares what has no name, a line for each key. kind is "" for
// the top of the file, where each key is a kind of its own.
func diffSection(kind string, a, b any) []Change {
	x, y := flat(a), flat(b)
	var out []Change
	if kind != "" && reflect.ValueOf(a).IsNil() != reflect.ValueOf(b).IsNil() {
		if reflect.ValueOf(a).IsNil() {
			return []Change{line("add", kind, "", summary(y))}
		}
		return []Change{line("remove", kind, "", "")}
	}
	for _, key := range bothKeys(x, y) {
		k := kind
		if kind == "" {
			k, _, _ = strings.Cut(key, ".")
		}
		if x[key] != y[key] {
			op := map[[2]bool]string{{false, true}: "add", {true, false}: "remove", {true, true}: "change"}[[2]bool{x[key] != "", y[key] != ""}]
			out = append(out, Change{op, k, "", fmt.Sprintf("%s %s: %s → %s", marks["change"], strings.TrimSpace(kind+" "+key), orDefault(x[key]), orDefault(y[key]))})
		}
	}
	return out
}

func diffNamed[T any](kind string, a, b map[string]*T) []Change {
	var out []Change
	for _, name := range bothKeys(a, b) {
		x, had := a[name]
		y, has := b[name]
		shown := name
		if kind != "fdb" {
			shown = segment(name)
		}
		switch {
		case !had:
			out = append(out, line("add", kind, shown, summary(unnamed(kind, flat(y)))))
		case !has:
			out = append(out, line("remove", kind, shown, ""))
		default:
			if text := compare(flat(x), flat(y)); text != "" {
				out = append(out, line("change", kind, shown, text))
			}
		}
	}
	return out
}

// unnamed leaves out of an FDB entry what its name says.
func unnamed(kind string, m map[string]string) map[string]string {
	if kind == "fdb" {
		delete(m, "network")
		delete(m, "mac")
	}
	return m
}

var marks = map[string]string{"add": "+", "change": "~", "remove": "-"}

func line(op, kind, name, text string) Change {
	s := marks[op] + " " + strings.TrimSpace(kind+" "+name)
	if text != "" {
		s += ": " + text
	}
	return Change{op, kind, name, s}
}

// compare lists the keys that differ, as `mtu 1500 → 1450`.
func compare(x, y map[string]string) string {
	var parts []string
	for _, k := range bothKeys(x, y) {
		if x[k] != y[k] {
			parts = append(parts, fmt.Sprintf("%s %s → %s", k, orDefault(x[k]), orDefault(y[k])))
		}
	}
	return strings.Join(parts, ", ")
}

func orDefault(s string) string {
	if s == "" {
		return "default"
	}
	return s
}

// summary lists every key, a port's kind first: `tap netns c3, access blue`.
func summary(m map[string]string) string {
	var kind, rest []string
	for _, k := range sortedKeys(m) {
		head, below, nested := strings.Cut(k, ".")
		if slices.Contains([]string{"tap", "veth", "device", "host"}, head) {
			if len(kind) == 0 {
				kind = append(kind, head)
			}
			if nested {
				kind = append(kind, below, m[k])
			}
			continue
		}
		rest = append(rest, k+" "+m[k])
	}
	if len(kind) > 0 {
		rest = append([]string{strings.Join(kind, " ")}, rest...)
	}
	return strings.Join(rest, ", ")
}

// flat returns every value of v by its path below v, as in the file. Lists are
// one value; an empty map is {}.
func flat(v any) map[string]string {
	out := make(map[string]string)
	if r := reflect.ValueOf(v); !r.IsNil() {
		flatten(encode(r, 0), "", out)
	}
	return out
}

func flatten(n *yaml.Node, path string, out map[string]string) {
	switch {
	case n.Kind == yaml.ScalarNode:
		out[path] = safe(n.Value)
	case n.Kind == yaml.SequenceNode:
		items := make([]string, len(n.Content))
		for i, c := range n.Content {
			sub := make(map[string]string)
			flatten(c, "", sub)
			items[i] = sub[""]
			if c.Kind == yaml.MappingNode {
				items[i] = "{" + summary(sub) + "}"
			}
		}
		out[path] = "[" + strings.Join(items, " ") + "]"
	case len(n.Content) == 0 && path != "":
		out[path] = "{}"
	}
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			flatten(n.Content[i+1], join(path, safe(n.Content[i].Value)), out)
		}
	}
}

func bothKeys[T any](a, b map[string]T) []string {
	all := maps.Clone(a)
	if all == nil {
		all = make(map[string]T)
	}
	maps.Copy(all, b)
	return sortedKeys(all)
}
