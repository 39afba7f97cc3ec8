package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/keeper"
)

// Options of Up.
type Options struct {
	ConfigFile string // empty = start without networks and ports
	Socket     string // of the API
	StateDir   string // empty = DefaultStateDir
	Stdout     io.Writer
	Log        *slog.Logger
}

// Up is `tapestry up`: it runs the keeper until ctx ends or SIGTERM, and the
// keeper runs the worker. An invalid file is refused, with config.Errors, before
// anything is touched; an *api.Error has the exit code of other refusals.
func Up(ctx context.Context, o Options) error {
	args := []string{"worker"}
	if o.ConfigFile != "" {
		path, err := filepath.Abs(o.ConfigFile)
		if err != nil {
			return fmt.Errorf("find %s: %w", o.ConfigFile, err)
		}
		if _, err := readConfig(path); err != nil {
			return err
		}
		args = append(args, "--config", path)
	}
	dir := o.StateDir
	if dir == "" {
		dir = DefaultStateDir()
	}
	err := keeper.Run(ctx, keeper.Options{
		Socket: o.Socket, StateDir: dir, WorkerArgs: args, Stdout: o.Stdout, Log: o.Log,
	})
	if k, ok := errors.AsType[*keeper.Error](err); ok {
		return &api.Error{Code: k.ExitCode(), Msg: err.Error(), Hint: k.Hint}
	}
	return err
}

// DefaultStateDir is /var/lib/tapestry for root and $XDG_STATE_HOME/tapestry
// (XDG Base Directory Specification) for anybody else.
func DefaultStateDir() string {
	if os.Getuid() == 0 {
		return "/var/lib/tapestry"
	}
	if d := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "tapestry")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = os.TempDir()
	}
	return filepath.Join(home, ".local", "state", "tapestry")
}

// readConfig reads and validates a file. Its errors are config.Errors when the
// file could be read, else *api.Error.
func readConfig(path string) (*config.Config, error) {
	text, err := config.ReadFile(path)
	if err != nil {
		return nil, api.FileError(err)
	}
	c, err := config.Parse(path, text)
	if err != nil {
		return nil, err
	}
	c.Anchor(filepath.Dir(path))
	return c, nil
}
