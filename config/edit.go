package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// ErrNotFound and ErrExists are wrapped by Edit's errors.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
)

// ParsePort reads one port's value as it stands in the file. What depends on
// the rest of the configuration is left to Validate.
func ParsePort(name, text string) (*Port, error) {
	p := new(Port)
	return p, parseItem("ports."+segment(name), "ports.*", name, text, p)
}

// ParseNetwork reads one network's value as it stands in the file.
func ParseNetwork(name, text string) (*Network, error) {
	n := new(Network)
	return n, parseItem("networks."+segment(name), "networks.*", name, text, n)
}

// ParsePeer reads one peer's value as it stands in the file.
func ParsePeer(name, text string) (*Peer, error) {
	p := new(Peer)
	return p, parseItem("tunnel.peers."+segment(name), "tunnel.peers.*", name, text, p)
}

// ParseFDBEntry reads one static entry as it stands in the file.
func ParseFDBEntry(text string) (FDBEntry, error) {
	var e FDBEntry
	return e, parseItem("fdb[0]", "fdb[]", "", text, &e)
}

// parseItem reads text onto what item points to, so that keys which text does
// not name keep their value and null removes one.
func parseItem(path, key, name, text string, item any) error {
	if name != "" && !validName(name) {
		return Errors{{Field: path, Msg: badName(name)}}
	}
	d, err := decodeText("", []byte(text), reflect.ValueOf(item).Elem(), path, key, true)
	if err != nil {
		return err
	}
	if len(d.errs) > 0 {
		return d.errs
	}
	return nil
}

// Edit returns a changed, validated copy of c. op is add, set or rm; kind is
// network, port, peer or fdb. text is the value as in the file, for set only
// the keys that change, where null removes a key. For fdb, name is unused: the
// entry's network and MAC address say which one is meant. The error wraps
// ErrNotFound or ErrExists, or is Errors, in which what c has already is the
// owner of what the item wants.
func Edit(c *Config, op, kind, name, text string) (*Config, error) {
	out := c.Clone()
	var err error
	edited := ""
	switch kind {
	case "port":
		edited = "ports." + segment(name)
		err = editNamed(&out.Ports, op, kind, name, text, ParsePort, "ports.*")
	case "network":
		edited = "networks." + segment(name)
		err = editNamed(&out.Networks, op, kind, name, text, ParseNetwork, "networks.*")
	case "peer":
		if out.Tunnel == nil {
			out.Tunnel = new(Tunnel)
		}
		edited = "tunnel.peers." + segment(name)
		err = editNamed(&out.Tunnel.Peers, op, kind, name, text, ParsePeer, "tunnel.peers.*")
	case "fdb":
		err = editFDB(out, op, text)
	default:
		return nil, fmt.Errorf("edit %s: unknown kind; want network, port, peer or fdb", quote(kind))
	}
	if err != nil {
		return nil, err
	}
	if err := validateEdited(out, edited); err != nil {
		return nil, err
	}
	return out, nil
}

func editNamed[T any](items *map[string]*T, op, kind, name, text string, parse func(name, text string) (*T, error), key string) error {
	old, known := (*items)[name]
	switch {
	case op == "add" && known:
		return fmt.Errorf("add %s %s: %w", kind, segment(name), ErrExists)
	case op != "add" && !known:
		return fmt.Errorf("%s %s %s: %w%s", op, kind, segment(name), ErrNotFound, suggest(name, sortedKeys(*items)))
	}
	switch op {
	case "add":
		item, err := parse(name, text)
		if err != nil {
			return err
		}
		if *items == nil {
			*items = make(map[string]*T)
		}
		(*items)[name] = item
	case "set":
		return parseItem(strings.TrimSuffix(key, "*")+segment(name), key, name, text, old)
	case "rm":
		delete(*items, name)
	default:
		return fmt.Errorf("edit %s: unknown operation; want add, set or rm", quote(op))
	}
	return nil
}

func editFDB(c *Config, op, text string) error {
	e, err := ParseFDBEntry(text)
	if err != nil {
		return err
	}
	at := -1
	for i, have := range c.FDB {
		if have.Network == e.Network && have.MAC == e.MAC {
			at = i
		}
	}
	switch {
	case op == "add" && at >= 0:
		return fmt.Errorf("add fdb entry %s in %s: %w", e.MAC, segment(e.Network), ErrExists)
	case op == "add":
		c.FDB = append(c.FDB, e)
	case op != "set" && op != "rm":
		return fmt.Errorf("edit %s: unknown operation; want add, set or rm", quote(op))
	case at < 0:
		return fmt.Errorf("%s fdb entry %s in %s: %w", op, e.MAC, segment(e.Network), ErrNotFound)
	case op == "set":
		c.FDB[at] = e
	default:
		c.FDB = append(c.FDB[:at], c.FDB[at+1:]...)
	}
	return nil
}
