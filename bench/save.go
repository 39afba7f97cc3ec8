package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Marks in README.md between which Save puts the table.
const (
	tableBegin = "<!-- results: written by tapestry bench --save -->\n"
	tableEnd   = "<!-- end of results -->\n"
)

var notInName = regexp.MustCompile(`[^A-Za-z0-9.]+`)

// stem names the report's files by date, kernel and size of the machine.
func (r *Report) stem() string {
	kernel, _, _ := strings.Cut(r.Kernel, "-")
	name := fmt.Sprintf("%s-linux%s-%dcpu", r.Date.UTC().Format("2006-01-02"), kernel, r.CPUs)
	return notInName.ReplaceAllString(name, "-")
}

// Save writes the report into dir as JSON with every round and as Markdown, and
// puts the table into ../README.md seen from dir, where there are marks for it.
// It returns the files written.
func (r *Report) Save(dir string) (files []string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("save results: %w", err)
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return nil, fmt.Errorf("save results: %w", err)
	}
	var table bytes.Buffer
	r.Markdown(&table)
	stem := filepath.Join(dir, r.stem())
	for _, f := range []struct {
		name string
		text []byte
	}{{stem + ".json", append(text, '\n')}, {stem + ".md", table.Bytes()}} {
		if err := os.WriteFile(f.name, f.text, 0o644); err != nil {
			return files, fmt.Errorf("save results: %w", err)
		}
		files = append(files, f.name)
	}
	readme := filepath.Join(dir, "..", "README.md")
	page, err := os.ReadFile(readme)
	if errors.Is(err, fs.ErrNotExist) {
		return files, nil
	}
	if err != nil {
		return files, fmt.Errorf("save results: %w", err)
	}
	page, ok := insert(page, table.Bytes())
	if !ok {
		return files, nil
	}
	if err := os.WriteFile(readme, page, 0o644); err != nil {
		return files, fmt.Errorf("save results: %w", err)
	}
	return append(files, filepath.Clean(readme)), nil
}

// insert replaces what stands between the marks of page.
func insert(page, table []byte) ([]byte, bool) {
	head, rest, ok := bytes.Cut(page, []byte(tableBegin))
	if !ok {
		return page, false
	}
	_, tail, ok := bytes.Cut(rest, []byte(tableEnd))
	if !ok {
		return page, false
	}
	return bytes.Join([][]byte{head, []byte(tableBegin), []byte("\n"), table, []byte("\n" + tableEnd), tail}, nil), true
}
