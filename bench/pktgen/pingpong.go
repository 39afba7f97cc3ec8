package pktgen

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// pingTimeout is when a round trip counts as lost.
const pingTimeout = 200 * time.Millisecond

// echo sends every datagram back to the first one's sender.
func (j *job) echo(stop <-chan struct{}) (Result, error) {
	fd, err := j.udp()
	if err != nil {
		return Result{}, err
	}
	mark(markReady)
	go func() {
		b := make([]byte, 2048)
		n, from, err := unix.Recvfrom(fd, b, 0)
		if err == nil {
			err = unix.Connect(fd, from)
		}
		for err == nil || err == unix.EINTR || err == unix.ECONNREFUSED {
			if err == nil {
				_, _ = unix.Write(fd, b[:n]) // the other side notices what is lost
			}
			n, err = unix.Read(fd, b)
		}
	}()
	<-stop
	return Result{}, nil
}

// ping sends one datagram at a time and notes when it comes back.
func (j *job) ping() (Result, error) {
	fd, err := j.udp()
	if err != nil {
		return Result{}, err
	}
	tv := unix.NsecToTimeval(int64(pingTimeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return Result{}, fmt.Errorf("set receive timeout: %w", err)
	}
	p := pinger{fd: fd, out: make([]byte, max(j.Size, 8)), in: make([]byte, 2048)}
	p.run(j.Warm, nil)
	mark(markBegin)
	trips := make([]time.Duration, 0, 1<<20)
	begin, lost := time.Now(), p.lost
	trips = p.run(j.Window, trips)
	d := time.Since(begin)
	mark(markEnd)
	if len(trips) == 0 {
		return Result{}, fmt.Errorf("ping %v: no answer", j.Address)
	}
	slices.Sort(trips)
	return Result{
		Seconds: d.Seconds(), Packets: uint64(len(trips)), Lost: p.lost - lost,
		P50: micros(trips[len(trips)/2]), P99: micros(trips[len(trips)*99/100]),
	}, nil
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// pinger numbers its datagrams, so that a late answer is not taken for the next.
type pinger struct {
	fd      int
	out, in []byte
	seq     uint64
	lost    uint64
}

// run pings for d and appends the round trips to trips, unless that is nil.
func (p *pinger) run(d time.Duration, trips []time.Duration) []time.Duration {
	for begin := time.Now(); time.Since(begin) < d; {
		if t, ok := p.trip(); !ok {
			p.lost++
		} else if trips != nil {
			trips = append(trips, t)
		}
	}
	return trips
}

// trip is one datagram there and back.
func (p *pinger) trip() (time.Duration, bool) {
	p.seq++
	binary.LittleEndian.PutUint64(p.out, p.seq)
	t0 := time.Now()
	if _, err := unix.Write(p.fd, p.out); err != nil {
		time.Sleep(time.Millisecond) // refused by a server that is not there yet
		return 0, false
	}
	for {
		n, err := unix.Read(p.fd, p.in)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, false
		}
		if n >= 8 && binary.LittleEndian.Uint64(p.in) == p.seq {
			return time.Since(t0), true
		}
	}
}
