package filter

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"golang.org/x/net/bpf"
	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// expressions reads testdata/expressions.txt; those of the second part are no
// language of tcpdump 4.99.
func expressions(t testing.TB) (shared, ours []string) {
	t.Helper()
	text, err := os.ReadFile("testdata/expressions.txt")
	if err != nil {
		t.Fatal(err)
	}
	own := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
		case line == "-- ours --":
			own = true
		case own:
			ours = append(ours, line)
		default:
			shared = append(shared, line)
		}
	}
	return shared, ours
}

// rivals is an expression in every form that can be evaluated.
type rivals struct {
	expr    string
	program *Program
	vm      *bpf.VM
}

func compile(t testing.TB, expr string) rivals {
	t.Helper()
	p, err := Compile(expr)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	vm, err := bpf.NewVM(p.Instructions())
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return rivals{expr, p, vm}
}

// match wants the matcher, bpf.VM and the tree to agree.
func (r rivals) match(t testing.TB, data []byte) bool {
	t.Helper()
	n, err := r.vm.Run(data)
	if err != nil {
		t.Fatalf("%s: %v", r.expr, err)
	}
	got, want := r.program.Match(data), slowMatch(r.expr, data)
	if got != want || (n > 0) != want {
		t.Errorf("%s on %x: matcher says %v, bpf.VM %v, the tree %v", r.expr, data, got, n > 0, want)
	}
	return got
}

// TestAgainstTcpdump compares with tcpdump on random traffic and on public kinds of
// it, whole and cut short.
func TestAgainstTcpdump(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 2))
	frames := append(traffic(r, 2000), public(t)...)
	// Its optimiser reorders tests, and so judges frames that end within a header
	// by another of their octets.
	agree(t, append(frames, cut(r, public(t))...), "-O")
}

// TestAgainstOptimised compares with what people run: tcpdump as it is by itself.
func TestAgainstOptimised(t *testing.T) { agree(t, public(t)) }

// agree wants tcpdump with flags to match the same frames, for every expression
// that both know.
func agree(t *testing.T, frames [][]byte, flags ...string) {
	netnstest.Require(t, "tcpdump")
	file := filepath.Join(t.TempDir(), "traffic.pcap")
	var b bytes.Buffer
	w := pcapgo.NewWriter(&b)
	w.WriteFileHeader(262144, layers.LinkTypeEthernet)
	for i, f := range frames {
		// The second is the frame's number.
		w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(int64(i), 0), CaptureLength: len(f), Length: len(f)}, f)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	shared, _ := expressions(t)
	if len(shared) < 150 {
		t.Errorf("only %d expressions are compared with tcpdump", len(shared))
	}
	idle := 0
	for _, expr := range shared {
		theirs := tcpdump(t, file, expr, flags...)
		if len(theirs) == 0 {
			idle++
		}
		r := compile(t, expr)
		for i, f := range frames {
			if got := r.match(t, f); got != theirs[i] {
				t.Errorf("%s: got %v, tcpdump says %v, on frame %d: %x", expr, got, theirs[i], i, f)
				break
			}
		}
	}
	if idle > len(shared)/8 {
		t.Errorf("%d of %d expressions match nothing", idle, len(shared))
	}
}

// tcpdump returns the numbers of the frames of file that match expr.
func tcpdump(t *testing.T, file, expr string, flags ...string) map[int]bool {
	t.Helper()
	cmd := netnstest.Command(t, slices.Concat([]string{"tcpdump"}, flags, []string{"-r", file, "-w", "-", "--", expr})...)
	var out, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msg
	if err := cmd.Run(); err != nil {
		if strings.Contains(msg.String(), "rejects all packets") {
			return nil
		}
		t.Errorf("tcpdump %q: %v: %s", expr, err, msg.String())
		return nil
	}
	r, err := pcapgo.NewReader(&out)
	if err != nil {
		t.Fatalf("tcpdump %q: %v: %s", expr, err, msg.String())
	}
	match := map[int]bool{}
	for {
		_, ci, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return match
		} else if err != nil {
			t.Fatal(err)
		}
		match[int(ci.Timestamp.Unix())] = true
	}
}

func TestOurs(t *testing.T) {
	_, ours := expressions(t)
	frames := append(traffic(rand.New(rand.NewPCG(7, 9)), 4000), public(t)...)
	for _, expr := range ours {
		n, r := 0, compile(t, expr)
		for _, f := range frames {
			if r.match(t, f) {
				n++
			}
		}
		if n == 0 || n == len(frames) {
			t.Errorf("%s matches %d of %d frames", expr, n, len(frames))
		}
	}
}

// TestCompositions joins random expressions of the table.
func TestCompositions(t *testing.T) {
	shared, ours := expressions(t)
	table := append(shared, ours...)
	rapid.Check(t, func(t *rapid.T) {
		expr := rapid.SampledFrom(table).Draw(t, "expr")
		for range rapid.IntRange(0, 8).Draw(t, "more") {
			more := "(" + rapid.SampledFrom(table).Draw(t, "expr") + ")"
			expr = rapid.SampledFrom([]string{expr + " and " + more, expr + " or " + more, "not (" + expr + ") and " + more, more + " and (" + expr + ")"}).Draw(t, "join")
		}
		p, err := Compile(expr)
		if err != nil {
			if e, ok := errors.AsType[*Error](err); ok && strings.Contains(e.Msg, "times vxlan") {
				return
			}
			t.Fatal(err)
		}
		seed := rapid.Uint64().Draw(t, "seed")
		for _, f := range traffic(rand.New(rand.NewPCG(seed, 1)), 20) {
			if got, want := p.Match(f), slowMatch(expr, f); got != want {
				t.Fatalf("%s on %x: got %v, want %v", expr, f, got, want)
			}
		}
	})
}

// TestMatchFrame compares a frame whose tag changes on the way out with the
// frame as it then is.
func TestMatchFrame(t *testing.T) {
	shared, ours := expressions(t)
	table := append(shared, ours...)
	var programs []*Program
	for _, e := range table {
		p, err := Compile(e)
		if err != nil {
			t.Fatal(err)
		}
		programs = append(programs, p)
	}
	r := rand.New(rand.NewPCG(3, 3))
	for i, data := range traffic(r, 2000) {
		f := frame.Frame{Data: data}
		h, ok := frame.Parse(data)
		if !ok {
			continue
		}
		if h.Tag.Present() && r.IntN(2) == 0 {
			f.Pop = true
		}
		if r.IntN(2) == 0 {
			f.Push = frame.MakeTag(10, 3, true)
		}
		wire := append([]byte(nil), data[:12]...)
		if f.Push.Present() {
			wire = append(wire, 0x81, 0, byte(f.Push.TCI>>8), byte(f.Push.TCI))
		}
		if f.Pop {
			wire = append(wire, data[16:]...)
		} else {
			wire = append(wire, data[12:]...)
		}
		p := programs[i%len(programs)]
		if got, want := p.MatchFrame(&f), p.Match(wire); got != want {
			t.Errorf("%s on %x pop %v push %v: got %v, want %v", p, data, f.Pop, f.Push, got, want)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		expr   string
		column int
		msg    string // part of the message or the hint
	}{
		{"hots 10.1.0.2", 1, "did you mean host?"},
		{"tcp and prot 80", 9, "did you mean p"},
		{"10.1.0.2", 1, "write `host 10.1.0.2`"},
		{"02:00:00:00:00:01", 1, "write `ether host 02:00:00:00:00:01`"},
		{"host 02:00:00:00:00:01", 6, "write `ether host`"},
		{"ether host 10.1.0.2", 12, "no MAC address"},
		{"tcp 80", 5, "write `tcp port 80`"},
		{"ip 10.1.0.2", 4, "write `ip host 10.1.0.2`"},
		{"port htttp", 6, "did you mean http?"},
		{"port myapp", 6, "give its number"},
		{"port host", 6, "a port is a number or the name of a service"},
		{"icmp[icmptype] == icmp-ecko", 19, "did you mean icmp-echo?"},
		{"tcp port 80-90", 12, "write `portrange 80-90`"},
		{"port ssh-http", 9, "write `portrange ssh-http`"},
		{"udp and src port 80 - 90", 21, "write `portrange 80-90`"},
		{"portrange 80-90-100", 16, "unexpected"},
		{"host 10.1.0.2-10.1.0.5", 14, "`net 10.1.0.0/24`"},
		{"port ssh http", 10, "write `port http`"},
		{"tcp http", 5, "write `port http`"},
		{"udp port ssh", 10, "write `tcp port ssh`"},
		{"tcp port ntp or 80", 10, "write `udp port ntp`"},
		{"udp portrange ssh-http", 15, "write `tcp portrange ssh-http`"},
		{"portrange 80-70000", 14, "the largest is 65535"},
		{"portrange ssh", 14, `"-" is missing`},
		{"portrange ssh-", 15, "a port is a number or the name of a service"},
		{"port ssh or htps", 13, "did you mean"},
		{"host 10.1.0.2 or http", 18, "write `port http`"},
		{"port 80 or 70000", 12, "the largest is 65535"},
		{"tcp port 80 and (port 65536 or arp)", 23, "the largest is 65535"},
		{"port 65536", 6, "the largest is 65535"},
		{"portrange 80", 13, `"-" is missing`},
		{"host", 5, "a value is missing"},
		{"host web1", 6, "names are not looked up"},
		{"host 010.0.0.1", 6, "leading zeros"},
		{"host 10.1.0.256", 6, "no IPv4 address"},
		{"host 10.1.0.0/24", 14, "write `net 10.1.0.0/…`"},
		{"net 10/4", 5, "the network is 0.0.0.0/4"},
		{"port 80,443", 8, "`port 80 or 443`"},
		{"net 10/33", 8, "0 to 32"},
		{"inbound and tcp", 1, "--direction in"},
		{"ip6 protochain 58", 5, "extension headers are not followed"},
		{"net 10.1.0.1/24", 5, "the network is 10.1.0.0/24"},
		{"net 10.1.0.0/33", 14, "0 to 32"},
		{"net 2001:db8::1/32", 5, "the network is 2001:db8::/32"},
		{"(tcp", 5, `")" is missing`},
		{"tcp)", 4, "there is no ( that it closes"},
		{"tcp udp", 5, "put `and` or `or` in front"},
		{"tcp and", 8, "a condition is missing"},
		{"ip[8", 5, `"]" is missing`},
		{"ip[8:3] = 1", 6, "1, 2 or 4 octets"},
		{"ip[8]", 1, "compare it"},
		{"5", 1, "say what it is"},
		{"ip[8] / 0 = 1", 9, "division by zero"},
		{"ip[8] << 32 = 1", 10, "more than 31 bits"},
		{"1 < ip[8] < 5", 11, "can't be compared"},
		{"tcp = 1", 1, "needs a number on each side"},
		{"vlan 4096", 6, "the largest is 4095"},
		{"vxlan 16777216", 7, "the largest is 16777215"},
		{"ip broadcast", 1, "not known here"},
		{"icmp port 5", 11, "have ports"},
		{"arp proto 5", 11, "ip, ip6 or ether"},
		{"src proto 5", 11, "no source or destination"},
		{"ip host ::1", 9, "IPv4"},
		{"ip6 host 10.1.0.2", 10, "IPv6"},
		{"tcp host 10.1.0.2", 10, "belongs to"},
		{"ether", 1, "every frame is Ethernet"},
		{"esp[0] = 1", 1, "can't be indexed"},
		{"src 10.1.0.2 or or", 17, "unexpected"},
		{"host dead:beef", 6, "neither a MAC nor an IPv6"},
		{"0x = 1", 1, "no number"},
		{"4294967296 = 1", 1, "no number"},
		{"tcp und udp", 5, "did you mean"},
		{"ähm", 1, "unexpected character"},
		{"tcp and ü", 9, "unexpected character"},
		{"and tcp", 1, "unexpected"},
		{"not", 4, "a condition is missing"},
		{strings.Repeat("(", 200), 101, "levels of nesting"},
		{strings.Repeat(" ", MaxLen+1), 1, "at most"},
		{"vxlan and vxlan and vxlan and vxlan and vxlan", 41, "more than 4 times"},
	} {
		_, err := Compile(c.expr)
		e, ok := errors.AsType[*Error](err)
		if !ok {
			t.Errorf("%q: got %v, want an error", c.expr, err)
			continue
		}
		if e.Column != c.column || !strings.Contains(e.Msg+" "+e.Hint, c.msg) {
			t.Errorf("%q: got %v, hint %q; want column %d and %q", c.expr, e, e.Hint, c.column, c.msg)
		}
	}
}

// TestLongJumps compiles an expression whose jumps go further than one octet counts.
func TestLongJumps(t *testing.T) {
	expr := "udp and (host 10.1.0.2" + strings.Repeat(" or port 9999", 40) + ") or arp"
	r := compile(t, expr)
	for _, f := range traffic(rand.New(rand.NewPCG(1, 1)), 500) {
		r.match(t, f)
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	p, err := Compile("vlan and tcp port 443 or vxlan 10010 and icmp[icmptype] == icmp-echo")
	if err != nil {
		t.Fatal(err)
	}
	frames := traffic(rand.New(rand.NewPCG(1, 2)), 100)
	out := frame.Frame{Push: frame.MakeTag(10, 0, false)}
	n := testing.AllocsPerRun(100, func() {
		for _, f := range frames {
			p.Match(f)
			out.Data = f
			p.MatchFrame(&out)
		}
	})
	if n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

// FuzzCompile: any text compiles or is refused, and what compiles means the
// same to the matcher, to bpf.VM and to the tree.
func FuzzCompile(f *testing.F) {
	shared, ours := expressions(f)
	for _, e := range append(shared, ours...) {
		f.Add(e, []byte("0123456789ab\x08\x00E23456789012345678901234567890"))
	}
	for _, e := range []string{"((((", "ip[ip[ip[0]]] = 1", "not not not tcp", "1+1+1+1 = -5", "vxlan or vlan", "host ::", "\\tcp"} {
		f.Add(e, []byte{1, 2, 3})
	}
	f.Fuzz(func(t *testing.T, expr string, data []byte) {
		_, err := Compile(expr)
		if err == nil {
			compile(t, expr).match(t, data)
			return
		}
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Column < 1 || e.Column > len(expr)+1 {
			t.Errorf("%q: got %#v", expr, err)
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	p, err := Compile("tcp port 443 and host 10.1.0.2")
	if err != nil {
		b.Fatal(err)
	}
	frames := traffic(rand.New(rand.NewPCG(1, 2)), 64)
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			p.Match(frames[i%len(frames)])
		}
	})
	vm, _ := bpf.NewVM(p.Instructions())
	b.Run("bpf.VM", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			vm.Run(frames[i%len(frames)])
		}
	})
}
