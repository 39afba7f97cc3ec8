package pktgen

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// netnsFD is where a traffic process finds its namespace.
const netnsFD = 3

// Main is the body of a traffic process; spec is the job as Measure wrote it.
func Main(spec string) error {
	var j job
	if err := json.Unmarshal([]byte(spec), &j); err != nil {
		return fmt.Errorf("read traffic job: %w", err)
	}
	// One thread for each stream, so that the Go scheduler never has to hand one
	// on; and no collector, as nothing is thrown away.
	j.Streams = max(j.Streams, 1)
	runtime.GOMAXPROCS(j.Streams + 2)
	debug.SetGCPercent(-1)

	runtime.LockOSThread() // sockets are opened by this thread
	if err := unix.Setns(netnsFD, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter namespace: %w", err)
	}
	if err := unix.Close(netnsFD); err != nil {
		return fmt.Errorf("close namespace: %w", err)
	}
	stop := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	r, err := j.run(stop)
	if err != nil {
		return err
	}
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	mark(markResult + string(text))
	return nil
}

func (j *job) run(stop <-chan struct{}) (Result, error) {
	switch {
	case j.Kind == TCP && j.Server:
		return j.tcpSink()
	case j.Kind == TCP:
		return j.tcpSource(stop)
	case j.Kind == Flood && j.Server:
		return j.drain()
	case j.Kind == Flood:
		return j.flood(stop)
	case j.Kind == PingPong && j.Server:
		return j.echo(stop)
	case j.Kind == PingPong:
		return j.ping()
	}
	return Result{}, fmt.Errorf("traffic job of kind %q: want %s, %s or %s", j.Kind, TCP, Flood, PingPong)
}

// window waits for the warm-up and returns by how much count has grown in the
// window behind it.
func (j *job) window(count func() uint64) (n uint64, d time.Duration) {
	time.Sleep(j.Warm)
	mark(markBegin)
	n0, t0 := count(), time.Now()
	time.Sleep(j.Window)
	n, d = count()-n0, time.Since(t0)
	mark(markEnd)
	return n, d
}

// mark tells the parent where this process is. A parent that has gone ends it.
func mark(s string) {
	if _, err := os.Stdout.WriteString(s + "\n"); err != nil {
		os.Exit(1)
	}
}
