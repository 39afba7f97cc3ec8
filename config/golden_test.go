package config_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapestry-net/tapestry/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const wantLine = "-- want --\n"

// TestGolden reads files that hold an input and what becomes of it: its errors,
// or its canonical text and the changes from nothing.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in, want, _ := bytes.Cut(text, []byte(wantLine))
			got := outcome(in)
			if *update {
				write(t, file, string(in)+wantLine+got)
				return
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func outcome(in []byte) string {
	c, err := config.Parse("t.yaml", in)
	if err != nil {
		return err.Error() + "\n"
	}
	var b strings.Builder
	b.Write(c.Marshal())
	b.WriteString("-- resolved --\n")
	b.Write(c.Resolved("h1", nil).Marshal())
	b.WriteString("-- changes --\n")
	for _, ch := range config.Diff(nil, c) {
		b.WriteString(ch.String() + "\n")
	}
	return b.String()
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

// TestBadValues holds every bad value to its exact message. A case of the file
// is some lines of YAML and then a line `! MESSAGE` for each error. Networks
// blue and red are added when the case has none of its own.
func TestBadValues(t *testing.T) {
	const file = "testdata/bad-values.txt"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, block := range strings.Split(strings.TrimSpace(string(text)), "\n\n") {
		var in, want []string
		for _, l := range strings.Split(block, "\n") {
			if m, ok := strings.CutPrefix(l, "! "); ok {
				want = append(want, m)
			} else {
				in = append(in, l)
			}
		}
		doc := strings.Join(in, "\n") + "\n"
		if !strings.Contains("\n"+doc, "\nnetworks:") {
			doc += "networks: {blue: {vlan: 10, vni: 10}, red: {}}\n"
		}
		var got []string
		if _, err := config.Parse("f", []byte(doc)); err != nil {
			got = strings.Split(err.Error(), "\n")
		}
		if d := cmp.Diff(want, got); d != "" && !*update {
			t.Errorf("%s\n-want +got:\n%s", doc, d)
		}
		if len(got) == 0 {
			t.Errorf("%s\nis accepted, want an error", doc)
		}
		for _, m := range got {
			in = append(in, "! "+m)
			for _, leak := range []string{"reflect", "config.", "netip", "strconv", "uint", "\x1b"} {
				if strings.Contains(m, leak) {
					t.Errorf("message %q says %q", m, leak)
				}
			}
		}
		out = append(out, strings.Join(in, "\n"))
	}
	if *update {
		write(t, file, strings.Join(out, "\n\n")+"\n")
	}
}
