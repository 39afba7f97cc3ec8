package daemon

import (
	"fmt"
	"time"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/tunnel"
)

// missingFor is how long the loss of datagrams is called a problem.
const missingFor = time.Minute

// missing is what the kernel dropped of the datagrams for the tunnel, because
// the switch did not read them in time.
type missing struct {
	last  tunnel.Overflow // reading of the present socket
	total uint64          // lost by this worker
	burst uint64          // of it, since the loss began that is the last one
	rose  time.Time       // when it was last seen to rise
}

// begin takes the first reading of a socket, which may have lost some under
// another tunnel or worker.
func (m *missing) begin(now tunnel.Overflow) { m.last = now }

// look takes another reading of the same socket.
func (m *missing) look(now tunnel.Overflow, at time.Time) {
	if now.Missed > m.last.Missed {
		if at.Sub(m.rose) > missingFor {
			m.burst = 0
		}
		n := now.Missed - m.last.Missed
		m.burst, m.total, m.rose = m.burst+n, m.total+n, at
	}
	m.last = now
}

// problems is the loss, if it is recent, with what mends it.
func (m *missing) problems(now time.Time) []api.Problem {
	if m.burst == 0 || now.Sub(m.rose) > missingFor {
		return nil
	}
	p := api.Problem{
		What: fmt.Sprintf("the kernel dropped %d datagrams for the tunnel, the last %s ago: its socket's buffer of %d KiB overflows",
			m.burst, now.Sub(m.rose).Round(time.Second), m.last.Buffer/1024),
		Hint: "the switch is short of processor time: see `top`, and GOMAXPROCS",
	}
	if m.last.Buffer < m.last.Wanted {
		p.Hint = fmt.Sprintf("sysctl -w net.core.rmem_max=%d, then start the switch again", m.last.Wanted)
	}
	return []api.Problem{p}
}

// lookForMissing takes a reading of the tunnel's socket. The caller holds mu.
func (d *Daemon) lookForMissing() {
	if d.vtep != nil {
		d.missing.look(d.vtep.Overflow(), time.Now())
	}
}
