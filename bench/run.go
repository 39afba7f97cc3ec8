package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/bench/machine"
)

// Command is the first argument that the program is started with to measure
// inside namespaces of its own; the second goes to Inside.
const Command = "bench-inside"

// ErrNotRoot means that the caller may not make the namespaces it takes.
var ErrNotRoot = errors.New("measuring makes network namespaces and interfaces, which takes root")

// ErrInterrupted means that the context ended before the last measurement.
var ErrInterrupted = errors.New("interrupted; nothing is left behind")

// ErrUnknown means that Options.Only names no workload.
var ErrUnknown = errors.New("no workload")

// Options of Run.
type Options struct {
	Version string        `json:"version"` // of the program, for the report
	Rounds  int           `json:"rounds"`  // of each workload
	Window  time.Duration `json:"window"`  // of each measurement
	Only    []string      `json:"only"`    // names of workloads; none = all
	// Progress is told what is being measured; nil = nobody.
	Progress func(string) `json:"-"`
}

// message is one line from the inner process to the outer.
type message struct {
	Progress string  `json:"progress,omitempty"`
	Report   *Report `json:"report,omitempty"`
}

// stopPatience is how long the inner process may take to stop its switches.
const stopPatience = stopTime + 10*time.Second

// Run measures the machine. It starts this program again in namespaces of its
// own, as Command, and returns what that reports. A workload that could not be
// measured is an Error in its row.
func Run(ctx context.Context, o Options) (*Report, error) {
	for _, name := range o.Only {
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("%w %q: want one of %s", ErrUnknown, name, strings.Join(Names(), ", "))
		}
	}
	if os.Geteuid() != 0 {
		return nil, ErrNotRoot
	}
	spec, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("write options: %w", err)
	}
	// The child ends with the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", Command, string(spec))
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGTERM,
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopPatience
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start measurement: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start measurement: %w", err)
	}
	report, err := follow(out, o.Progress)
	if e := cmd.Wait(); e != nil {
		err = fmt.Errorf("measure: %w: %s", e, strings.TrimSpace(errs.String()))
	}
	if ctx.Err() != nil {
		return nil, ErrInterrupted
	}
	return report, err
}

// follow reads messages up to the report.
func follow(out io.Reader, progress func(string)) (*Report, error) {
	d := json.NewDecoder(out)
	for {
		var m message
		if err := d.Decode(&m); err != nil {
			return nil, fmt.Errorf("read report: %w", err)
		}
		if m.Report != nil {
			return m.Report, nil
		}
		if progress != nil {
			progress(m.Progress)
		}
	}
}

// Inside is the body of Command: it measures and writes messages to out. It
// must run in network and mount namespaces of its own.
func Inside(ctx context.Context, spec string, out io.Writer) error {
	var o Options
	if err := json.Unmarshal([]byte(spec), &o); err != nil {
		return fmt.Errorf("read options: %w", err)
	}
	// Children end with the thread that starts them; this one lives to the end.
	runtime.LockOSThread()
	if err := privateRun(); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	w := json.NewEncoder(out)
	report, err := measure(ctx, o, program, func(s string) { _ = w.Encode(message{Progress: s}) })
	if err != nil {
		return err
	}
	if err := w.Encode(message{Report: report}); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// privateRun gives the process a /run of its own, on which nothing of the host
// is seen and from which the host sees nothing.
func privateRun() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount tmpfs on /run: %w", err)
	}
	return nil
}

func measure(ctx context.Context, o Options, program string, progress func(string)) (*Report, error) {
	on, err := machine.Examine()
	if err != nil {
		return nil, err
	}
	r, err := newRig(program, "/run/bench")
	if err != nil {
		return nil, err
	}
	defer r.close()
	report := &Report{Description: on, Date: time.Now(), Version: o.Version, Rounds: o.Rounds, WindowS: o.Window.Seconds()}
	for _, w := range workloads() {
		if len(o.Only) > 0 && !slices.Contains(o.Only, w.name) {
			continue
		}
		report.Rows = append(report.Rows, w.measure(ctx, r, plan{o.Rounds, o.Window}, progress))
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return report, nil
}
