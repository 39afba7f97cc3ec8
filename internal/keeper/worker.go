package keeper

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// worker is one process that the keeper has started.
type worker struct {
	cmd        *exec.Cmd
	conn       *net.UnixConn
	generation uint64
	started    time.Time
	greeted    bool
	ready      bool      // it has said that frames flow
	heard      time.Time // when its last request was answered
	keep       []string  // names of a sweep whose rest is still to come
}

func (w *worker) kill() {
	_ = w.cmd.Process.Kill() // fails when it has ended already
}

// start executes the file exe as a worker and begins to listen to it.
func (k *keeper) start(exe int, takeover bool) (*worker, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start worker: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "worker socket")
	defer theirs.Close()
	conn, err := openConn(pair[0])
	if err != nil {
		return nil, fmt.Errorf("start worker: %w", err)
	}
	k.generation++
	now := time.Now()
	w := &worker{conn: conn, generation: k.generation, started: now, heard: now}
	w.cmd = &exec.Cmd{
		Path:       fmt.Sprintf("/proc/self/fd/%d", exe),
		Args:       append([]string{k.opts.Binary}, k.opts.WorkerArgs...),
		Env:        append(withoutNotify(os.Environ()), k.opts.WorkerEnv...),
		Stdout:     k.opts.Stderr, // stdout is the keeper's alone
		Stderr:     k.opts.Stderr,
		ExtraFiles: []*os.File{theirs}, // becomes WorkerFD
		SysProcAttr: &syscall.SysProcAttr{
			Setpgid:   true, // Ctrl-C is for the keeper
			Pdeathsig: syscall.SIGKILL,
		},
	}
	if err := w.cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("start worker %s: %w", k.opts.Binary, err)
	}
	k.alive[w] = true
	k.log.Info("worker started", "generation", w.generation, "pid", w.cmd.Process.Pid, "takeover", takeover)
	go k.attend(w)
	k.after(k.opts.Silence, func() { k.mind(w) })
	return w, nil
}

// lastWords is how long a worker may take to say what it was doing.
const lastWords = time.Second

// mind sees to it that w comes to forward: until then it asks for one thing after
// the other, and one that has asked for nothing for so long hangs. It writes where
// each of its goroutines is and ends, and the next one is started. Of the upgrade's
// next worker begin takes care.
func (k *keeper) mind(w *worker) {
	if !k.alive[w] || w.ready || k.stopping {
		return
	}
	silent := time.Since(w.heard)
	if w != k.cur || silent < k.opts.Silence {
		k.after(k.opts.Silence, func() { k.mind(w) })
		return
	}
	k.log.Error("worker hangs before it forwards, ending it; what it was doing follows",
		"generation", w.generation, "silent", silent.Round(time.Second))
	_ = w.cmd.Process.Signal(syscall.SIGQUIT) // fails when it has ended already
	k.after(lastWords, w.kill)
}

// attend posts what w sends, and in the end its death.
func (k *keeper) attend(w *worker) {
	read := make(chan struct{})
	go func() {
		defer close(read)
		k.listen(w)
		w.kill() // without its socket it is of no use, should it still run
	}()
	err := w.cmd.Wait()
	w.conn.Close() // another process may still have a copy of the other end
	<-read
	k.post(func() { k.exited(w, err) })
}

func (k *keeper) listen(w *worker) {
	buf, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	for {
		msg, fds, err := receive(w.conn, buf, oob)
		if err != nil && err != errLost {
			return
		}
		r, err := decode(msg)
		r.keys = admitKeys(r.Op, fds)
		k.post(func() { k.serve(w, r, err) })
	}
}

// exited decides what follows the end of w.
func (k *keeper) exited(w *worker, err error) {
	delete(k.alive, w)
	how := "exit status 0"
	if err != nil {
		how = err.Error()
	}
	u := k.upgrade
	switch {
	case k.stopping:
	case u != nil && w == u.next:
		k.giveUp("the new worker ended: " + how)
	case w == k.cur && u != nil && u.standby != 0:
		k.promote()
	case w == k.cur:
		k.log.Error("worker ended", "generation", w.generation, "how", how)
		k.cur = nil
		if u != nil {
			k.giveUp("the running worker ended: " + how)
		}
		k.restart(time.Since(w.started))
	}
}

// settled is how long a worker has lived when its end no longer counts as one
// more of a series: frames wait for the next worker, so only those that end as
// soon as they have begun make it wait.
const settled = time.Second

// restart starts the next worker, at once or after the back-off. The one before
// has lived for so long.
func (k *keeper) restart(lived time.Duration) {
	if lived >= settled {
		k.crashes = 0
	}
	k.crashes++
	d := backOff(k.crashes)
	if d == 0 {
		k.startAgain()
		return
	}
	k.log.Warn("worker keeps ending, starting it later", "times", k.crashes, "wait", d)
	k.after(d, k.startAgain)
}

func (k *keeper) startAgain() {
	if k.stopping || k.cur != nil {
		return
	}
	w, err := k.start(k.exe, false)
	if err != nil {
		k.log.Error("worker doesn't start", "err", err)
		k.after(backOff(k.crashes+2), k.startAgain) // never at once
		return
	}
	k.cur = w
}

// backOff is how long to wait after the n-th crash of a series: nothing twice, then from 100 ms doubling up to 5 s.
func backOff(n int) time.Duration {
	const first, most = 100 * time.Millisecond, 5 * time.Second
	if n <= 2 {
		return 0
	}
	if n > 8 {
		return most
	}
	return min(first<<(n-3), most)
}

// openExecutable pins the file at path, so that it can be executed again after
// the path has been given to another. The number is above those that a child
// has given to its own descriptors before it executes.
func openExecutable(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open binary %s: %w", path, err)
	}
	defer unix.Close(fd)
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 2*(WorkerFD+1))
	if err != nil {
		return -1, fmt.Errorf("open binary %s: %w", path, err)
	}
	return high, nil
}

// withoutNotify leaves out what only the keeper answers to.
func withoutNotify(env []string) []string {
	return slices.DeleteFunc(env, func(s string) bool {
		return strings.HasPrefix(s, "NOTIFY_SOCKET=") || strings.HasPrefix(s, "WATCHDOG_")
	})
}
