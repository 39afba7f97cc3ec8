package keeper_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/switch/frame"
	"golang.org/x/sys/unix"
)

func TestValidate(t *testing.T) {
	prefix := netip.MustParsePrefix
	good := func(change func(r *keeper.PortRequest)) keeper.PortRequest {
		r := tap("c1")
		r.Addresses, r.Gateway = []netip.Prefix{prefix("10.1.0.2/24")}, netip.MustParseAddr("10.1.0.1")
		change(&r)
		return r
	}
	for _, c := range []struct {
		want string // part of the error; empty = accepted
		r    keeper.PortRequest
	}{
		{"", good(func(r *keeper.PortRequest) {})},
		{"", good(func(r *keeper.PortRequest) { r.Netns = "pid:1" })},
		{"", good(func(r *keeper.PortRequest) { r.Netns = "/proc/1/ns/net" })},
		{"", good(func(r *keeper.PortRequest) { r.Kind = keeper.KindVeth })},
		{"", good(func(r *keeper.PortRequest) { r.Kind, r.Netns = keeper.KindHost, "" })},
		{"", good(func(r *keeper.PortRequest) { r.Gateway = netip.MustParseAddr("fe80::1") })},
		{"", keeper.PortRequest{Name: "c1", Kind: keeper.KindVeth, Adopt: "veth0"}},
		{"", keeper.PortRequest{Name: "c1", Kind: keeper.KindDevice, Device: "eth1"}},
		{"port name", good(func(r *keeper.PortRequest) { r.Name = "../c1" })},
		{"port name", good(func(r *keeper.PortRequest) { r.Name = "a\nb" })},
		{"port name", good(func(r *keeper.PortRequest) { r.Name = strings.Repeat("a", 300) })},
		{"kind", good(func(r *keeper.PortRequest) { r.Kind = "bridge" })},
		{"takes netns", good(func(r *keeper.PortRequest) { r.Netns = "" })},
		{"takes netns", good(func(r *keeper.PortRequest) { r.Adopt = "veth0" })},
		{"takes netns", good(func(r *keeper.PortRequest) { r.Kind = keeper.KindHost })},
		{"takes netns", good(func(r *keeper.PortRequest) { r.Kind = keeper.KindDevice })},
		{"interface name", good(func(r *keeper.PortRequest) { r.Ifname = "eth0/../x" })},
		{"interface name", good(func(r *keeper.PortRequest) { r.Ifname = "\x1b[31m" })},
		{"interface name", good(func(r *keeper.PortRequest) { r.Ifname = "abcdefghijklmnop" })},
		{"netns", good(func(r *keeper.PortRequest) { r.Netns = "../etc" })},
		{"netns", good(func(r *keeper.PortRequest) { r.Netns = "/run/netns/../../etc" })},
		{"netns", good(func(r *keeper.PortRequest) { r.Netns = "pid:0" })},
		{"netns", good(func(r *keeper.PortRequest) { r.Netns = "pid:01" })},
		{"mtu 67", good(func(r *keeper.PortRequest) { r.MTU = 67 })},
		{"mtu 65536", good(func(r *keeper.PortRequest) { r.MTU = 65536 })},
		{"mac", good(func(r *keeper.PortRequest) { r.MAC = frame.Broadcast })},
		{"given twice", good(func(r *keeper.PortRequest) { r.Addresses = append(r.Addresses, r.Addresses[0]) })},
		{"at most", good(func(r *keeper.PortRequest) { r.Addresses = make([]netip.Prefix, 65) })},
		{"address", good(func(r *keeper.PortRequest) { r.Addresses = []netip.Prefix{{}} })},
		{"address", good(func(r *keeper.PortRequest) { r.Addresses[0] = prefix("224.0.0.1/24") })},
		{"address", good(func(r *keeper.PortRequest) { r.Addresses[0] = prefix("::ffff:10.0.0.1/120") })},
		{"gateway", good(func(r *keeper.PortRequest) { r.Gateway = netip.MustParseAddr("10.2.0.1") })},
		{"gateway", good(func(r *keeper.PortRequest) { r.Gateway = netip.MustParseAddr("10.1.0.2") })},
		{"left as they are", keeper.PortRequest{Name: "c1", Kind: keeper.KindDevice, Device: "eth1", MAC: frame.MAC{2}}},
	} {
		err := c.r.Validate()
		if c.want == "" && err != nil || c.want != "" && (code(err) != keeper.CodeInvalid || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: got %v, want %q", c.r, err, c.want)
		}
	}
}

// Requests that no Client sends are refused one by one and harm nobody.
func TestBadRequests(t *testing.T) {
	b := newBed(t)
	b.start()
	w := b.accept()
	if err := w.Ready(); code(err) != keeper.CodeInvalid {
		t.Errorf("before hello: got %v, want a refusal", err)
	}
	if _, err := w.Hello(); err != nil {
		t.Fatal(err)
	}
	for _, op := range []string{"open", "set", "nonsense", ""} {
		if err := w.RawSet(nil, nil, op); code(err) != keeper.CodeInvalid {
			t.Errorf("%q: got %v, want %s", op, err, keeper.CodeInvalid)
		}
	}
	for _, s := range []keeper.SetRequest{
		{Name: "../x"}, {Name: "c1", MTU: 1}, {Name: "c1", Gateway: netip.MustParseAddr("10.0.0.1")},
	} {
		if _, err := w.Set(s); code(err) != keeper.CodeInvalid {
			t.Errorf("%+v: got %v, want %s", s, err, keeper.CodeInvalid)
		}
	}
	if _, err := w.Sweep([]string{"../x"}); code(err) != keeper.CodeInvalid {
		t.Errorf("got %v, want %s", err, keeper.CodeInvalid)
	}
	for _, raw := range []string{"{", "[]", `{"op":"ready","path":"/etc"}`, `{"op":"ready"}{}`} {
		if err := w.Raw([]byte(raw)); err != nil {
			t.Error(err)
		}
	}
	if err := w.Ready(); err != nil {
		t.Error(err)
	}
	if err := w.Raw(make([]byte, keeper.MaxMessageSize+1)); err != nil {
		t.Error(err)
	}
	w.gone() // what is too long to be read ends the conversation
	b.next()
}

func TestErrorCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		exit int
	}{
		{errors.New("x"), 1}, {unix.EMFILE, 1}, {&keeper.Error{Code: keeper.CodeInvalid}, 2}, {os.ErrPermission, 4},
		{unix.EPERM, 4}, {os.ErrNotExist, 5}, {unix.ENODEV, 5}, {unix.EBUSY, 6}, {os.ErrExist, 6},
	} {
		if got := keeper.ErrorOf(fmt.Errorf("open: %w", c.err)).ExitCode(); got != c.exit {
			t.Errorf("%v: got exit code %d, want %d", c.err, got, c.exit)
		}
	}
}

// recorder checks what reaches the machine by rules written down a second time.
type recorder struct {
	ledger
	t testing.TB
}

var (
	portRule   = regexp.MustCompile(`\A[a-z0-9][a-z0-9._-]{0,62}\z`)
	ifaceRule  = regexp.MustCompile(`\A[!-~]{1,15}\z`)
	netnsRule  = regexp.MustCompile(`\A(pid:[1-9][0-9]{0,9}|/[!-~]+|[!-,0-~][!-.0-~]{0,254})\z`)
	dotsInPath = regexp.MustCompile(`(\A|/)\.\.?(/|\z)`)
)

func (r *recorder) Open(q keeper.PortRequest) (keeper.PortReply, int, error) {
	for _, n := range []string{q.Ifname, q.Adopt, q.Device} {
		if n != "" && (!ifaceRule.MatchString(n) || strings.ContainsAny(n, "/:") || n == "." || n == "..") {
			r.t.Errorf("interface %q reached the machine", n)
		}
	}
	if !portRule.MatchString(q.Name) {
		r.t.Errorf("port %q reached the machine", q.Name)
	}
	if q.Netns != "" && (!netnsRule.MatchString(q.Netns) || dotsInPath.MatchString(q.Netns)) {
		r.t.Errorf("namespace %q reached the machine", q.Netns)
	}
	if q.MAC.IsGroup() || q.MTU != 0 && (q.MTU < 68 || q.MTU > 65535) || len(q.Addresses) > 64 {
		r.t.Errorf("settings %+v reached the machine", q)
	}
	return r.ledger.Open(q)
}

// FuzzRequest feeds whole conversations, one datagram a line, to the keeper.
func FuzzRequest(f *testing.F) {
	hello := `{"id":1,"op":"hello","proto":1}` + "\n"
	r := tap("c1")
	r.Addresses, r.Gateway = []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24")}, netip.MustParseAddr("10.1.0.1")
	port, err := json.Marshal(r)
	if err != nil {
		f.Fatal(err)
	}
	open := fmt.Sprintf(`{"id":2,"op":"open","port":%s}`, port)
	for _, rest := range []string{
		open, open + "\n" + open, `{"id":3,"op":"fdb","size":4096}`, `{"id":4,"op":"sweep","names":["c1"],"more":true}`,
		open + "\n" + `{"id":5,"op":"set","set":{"name":"c1","mac":"00:00:00:00:00:00","mtu":1400,"addresses":[],"gateway":""}}`,
		`{"id":6,"op":"list","name":"a"}`, `{"id":7,"op":"upgrade"}`, `{"id":8,"op":"standby"}`, `{"id":9,"op":"quiesced"}`,
		`{"id":10,"op":"abort","error":{"code":"x","error":"y"}}`, `{"id":11,"op":"remove","name":"c1"}`, `{"id":12,"op":"give_up"}`,
		`{"id":14,"op":"watch","watch":{"ifname":"lo"}}`, `{"id":15,"op":"interfaces","interfaces":{"after":3}}`,
		open + "\n" + `{"id":16,"op":"raw","raw":{"port":"c1","ipv6":true}}`, `{"id":17,"op":"diagnose","diagnose":{"flow":{"src":"10.1.0.2","dst":"10.1.0.1","in":"eth0"}}}`, `{"id":18,"op":"firewall","firewall":{"probe":{"src":"10.1.0.2","dst":"10.1.0.1","protocol":1,"id":7}}}`,
		`{"id":19,"op":"rule","rule":{"at":{"family":2,"table":"filter","chain":"input","handle":4}}}`, `{"id":13,"op":"ready"}`, `{"op":"open","port":{"name":"../x"}}`,
	} {
		f.Add([]byte(hello + rest))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		bench := keeper.NewBench(t, &recorder{ledger: ledger{dir: dir}, t: t})
		for i, line := range strings.SplitN(string(b), "\n", 12) {
			if len(line) <= keeper.MaxMessageSize && i < 12 {
				bench.Feed(t, []byte(line))
			}
		}
	})
}
