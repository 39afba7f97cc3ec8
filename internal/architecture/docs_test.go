package architecture_test

import (
	"bufio"
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// files walks the tree below root and calls f with slash-separated paths.
func files(t *testing.T, suffix string, f func(path string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := filepath.ToSlash(strings.TrimPrefix(path, root+"/"))
		if d.IsDir() && (rel == ".git" || rel == "bin" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(rel, suffix) {
			f(rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

var link = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)

// symbolLink is a link whose text is code: [`vswitch.decide`](../switch/decide.go).
var symbolLink = regexp.MustCompile("\\[`([A-Za-z0-9_.]+)`\\]\\(([^)#]+\\.go)\\)")

// TestDocumentLinks checks that each relative link leads to a file, and that a
// link to a function names one that the file declares.
func TestDocumentLinks(t *testing.T) {
	files(t, ".md", func(path string) {
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllSubmatch(text, -1) {
			target := string(m[1])
			if strings.Contains(target, "://") {
				continue
			}
			at := filepath.Join(root, filepath.Dir(path), target)
			if _, err := os.Stat(at); err != nil {
				t.Errorf("%s links to %s, which isn't there", path, target)
			}
		}
		for _, m := range symbolLink.FindAllSubmatch(text, -1) {
			at := filepath.Join(root, filepath.Dir(path), string(m[2]))
			name := string(m[1])
			name = name[strings.LastIndexByte(name, '.')+1:]
			if !declares(t, at, name) {
				t.Errorf("%s: %s does not declare %s", path, m[2], name)
			}
		}
	})
}

func declares(t *testing.T, file, name string) bool {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Errorf("parse %s: %v", file, err)
		return false
	}
	found := false
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			found = found || n.Name.Name == name
		case *ast.TypeSpec:
			found = found || n.Name.Name == name
		case *ast.ValueSpec:
			found = found || slices.ContainsFunc(n.Names, func(i *ast.Ident) bool { return i.Name == name })
		}
		return !found
	})
	return found
}

// TestArchitectureNamesEveryPackage keeps the tree in the document complete.
func TestArchitectureNamesEveryPackage(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs/ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages(t) {
		rel := strings.TrimPrefix(p.ImportPath, module+"/")
		if !support(rel) && !bytes.Contains(text, []byte("`"+rel+"`")) {
			t.Errorf("docs/ARCHITECTURE.md does not name `%s`", rel)
		}
	}
}

// TestReadmeTargetsExist checks that every make target that README.md and
// docs/ name is one of the Makefile's.
func TestReadmeTargetsExist(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	target := regexp.MustCompile("`make ([a-z-]+)")
	files(t, ".md", func(path string) {
		text, _ := os.ReadFile(filepath.Join(root, path))
		for _, m := range target.FindAllSubmatch(text, -1) {
			if !bytes.Contains(makefile, []byte("\n"+string(m[1])+":")) {
				t.Errorf("%s names `make %s`, which the Makefile does not have", path, m[1])
			}
		}
	})
}

// TestFilesAreShort holds files of code under 500 lines.
func TestFilesAreShort(t *testing.T) {
	files(t, ".go", func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		f, err := os.Open(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		n := 0
		for s := bufio.NewScanner(f); s.Scan(); {
			n++
		}
		if n > 500 {
			t.Errorf("%s has %d lines: which seam is missing?", path, n)
		}
	})
}

// TestPackageComments demands one package comment for each package.
func TestPackageComments(t *testing.T) {
	have := map[string]bool{}
	seen := map[string]bool{}
	files(t, ".go", func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Dir(path)
		seen[dir] = true
		if f.Doc != nil {
			if have[dir] {
				t.Errorf("%s has more than one package comment", dir)
			}
			have[dir] = true
		}
	})
	for dir := range seen {
		if !have[dir] {
			t.Errorf("%s has no package comment", dir)
		}
	}
}
