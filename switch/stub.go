package vswitch

import (
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

type network struct {
	vid    frame.VID
	ageing time.Duration
}
type line struct{}
type member struct{}
type port struct {
	id       frame.PortID
	name     string
	queue    Queue
	line     *line
	loop     int
	fdbLimit int
	count    portCount
}

func (p *port) member(frame.VID) *member { return nil }

type view struct {
	ports []*port
	list  []*network
}

func (v *view) port(frame.PortID) *port   { return nil }
func (v *view) lineOf(frame.PortID) *line { return nil }
func compile(Spec, *view, int) (*view, error) {
	return &view{}, nil
}

type guard struct{}

func newGuard() *guard { return nil }

type loop struct {
	id    int
	cells loopCells
}

func newLoop(s *Switch, id int) (*loop, error) { return &loop{id: id}, nil }
func (l *loop) release()                       {}
func (l *loop) run()                           {}
func (l *loop) watch(*port) error              { return nil }
func (l *loop) unwatch(*port)                  {}

type orderKind uint8

const (
	orderBarrier orderKind = iota
	orderHold
	orderRun
	orderQuit
)

func (s *Switch) order(orderKind) {}

// Explain tells what would happen to a frame that came in by a port.
func (s *Switch) Explain(in frame.PortID, data []byte, g frame.GSO) Explanation {
	return Explanation{}
}
