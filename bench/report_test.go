package bench_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapestry-net/tapestry/bench"
	"github.com/tapestry-net/tapestry/bench/machine"
)

func sampleReport() *bench.Report {
	yes, no := true, false
	return &bench.Report{
		Description: machine.Description{Kernel: "6.1.0-test", CPU: "Some CPU", CPUs: 2, MemoryMB: 25345, Go: "go1.26", BusyBefore: 0.01},
		Date:        time.Date(2026, 11, 21, 6, 0, 0, 0, time.UTC),
		Version:     "v1", Rounds: 5, WindowS: 3,
		Rows: []bench.Row{
			{Name: "tcp1", What: "TCP, 1 stream", Unit: "Gb/s", Beside: "kernel", Base: 19.8, Ours: 17, Ratio: 0.86, Low: 0.84, High: 0.9,
				Target: &bench.Target{Of: "ratio", Op: ">=", Limit: 0.85}, Met: &yes, Note: "0 retransmits", Rounds: []bench.Round{{}}},
			{Name: "rss", What: "memory", Unit: "MB", Ours: 70, Target: &bench.Target{Of: "value", Op: "<=", Limit: 64}, Met: &no, Rounds: []bench.Round{{}}},
			{Name: "rtt", What: "round trip", Unit: "µs", Error: "no answer", Rounds: []bench.Round{}},
		},
	}
}

func TestText(t *testing.T) {
	const want = `tapestry v1, go1.26, Linux 6.1.0-test, 2 × Some CPU, 25.3 GB
2026-11-21 06:00 UTC, median of 5 interleaved rounds of 3 s; the machine was 1 % busy before

workload       kernel     tapestry   ratio (of all rounds)  target     met
TCP, 1 stream  19.8 Gb/s  17.0 Gb/s  0.86× (0.84–0.90)      ≥ 0.85×    yes
    tcp1: 0 retransmits
memory         –          70.0 MB    –                      ≤ 64.0 MB  no
round trip     –          –          –                      –          failed
    rtt: no answer
`
	var b bytes.Buffer
	sampleReport().Text(&b)
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
}

func TestMarkdown(t *testing.T) {
	const want = "tapestry v1, go1.26, Linux 6.1.0-test, 2 × Some CPU, 25.3 GB  \n" +
		"2026-11-21 06:00 UTC, median of 5 interleaved rounds of 3 s; the machine was 1 % busy before  \n\n" +
		"| name | workload | kernel | tapestry | ratio (of all rounds) | target | met | note |\n" +
		"|---|---|---|---|---|---|---|---|\n" +
		"| `tcp1` | TCP, 1 stream | 19.8 Gb/s | 17.0 Gb/s | 0.86× (0.84–0.90) | ≥ 0.85× | yes | 0 retransmits |\n" +
		"| `rss` | memory | – | 70.0 MB | – | ≤ 64.0 MB | no |  |\n" +
		"| `rtt` | round trip | – | – | – | – | failed | no answer |\n"
	var b bytes.Buffer
	sampleReport().Markdown(&b)
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("markdown (-want +got):\n%s", diff)
	}
}

func TestSave(t *testing.T) {
	root := t.TempDir()
	readme := filepath.Join(root, "README.md")
	const page = "head\n<!-- results: written by tapestry bench --save -->\n<!-- end of results -->\ntail\n"
	if err := os.WriteFile(readme, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	want := sampleReport()
	files, err := want.Save(filepath.Join(root, "results"))
	if err != nil {
		t.Fatal(err)
	}
	stem := filepath.Join(root, "results", "2026-11-21-linux6.1.0-2cpu")
	if diff := cmp.Diff([]string{stem + ".json", stem + ".md", readme}, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	text, err := os.ReadFile(stem + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var got bench.Report
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, &got); diff != "" {
		t.Errorf("report read back (-want +got):\n%s", diff)
	}
	text, err = os.ReadFile(readme)
	if err != nil || !bytes.Contains(text, []byte("| `tcp1` |")) || !bytes.HasSuffix(text, []byte("tail\n")) {
		t.Errorf("README.md is %q, %v; want the table between head and tail", text, err)
	}
}
