package daemon

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/keeper"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/packet"
	"github.com/tapestry-net/tapestry/switch/port/tap"
)

func newPort(name string, id frame.PortID, req keeper.PortRequest) *port {
	return &port{name: name, id: id, req: req, fd: -1, since: time.Now()}
}

// open has the keeper make or find the port's interface and takes the
// descriptor of its frames.
func (d *Daemon) open(p *port) error {
	req := p.req
	req.NetnsID = p.netns
	req.NoGSO = req.NoGSO || p.plain
	reply, fd, err := d.keeper.Open(req)
	if err != nil {
		return err
	}
	return p.take(reply, fd)
}

// take makes the queue of an opened descriptor.
func (p *port) take(reply keeper.PortReply, fd int) error {
	var q vswitch.Queue
	var err error
	if reply.Packet {
		q, err = packet.NewQueue(fd, reply.VNetHdr, reply.Offloads)
	} else {
		q, err = tap.NewQueue(fd, reply.VNetHdr, reply.Offloads)
	}
	if err != nil {
		closeFD(fd)
		return err
	}
	p.reply, p.queue, p.fd = reply, q, fd
	p.reason, p.hint, p.attempts = "", "", 0
	p.since = time.Now()
	return nil
}

// fail notes that the port could not be opened, and when to try again: at once
// after a second, later every five.
func (p *port) fail(err error) {
	p.down(err.Error(), hintOf(err))
	p.attempts++
	wait := time.Second
	if p.attempts > 60 {
		wait = 5 * time.Second
	}
	p.next = time.Now().Add(wait)
}

// down gives the port a reason for not being up. An unchanged reason keeps its
// time.
func (p *port) down(reason, hint string) {
	if p.reason == reason {
		return
	}
	if p.reason == "" {
		p.since = time.Now()
	}
	p.reason, p.hint = reason, hint
}

// close lets go of the descriptor. The switch must not know the queue any more.
func (p *port) close() {
	if p.queue == nil {
		return
	}
	_ = p.queue.Close() // nothing was written through it that could be lost
	p.queue, p.fd = nil, -1
}

func closeFD(fd int) { _ = unix.Close(fd) } // only ever read from

// refusal gives an error of the keeper the exit code of the contract. What is
// put before its text may be empty.
func refusal(what string, err error) error {
	if what != "" {
		err = fmt.Errorf("%s: %w", what, err)
	}
	e := &api.Error{Code: 1, Msg: err.Error(), Hint: hintOf(err)}
	var k *keeper.Error
	if errors.As(err, &k) {
		e.Code = k.ExitCode()
	}
	return e
}

// hintOf is the mend that an error names, or the one that its kind suggests.
func hintOf(err error) string {
	var k *keeper.Error
	switch {
	case !errors.As(err, &k):
		return ""
	case k.Hint == "" && k.Code == keeper.CodeNotFound:
		return "`ip netns ls` lists the named namespaces and `ip link` the interfaces; a path and pid:N name a namespace as well"
	}
	return k.Hint
}
