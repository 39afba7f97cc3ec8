package bench_test

import (
	"context"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapestry-net/tapestry/bench"
	"github.com/tapestry-net/tapestry/bench/pktgen"
	"github.com/tapestry-net/tapestry/config"
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

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 2, 100}, 3},
	} {
		in := slices.Clone(c.in)
		if got := bench.Median(in); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.in, got, c.want)
		}
		if !slices.Equal(in, c.in) {
			t.Errorf("median reordered %v to %v", c.in, in)
		}
	}
	if got := bench.Median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing = %v, want NaN", got)
	}
}

func TestTargetMet(t *testing.T) {
	for _, c := range []struct {
		op   string
		v    float64
		want bool
	}{
		{">=", 1, true}, {">=", 0.99, false}, {"<=", 1, true}, {"<=", 1.01, false}, {"<", 1, false}, {"<", 0.99, true},
		{">=", math.NaN(), false}, {"<=", math.NaN(), false}, {"<", math.NaN(), false},
	} {
		if got := (bench.Target{Op: c.op, Limit: 1}).Met(c.v); got != c.want {
			t.Errorf("%v %s 1 is %v, want %v", c.v, c.op, got, c.want)
		}
	}
}

// TestRatioIsTheMedianOfRounds has medians whose quotient is another number.
func TestRatioIsTheMedianOfRounds(t *testing.T) {
	row := bench.Row{
		Target: &bench.Target{Of: "ratio", Op: ">=", Limit: 1},
		Rounds: []bench.Round{
			{Base: &bench.Sample{Value: 10}, Ours: bench.Sample{Value: 10}},
			{Base: &bench.Sample{Value: 20}, Ours: bench.Sample{Value: 30}},
			{Base: &bench.Sample{Value: 30}, Ours: bench.Sample{Value: 27}},
		},
	}
	row.Settle()
	got := []float64{row.Base, row.Ours, row.Ratio, row.Low, row.High}
	if diff := cmp.Diff([]float64{20, 27, 1, 0.9, 1.5}, got); diff != "" {
		t.Errorf("base, ours, ratio, low, high (-want +got):\n%s", diff)
	}
	if row.Met == nil || !*row.Met {
		t.Errorf("Met = %v, want true", row.Met)
	}
}

// TestFailedRowMeetsNothing: rounds measured before the failure don't count.
func TestFailedRowMeetsNothing(t *testing.T) {
	row := bench.Row{
		Error: "the switch stands still", Target: &bench.Target{Of: "value", Op: "<=", Limit: 9},
		Rounds: []bench.Round{{Ours: bench.Sample{Value: 1}}},
	}
	row.Settle()
	if row.Met == nil || *row.Met {
		t.Error("a failed row meets its target")
	}
	r := bench.Report{Rows: []bench.Row{{Name: "good"}, {Name: "bad", Error: "no"}}}
	if got := r.Failed(); !slices.Equal(got, []string{"bad"}) {
		t.Errorf("Failed() = %v, want bad", got)
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.0306: "0.031", 0.5: "0.5", 1: "1", 1.254: "1.25", 20: "20.0", 99.94: "99.9", 1278.4: "1278",
	} {
		if got := bench.Figure(v); got != want {
			t.Errorf("figure(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestConfigIsValid(t *testing.T) {
	for _, kind := range []string{"tap", "veth"} {
		text := bench.ConfigText("x", kind, 1000)
		c, err := config.Parse("bench.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := len(c.Ports); got != 1002 {
			t.Errorf("%d ports, want 1002", got)
		}
	}
}

func TestInsert(t *testing.T) {
	const begin, end = "<!-- results: written by tapestry bench --save -->\n", "<!-- end of results -->\n"
	page, ok := bench.Insert([]byte("a\n"+begin+"old\n"+end+"b\n"), []byte("new\n"))
	if want := "a\n" + begin + "\nnew\n\n" + end + "b\n"; !ok || string(page) != want {
		t.Errorf("insert = %q, %v; want %q", page, ok, want)
	}
	again, _ := bench.Insert(page, []byte("new\n"))
	if string(again) != string(page) {
		t.Errorf("the second insert changes the page: %q", again)
	}
	for _, s := range []string{"", begin, end, end + begin} {
		if page, ok := bench.Insert([]byte(s), []byte("new\n")); ok || string(page) != s {
			t.Errorf("insert into %q = %q, %v", s, page, ok)
		}
	}
}

// TestReadmeHasEveryRow keeps the page and the table of workloads together.
func TestReadmeHasEveryRow(t *testing.T) {
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range bench.Names() {
		if !strings.Contains(string(page), "| `"+name+"` |") {
			t.Errorf("README.md has no row for %s", name)
		}
	}
	if _, ok := bench.Insert(page, nil); !ok {
		t.Error("README.md has no marks for the results")
	}
}

func TestRunRefusesUnknownWorkload(t *testing.T) {
	_, err := bench.Run(context.Background(), bench.Options{Rounds: 1, Window: time.Second, Only: []string{"tcp9"}})
	if err == nil || !strings.Contains(err.Error(), `"tcp9"`) || !strings.Contains(err.Error(), "tcp4") {
		t.Errorf("Run = %v, want an error that names tcp9 and what there is", err)
	}
}

// TestKernelRound is a whole row of a fifth of a second, the kernel on both
// sides.
func TestKernelRound(t *testing.T) {
	netnstest.Require(t, "netns")
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	row, err := bench.KernelAlone(context.Background(), program, t.TempDir(), pktgen.Flow{Kind: pktgen.TCP, Streams: 1}, 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if row.Error != "" {
		t.Fatal(row.Error)
	}
	if row.Base <= 0 || row.Ours <= 0 || row.Met == nil || !*row.Met {
		t.Errorf("got %+v, want throughput on both sides", row)
	}
	if row.Rounds[0].Ours.SystemCPU <= 0 || row.Rounds[0].Ours.SwitchCPU != 0 {
		t.Errorf("got %+v, want processor time of the machine and none of a switch", row.Rounds[0].Ours)
	}
}
