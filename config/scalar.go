package config

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// scalarFunc reads text into v, which has the type it is registered for.
type scalarFunc func(v reflect.Value, text string, k Key) error

// typed makes a scalarFunc of a parser of one type.
func typed[T any](parse func(string) (T, error)) scalarFunc {
	return func(v reflect.Value, text string, _ Key) error {
		t, err := parse(text)
		if err != nil {
			return err
		}
		v.Set(reflect.ValueOf(t))
		return nil
	}
}

// scalars holds every type that is one value in the file.
var scalars = map[reflect.Type]scalarFunc{
	reflect.TypeFor[string]():         word,
	reflect.TypeFor[Profile]():        word,
	reflect.TypeFor[Mode]():           word,
	reflect.TypeFor[Encryption]():     word,
	reflect.TypeFor[Reserved]():       word,
	reflect.TypeFor[int]():            number,
	reflect.TypeFor[uint16]():         number,
	reflect.TypeFor[uint32]():         number,
	reflect.TypeFor[uint64]():         number,
	reflect.TypeFor[frame.VID]():      number,
	reflect.TypeFor[bool]():           typed(parseBool),
	reflect.TypeFor[Duration]():       typed(parseDuration),
	reflect.TypeFor[Rate]():           typed(parseRate),
	reflect.TypeFor[MACPin]():         typed(parseMACPin),
	reflect.TypeFor[PeerAddr]():       typed(parsePeerAddr),
	reflect.TypeFor[frame.MAC]():      typed(parseMAC),
	reflect.TypeFor[netip.Addr]():     typed(ParseAddr),
	reflect.TypeFor[netip.Prefix]():   typed(ParsePrefix),
	reflect.TypeFor[netip.AddrPort](): typed(parseAddrPort),
}

func word(v reflect.Value, text string, k Key) error {
	if text == "" {
		return errors.New("is empty; leave the key out instead")
	}
	if err := checkChoice(text, k); err != nil {
		return err
	}
	v.SetString(text)
	return nil
}

func checkChoice(text string, k Key) error {
	if len(k.Choices) == 0 {
		return nil
	}
	for _, c := range k.Choices {
		if c == text {
			return nil
		}
	}
	return fmt.Errorf("%s is not known; want %s", quote(text), strings.Join(k.Choices, " or "))
}

func number(v reflect.Value, text string, k Key) error {
	u, err := strconv.ParseUint(text, 10, 63)
	if err != nil || len(text) > 1 && text[0] == '0' {
		if errors.Is(err, strconv.ErrRange) {
			return fmt.Errorf("%s is out of range; want %d to %d", quote(text), k.Min, k.Max)
		}
		return fmt.Errorf("%s is no whole number; want %d to %d", quote(text), k.Min, k.Max)
	}
	if err := checkRange(u, k); err != nil {
		return err
	}
	if v.CanUint() {
		v.SetUint(u)
	} else {
		v.SetInt(int64(u))
	}
	return nil
}

func checkRange(u uint64, k Key) error {
	if k.Max > 0 && (u < k.Min || u > k.Max) {
		return fmt.Errorf("%d is out of range; want %d to %d", u, k.Min, k.Max)
	}
	return nil
}

func parseBool(s string) (bool, error) {
	switch s {
	case "on", "true":
		return true, nil
	case "off", "false":
		return false, nil
	}
	return false, fmt.Errorf("%s is neither on nor off", quote(s))
}

func parseDuration(s string) (Duration, error) {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil && s != "" && strings.Trim(s, "0123456789") == "":
		return 0, fmt.Errorf("%s has no unit; write %ss for seconds", quote(s), clipDigits(s))
	case err != nil:
		return 0, fmt.Errorf("%s is no duration; write it like 300s, 20us or 12h", quote(s))
	case d < 0:
		return 0, fmt.Errorf("%s is negative; want 0s or more", quote(s))
	}
	return Duration(d), nil
}

func clipDigits(s string) string { return s[:min(len(s), 12)] }

// shortDuration writes whole seconds up to an hour as 300s, and more than that
// without zero minutes and seconds: 12h, not 12h0m0s.
func shortDuration(d time.Duration) string {
	if d < time.Hour && d%time.Second == 0 {
		return strconv.Itoa(int(d/time.Second)) + "s"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return strings.Replace(s, "µ", "u", 1) // ASCII, as the contract writes it
}

func parseRate(s string) (Rate, error) {
	if s == "off" {
		return 0, nil
	}
	digits, ok := strings.CutSuffix(s, "/s")
	u, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil || len(digits) > 1 && digits[0] == '0' {
		return 0, fmt.Errorf("%s is no rate; write frames a second like 1000/s, or off", quote(s))
	}
	return Rate(u), nil
}

func parseMACPin(s string) (MACPin, error) {
	if on, err := parseBool(s); err == nil {
		return MACPin{On: on}, nil
	}
	m, err := parseMAC(s)
	if err != nil {
		return MACPin{}, fmt.Errorf("%w; or true for the interface's own", err)
	}
	return MACPin{On: true, MAC: m}, nil
}

func parseMAC(s string) (frame.MAC, error) {
	m, err := frame.ParseMAC(s)
	if err != nil {
		return m, fmt.Errorf("%s is no MAC address; want six hexadecimal octets like 02:00:00:00:00:01, in quotes", quote(s))
	}
	return m, checkMAC(m)
}

func checkMAC(m frame.MAC) error {
	if m.IsZero() {
		return errors.New("00:00:00:00:00:00 is the zero address; want a unicast MAC address like 02:00:00:00:00:01")
	}
	if m.IsGroup() {
		return fmt.Errorf("%s is a group address; want a unicast one, whose first octet is even", m)
	}
	return nil
}

// ParseAddr reads an IPv4 or IPv6 address as it stands in the file. The error
// quotes s and says what is wrong with it.
func ParseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil && strings.Contains(s, "/"):
		return a, fmt.Errorf("%s has a prefix length; write the address alone", quote(s))
	case err != nil && leadingZero(s):
		return a, fmt.Errorf("%s has a leading zero, which some read as octal; write it without", quote(s))
	case err != nil:
		return a, fmt.Errorf("%s is no IPv4 or IPv6 address", quote(s))
	}
	return a, checkAddr(a)
}

func checkAddr(a netip.Addr) error {
	if a.Is4In6() {
		return fmt.Errorf("%s is an IPv4 address inside an IPv6 one; write %s", quote(a.String()), a.Unmap())
	}
	if a.Zone() != "" {
		return fmt.Errorf("%s has a zone; write the address alone", quote(a.String()))
	}
	return nil
}

// leadingZero tells whether s is dotted decimal with an octet such as 010.
func leadingZero(s string) bool {
	for _, o := range strings.Split(s, ".") {
		if len(o) > 1 && o[0] == '0' && strings.Trim(o, "0123456789") == "" {
			return strings.Count(s, ".") == 3
		}
	}
	return false
}

// ParsePrefix reads an address with its prefix length as it stands in the file.
// The error quotes s and says what is wrong with it.
func ParsePrefix(s string) (netip.Prefix, error) {
	host, length, ok := strings.Cut(s, "/")
	a, err := ParseAddr(host)
	if err != nil {
		return netip.Prefix{}, err
	}
	if !ok {
		return netip.Prefix{}, fmt.Errorf("%s has no prefix length; write it like %s/24", quote(s), a)
	}
	n, err := strconv.Atoi(length)
	if err != nil || n < 0 || n > a.BitLen() || strconv.Itoa(n) != length {
		return netip.Prefix{}, fmt.Errorf("%s has a bad prefix length; want /0 to /%d", quote(s), a.BitLen())
	}
	return netip.PrefixFrom(a, n), nil
}

func parseAddrPort(s string) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 {
		return ap, fmt.Errorf("%s is no address with port; write it like 0.0.0.0:4789 or [::]:4789", quote(s))
	}
	return ap, checkAddr(ap.Addr())
}

func parsePeerAddr(s string) (PeerAddr, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return PeerAddr(netip.AddrPortFrom(a, 0)), checkAddr(a)
	}
	ap, err := netip.ParseAddrPort(s)
	if err == nil && ap.Port() != 0 {
		return PeerAddr(ap), checkAddr(ap.Addr())
	}
	if leadingZero(s) {
		_, err := ParseAddr(s)
		return PeerAddr{}, err
	}
	return PeerAddr{}, fmt.Errorf("%s is no address; write it like 192.0.2.1, 192.0.2.1:4789 or [2001:db8::1]:4789", quote(s))
}

// groupNames are the words for the last octet of 01:80:C2:00:00:0n: IEEE
// 802.1Q-2022 tables 8-1 to 8-3, IEEE 802.3 annex 31B and clause 57A. The
// first word of an octet is the canonical one.
var groupNames = []struct {
	name string
	bit  uint
}{
	{"stp", 0}, {"pause", 1}, {"lacp", 2}, {"slow", 2}, {"eapol", 3}, {"802.1x", 3}, {"lldp", 14}, {"mvrp", 13},
	{"e-lmi", 7}, {"provider-stp", 8},
}

func groupBit(s string) (uint, bool) {
	for _, g := range groupNames {
		if g.name == strings.ToLower(s) {
			return g.bit, true
		}
	}
	if len(s) != 2 || s[0] != '0' {
		return 0, false
	}
	u, err := strconv.ParseUint(s, 16, 8)
	return uint(u), err == nil
}

func groupWords() []string {
	out := make([]string, len(groupNames))
	for i, g := range groupNames {
		out[i] = g.name
	}
	return out
}

// Names returns the words of the mask in ascending order of the last octet.
func (m GroupMask) Names() []string {
	var out []string
next:
	for bit := range uint(16) {
		if m&(1<<bit) == 0 {
			continue
		}
		for _, g := range groupNames {
			if g.bit == bit {
				out = append(out, g.name)
				continue next
			}
		}
		out = append(out, fmt.Sprintf("%02x", bit))
	}
	return out
}
