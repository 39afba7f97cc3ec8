package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/daemon"
)

func (c *cli) up() *cobra.Command {
	var file, state string
	cmd := &cobra.Command{
		Use:   "up [-c FILE]",
		Short: "Run the switch in the foreground",
		Long: `Runs the switch until SIGTERM, which removes every interface, rule and file that
it made. Prints one line, ready, on standard output once frames flow; the log
goes to standard error.

Without -c the switch starts empty. After a crash it starts as it last was,
whatever the file says: tapestry apply brings the file into force.`,
		Example: "  tapestry up -c tapestry.yaml\n  tapestry up --socket /tmp/s --state /tmp/state",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			socket := c.socket
			if socket == "" {
				socket = api.DefaultSocket()
			}
			return daemon.Up(cmd.Context(), daemon.Options{
				ConfigFile: file, Socket: socket, StateDir: state, Stdout: c.out, Log: c.log(),
			})
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "the file that says what to switch")
	cmd.Flags().StringVar(&state, "state", "", "folder of the state file (default /var/lib/tapestry, or ~/.local/state/tapestry for a normal user)")
	return cmd
}

// worker is the unprivileged half of up. Only the keeper starts it.
func (c *cli) worker() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "worker", Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return daemon.Worker(daemon.WorkerOptions{ConfigFile: file, Version: version, Log: c.log()})
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "the file to start from")
	return cmd
}

// log writes to standard error, which a supervisor collects.
func (c *cli) log() *slog.Logger { return slog.New(slog.NewTextHandler(c.err, nil)) }
