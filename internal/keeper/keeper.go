package keeper

import (
	"context"
	"errors"
	"io"
	"log/slog"
)

// Options says where a switch lives and how its worker is started.
type Options struct {
	Socket   string // path of the API's unix socket
	StateDir string // directory of the state file; made when it isn't there
	// Binary is the path that the next worker is started from by an upgrade;
	// empty = where this process was started from. At start and after a crash
	// the worker runs the very file that this process runs.
	Binary     string
	WorkerArgs []string  // behind the program's name; nil = "worker"
	WorkerEnv  []string  // added to this process's environment
	Instance   string    // marks our interfaces; empty = derived from StateDir
	Stdout     io.Writer // takes the line "ready"; nil = os.Stdout
	Stderr     io.Writer // of the worker; nil = os.Stderr
	Log        *slog.Logger
	Devices    Devices // nil = the machine's own
}

// Devices is what the keeper does to interfaces. The keeper calls it from one
// goroutine, with requests that have passed validation.
type Devices interface {
	// Open makes the interfaces of r, or finds again those that bear its mark,
	// and returns the non-blocking, close-on-exec descriptor of its frames,
	// which is the caller's. On an error nothing is left behind that wasn't
	// there before.
	Open(r PortRequest) (PortReply, int, error)
	// Set changes a held port.
	Set(h Held, s SetRequest) (PortReply, error)
	// Remove takes away what Open made and puts back what it changed; what has
	// gone already is no error. The caller closes h.FD afterwards.
	Remove(h Held) error
	// Sweep removes the interfaces in the daemon's namespace that bear our mark
	// and the name of a port that keep refuses, and returns their names.
	Sweep(keep func(port string) bool) ([]string, error)
}

// Run is the keeper. It returns nil after SIGTERM, SIGINT or the end of ctx,
// when every interface, rule, socket and file that it made has been removed.
func Run(ctx context.Context, o Options) error {
	return errors.New("not here yet")
}
