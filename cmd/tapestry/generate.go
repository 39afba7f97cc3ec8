package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// generated are the files printed from the code, by their names in docs/.
var generated = map[string]func(w io.Writer, root *cobra.Command) error{
	"CLI.md":     writeCLI,
	"CONFIG.md":  func(w io.Writer, _ *cobra.Command) error { return config.WriteReference(w) },
	"REASONS.md": writeReasons,
}

func (c *cli) generate() *cobra.Command {
	return &cobra.Command{
		Use: "generate DIR", Short: "Print the reference documents", Hidden: true, Args: args("DIR"),
		Long: "Prints into DIR the documents that are made from the code.", Example: "  tapestry generate docs",
		RunE: func(cmd *cobra.Command, a []string) error {
			for name, write := range generated {
				var b bytes.Buffer
				if err := write(&b, cmd.Root()); err != nil {
					return fmt.Errorf("print %s: %w", name, err)
				}
				if err := os.WriteFile(filepath.Join(a[0], name), b.Bytes(), 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

const madeBy = "<!-- Printed by `make generate`; do not edit. -->\n\n"

// exitCodes are the contract's, in the order of their numbers.
var exitCodes = []string{
	"done",
	"failed while doing it",
	"wrong usage or invalid file; nothing was touched",
	"the daemon can't be reached",
	"not permitted",
	"not found",
	"conflict: the name, address or MAC is owned already; the message names the owner",
}

func writeCLI(w io.Writer, root *cobra.Command) error {
	fmt.Fprint(w, "# Commands\n\n"+madeBy+"Data goes to stdout, everything else to stderr. Every command takes `--json` and `--socket`.\n\n## Exit codes\n\n| code | means |\n|---|---|\n")
	for n, what := range exitCodes {
		fmt.Fprintf(w, "| %d | %s |\n", n, what)
	}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Hidden || cmd.Name() == "help" {
			return
		}
		fmt.Fprintf(w, "\n## %s\n\n%s\n\n```\n%s\n```\n", cmd.CommandPath(), long(cmd), cmd.UseLine())
		writeFlags(w, cmd)
		if cmd.HasExample() {
			fmt.Fprintf(w, "\nExample:\n\n```\n%s\n```\n", unindent(cmd.Example))
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
	return nil
}

// long is the text of a command; its indented lines are a block of their own.
func long(cmd *cobra.Command) string {
	var b strings.Builder
	in := false
	for line := range strings.Lines(cmd.Long + "\n") {
		if block := strings.HasPrefix(line, "  "); block != in {
			b.WriteString("```\n")
			in = block
		}
		b.WriteString(line)
	}
	return strings.TrimSpace(b.String())
}

func unindent(s string) string {
	return strings.ReplaceAll(strings.TrimPrefix(s, "  "), "\n  ", "\n")
}

func writeFlags(w io.Writer, cmd *cobra.Command) {
	head := "\n| flag | meaning |\n|---|---|\n"
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" || f.Name == "version" {
			return
		}
		name, usage := pflag.UnquoteUsage(f)
		flag := "--" + f.Name
		if f.Shorthand != "" {
			flag = "-" + f.Shorthand + ", " + flag
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0" && f.DefValue != "0s" {
			usage += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(w, "%s| `%s` | %s |\n", head, strings.TrimSpace(flag+" "+name), usage)
		head = ""
	})
}

func writeReasons(w io.Writer, _ *cobra.Command) error {
	fmt.Fprint(w, "# Reasons\n\n"+madeBy+"Why a frame, or one copy of it, went where it went. The names stand in counters, traces,\ncaptures, history and metrics.\n\n"+
		"| reason | arises at | drop | means |\n|---|---|---|---|\n")
	for r := frame.ReasonNone + 1; r < frame.NumReasons; r++ {
		drop := ""
		if r.IsDrop() {
			drop = "yes"
		}
		fmt.Fprintf(w, "| `%s` | %s | %s | %s |\n", r, r.Stage(), drop, r.Doc())
	}
	return nil
}
