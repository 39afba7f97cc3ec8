package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// WorkerFD is the descriptor that a worker finds its end of the socket at.
const WorkerFD = 3

// ErrGone is returned by every method of Client once the keeper has ended.
var ErrGone = errors.New("the keeper has ended")

// Client is the worker's side of the socket. Every method may be called from
// any goroutine; each blocks until the keeper has answered. A refusal is an
// *Error. Descriptors that are returned belong to the caller.
type Client struct {
	conn *net.UnixConn
	stop chan struct{}
	gone chan struct{}

	mu      sync.Mutex
	lastID  uint64
	pending map[uint64]chan answer
	stopped bool
}

type answer struct {
	reply
	fds []int
}

// Greeting is what a worker learns first.
type Greeting struct {
	Generation uint64       // workers started since the keeper was, this one included
	Instance   string       // names this switch in the ownership mark of its interfaces
	StateDir   string       // path, for messages only
	State      *os.File     // the state directory, for LoadState and SaveState
	Listener   net.Listener // of the API socket
	// Takeover is set when another worker is running: initialise, call Standby,
	// and touch no frame until it has returned.
	Takeover bool
}

// Connect takes over descriptor fd, WorkerFD as a rule, and listens to the
// keeper. The caller watches Gone and Stop and ends the process when one closes.
func Connect(fd int) (*Client, error) {
	conn, err := openConn(fd)
	if err != nil {
		return nil, fmt.Errorf("connect to keeper: %w", err)
	}
	c := &Client{
		conn: conn, stop: make(chan struct{}), gone: make(chan struct{}),
		pending: make(map[uint64]chan answer),
	}
	go c.listen()
	return c, nil
}

// Stop is closed when the keeper asks the worker to end. What the worker holds
// is removed by the keeper afterwards.
func (c *Client) Stop() <-chan struct{} { return c.stop }

// Gone is closed when the keeper has ended, or Close was called. A worker whose
// keeper has gone must end at once: nobody holds its descriptors any longer.
func (c *Client) Gone() <-chan struct{} { return c.gone }

// Close ends the connection. The keeper takes that for the worker's death.
func (c *Client) Close() error { return c.conn.Close() }

// Hello says who is there. It comes before every other request.
func (c *Client) Hello() (Greeting, error) {
	a, err := c.call(request{Op: opHello, Proto: protocolVersion}, 2)
	if err != nil {
		return Greeting{}, fmt.Errorf("greet keeper: %w", err)
	}
	g := Greeting{Generation: a.Generation, Instance: a.Instance, StateDir: a.StateDir, Takeover: a.Takeover}
	g.State = os.NewFile(uintptr(a.fds[0]), a.StateDir)
	f := os.NewFile(uintptr(a.fds[1]), "api socket")
	defer f.Close()
	if g.Listener, err = net.FileListener(f); err != nil {
		g.State.Close()
		return Greeting{}, fmt.Errorf("greet keeper: api socket: %w", err)
	}
	if l, ok := g.Listener.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(false) // the path is the keeper's
	}
	return g, nil
}

// FDB returns the memory that outlives the worker, size octets of it, which can
// be mapped and not resized. fresh says that it is new and holds zeros: at the
// first call of all, and when another size was held until now.
func (c *Client) FDB(size int64) (f *os.File, fresh bool, err error) {
	a, err := c.call(request{Op: opFDB, Size: size}, 1)
	if err != nil {
		return nil, false, fmt.Errorf("obtain fdb memory: %w", err)
	}
	return os.NewFile(uintptr(a.fds[0]), "fdb"), a.Fresh, nil
}

// Open makes, finds or returns again the port that r describes; see PortRequest
// and Held.FD. The code of a refusal is CodeNotFound when the namespace or the
// device isn't there, CodeConflict when the interface is another's or the port
// is held with another kind, namespace or interface (Remove it first).
func (c *Client) Open(r PortRequest) (p PortReply, fd int, err error) {
	a, err := c.call(request{Op: opOpen, Port: &r}, 1)
	if err != nil {
		return PortReply{}, -1, err
	}
	if a.Port == nil {
		closeAll(a.fds)
		return PortReply{}, -1, errShort
	}
	return *a.Port, a.fds[0], nil
}

// Set changes a held port and returns what it is now.
func (c *Client) Set(s SetRequest) (PortReply, error) {
	a, err := c.call(request{Op: opSet, Set: &s}, 0)
	if err != nil {
		return PortReply{}, err
	}
	if a.Port == nil {
		return PortReply{}, errShort
	}
	return *a.Port, nil
}

// Remove lets go of a port and removes every interface and rule made for it.
// The worker has closed its own descriptor before. Removing a port that isn't
// held is no error.
func (c *Client) Remove(name string) error {
	_, err := c.call(request{Op: opRemove, Name: name}, 0)
	return err
}

// List returns every held port, by name, each with a descriptor of its own.
func (c *Client) List() ([]Held, error) {
	var all []Held
	for after := ""; ; {
		a, err := c.call(request{Op: opList, Name: after}, -1)
		if err == nil && len(a.fds) != len(a.Held) {
			closeAll(a.fds)
			err = errShort
		}
		if err != nil {
			for _, h := range all {
				_ = unix.Close(h.FD) // the error that counts is err
			}
			return nil, fmt.Errorf("list held ports: %w", err)
		}
		for i, h := range a.Held {
			h.FD = a.fds[i]
			all = append(all, h)
			after = h.Request.Name
		}
		if !a.More || len(a.Held) == 0 {
			return all, nil
		}
	}
}

// Lost names held ports, some if there are many, whose namespace has gone by
// the name that they were opened with, or bears it no more. A descriptor opened
// inside a namespace keeps that alive, so the port itself doesn't notice; Open
// with Reopen lets go of it.
func (c *Client) Lost() ([]string, error) {
	a, err := c.call(request{Op: opLost}, 0)
	return a.Names, err
}

// sweepLen is how many names of up to 63 octets go into one message.
const sweepLen = 512

// Sweep removes what no wanted port needs: ports held under other names, and
// interfaces in the daemon's own namespace that bear this switch's mark, left
// behind by a keeper that was killed. keep names every wanted port, also one
// that can't be opened at present. It returns what it removed.
func (c *Client) Sweep(keep []string) ([]string, error) {
	for len(keep) > sweepLen {
		if _, err := c.call(request{Op: opSweep, Names: keep[:sweepLen], More: true}, 0); err != nil {
			return nil, err
		}
		keep = keep[sweepLen:]
	}
	a, err := c.call(request{Op: opSweep, Names: keep}, 0)
	return a.Names, err
}

// Ready says that frames flow from now on. The first time, the keeper tells
// whoever has started it.
func (c *Client) Ready() error {
	_, err := c.call(request{Op: opReady}, 0)
	return err
}

// Upgrade starts the binary on disk as the next worker and returns nil when
// that one stands by: this worker then answers whom it owes an answer, stops
// touching frames, calls Quiesced and ends. On an error it goes on as before.
// From the call until such an error the keeper refuses this worker's changes.
// When ctx ends first, the upgrade is given up.
func (c *Client) Upgrade(ctx context.Context) error {
	id, ch, err := c.begin(request{Op: opUpgrade})
	if err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	stop := context.AfterFunc(ctx, func() {
		// The keeper's answer to the upgrade itself tells who was first.
		_, _ = c.call(request{Op: opGiveUp}, 0)
	})
	defer stop()
	if _, err = c.await(id, ch, 0); err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	return nil
}

// Standby says that this worker is ready to take over, and blocks until the one
// before has ended. Read the state file after it has returned, not before. keys is
// a descriptor of what that one has given to Quiesced, if it isn't longer than most
// octets, and belongs to the caller; -1 = nothing came. Nobody else has one.
func (c *Client) Standby(most int64) (keys int, err error) {
	a, err := c.call(request{Op: opStandby, Size: most}, -1)
	if err != nil {
		return -1, err
	}
	if len(a.fds) != 1 {
		closeAll(a.fds)
		return -1, nil
	}
	return a.fds[0], nil
}

// Quiesced says that this worker touches no frame and writes no file any more.
// The caller ends the process next; one that lingers is killed. keys is what the
// next worker is given once this one has ended, -1 = nothing. The keeper doesn't
// look into it. The descriptor stays the caller's.
func (c *Client) Quiesced(keys int) error {
	var fds []int
	if keys >= 0 {
		fds = []int{keys}
	}
	id, ch, err := c.begin(request{Op: opQuiesced}, fds...)
	if err == nil {
		_, err = c.await(id, ch, 0)
	}
	return err
}

// Abort says that starting again would not help, as with an invalid file: the
// keeper removes everything and Run returns why. After the first Ready it is
// refused, and the worker should rather run with what it can.
func (c *Client) Abort(why *Error) error {
	_, err := c.call(request{Op: opAbort, Error: why}, 0)
	return err
}

var errShort = errors.New("the keeper's answer is incomplete")

// call sends r and waits for its answer with n descriptors, -1 = any number.
func (c *Client) call(r request, n int) (answer, error) {
	id, ch, err := c.begin(r)
	if err != nil {
		return answer{}, err
	}
	return c.await(id, ch, n)
}

func (c *Client) begin(r request, fds ...int) (uint64, chan answer, error) {
	ch := make(chan answer, 1)
	c.mu.Lock()
	c.lastID++
	r.ID = c.lastID
	c.pending[r.ID] = ch
	c.mu.Unlock()
	if err := send(c.conn, r, fds...); err != nil {
		c.forget(r.ID)
		if errors.Is(err, unix.EPIPE) || errors.Is(err, net.ErrClosed) || errors.Is(err, unix.ECONNRESET) {
			err = ErrGone
		}
		return 0, nil, err
	}
	return r.ID, ch, nil
}

func (c *Client) await(id uint64, ch chan answer, n int) (answer, error) {
	defer c.forget(id)
	var a answer
	select {
	case a = <-ch:
	case <-c.gone:
		select {
		case a = <-ch:
		default:
			return answer{}, ErrGone
		}
	}
	if a.Error != nil {
		closeAll(a.fds)
		return answer{}, a.Error
	}
	if n >= 0 && len(a.fds) != n {
		closeAll(a.fds)
		return answer{}, errShort
	}
	return a, nil
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	delete(c.pending, id)
	c.mu.Unlock()
}

// listen hands each answer to the call that waits for it, until the socket ends.
func (c *Client) listen() {
	defer close(c.gone)
	defer c.conn.Close()
	buf := make([]byte, maxMessage)
	oob := make([]byte, unix.CmsgSpace(maxFDs*4))
	for {
		msg, fds, err := receive(c.conn, buf, oob)
		if err != nil {
			return
		}
		a := answer{fds: fds}
		if err := json.Unmarshal(msg, &a.reply); err != nil {
			closeAll(fds)
			return
		}
		c.deliver(a)
	}
}

func (c *Client) deliver(a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.Stop && !c.stopped {
		c.stopped = true
		close(c.stop)
	}
	ch := c.pending[a.ID]
	delete(c.pending, a.ID)
	if ch == nil {
		closeAll(a.fds)
		return
	}
	ch <- a
}
