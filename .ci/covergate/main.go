// Command covergate reads cover.out and fails when the statements of a guarded
// package tree are covered less than the project promises. Where tests may be
// skipped, that is without TAPESTRY_TEST_REQUIRE, it only reports.
package main

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

const module = "github.com/tapestry-net/tapestry/"

// floors are percentages of statements, by package tree.
var floors = map[string]float64{"switch": 85, "fdb": 85, "config": 85, "internal/offload": 85}

func main() {
	file, err := os.Open("cover.out")
	if err != nil {
		fmt.Fprintln(os.Stderr, "covergate:", err)
		os.Exit(1)
	}
	defer file.Close()
	blocks := map[string]block{}
	in := bufio.NewScanner(file)
	in.Buffer(make([]byte, 1<<20), 1<<20)
	for in.Scan() {
		read(blocks, in.Text())
	}
	if !judge(blocks) {
		if os.Getenv("TAPESTRY_TEST_REQUIRE") == "" {
			fmt.Println("coverage is not judged here: tests were free to skip")
			return
		}
		os.Exit(1)
	}
}

type block struct {
	statements int
	hit        bool
}

// read takes a line such as module/switch/loop.go:10.2,12.3 4 1: the same block
// stands once for each test binary that could reach it.
func read(blocks map[string]block, line string) {
	f := strings.Fields(line)
	if len(f) != 3 {
		return
	}
	n, _ := strconv.Atoi(f[1])
	b := blocks[f[0]]
	b.statements = n
	b.hit = b.hit || f[2] != "0"
	blocks[f[0]] = b
}

func judge(blocks map[string]block) bool {
	total, hit := map[string]int{}, map[string]int{}
	for at, b := range blocks {
		name, _, _ := strings.Cut(strings.TrimPrefix(at, module), ":")
		for tree := range floors {
			if path.Dir(name) == tree || strings.HasPrefix(name, tree+"/") {
				total[tree] += b.statements
				if b.hit {
					hit[tree] += b.statements
				}
			}
		}
	}
	ok := true
	for _, tree := range slices.Sorted(maps.Keys(floors)) {
		percent := 100 * float64(hit[tree]) / float64(max(total[tree], 1))
		verdict := "ok"
		if percent < floors[tree] {
			verdict, ok = "BELOW", false
		}
		fmt.Printf("coverage %-18s %5.1f %% of %d statements (floor %.0f %%) %s\n", tree, percent, total[tree], floors[tree], verdict)
	}
	return ok
}
