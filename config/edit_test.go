package config_test

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/config"
)

func TestEdit(t *testing.T) {
	for _, tt := range []struct{ op, kind, name, text, want string }{
		{"add", "port", "c3", "{tap: {netns: c3}, access: blue}", "+ port c3: tap netns c3, access blue"},
		{"add", "port", "c1", "{}", "add port c1: exists already"},
		{"add", "port", "A", "{}", `ports."A": "A" is no name; want [a-z0-9][a-z0-9._-]{0,62} without two dots in a row`},
		{"add", "port", "c3", "{tap: {netns: c3, mac: x}}", `1:24: ports.c3.tap.mac: "x" is no MAC address; want six hexadecimal octets like 02:00:00:00:00:01, in quotes`},
		{"add", "port", "c3", "{host: {}, access: grue}", `ports.c3.access: unknown network "grue"; did you mean blue?`},
		{"add", "port", "c3", "{", "1:1: is no YAML: did not find expected node content"},
		{"set", "port", "c1", "{isolated: true, sources: null, tap: {gateway: null}}", "~ port c1: isolated default → on, sources [10.0.0.2] → default, tap.gateway 10.0.0.1 → default"},
		{"set", "port", "c9", "{}", "set port c9: not found; did you mean c1?"},
		{"rm", "port", "c2", "", "- port c2"},
		{"rm", "port", "c1", "", `fdb[0].port: unknown port "c1"; did you mean c2?`},
		{"mv", "port", "c1", "", `edit "mv": unknown operation; want add, set or rm`},
		{"add", "network", "green", "", "+ network green"},
		{"set", "network", "blue", "mtu: 1400", "~ network blue: mtu default → 1400"},
		{"set", "network", "blue", "vlna: 3", "1:1: networks.blue.vlna: unknown key; did you mean vlan?"},
		{"add", "peer", "h3", "address: 192.0.2.3", "+ peer h3: address 192.0.2.3"},
		{"rm", "peer", "h2", "", "- peer h2"},
		{"add", "network", "a", "vlan: 10", "networks.a.vlan: VLAN 10 is used already by networks.blue.vlan; each needs its own"},
		{"add", "peer", "a", "address: 192.0.2.1", "tunnel.peers.a.address: address 192.0.2.1 is used already by tunnel.peers.h2.address; each needs its own"},
		{"add", "fdb", "", `{network: red, mac: "02:00:00:00:00:09", port: c2}`, "+ fdb red 02:00:00:00:00:09: port c2"},
		{"add", "fdb", "", `{network: blue, mac: "02:00:00:00:00:09", port: c2}`, "add fdb entry 02:00:00:00:00:09 in blue: exists already"},
		{"set", "fdb", "", `{network: blue, mac: "02:00:00:00:00:09", port: c2}`, "~ fdb blue 02:00:00:00:00:09: port c1 → c2"},
		{"rm", "fdb", "", `{network: blue, mac: "02:00:00:00:00:09"}`, "- fdb blue 02:00:00:00:00:09"},
		{"rm", "fdb", "", `{network: blue, mac: "02:00:00:00:00:08"}`, "rm fdb entry 02:00:00:00:00:08 in blue: not found"},
		{"mv", "fdb", "", `{}`, `edit "mv": unknown operation; want add, set or rm`},
		{"rm", "fdb", "", `{mac: 7}`, `1:7: fdb[0].mac: "7" is no MAC address; want six hexadecimal octets like 02:00:00:00:00:01, in quotes`},
		{"add", "router", "r2", "", `edit "router": unknown kind; want network, port, peer or fdb`},
	} {
		base := mustParse(t, full)
		got := ""
		next, err := config.Edit(base, tt.op, tt.kind, tt.name, tt.text)
		if err != nil {
			got = err.Error()
		} else {
			var lines []string
			for _, c := range config.Diff(base, next) {
				lines = append(lines, c.String())
			}
			got = strings.Join(lines, "\n")
		}
		if got != tt.want {
			t.Errorf("%s %s %s %s\n got %s\nwant %s", tt.op, tt.kind, tt.name, tt.text, got, tt.want)
		}
		if !reflect.DeepEqual(base, mustParse(t, full)) {
			t.Errorf("%s %s %s changed the original", tt.op, tt.kind, tt.name)
		}
	}
}

// TestConflict: what belongs to something else is told apart from what is wrong
// in itself.
func TestConflict(t *testing.T) {
	for _, tt := range []struct {
		op, kind, name, text string
		want                 bool
	}{
		{"add", "network", "a", "vlan: 10", true},
		{"add", "network", "z", "{vlan: 10, vni: 7}", true},
		{"add", "network", "a", "{vlan: 10, encrypt: required}", false},
		{"add", "port", "a", "{tap: {netns: a, address: [10.0.0.2/24]}, access: blue}", true},
		{"set", "port", "c2", "{device: {name: eth1}, trunk: [nope]}", false},
		{"add", "port", "a", "{tap: {netns: a, address: [10.0.0.7/24, 10.0.0.7/24]}, access: blue}", false},
	} {
		_, err := config.Edit(mustParse(t, full), tt.op, tt.kind, tt.name, tt.text)
		var list config.Errors
		if !errors.As(err, &list) || list.Conflict() != tt.want {
			t.Errorf("%s %s %s %s: got %v, want a conflict: %v", tt.op, tt.kind, tt.name, tt.text, err, tt.want)
		}
	}
	if (config.Errors{}).Conflict() {
		t.Error("no error is a conflict")
	}
}

func TestEditSentinels(t *testing.T) {
	c := mustParse(t, full)
	if _, err := config.Edit(c, "rm", "network", "none", ""); !errors.Is(err, config.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	if _, err := config.Edit(c, "add", "network", "blue", ""); !errors.Is(err, config.ErrExists) {
		t.Errorf("got %v, want ErrExists", err)
	}
	next, err := config.Edit(&config.Config{}, "add", "peer", "h2", "address: 192.0.2.1")
	if err != nil || len(next.Tunnel.Peers) != 1 {
		t.Errorf("add the first peer: %v", err)
	}
}

func TestPortAccessors(t *testing.T) {
	c := mustParse(t, full+"\n").Resolved("h", nil)
	c1, c2 := c.Ports["c1"], c.Ports["c2"]
	if c1.Kind() != "tap" || c2.Kind() != "device" || c2.Interface() != nil || c1.Interface().Ifname != "eth0" {
		t.Error("kind or interface of a port is wrong")
	}
	for kind, p := range map[string]*config.Port{"": {}, "veth": {Veth: &config.Interface{}}, "host": {HostIf: &config.Interface{}}} {
		if p.Kind() != kind || (kind != "") != (p.Interface() != nil) {
			t.Errorf("kind %q: got %q", kind, p.Kind())
		}
	}
	if got := c2.Networks(); !reflect.DeepEqual(got, []string{"red", "blue"}) {
		t.Errorf("networks of c2: %v, want red, blue", got)
	}
	if got, want := config.PeerAddr(netip.MustParseAddrPort("[::1]:9")).AddrPort(4789).Port(), uint16(9); got != want {
		t.Errorf("peer port %d, want %d", got, want)
	}
}

// TestKeysMatchTypes holds the table to the types: each yaml tag has a row and
// each row a field.
func TestKeysMatchTypes(t *testing.T) {
	rows := make(map[string]bool)
	for _, k := range config.Keys {
		if rows[k.Path] {
			t.Errorf("%s has two rows", k.Path)
		}
		if k.Doc == "" || k.Type == "" || !strings.HasSuffix(k.Doc, ".") {
			t.Errorf("%s: type and doc, a sentence, are required", k.Path)
		}
		rows[k.Path] = true
	}
	fields := make(map[string]bool)
	walk(reflect.TypeFor[config.Config](), "", fields)
	// These fields of shared types have no place there, and so no row.
	for _, p := range []string{"ports.*.tap.adopt", "ports.*.host.adopt", "ports.*.host.netns", "ports.*.offload.spin"} {
		if rows[p] {
			t.Errorf("%s has a row", p)
		}
		delete(fields, p)
	}
	for p := range fields {
		if !rows[p] {
			t.Errorf("%s has no row", p)
		}
	}
	for p := range rows {
		if !fields[p] {
			t.Errorf("row %s has no field", p)
		}
	}
}

func walk(t reflect.Type, path string, out map[string]bool) {
	switch t.Kind() {
	case reflect.Pointer:
		walk(t.Elem(), path, out)
		return
	case reflect.Slice:
		walk(t.Elem(), path+"[]", out)
		return
	}
	if path != "" {
		out[path] = true
	}
	switch {
	case t.Kind() == reflect.Map:
		walk(t.Elem(), path+".*", out)
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			if tag := t.Field(i).Tag.Get("yaml"); tag != "" {
				walk(t.Field(i).Type, strings.TrimPrefix(path+"."+tag, "."), out)
			}
		}
	}
}

func TestWriteReference(t *testing.T) {
	var b bytes.Buffer
	if err := config.WriteReference(&b); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), "\n| `"); n != len(config.Keys) {
		t.Errorf("%d rows, want %d", n, len(config.Keys))
	}
	if want := "| `networks.*.mtu` | number 68 to 65535 (octets) | 1500; with a vni what the underlay carries, 1450 if unknown |"; !strings.Contains(b.String(), want) {
		t.Errorf("no %q in\n%s", want, &b)
	}
	closed, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	if err := config.WriteReference(closed); err == nil {
		t.Error("a failed write is not reported")
	}
}
