// Command testreport reads go test -json from standard input, prints one line a
// package, the output of what failed, and every skip with its reason. With
// TAPESTRY_TEST_REQUIRE set, as in CI, a skip is a failure.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

type report struct {
	output  map[string][]string // by package and test
	running map[string]bool     // tests that have begun and not ended
	skips   []string
	failed  []string
	passed  int
	skipped int
	build   []string
}

func main() {
	r := report{output: map[string][]string{}, running: map[string]bool{}}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(make([]byte, 1<<20), 64<<20)
	for in.Scan() {
		var e event
		if json.Unmarshal(in.Bytes(), &e) != nil {
			fmt.Println(in.Text())
			continue
		}
		r.add(e)
	}
	r.print()
	mayNotSkip := os.Getenv("TAPESTRY_TEST_REQUIRE") != ""
	if mayNotSkip && r.skipped > 0 {
		fmt.Println("tests were skipped where TAPESTRY_TEST_REQUIRE demands that none is")
	}
	if len(r.failed) > 0 || len(r.build) > 0 || r.passed == 0 || (mayNotSkip && r.skipped > 0) {
		os.Exit(1)
	}
}

func (r *report) add(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "run":
		r.running[key] = true
	case "pass", "fail", "skip":
		delete(r.running, key)
	}
	switch e.Action {
	case "output":
		r.output[key] = append(r.output[key], e.Output)
	case "build-output":
		r.build = append(r.build, e.Output)
	case "pass":
		if e.Test != "" {
			r.passed++
			delete(r.output, key)
			return
		}
		fmt.Printf("ok    %-70s %6.1fs\n", strings.TrimPrefix(e.Package, "github.com/tapestry-net/tapestry"), e.Elapsed)
	case "fail":
		if e.Test == "" {
			fmt.Printf("FAIL  %s\n", e.Package)
			r.unended(e.Package)
		}
		r.failed = append(r.failed, key)
	case "skip":
		if e.Test != "" {
			r.skipped++
			r.skips = append(r.skips, key+": "+reason(r.output[key]))
		}
	}
}

// unended counts the tests of a package that was ended as failed: what ended it,
// a panic or its time, is in their output and has no event of its own.
func (r *report) unended(pkg string) {
	for _, key := range slices.Sorted(maps.Keys(r.running)) {
		if strings.HasPrefix(key, pkg+" ") {
			r.output[key] = append(r.output[key], "(it had not ended when its package was)\n")
			r.failed = append(r.failed, key)
			delete(r.running, key)
		}
	}
}

// reason is the test's own words: its output less the runner's markers.
func reason(lines []string) string {
	var words []string
	for _, l := range lines {
		l = strings.TrimSpace(l)
		if l != "" && !strings.HasPrefix(l, "===") && !strings.HasPrefix(l, "---") {
			words = append(words, l)
		}
	}
	return strings.Join(words, " ")
}

func (r *report) print() {
	for _, l := range r.build {
		fmt.Print(l)
	}
	for _, key := range r.failed {
		fmt.Printf("\n--- %s\n%s", key, strings.Join(r.output[key], ""))
	}
	slices.Sort(r.skips)
	for _, s := range r.skips {
		fmt.Println("skipped:", s)
	}
	failed := 0
	for _, f := range r.failed {
		if !strings.HasSuffix(f, " ") {
			failed++
		}
	}
	if failed == 0 && len(r.failed)+len(r.build) > 0 {
		failed = 1
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", r.passed, failed, r.skipped)
}
