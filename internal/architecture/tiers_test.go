package architecture_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tapestry-net/tapestry"

// tiers orders the packages from low to high: a package imports only from lower
// tiers, or from its own where peers says so. The longest matching prefix counts.
var tiers = map[string]int{
	"switch/frame":          0,
	"internal/spell":        0,
	"fdb":                   1,
	"internal/offload":      1,
	"tunnel/vxlan":          1,
	"tunnel/pathmtu":        1,
	"capture/filter":        1,
	"capture/dissect":       1,
	"internal/frameexpr":    1,
	"switch/port":           2,
	"internal/udpio":        2,
	"internal/probe":        2,
	"internal/link":         2,
	"internal/netns":        2,
	"internal/journal":      2,
	"internal/watch":        2,
	"internal/audit":        2,
	"internal/nftrace":      2,
	"internal/pki":          2,
	"switch":                3,
	"tunnel":                3,
	"capture":               3,
	"config":                4,
	"internal/join":         5,
	"internal/daemon":       5,
	"internal/api":          5,
	"internal/keeper":       5,
	"internal/tracer":       5,
	"cmd":                   6,
	"bench":                 6,
	"internal/lab":          6,
	"switch/switchtest":     9, // test support may see everything
	"internal/integration":  9,
	"internal/architecture": 9,
}

// peers are the arrows allowed inside one tier.
var peers = map[string][]string{
	"switch/port/tap":    {"internal/link", "internal/netns", "internal/probe", "switch/port/gather"},
	"switch/port/packet": {"internal/link", "internal/netns", "internal/probe", "switch/port/gather"},
	"internal/link":      {"internal/netns"},
	"internal/probe":     {"internal/link", "internal/netns", "switch/port/tap", "switch/port/packet"},
	"internal/daemon":    {"internal/api", "internal/keeper", "internal/tracer"},
	"internal/tracer":    {"internal/api", "internal/keeper"},
	"cmd/tapestry":       {"bench", "bench/pktgen", "bench/baseline", "internal/lab"},
}

// confined names the only packages that may import a third-party module, tests
// apart.
var confined = map[string][]string{
	"github.com/songgao/water":            {"switch/port/tap"},
	"github.com/vishvananda/netlink":      {"internal/link", "switch/port/tap"},
	"github.com/vishvananda/netns":        {"internal/link", "switch/port/tap"},
	"github.com/google/gopacket":          {"capture", "capture/dissect", "internal/frameexpr", "switch/switchtest"},
	"go.yaml.in/yaml/v3":                  {"config"},
	"github.com/spf13/cobra":              {"cmd/tapestry"},
	"github.com/prometheus/client_golang": {"internal/api"},
	"github.com/prometheus/client_model":  {},
	"github.com/pion/dtls":                {"tunnel/dtls"},
	"github.com/pion/logging":             {"tunnel/dtls"},
	"github.com/google/go-cmp":            {},
	"pgregory.net/rapid":                  {},
	"go.uber.org/goleak":                  {},
	"github.com/rogpeppe/go-internal":     {},
	"golang.org/x/term":                   {"cmd/tapestry"},
	"golang.org/x/net":                    {"capture/filter", "capture/trace", "internal/udpio", "internal/watch", "tunnel"},
	"golang.org/x/sys":                    nil, // system calls are where the kernel is
	"golang.org/x/crypto":                 {"tunnel/dtls"},
	"github.com/spf13/pflag":              {"cmd/tapestry"},
	"github.com/prometheus/common":        {},
}

type pkg struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	d := json.NewDecoder(bytes.NewReader(out))
	for {
		var p pkg
		if err := d.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// tierOf finds the longest prefix of rel in tiers.
func tierOf(rel string) (int, bool) {
	for p := rel; p != "."; p = parent(p) {
		if n, ok := tiers[p]; ok {
			return n, true
		}
		if !strings.Contains(p, "/") {
			break
		}
	}
	return 0, false
}

func parent(p string) string { return p[:strings.LastIndexByte(p, '/')] }

// support reports whether a package exists for tests only, by its name.
func support(rel string) bool { return strings.HasSuffix(rel, "test") }

func TestArrowsPointDown(t *testing.T) {
	for _, p := range packages(t) {
		from := strings.TrimPrefix(p.ImportPath, module+"/")
		if support(from) {
			continue
		}
		high, ok := tierOf(from)
		if !ok {
			t.Errorf("package %s has no tier: add it to the list, and to docs/ARCHITECTURE.md", from)
			continue
		}
		for _, imp := range p.Imports {
			to, ours := strings.CutPrefix(imp, module+"/")
			if !ours {
				continue
			}
			low, _ := tierOf(to)
			family := strings.HasPrefix(to, from+"/") || strings.HasPrefix(from, to+"/")
			if low > high || (low == high && !family && !slices.Contains(peers[from], to)) {
				t.Errorf("%s (tier %d) imports %s (tier %d): arrows point down only", from, high, to, low)
			}
			if support(to) {
				t.Errorf("%s imports %s, which is for tests", from, to)
			}
		}
	}
}

func TestModulesAreConfined(t *testing.T) {
	for _, p := range packages(t) {
		from := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, imp := range p.Imports {
			first, _, _ := strings.Cut(imp, "/")
			if !strings.Contains(first, ".") || strings.HasPrefix(imp, module) || support(from) {
				continue
			}
			allowed, known := owners(imp)
			if !known {
				t.Errorf("%s imports %s, which docs/DEPENDENCIES.md has no row for", from, imp)
			} else if allowed != nil && !slices.ContainsFunc(allowed, func(a string) bool { return a == from }) {
				t.Errorf("%s imports %s, which is confined to %v", from, imp, allowed)
			}
		}
	}
}

// owners finds who may import the module that holds the package imp.
func owners(imp string) (allowed []string, known bool) {
	for m, a := range confined {
		if imp == m || strings.HasPrefix(imp, m+"/") {
			return a, true
		}
	}
	return nil, false
}
