package config

import (
	"errors"
	"io"
	"net/netip"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

var errNotYet = errors.New("not built yet")

func shortDuration(d time.Duration) string { return d.String() }
func validName(s string) bool              { return s != "" }

// Parse reads a whole file; name stands in error positions. The error is Errors.
func Parse(name string, text []byte) (*Config, error) { return nil, errNotYet }

// ParsePort reads one port's value as it stands in the file.
func ParsePort(name, text string) (*Port, error) { return nil, errNotYet }

// ParseNetwork reads one network's value.
func ParseNetwork(name, text string) (*Network, error) { return nil, errNotYet }

// ParsePeer reads one peer's value.
func ParsePeer(name, text string) (*Peer, error) { return nil, errNotYet }

// ParseFDBEntry reads one static entry.
func ParseFDBEntry(text string) (FDBEntry, error) { return FDBEntry{}, errNotYet }

// Edit returns a changed, validated copy of c. op is add, set or rm; kind is
// network, port, peer or fdb; text is the value as in the file, for set only
// the keys that change (null removes a key). For fdb, name is unused.
func Edit(c *Config, op, kind, name, text string) (*Config, error) { return nil, errNotYet }

// Validate checks a Config; the error is Errors without positions.
func Validate(c *Config) error { return errNotYet }

// Clone returns a deep copy.
func (c *Config) Clone() *Config { return nil }

// Marshal returns the canonical text.
func (c *Config) Marshal() []byte { return nil }

// Resolved returns a copy with every default filled in. host is the host's name
// where the file gives none, prev are earlier VLAN assignments.
func (c *Config) Resolved(host string, prev map[string]frame.VID) *Config { return nil }

// AssignVLANs returns the VID of every network: written ones, then prev's, then
// new ones.
func AssignVLANs(c *Config, prev map[string]frame.VID) map[string]frame.VID { return nil }

// Change is one difference between two configurations.
type Change struct {
	Op   string // add, change, remove
	Kind string // host, network, port, fdb, peer, tunnel, router, …
	Name string
	Text string // one readable line
}

// String returns the line.
func (c Change) String() string { return c.Text }

// Diff returns what turns old into new; empty = nothing. A nil old is empty.
func Diff(old, new *Config) []Change { return nil }

// WriteReference prints the reference of every key in Markdown.
func WriteReference(w io.Writer) error { return errNotYet }

var _ netip.Addr
