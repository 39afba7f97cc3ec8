package udpio_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/udpio"
)

// BenchmarkSendReceive is one datagram sent and received over the loopback, 64
// in a flush, in two pieces as the tunnel sends them.
func BenchmarkSendReceive(b *testing.B) {
	for _, size := range []int{1400, 60} {
		for _, gso := range []bool{true, false} {
			b.Run(fmt.Sprintf("%dB/gso=%v", size, gso), func(b *testing.B) { benchmark(b, size, gso) })
		}
	}
}

func benchmark(b *testing.B, size int, gso bool) {
	l := newLink(b, "127.0.0.1", udpio.SenderOptions{NoChecksum: !gso})
	if !gso {
		if err := unix.SetsockoptInt(l.r.FD(), unix.SOL_UDP, unix.UDP_GRO, 0); err != nil {
			b.Fatal(err)
		}
	}
	const batch, header = 64, 30
	payload := make([]byte, size-header)
	sum := 0
	b.SetBytes(int64(size))
	b.ReportAllocs()
	cpu := cpuTime(b)
	for b.Loop() {
		for i := range batch {
			l.s.Begin(l.sock, l.d, 0, header)
			l.s.Payload(payload)
			l.s.End(i)
		}
		if failed := l.s.Flush(); len(failed) > 0 {
			b.Fatal(failed)
		}
		for got := 0; got < batch; {
			in, err := l.r.Receive()
			if err != nil {
				b.Fatal(err)
			}
			for i := range in {
				for k := range in[i].Segments() {
					sum += len(in[i].Segment(k))
					got++
				}
			}
		}
	}
	n := float64(b.N) * batch
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/n, "ns/datagram")
	b.ReportMetric(float64(cpuTime(b)-cpu)/n, "cpu-ns/datagram")
}

// cpuTime is what the process has used, in nanoseconds: steadier than elapsed
// time on a machine that does other things as well.
func cpuTime(b *testing.B) int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
