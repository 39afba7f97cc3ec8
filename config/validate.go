package config

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

const namePattern = `[a-z0-9][a-z0-9._-]{0,62}`

var nameRE = regexp.MustCompile(`^` + namePattern + `$`)

// validName tells whether s may name a host, network, port, peer or router.
// Two dots in a row are refused, because names become parts of file names.
func validName(s string) bool {
	if !nameRE.MatchString(s) {
		return false
	}
	for i := range len(s) - 1 {
		if s[i] == '.' && s[i+1] == '.' {
			return false
		}
	}
	return true
}

func badName(s string) string {
	return quote(s) + " is no name; want " + namePattern + " without two dots in a row"
}

// Validate checks a Config that was built or changed by a program. The error is
// Errors, without files and lines. Parse has validated what it returns.
func Validate(c *Config) error {
	return validateEdited(c, "")
}

// validateEdited is Validate after a change of the item at the path edited.
func validateEdited(c *Config, edited string) error {
	if errs := validate(c, func(string) place { return place{} }, edited); len(errs) > 0 {
		return errs
	}
	return nil
}

// checker collects what is wrong with a Config.
type checker struct {
	c     *Config
	errs  Errors
	place func(path string) place
	// owners is who uses what must be unique: "mac 02:…" → field path.
	owners map[string]string
	// edited is the path of the item that was just changed, which never owns
	// what something else has too; "" = none.
	edited string
}

// validate checks c; at says where a field stands in the file.
func validate(c *Config, at func(path string) place, edited string) Errors {
	k := &checker{c: c, place: at, owners: make(map[string]string), edited: edited}
	k.values(reflect.ValueOf(c).Elem(), "", "")
	if k.hasNil() {
		return k.errs
	}
	if n := len(c.Networks); n > 4094 {
		k.fail("networks", "%d networks; want 4094 or fewer, one for each VLAN", n)
		return k.errs
	}
	if c.Host != "" && !validName(c.Host) {
		k.fail("host", "%s", badName(c.Host))
	}
	if s := c.Offload.Spin; s != nil && (*s < 0 || *s > Duration(time.Millisecond)) {
		k.fail("offload.spin", "%s is out of range; want 0s to 1ms", s)
	}
	k.networks()
	for _, name := range sortedKeys(c.Ports) {
		k.port("ports."+segment(name), name, c.Ports[name])
	}
	k.passthru()
	k.entries()
	k.tunnel()
	for _, name := range sortedKeys(c.Routers) {
		k.router("routers."+segment(name), c.Routers[name])
	}
	return k.errs
}

func (k *checker) fail(field, format string, args ...any) {
	p := k.place(field)
	k.errs = append(k.errs, &Error{Line: p.line, Col: p.col, Field: field, Msg: fmt.Sprintf(format, args...)})
}

// hasNil tells whether a map holds a nil item, which values has reported and
// the other checks cannot walk.
func (k *checker) hasNil() bool {
	return slices.ContainsFunc(k.errs, func(e *Error) bool { return e.Msg == nilItem })
}

const nilItem = "is nil; want a value"

// values applies the table to every value that is present: names, choices,
// bounds, and forms that no text gives but a program may.
func (k *checker) values(v reflect.Value, path, key string) {
	if _, ok := scalars[v.Type()]; ok {
		if !v.IsZero() {
			if err := checkValue(v, keyByPath[key]); err != nil {
				k.fail(path, "%s", err)
			}
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			k.values(v.Elem(), path, key)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			tag := v.Type().Field(i).Tag.Get("yaml")
			below, f := join(key, tag), v.Field(i)
			_, plain := keyByPath[below]
			if _, list := keyByPath[below+"[]"]; !plain && !list {
				if !f.IsZero() {
					k.fail(join(path, tag), "does not belong here%s", suggest(tag, children[key]))
				}
				continue
			}
			k.values(f, join(path, tag), below)
		}
	case reflect.Map:
		for _, name := range sortedKeys(stringKeys(v)) {
			field, item := join(path, segment(name)), v.MapIndex(reflect.ValueOf(name))
			if !validName(name) {
				k.fail(field, "%s", badName(name))
			}
			if item.IsNil() {
				k.fail(field, nilItem)
				continue
			}
			k.values(item, field, key+".*")
		}
	case reflect.Slice:
		for i := range v.Len() {
			k.values(v.Index(i), fmt.Sprintf("%s[%d]", path, i), key+"[]")
		}
	}
}

// claim notes that field uses what, and reports an earlier user of the same.
// kind and shown are for the message, scope keeps apart what may be used twice.
func (k *checker) claim(field, kind, shown, scope string) {
	id := kind + "\x00" + shown + "\x00" + scope
	first, taken := k.owners[id]
	if !taken {
		k.owners[id] = field
		return
	}
	if k.changed(first) && !k.changed(field) {
		field, first = first, field
	}
	where := first
	if p := k.place(first); p.line > 0 {
		where = fmt.Sprintf("%s (line %d)", first, p.line)
	}
	k.fail(field, "%s %s is used already by %s; each needs its own", kind, shown, where)
	if !k.changed(first) {
		k.errs[len(k.errs)-1].Owner = first
	}
}

// changed reports whether field belongs to the item that was just changed.
func (k *checker) changed(field string) bool {
	return k.edited != "" && strings.HasPrefix(field, k.edited+".")
}

// known reports a network that does not exist.
func (k *checker) known(field, name string) bool {
	if _, ok := k.c.Networks[name]; ok {
		return true
	}
	k.fail(field, "unknown network %s%s", quote(name), suggest(name, sortedKeys(k.c.Networks)))
	return false
}

func (k *checker) networks() {
	for _, name := range sortedKeys(k.c.Networks) {
		n, path := k.c.Networks[name], "networks."+segment(name)
		if n.VLAN != 0 {
			k.claim(path+".vlan", "VLAN", n.VLAN.String(), "")
		}
		if n.VNI != 0 {
			k.claim(path+".vni", "VNI", fmt.Sprint(n.VNI), "")
		}
		if n.Encrypt == EncryptRequired {
			switch {
			case n.VNI == 0:
				k.fail(path+".encrypt", "required, but the network has no vni and never leaves the host; add a vni or leave encrypt out")
			case k.c.Tunnel == nil || k.c.Tunnel.DTLS == nil:
				k.fail(path+".encrypt", "required, but no encrypted link can be made; add tunnel.dtls")
			}
		}
	}
}

// passthru checks that a network in mode passthru has one port beside its
// uplink.
func (k *checker) passthru() {
	first := make(map[string]string)
	for _, name := range sortedKeys(k.c.Ports) {
		p := k.c.Ports[name]
		for _, net := range p.Networks() {
			n := k.c.Networks[net]
			if n == nil || p.Uplink || k.modeOf(p, n) != Passthru {
				continue
			}
			if other, taken := first[net]; taken {
				k.fail("ports."+segment(name), "network %s is in mode passthru and has port %s already; it takes one port beside the uplink", segment(net), segment(other))
				continue
			}
			first[net] = name
		}
	}
}

func (k *checker) modeOf(p *Port, n *Network) Mode {
	if p.Mode != "" {
		return p.Mode
	}
	return n.Mode
}

func (k *checker) entries() {
	for i, e := range k.c.FDB {
		path := fmt.Sprintf("fdb[%d]", i)
		if e.MAC.IsZero() {
			k.fail(path, "has no mac; want the station's address")
		} else {
			k.claim(path+".mac", "MAC address", e.MAC.String(), "fdb "+e.Network)
		}
		if e.Network == "" {
			k.fail(path, "has no network")
		}
		if e.Port == "" {
			k.fail(path, "has no port")
		}
		p, ok := k.c.Ports[e.Port]
		if e.Port != "" && !ok {
			k.fail(path+".port", "unknown port %s%s", quote(e.Port), suggest(e.Port, sortedKeys(k.c.Ports)))
		}
		if e.Network != "" && k.known(path+".network", e.Network) && ok && !slices.Contains(p.Networks(), e.Network) {
			k.fail(path+".port", "port %s is no member of network %s", segment(e.Port), segment(e.Network))
		}
	}
}
