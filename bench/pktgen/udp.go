package pktgen

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	floodLen   = 64                     // datagrams of one sendmmsg
	drainLen   = 256                    // datagrams of one recvmmsg at most
	drainEvery = 300 * time.Microsecond // how often the flood's receiver looks
	drainRoom  = 8 << 20                // octets of receive buffer: never the limit
)

// udp opens a socket: bound to the address for a server, connected to it for a
// client.
func (j *job) udp() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open UDP socket: %w", err)
	}
	if j.Server {
		err = unix.Bind(fd, j.sockaddr())
	} else {
		err = unix.Connect(fd, j.sockaddr())
	}
	if err != nil {
		return -1, fmt.Errorf("use %v: %w", j.Address, err)
	}
	return fd, nil
}

// drain receives a flood.
func (j *job) drain() (Result, error) {
	fd, err := j.udp()
	if err != nil {
		return Result{}, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, drainRoom); err != nil {
		return Result{}, fmt.Errorf("enlarge receive buffer: %w", err)
	}
	mark(markReady)
	var got counter
	first := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		// The kernel's default slack of 50 µs would make the naps uneven.
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0)
		b := newVector(drainLen, j.Size)
		nap := unix.NsecToTimespec(int64(drainEvery))
		for {
			n := 0
			for {
				k, errno := b.receive(fd)
				n += k
				if errno != 0 || k < drainLen {
					break
				}
			}
			if n > 0 && got.n.Add(uint64(n)) == uint64(n) {
				close(first)
			}
			_ = unix.Nanosleep(&nap, nil)
		}
	}()
	<-first
	n, d := j.window(got.n.Load)
	return Result{Seconds: d.Seconds(), Packets: n, Bytes: n * uint64(j.Size)}, nil
}

// flood sends datagrams of one flow until it is stopped. A datagram that the
// kernel does not take is tried no more.
func (j *job) flood(stop <-chan struct{}) (Result, error) {
	fd, err := j.udp()
	if err != nil {
		return Result{}, err
	}
	var stopped atomic.Bool
	go func() { <-stop; stopped.Store(true) }()
	b := newVector(floodLen, j.Size)
	sent, begin := uint64(0), time.Now()
	for !stopped.Load() {
		sent += uint64(b.send(fd))
	}
	return Result{Offered: float64(sent) / time.Since(begin).Seconds()}, nil
}
