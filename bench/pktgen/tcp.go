package pktgen

import (
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	writeLen = 128 << 10 // octets of one TCP write, as iperf3 does
	readLen  = 256 << 10 // octets of one TCP read at most
)

// counter is alone on its cache lines, so that streams don't slow each other.
type counter struct {
	n atomic.Uint64
	_ [120]byte
}

// tcpSink accepts the streams and reads them to their end.
func (j *job) tcpSink() (Result, error) {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Result{}, fmt.Errorf("open TCP socket: %w", err)
	}
	if err := unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return Result{}, fmt.Errorf("reuse address: %w", err)
	}
	if err := unix.Bind(l, j.sockaddr()); err != nil {
		return Result{}, fmt.Errorf("bind %v: %w", j.Address, err)
	}
	if err := unix.Listen(l, j.Streams); err != nil {
		return Result{}, fmt.Errorf("listen on %v: %w", j.Address, err)
	}
	mark(markReady)
	got := make([]counter, j.Streams)
	var streams sync.WaitGroup
	for i := range got {
		fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		if err != nil {
			return Result{}, fmt.Errorf("accept: %w", err)
		}
		streams.Go(func() { readAll(fd, &got[i]) })
	}
	n, d := j.window(func() (sum uint64) {
		for i := range got {
			sum += got[i].n.Load()
		}
		return sum
	})
	streams.Wait()
	return Result{Seconds: d.Seconds(), Bytes: n}, nil
}

// readAll reads a stream to its end and counts the octets.
func readAll(fd int, got *counter) {
	b := make([]byte, readLen)
	for {
		n, err := unix.Read(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		got.n.Add(uint64(n))
	}
}

// tcpSource opens the streams and writes until it is stopped.
func (j *job) tcpSource(stop <-chan struct{}) (Result, error) {
	fds := make([]int, j.Streams)
	for i := range fds {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return Result{}, fmt.Errorf("open TCP socket: %w", err)
		}
		if err := unix.Connect(fd, j.sockaddr()); err != nil {
			return Result{}, fmt.Errorf("connect to %v: %w", j.Address, err)
		}
		fds[i] = fd
	}
	var stopped atomic.Bool
	var streams sync.WaitGroup
	for _, fd := range fds {
		streams.Go(func() { writeUntil(&stopped, fd) })
	}
	<-stop
	stopped.Store(true)
	streams.Wait()
	var r Result
	for _, fd := range fds {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return Result{}, fmt.Errorf("read TCP_INFO: %w", err)
		}
		r.Retransmits += uint64(info.Total_retrans)
		if err := unix.Close(fd); err != nil {
			return Result{}, fmt.Errorf("close stream: %w", err)
		}
	}
	return r, nil
}

func writeUntil(stopped *atomic.Bool, fd int) {
	b := make([]byte, writeLen)
	for !stopped.Load() {
		if _, err := unix.Write(fd, b); err != nil && err != unix.EINTR {
			return
		}
	}
}

// sockaddr is the server's address for a system call.
func (j *job) sockaddr() unix.Sockaddr {
	return &unix.SockaddrInet4{Port: int(j.Address.Port()), Addr: j.Address.Addr().As4()}
}
