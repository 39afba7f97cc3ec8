package link

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// sysctl reads a number below /proc/sys/net of the calling thread's namespace;
// -1 = there is no such setting.
func sysctl(key string) int {
	b, err := os.ReadFile("/proc/sys/net/" + key)
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil {
		return -1
	}
	return n
}

// sysctlName is a key as sysctl(8) writes it: with dots, unless the name of an
// interface in it has dots of its own.
func sysctlName(key string) string {
	if strings.Contains(key, ".") {
		return "net/" + key
	}
	return "net." + strings.ReplaceAll(key, "/", ".")
}

func sysctlCommand(key string, v int) string {
	return fmt.Sprintf("sysctl -w %s=%d", Word(sysctlName(key)), v)
}

func ipCommand(format string, a ...any) string { return fmt.Sprintf("ip "+format, a...) }

// Word is s as one word of a shell's command. A container chooses the names of
// its interfaces freely.
func Word(s string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._-/@:", r)
	}
	if s != "" && s[0] != '-' && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// counted are the files with counters and the ones that move when a packet is
// discarded or an ICMP error is sent in its place.
var counted = []struct {
	path string
	read func([]byte, func(name string, v uint64))
	want map[string]bool
}{
	{"/proc/thread-self/net/snmp", readPairs, set("Ip.InHdrErrors", "Ip.InAddrErrors", "Ip.InDiscards", "Ip.OutDiscards",
		"Ip.OutNoRoutes", "Ip.FragFails", "Icmp.OutDestUnreachs", "Icmp.OutTimeExcds", "Udp.NoPorts")},
	{"/proc/thread-self/net/netstat", readPairs, set("IpExt.InNoRoutes", "TcpExt.IPReversePathFilter")},
	{"/proc/thread-self/net/snmp6", readLines, set("Ip6InHdrErrors", "Ip6InAddrErrors", "Ip6InNoRoutes", "Ip6InDiscards",
		"Ip6OutDiscards", "Ip6OutNoRoutes", "Ip6InTooBigErrors", "Icmp6OutDestUnreachs", "Icmp6OutTimeExcds", "Udp6NoPorts")},
}

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// count adds the counters of the namespace and, unless it is zero, of l.
func (d *diagnosis) count(l Link) {
	for _, c := range counted {
		b, err := os.ReadFile(c.path)
		if err != nil {
			continue // a kernel without IPv6 has no snmp6
		}
		c.read(b, func(name string, v uint64) {
			if c.want[name] {
				d.Counters[name] = v
			}
		})
	}
	if l.Index == 0 {
		return
	}
	full, err := d.c.h.LinkByIndex(l.Index)
	if err != nil || full.Attrs().Statistics == nil {
		return // gone in the meantime
	}
	s := full.Attrs().Statistics
	for name, v := range map[string]uint64{
		"rx_dropped": s.RxDropped, "rx_errors": s.RxErrors, "tx_dropped": s.TxDropped, "tx_errors": s.TxErrors,
	} {
		d.Counters[l.Name+"."+name] = v
	}
}

// readPairs reads the format of snmp and netstat: a line of names and a line of
// numbers that both begin with the group, as `Ip: Forwarding DefaultTTL` and
// `Ip: 1 64`.
func readPairs(b []byte, found func(name string, v uint64)) {
	lines := strings.Split(string(b), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		for j := 1; j < min(len(names), len(values)); j++ {
			if v, err := strconv.ParseUint(values[j], 10, 64); err == nil {
				found(strings.TrimSuffix(names[0], ":")+"."+names[j], v)
			}
		}
	}
}

// readLines reads the format of snmp6: a name and a number in each line.
func readLines(b []byte, found func(name string, v uint64)) {
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 2 {
			continue
		}
		if v, err := strconv.ParseUint(f[1], 10, 64); err == nil {
			found(f[0], v)
		}
	}
}
