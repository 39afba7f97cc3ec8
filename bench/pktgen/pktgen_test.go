package pktgen_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/bench/pktgen"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == pktgen.Command {
		if err := pktgen.Main(os.Args[2]); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(netnstest.Main(m))
}

// TestMeasureTellsWhy asks for an address that the namespace doesn't have.
func TestMeasureTellsWhy(t *testing.T) {
	netnstest.Require(t, "netns")
	ns := netnstest.New(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ends := pktgen.Ends{From: ns.Handle, To: ns.Handle, Addr: netip.MustParseAddr("192.0.2.1")}
	for _, kind := range []pktgen.Kind{pktgen.TCP, pktgen.Flood, pktgen.PingPong} {
		f := pktgen.Flow{Kind: kind, Size: 64, Window: time.Second, Apart: kind == pktgen.PingPong}
		_, err := pktgen.Measure(context.Background(), program, ends, f, func() {}, func() {})
		if err == nil || !strings.Contains(err.Error(), "192.0.2.1:7707") || !strings.Contains(err.Error(), "cannot assign") {
			t.Errorf("%s: Measure = %v, want an error that names the address and the cause", kind, err)
		}
	}
	_, err = pktgen.Measure(context.Background(), program, ends, pktgen.Flow{Kind: "carrier pigeon"}, func() {}, func() {})
	if err == nil || !strings.Contains(err.Error(), "carrier pigeon") {
		t.Errorf("Measure = %v, want an error that names the kind", err)
	}
}

func TestMainRefusesNonsense(t *testing.T) {
	if err := pktgen.Main("{"); err == nil || !strings.Contains(err.Error(), "traffic job") {
		t.Errorf("Main = %v, want an error about the job", err)
	}
}

// TestOnCPUComesBack: the caller's thread may use every processor afterwards,
// also when the start failed.
func TestOnCPUComesBack(t *testing.T) {
	var before, within, after unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	want := errors.New("no")
	for _, last := range []bool{false, true} {
		err := pktgen.OnCPU(last, func() error {
			if err := unix.SchedGetaffinity(0, &within); err != nil {
				t.Error(err)
			}
			return want
		})
		if !errors.Is(err, want) {
			t.Errorf("onCPU = %v, want the error of start", err)
		}
		if within.Count() != 1 {
			t.Errorf("started on %d processors, want 1", within.Count())
		}
		if err := unix.SchedGetaffinity(0, &after); err != nil {
			t.Fatal(err)
		}
		if after != before {
			t.Errorf("afterwards on %d processors, want %d", after.Count(), before.Count())
		}
	}
}
