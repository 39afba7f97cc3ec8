package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/internal/api"
)

func (c *cli) apply() *cobra.Command {
	var file string
	var dry bool
	cmd := &cobra.Command{
		Use: "apply -c FILE [--dry-run]", Short: "Make the running switch match a file", Args: args(),
		Long: "Makes the running switch match the file, all of it or nothing, and prints what\n" +
			"changed. A second run prints `no change`.",
		Example:               "  tapestry apply -c tapestry.yaml --dry-run",
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := readFile(cmd, file)
			if err != nil {
				return err
			}
			path, err := filepath.Abs(file)
			if err != nil {
				return fmt.Errorf("find %s: %w", file, err)
			}
			r, err := c.client().Apply(cmd.Context(), api.ApplyRequest{File: path, YAML: string(text), DryRun: dry})
			if err != nil {
				return err
			}
			return c.changes(r)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "the file")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "print what would change and change nothing")
	return cmd
}

// readFile reads the file that a -c flag named.
func readFile(cmd *cobra.Command, file string) ([]byte, error) {
	if file == "" {
		return nil, usagef(cmd, "name the file with -c FILE")
	}
	text, err := config.ReadFile(file)
	if err != nil {
		return nil, api.FileError(err)
	}
	return text, nil
}

func (c *cli) upgrade() *cobra.Command {
	return &cobra.Command{
		Use: "upgrade", Short: "Swap the running worker for the binary on disk", Args: args(),
		Long:    "Starts the program on disk as the new worker, which takes over the open ports.\nNo frame is lost on TAP ports.",
		Example: "  tapestry upgrade",
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := c.client().Upgrade(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(r, func() {
				c.printf("worker %d took over from %d: version %s, generation %d\n", r.NewPID, r.OldPID, r.Version, r.Generation)
			})
		},
	}
}
