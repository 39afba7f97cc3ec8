package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/internal/api"
)

// problem is one error of a file.
type problem struct {
	File  string `json:"file"`
	Line  int    `json:"line"`
	Col   int    `json:"col"`
	Field string `json:"field"`
	What  string `json:"what"`
}

func (c *cli) check() *cobra.Command {
	var file string
	var l live
	cmd := &cobra.Command{
		Use: "check [-c FILE] [--live]", Short: "Validate a file, or the running switch", Args: args(), DisableFlagsInUseLine: true,
		Long: "Validates a configuration file and prints every problem as\n" +
			"FILE:LINE:COL: field: what is wrong. Nothing is touched, and no switch is needed.\n\n" +
			"With --live it compares what there is with what there should be, and names what\n" +
			"disagrees with the command that mends it: the file, if one is given, with the\n" +
			"configuration in force; interfaces of the kernel with the ports; the table with ports,\n" +
			"peers and static entries; the traffic of a moment with the table; what peers send with\n" +
			"what they may; and the counters with each other. Exit code 1 means that something does.",
		Example: "  tapestry check -c tapestry.yaml\n  tapestry check --live -c tapestry.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if l.on && file == "" {
				return c.checkLive(cmd, l, "", nil)
			}
			text, err := readFile(cmd, file)
			if err != nil {
				return err
			}
			_, err = config.Parse(file, text)
			list, ok := errors.AsType[config.Errors](err)
			if err != nil && !ok {
				return invalid(err)
			}
			if l.on && err == nil {
				return c.checkLive(cmd, l, file, text)
			}
			problems := []problem{}
			for _, e := range list {
				problems = append(problems, problem{e.File, e.Line, e.Col, e.Field, e.Msg})
			}
			if err := c.print(problems, func() {
				for _, e := range list {
					fmt.Fprintln(c.out, cleanLines(e.Error()))
				}
				if len(list) == 0 {
					c.printf("%s is valid\n", file)
				}
			}); err != nil || len(list) == 0 {
				return err
			}
			return api.Errorf(api.CodeInvalid, "check %s: %s", file, count(len(list), "problem"))
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "the file")
	cmd.Flags().BoolVar(&l.on, "live", false, "compare the running switch with what it should be")
	cmd.Flags().DurationVar(&l.watch, "for", 2*time.Second, "with --live: how long to look at traffic")
	return cmd
}

// count is a number of things: 1 problem, 2 problems.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// invalid gives an error of a file its exit code.
func invalid(err error) error {
	if _, ok := errors.AsType[config.Errors](err); ok {
		return api.Errorf(api.CodeInvalid, "%s", strings.TrimSpace(err.Error()))
	}
	return err
}
