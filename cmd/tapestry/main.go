// Command tapestry runs a switch for containers and speaks to a running one.
//
// It holds flags, exit codes and printing: one file a command group. What the
// commands do is done by the daemon, through internal/api.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker.
var version = "devel"

func main() { os.Exit(run()) }

// run is main with an exit code; tests call it as the program.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal asks to end, a second one does it: opening a pipe that
	// nobody writes to, say, asks nobody.
	context.AfterFunc(ctx, stop)
	c := &cli{out: os.Stdout, err: os.Stderr}
	root := c.root()
	root.SetArgs(momentArgs(os.Args[1:]))
	return c.exit(root.ExecuteContext(ctx))
}
