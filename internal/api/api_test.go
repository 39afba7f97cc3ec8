package api_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/api/apitest"
)

func serve(t *testing.T) (*apitest.Switch, *api.Client) {
	t.Helper()
	sw, socket := apitest.New(), filepath.Join(t.TempDir(), "s")
	sw.Serve(t, socket)
	c := api.Dial(socket)
	t.Cleanup(c.Close)
	return sw, c
}

func handler(sw *apitest.Switch) http.Handler {
	return api.NewServer(sw, slog.New(slog.DiscardHandler)).Handler()
}

func do(h http.Handler, method, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w
}

func TestAskOverSocket(t *testing.T) {
	sw, c := serve(t)
	ctx := t.Context()
	check := func(what string, got, want any, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		} else if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", what, d)
		}
	}
	status, err := c.Status(ctx)
	check("status", status, sw.Status(), err)
	stats, err := c.Stats(ctx)
	check("stats", stats, sw.Stats(), err)
	entries, err := c.FDB(ctx)
	check("fdb", entries, slices.Collect(sw.FDB()), err)
	all, _ := sw.History(api.HistoryRequest{Limit: 10})
	history, err := c.History(ctx, api.HistoryRequest{Limit: 1})
	check("history", history, all[1:], err)
	history, err = c.History(ctx, api.HistoryRequest{})
	check("history", history, all, err)
	history, err = c.History(ctx, api.HistoryRequest{
		MAC: all[0].MAC, Network: "blue", Port: "c2", Since: apitest.Start.Add(-time.Nanosecond),
	})
	check("history of one", history, all, err)
	history, err = c.History(ctx, api.HistoryRequest{Since: apitest.Start.Add(time.Second)})
	check("history since", history, all[1:], err)
	wantPast, rows, _ := sw.At(api.PastRequest{Time: apitest.Start, Network: "blue"})
	wantPast.Entries = slices.Collect(rows)
	past, err := c.At(ctx, api.PastRequest{Time: apitest.Start, Network: "blue"})
	check("past", past, wantPast, err)
	past, err = c.At(ctx, api.PastRequest{Time: apitest.Start, Network: "red"})
	check("past of nothing", past.Entries, []api.PastEntry{}, err)
	wantWhy, _ := sw.Why("02:00:00:00:00:01")
	why, err := c.Why(ctx, "02-00-00-00-00-01")
	check("why", why, wantWhy, err)

	happened, err := c.Happened(ctx, api.HappenedRequest{Kinds: []string{"port", "worker"}, Port: "c2", Since: apitest.Start, Limit: 9})
	check("happened", happened, sw.Happened(api.HappenedRequest{Port: "c2", Limit: 9}), err)
	happened, err = c.Happened(ctx, api.HappenedRequest{Peer: "h131", Limit: 1})
	check("happened to a peer", happened[0].Kind, "peer", err)
	if _, err = c.Happened(ctx, api.HappenedRequest{Kinds: []string{"weather"}}); api.AsError(err).Code != api.CodeInvalid {
		t.Errorf("of a kind that there isn't: %v", err)
	}

	ports, err := c.Ports(ctx)
	check("ports", len(ports), 2, err)
	if ports[0].Trunk == nil || ports[1].Drops == nil || ports[1].Offloads == nil {
		t.Errorf("ports: null where the contract shows an empty list: %+v", ports)
	}
	networks, err := c.Networks(ctx)
	check("networks", networks[1].Peers, []string{}, err)
}

func TestTellOverSocket(t *testing.T) {
	sw, c := serve(t)
	ctx := t.Context()
	want := []any{
		api.ApplyRequest{File: "f", YAML: "host: h", DryRun: true},
		api.ItemRequest{Op: "add", Kind: "port", Name: "c3", YAML: "{}"},
		api.AttachRequest{Netns: "pid:1", Label: "web", Network: "blue", Ifname: "eth0", Addresses: []string{"10.1.0.9/24"}},
		api.FlushRequest{Network: "blue"},
		api.ExplainRequest{In: "c1", Hex: "ffffffffffff0200000000010806"},
		"upgrade",
		api.DetachRequest{Netns: "pid:1", Ifname: "eth0"},
	}
	var err [7]error
	_, err[0] = c.Apply(ctx, want[0].(api.ApplyRequest))
	_, err[1] = c.Item(ctx, want[1].(api.ItemRequest))
	_, err[2] = c.Attach(ctx, want[2].(api.AttachRequest))
	_, err[3] = c.Flush(ctx, want[3].(api.FlushRequest))
	_, err[4] = c.Explain(ctx, want[4].(api.ExplainRequest))
	_, err[5] = c.Upgrade(ctx)
	err[6] = c.Detach(ctx, want[6].(api.DetachRequest))
	if e := errors.Join(err[:]...); e != nil {
		t.Error(e)
	}
	if d := cmp.Diff(want, sw.Asked()); d != "" {
		t.Errorf("requests (-want +got):\n%s", d)
	}
}

func TestEvents(t *testing.T) {
	sw, c := serve(t)
	sw.Emit(api.Event{}) // nobody listens: lost
	var got []string
	for e, err := range c.Events(t.Context(), []string{"port", "fdb"}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.What)
		if len(got) == 3 {
			break
		}
		sw.Emit(api.Event{Kind: "port", What: "up\x1b[31m", Fields: map[string]any{"n": 1}})
	}
	want := []string{"listening for [port fdb]", "up\x1b[31m", "up\x1b[31m"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
	for _, err := range c.Events(t.Context(), []string{"weather"}) {
		if api.AsError(err).Code != api.CodeInvalid {
			t.Errorf("unknown kind: got %v, want code 2", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, err := range c.Events(ctx, nil) {
		if err != nil {
			t.Errorf("cancelled stream: got %v, want a quiet end", err)
		}
		cancel()
	}
}

// Closing the server ends streams, which the reader sees as a lost daemon.
func TestCloseEndsStreams(t *testing.T) {
	sw, socket := apitest.New(), filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv, done := api.NewServer(sw, slog.New(slog.DiscardHandler)), make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	n := 0
	for _, err := range api.Dial(socket).Events(t.Context(), nil) {
		if n++; n == 1 {
			if err := srv.Close(); err != nil {
				t.Fatal(err)
			}
		} else if got := api.AsError(err); got == nil || got.Code != api.CodeUnreachable {
			t.Errorf("after close: got %v, want code 3", err)
		}
	}
	if err := <-done; err != nil || n != 2 {
		t.Errorf("Serve: got %v after %d events, want nil after 2", err, n)
	}
}

func TestErrorsKeepCodeAndHint(t *testing.T) {
	sw := apitest.New()
	for code, status := range map[int]int{1: 500, 2: 400, 4: 403, 5: 404, 6: 409} {
		sw.Fail(api.Errorf(code, "attach %q: no", "x").WithHint("try\x1b[2J again"))
		w := do(handler(sw), "POST", "/v1/upgrade", "{}")
		want := `{"code":` + string(rune('0'+code)) + `,"error":"attach \"x\": no","hint":"try\\x1b[2J again"}` + "\n"
		if w.Code != status || w.Body.String() != want {
			t.Errorf("code %d: got %d %s, want %d %s", code, w.Code, w.Body, status, want)
		}
	}
	_, c := serve(t)
	_, err := c.Attach(t.Context(), api.AttachRequest{Port: "c1"})
	if got := api.AsError(err); got.Code != api.CodeConflict || got.Hint == "" {
		t.Errorf("attach c1 twice: got %+v, want code 6 with a hint", got)
	}
	if got := api.AsError(os.ErrExist); got.Code != api.CodeFailed {
		t.Errorf("plain error: got code %d, want 1", got.Code)
	}
}

func TestRefusesMalformed(t *testing.T) {
	h := handler(apitest.New())
	big := `{"file":"` + strings.Repeat("x", 4<<20) + `"}`
	for _, c := range []struct{ method, path, body, want string }{
		{"POST", "/v1/attach", `{"netns":"c1","colour":"red"}`, `unknown field`},
		{"POST", "/v1/attach", `{"netns":7}`, `cannot unmarshal`},
		{"POST", "/v1/attach", `{} {}`, "more than one"},
		{"POST", "/v1/attach", ``, "empty"},
		{"POST", "/v1/attach", `{"netns":`, "unexpected EOF"},
		{"POST", "/v1/apply", big, "larger than"},
		{"POST", "/v1/explain", `{"in":"c1","hex":"0g"}`, "hex"},
		{"POST", "/v1/explain", `{"in":"c1","hex":"` + strings.Repeat("00", 70000) + `"}`, "at most"},
		{"GET", "/v1/fdb/why?mac=beef", "", "six hexadecimal"},
		{"GET", "/v1/fdb/history?limit=-1", "", "limit"},
		{"GET", "/v1/status?colour=red", "", "query parameter"},
		{"GET", "/v1/events?kind=%1b", "", `unknown kind`},
		{"GET", "/v1/status?%zz", "", "query"},
	} {
		w := do(h, c.method, c.path, c.body)
		if w.Code != 400 || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %s %.40s: got %d %s, want 400 with %q", c.method, c.path, c.body, w.Code, w.Body, c.want)
		}
	}
	for _, r := range [][2]string{{"GET", "/v2/status"}, {"DELETE", "/v1/status"}, {"GET", "/v1/attach"}} {
		if w := do(h, r[0], r[1], ""); w.Code != 404 || !strings.Contains(w.Body.String(), "no such request") {
			t.Errorf("%s %s: got %d %s, want 404", r[0], r[1], w.Code, w.Body)
		}
	}
}

func TestAdmits(t *testing.T) {
	for _, c := range []struct {
		name     string
		uid, gid uint32
		groups   []uint32
		want     bool
	}{
		{"root", 0, 0, nil, true},
		{"owner", 500, 9, nil, true},
		{"primary group", 1000, 77, nil, true},
		{"supplementary group", 1000, 9, []uint32{5, 77}, true},
		{"stranger", 1000, 9, []uint32{5}, false},
	} {
		if got := api.Admits(500, 77, c.uid, c.gid, c.groups...); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestRefusesOtherSockets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := api.NewServer(apitest.New(), slog.New(slog.DiscardHandler))
	go srv.Serve(l)
	defer srv.Close()
	resp, err := http.Get("http://" + l.Addr().String() + "/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("a caller without credentials: got %s, want 403", resp.Status)
	}
}

func TestUnreachable(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for socket, code := range map[string]int{
		filepath.Join(dir, "none"): api.CodeUnreachable,
		dead:                       api.CodeUnreachable,
		filepath.Join(dir, strings.Repeat("x", 120)): api.CodeInvalid,
	} {
		_, err := api.Dial(socket).Status(t.Context())
		if got := api.AsError(err); got == nil || got.Code != code || got.Hint == "" {
			t.Errorf("socket %.60s: got %+v, want code %d with a hint", socket, got, code)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := api.Dial(dead).Status(ctx); api.AsError(err).Code != api.CodeFailed {
		t.Errorf("interrupted: got %v, want code 1", err)
	}
}

// TestKilledDuringOrder: whoever gave an order that nobody answered is told that
// it may have been carried out.
func TestKilledDuringOrder(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go http.Serve(l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	c := api.Dial(socket)
	_, err = c.Item(t.Context(), api.ItemRequest{Op: "add", Kind: "network", Name: "blue"})
	if e := api.AsError(err); e == nil || e.Code != api.CodeUnreachable || !strings.Contains(e.Msg, "may be done or not") || e.Hint == "" {
		t.Errorf("got %+v, want code 3 that leaves open what is done", e)
	}
	err = c.Trace(t.Context(), api.TraceRequest{From: "c1", To: "c2"}, func(api.Traced) error { return nil })
	if e := api.AsError(err); e == nil || e.Code != api.CodeUnreachable || strings.Contains(e.Msg, "EOF") {
		t.Errorf("trace: got %+v, want code 3 in words", e)
	}
}

func TestDefaultSocket(t *testing.T) {
	t.Setenv("TAPESTRY_SOCKET", "/x/y")
	if got, want := api.DefaultSocket(), "/x/y"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	t.Setenv("TAPESTRY_SOCKET", "")
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/7")
	want := "/run/user/7/tapestry/tapestry.sock"
	if os.Geteuid() == 0 {
		want = "/run/tapestry/tapestry.sock"
	}
	if got := api.DefaultSocket(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestMetrics(t *testing.T) {
	sw := apitest.New()
	sw.AddPort(api.Port{Name: "evil\xff\n", State: "up"})
	w := do(handler(sw), "GET", "/metrics", "")
	text := w.Body.String()
	for _, want := range []string{
		`tapestry_port_receive_frames_total{port="c1"} 12`,
		`tapestry_port_drops_total{port="c1",reason="storm"} 2`,
		`tapestry_port_up{kind="veth",port="c2"} 0`,
		`tapestry_verdicts_total{action="flood"} 3`,
		`tapestry_copies_total{result="refused"} 1`,
		`tapestry_fdb_entries 1`,
		`tapestry_loop_coalesced_total 4`,
		`version="v0.0.0-test"} 1`,
		`tapestry_port_up{kind="",port="evil\\xff\\x0a"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in:\n%s", want, text)
		}
	}
	problems, err := promlint.New(w.Body).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"c1":              "c1",
		"a\x1b[31mb\n":    `a\x1b[31mb\x0a`,
		"\u202egnp\u0085": `\u202egnp\u0085`,
		"\xff":            `\xff`,
		"grün":            "grün",
	} {
		if got := api.Clean(in); got != want {
			t.Errorf("Clean(%q): got %s, want %s", in, got, want)
		}
	}
}

func TestEncode(t *testing.T) {
	var b bytes.Buffer
	err := api.Encode(&b, []api.Network{{Name: "a\u202e\u007f\U000e0001"}})
	want := `[{"name":"a\u202e\u007f\udb40\udc01","vlan":0,"vni":0,"mtu":0,"encrypt":"","ageing_s":0,"ports":[],"peers":[],"fdb_entries":0}]` + "\n"
	if err != nil || b.String() != want {
		t.Errorf("got %s%v, want %s", b.String(), err, want)
	}
}
