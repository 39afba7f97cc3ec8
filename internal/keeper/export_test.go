package keeper

import (
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	BackOff        = backOff
	IfnameOK       = ifnameOK
	NetnsOK        = netnsOK
	NameOK         = nameOK
	Notify         = notify
	ErrorOf        = toError
	MaxMessageSize = maxMessage
)

// Validate is what the keeper does to every request before anything else.
func (r *PortRequest) Validate() error { return r.validate() }

// Raw sends octets that no method of Client would.
func (c *Client) Raw(b []byte) error {
	_, err := c.conn.Write(b)
	return err
}

// RawWith is Raw with descriptors beside it.
func (c *Client) RawWith(b []byte, fds ...int) error {
	_, _, err := c.conn.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
	return err
}

// RawSet sends a request that may lack what its operation needs, and returns the refusal.
func (c *Client) RawSet(s *SetRequest, p *PortRequest, op string) error {
	_, err := c.call(request{Op: op, Set: s, Port: p}, -1)
	return err
}

// Bench is a keeper without worker processes, to be fed with datagrams.
type Bench struct {
	k  *keeper
	w  *worker
	to *net.UnixConn
}

// NewBench makes one that works on dev.
func NewBench(t testing.TB, dev Devices) *Bench {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := openConn(pair[0])
	if err != nil {
		t.Fatal(err)
	}
	ours, err := openConn(pair[1])
	if err != nil {
		t.Fatal(err)
	}
	w := &worker{conn: ours, generation: 1}
	o := Options{
		Binary: "/nonexistent", StateDir: "/nonexistent", Instance: "bench", Patience: 1 << 40,
		Stdout: io.Discard, Devices: dev, Log: slog.New(slog.DiscardHandler),
	}
	k := &keeper{
		opts: o, log: o.Log, dev: dev, site: &site{dir: 0, listener: 0}, exe: -1, fdb: noMemory, cur: w,
		held: make(map[string]*Held), alive: map[*worker]bool{},
		events: make(chan func()), ended: make(chan struct{}),
	}
	t.Cleanup(func() {
		theirs.Close()
		ours.Close()
		k.fdb.close()
		k.keepUDP(nil)
		for name := range k.held {
			k.drop(name)
		}
	})
	return &Bench{k: k, w: w, to: theirs}
}

// Feed serves one datagram and reports whether it was answered with success.
func (b *Bench) Feed(t testing.TB, msg []byte) bool {
	r, bad := decode(msg)
	b.k.serve(b.w, r, bad)
	buf, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*maxFDs))
	if err := b.to.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	got, fds, err := receive(b.to, buf, oob)
	if err != nil {
		t.Fatalf("no answer to %q: %v", msg, err)
	}
	closeAll(fds)
	var a struct{ Error *Error }
	if err := json.Unmarshal(got, &a); err != nil {
		t.Fatal(err)
	}
	b.k.stopping = false
	return a.Error == nil
}
