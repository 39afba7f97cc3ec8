package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/api/apitest"
)

// discard is where the test servers log to.
var discard = slog.New(slog.DiscardHandler)

var update = flag.Bool("update", false, "rewrite generated documents")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tapestry": func() { os.Exit(run()) }})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("TAPESTRY_SOCKET", filepath.Join(e.WorkDir, "s"))
			e.Setenv("DOCKER_HOST", "unix://"+filepath.Join(e.WorkDir, "docker"))
			e.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"switch": startSwitch,
			"docker": startDocker,
			"exits":  exits,
			"pcap":   writePcap,
			"offer":  startOffer, "offered": endOffer, "removeoffer": removeOffer,
		},
	})
}

// startSwitch serves a switch without frames: switch [mended|hostile|flapping|forgetful|fail CODE].
func startSwitch(ts *testscript.TestScript, _ bool, args []string) {
	sw := apitest.New()
	switch {
	case len(args) == 1 && args[0] == "mended":
		sw.Mend()
	case len(args) == 1 && args[0] == "flapping":
		sw.Flap()
	case len(args) == 1 && args[0] == "forgetful":
		_, err := sw.Flush(api.FlushRequest{})
		ts.Check(err)
	case len(args) == 1 && args[0] == "hostile":
		sw.AddPort(api.Port{Name: "evil\x1b[2J\nport", State: "down", Reason: "\x1b]0;owned\a", Trunk: []string{"blue", "red"}, Native: "blue"})
	case len(args) == 2 && args[0] == "fail":
		code, err := strconv.Atoi(args[1])
		ts.Check(err)
		sw.Fail(api.Errorf(code, "attach port c1: \x1b[31mno").WithHint("try again"))
	}
	l, err := net.Listen("unix", ts.Getenv("TAPESTRY_SOCKET"))
	ts.Check(err)
	srv := api.NewServer(sw, discard)
	go srv.Serve(l)
	ts.Defer(func() { srv.Close() })
}

// startDocker serves the one question that is asked of a container engine.
func startDocker(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("unix", strings.TrimPrefix(ts.Getenv("DOCKER_HOST"), "unix://"))
	ts.Check(err)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containers/{name}/json", func(w http.ResponseWriter, r *http.Request) {
		switch r.PathValue("name") {
		case "web":
			fmt.Fprint(w, `{"Id":"abc","State":{"Running":true,"Pid":4711},"Name":"/web"}`)
		case "stopped":
			fmt.Fprint(w, `{"State":{"Running":false,"Pid":0}}`)
		case "broken":
			fmt.Fprint(w, `{"State":`)
		case "sick":
			w.WriteHeader(http.StatusInternalServerError)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
	srv := &http.Server{Handler: mux}
	go srv.Serve(l)
	ts.Defer(func() { srv.Close() })
}

// exits runs a command and wants this exit code: exits CODE COMMAND ARG...
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		e, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = e.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s: got exit code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// TestGenerated compares docs/ with what the code prints.
func TestGenerated(t *testing.T) {
	c := &cli{out: new(bytes.Buffer), err: new(bytes.Buffer)}
	docs := "../../docs"
	root := c.root()
	if *update {
		root.SetArgs([]string{"generate", docs})
		if err := root.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for name, write := range generated {
		var want bytes.Buffer
		if err := write(&want, c.root()); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(docs, name))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want.String(), string(got)); d != "" {
			t.Errorf("docs/%s is not what the code prints: run `make generate` (-code +file):\n%s", name, d)
		}
	}
}

// TestHelp wants a text and an example, at the end, for every command.
func TestHelp(t *testing.T) {
	c := &cli{out: new(bytes.Buffer), err: new(bytes.Buffer)}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Name() == "help" || (cmd.Hidden && cmd.Name() != "generate") {
			return
		}
		var b bytes.Buffer
		cmd.SetOut(&b)
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		if last := lines[len(lines)-1]; !strings.Contains(last, "tapestry ") || !strings.Contains(b.String(), "\n\nExample:\n  ") || cmd.Long == "" {
			t.Errorf("%s: help has no text or does not end with an example:\n%s", cmd.CommandPath(), b.String())
		}
		for _, l := range lines {
			if len(l) > 104 {
				t.Errorf("%s: help line of %d columns: %s", cmd.CommandPath(), len(l), l)
			}
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(c.root())
}

func TestClockOfNothing(t *testing.T) {
	if got := clock(time.Time{}); got != "" {
		t.Errorf("got %q, want nothing", got)
	}
}

// TestLongFilter: what is too long to be shown is not shown.
func TestLongFilter(t *testing.T) {
	err := checkFilter(strings.Repeat("icmp or ", 3000) + "icmp")
	if err == nil || len(err.Error()) > 200 {
		t.Errorf("got %.300v", err)
	}
}

func TestPortValue(t *testing.T) {
	var p portFlags
	cmd := &cobra.Command{Use: "add"}
	p.register(cmd)
	if err := cmd.ParseFlags(strings.Fields("--veth c1 --address 10.1.0.2/24 --mac 02:00:00:00:00:01 --trunk blue,red --native blue --mtu 1400 --isolated")); err != nil {
		t.Fatal(err)
	}
	v, err := p.value(cmd, false)
	got, _ := json.Marshal(v)
	want := `{"isolated":true,"mtu":1400,"native":"blue","trunk":["blue","red"],"veth":{"address":["10.1.0.2/24"],"mac":"02:00:00:00:00:01","netns":"c1"}}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

func TestAssignments(t *testing.T) {
	got, err := assignments(&cobra.Command{}, []string{"access=red", "tap.mac=02:00:00:00:00:01", "tap.address=[10.1.0.2/24]", "mode="})
	want := `{access: red, mode: null, tap: {address: [10.1.0.2/24], mac: "02:00:00:00:00:01"}}`
	if err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	for _, bad := range []string{"mtu", "M=1", "a=b\nc: d"} {
		if _, err := assignments(&cobra.Command{}, []string{bad}); err == nil {
			t.Errorf("%q: got no error", bad)
		}
	}
}

// What can't be written is no success: a script would take the half for all.
func TestOutputFull(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	apitest.New().Serve(t, socket)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, args := range [][]string{{"port", "ls"}, {"port", "ls", "--json"}, {"status"}, {"events"}, {"capture", "--count", "1"}, {"fdb", "flush"}} {
		var errText bytes.Buffer
		c := &cli{out: full, err: &errText}
		root := c.root()
		root.SetArgs(append(args, "--socket", socket))
		if code := c.exit(root.ExecuteContext(t.Context())); code != 1 || !strings.Contains(errText.String(), "no space left") {
			t.Errorf("%v: got exit code %d: %s", args, code, errText.String())
		}
	}
}

// A stream that is interrupted has done what it was asked to.
func TestEventsEndQuietly(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	apitest.New().Serve(t, socket)
	for _, c := range []struct{ flag, want string }{
		{"--json=false", "03:04:05.000  config   listening for [port]\n"},
		{"--json", `{"time":"2026-01-02T03:04:05Z","kind":"config","what":"listening for [port]"}` + "\n"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		r, w := io.Pipe()
		c1 := &cli{out: w, err: io.Discard}
		root := c1.root()
		root.SetArgs([]string{"events", "--kind", "port", "--socket", socket, c.flag})
		code := make(chan int, 1)
		go func() { code <- c1.exit(root.ExecuteContext(ctx)) }()
		got, err := bufio.NewReader(r).ReadString('\n')
		cancel()
		if n := <-code; n != 0 || err != nil || got != c.want {
			t.Errorf("%s: got %q, %v, exit code %d, want %q and 0", c.flag, got, err, n, c.want)
		}
	}
}
