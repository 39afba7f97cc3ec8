package pktgen

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/tapestry-net/tapestry/internal/netns"
)

// patience is how long the set-up and the end of a measurement may take
// together, beside warm-up and window.
const patience = 10 * time.Second

// Ends are the two namespaces of a flow. Addr is an address of To.
type Ends struct {
	From, To *netns.Handle
	Addr     netip.Addr
}

// Measure runs one flow and returns what was counted. Program is the executable
// that understands Command. Begin and end are called at the edges of the window.
func Measure(ctx context.Context, program string, e Ends, f Flow, begin, end func()) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, patience+f.Warm+f.Window)
	defer cancel()
	j := job{Flow: f, Server: true, Address: netip.AddrPortFrom(e.Addr, serverPort)}
	server, err := start(ctx, program, e.To, j)
	if err != nil {
		return Result{}, err
	}
	defer server.kill()
	if _, err := server.await(markReady); err != nil {
		return Result{}, err
	}
	j.Server = false
	client, err := start(ctx, program, e.From, j)
	if err != nil {
		return Result{}, err
	}
	defer client.kill()

	meter, other := server, client
	if j.meters() {
		meter, other = client, server
	}
	r, err := meter.measure(begin, end, other)
	if err != nil {
		return Result{}, fmt.Errorf("%w%s", err, other.complaint())
	}
	return r, nil
}

// measure follows the marks of the process that counts and adds what the other
// one knows.
func (p *process) measure(begin, end func(), other *process) (Result, error) {
	if _, err := p.await(markBegin); err != nil {
		return Result{}, err
	}
	begin()
	if _, err := p.await(markEnd); err != nil {
		return Result{}, err
	}
	end()
	other.stop()
	p.stop()
	r, err := p.result()
	if err != nil {
		return Result{}, err
	}
	o, err := other.result()
	if err != nil {
		return Result{}, err
	}
	r.Offered, r.Retransmits = o.Offered, o.Retransmits
	return r, nil
}

// process is one running traffic process.
type process struct {
	name  string
	cmd   *exec.Cmd
	stdin io.Closer
	lines *bufio.Scanner
	errs  bytes.Buffer
}

func start(ctx context.Context, program string, ns *netns.Handle, j job) (*process, error) {
	spec, err := json.Marshal(j)
	if err != nil {
		return nil, fmt.Errorf("write traffic job: %w", err)
	}
	p := &process{name: fmt.Sprintf("%s client", j.Kind)}
	if j.Server {
		p.name = fmt.Sprintf("%s server", j.Kind)
	}
	// The child gets a descriptor of its own, since Handle.FD is close-on-exec.
	fd, err := syscall.Dup(ns.FD)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	f := os.NewFile(uintptr(fd), "netns")
	defer f.Close()

	p.cmd = exec.CommandContext(ctx, program, Command, string(spec))
	p.cmd.Env = []string{} // whatever steers the caller's run-time must not steer the load
	p.cmd.ExtraFiles = []*os.File{f}
	p.cmd.Stderr = &p.errs
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	p.lines = bufio.NewScanner(out)
	launch := p.cmd.Start
	if j.Apart {
		launch = func() error { return onCPU(j.Server, p.cmd.Start) }
	}
	if err := launch(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	return p, nil
}

// await reads the next mark and returns what follows it on its line.
func (p *process) await(mark string) (string, error) {
	if p.lines.Scan() {
		rest, ok := strings.CutPrefix(p.lines.Text(), mark)
		if !ok {
			return "", fmt.Errorf("%s: got %q, want %q", p.name, p.lines.Text(), mark)
		}
		return rest, nil
	}
	err := p.cmd.Wait()
	return "", fmt.Errorf("%s ended before %q: %v%s", p.name, strings.TrimSpace(mark), err, p.complaint())
}

// stop ends the traffic of a process; it still tells its result.
func (p *process) stop() { _ = p.stdin.Close() }

func (p *process) result() (r Result, err error) {
	text, err := p.await(markResult)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return r, fmt.Errorf("read result of %s: %w", p.name, err)
	}
	if err := p.cmd.Wait(); err != nil {
		return r, fmt.Errorf("%s: %w%s", p.name, err, p.complaint())
	}
	return r, nil
}

// complaint is what the process wrote to its standard error. The process is
// ended first, as it may still be writing.
func (p *process) complaint() string {
	p.kill()
	if s := strings.TrimSpace(p.errs.String()); s != "" {
		return " (" + p.name + ": " + s + ")"
	}
	return ""
}

// kill ends the process if it still runs. It is idempotent.
func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}
