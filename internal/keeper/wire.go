package keeper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/netns"
	"github.com/tapestry-net/tapestry/switch/port/tap"
	"golang.org/x/sys/unix"
)

const (
	// protocolVersion is raised when a worker could misread what an older keeper
	// does, or the other way round; an upgrade between the two is then refused.
	protocolVersion = 2
	// maxMessage bounds one datagram in octets. It is far below the socket
	// buffer, so a datagram never waits for more memory than it needs itself.
	maxMessage = 64 << 10
	// maxFDs bounds the descriptors of one datagram; the kernel's own limit is
	// 253 (SCM_MAX_FD).
	maxFDs = 64
)

// Operations of a request.
const (
	opHello    = "hello"
	opFDB      = "fdb"
	opOpen     = "open"
	opUDP      = "udp"
	opKeepUDP  = "keep_udp"
	opSet      = "set"
	opRemove   = "remove"
	opList     = "list"
	opLost     = "lost"
	opSweep    = "sweep"
	opReady    = "ready"
	opUpgrade  = "upgrade"
	opGiveUp   = "give_up"
	opStandby  = "standby"
	opQuiesced = "quiesced"
	opAbort    = "abort"

	opWatch      = "watch"
	opInterfaces = "interfaces"
	opRaw        = "raw"
	opDiagnose   = "diagnose"
	opFirewall   = "firewall"
	opRule       = "rule"
)

// request is what a worker sends: one datagram, and one descriptor beside it at
// most, of memory, when it has quiesced.
type request struct {
	ID    uint64       `json:"id"`
	Op    string       `json:"op"`
	Proto int          `json:"proto,omitempty"` // hello
	Size  int64        `json:"size,omitempty"`  // fdb: octets; standby: what it takes over at most
	Name  string       `json:"name,omitempty"`  // remove: the port; list: list ports behind this name
	Names []string     `json:"names,omitempty"` // sweep: ports to keep
	More  bool         `json:"more,omitempty"`  // sweep: further names follow
	Port  *PortRequest `json:"port,omitempty"`  // open
	UDP   *UDPRequest  `json:"udp,omitempty"`   // udp
	Keep  *UDPKeep     `json:"keep,omitempty"`  // keep_udp
	Set   *SetRequest  `json:"set,omitempty"`   // set
	Error *Error       `json:"error,omitempty"` // abort

	keys []int // quiesced: what came beside it, one descriptor or none

	Watch      *WatchRequest      `json:"watch,omitempty"`      // watch
	Interfaces *InterfacesRequest `json:"interfaces,omitempty"` // interfaces
	Raw        *RawRequest        `json:"raw,omitempty"`        // raw
	Diagnose   *DiagnoseRequest   `json:"diagnose,omitempty"`   // diagnose
	Firewall   *FirewallRequest   `json:"firewall,omitempty"`   // firewall
	Rule       *RuleRequest       `json:"rule,omitempty"`       // rule
}

// reply is what the keeper sends: the answer to a request, or with ID 0 the
// order to stop. Descriptors travel beside it in the order the fields imply.
type reply struct {
	ID         uint64     `json:"id"`
	Stop       bool       `json:"stop,omitempty"`
	Error      *Error     `json:"error,omitempty"`
	Generation uint64     `json:"generation,omitempty"` // hello
	Instance   string     `json:"instance,omitempty"`   // hello
	StateDir   string     `json:"state_dir,omitempty"`  // hello
	Takeover   bool       `json:"takeover,omitempty"`   // hello
	Fresh      bool       `json:"fresh,omitempty"`      // fdb
	Port       *PortReply `json:"port,omitempty"`       // open, set
	Held       []Held     `json:"held,omitempty"`       // list
	More       bool       `json:"more,omitempty"`       // list, interfaces
	Names      []string   `json:"names,omitempty"`      // sweep: what was removed; lost: ports

	Interfaces []Interface     `json:"interfaces,omitempty"` // interfaces
	Diagnosis  *link.Diagnosis `json:"diagnosis,omitempty"`  // diagnose
	Firewall   *firewallReply  `json:"firewall,omitempty"`   // firewall
	Rule       *ruleReply      `json:"rule,omitempty"`       // rule
}

var (
	errTooLong = fmt.Errorf("message is longer than %d octets", maxMessage)
	errLost    = errors.New("descriptors were lost: the limit of open files (RLIMIT_NOFILE) is reached")
)

// openConn makes a connection of one end of a SOCK_SEQPACKET pair and closes fd.
func openConn(fd int) (*net.UnixConn, error) {
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "keeper socket")
	if f == nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, unix.EBADF)
	}
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("descriptor %d: no unix socket", fd)
	}
	return uc, nil
}

// send writes one message with its descriptors, which stay the caller's.
func send(c *net.UnixConn, v any, fds ...int) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(b) > maxMessage {
		return errTooLong
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(b, oob, nil)
	return err
}

// receive reads one datagram into buf, and descriptors by way of oob. With errLost
// the message is good, and has none.
func receive(c *net.UnixConn, buf, oob []byte) (msg []byte, fds []int, err error) {
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, nil, err
	}
	if n == 0 {
		return nil, nil, io.EOF
	}
	if fds, err = rights(oob[:oobn]); err != nil {
		return nil, nil, err
	}
	if flags&unix.MSG_TRUNC != 0 {
		discard(fds)
		return nil, nil, errTooLong
	}
	if flags&unix.MSG_CTRUNC != 0 {
		discard(fds)
		return buf[:n], nil, errLost
	}
	return buf[:n], fds, nil
}

// rights takes the descriptors out of a control message.
func rights(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	var fds []int
	for i := range msgs {
		got, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue // another kind of control message
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

// decode reads exactly one request. An unknown field is an error: a setting
// that this keeper doesn't know must not be dropped in silence.
func decode(b []byte) (request, error) {
	var r request
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return request{ID: r.ID}, invalid("decode request: %v", err)
	}
	if d.More() {
		return request{ID: r.ID}, invalid("decode request: more than one document")
	}
	return r, nil
}

// discard closes descriptors that nobody has asked for. The end of a strange file
// may take its time.
func discard(fds []int) {
	if len(fds) > 0 {
		go closeAll(fds)
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd) // nothing was written through it
	}
}

func invalid(format string, a ...any) *Error {
	return &Error{Code: CodeInvalid, Msg: fmt.Sprintf(format, a...)}
}

// toError makes an *Error of any error, with the code that its cause implies.
func toError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return &Error{Code: e.Code, Msg: clip(err.Error()), Hint: clip(e.Hint)}
	}
	e = &Error{Code: CodeFailed, Msg: clip(err.Error())}
	switch {
	case errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE):
		e.Hint = "raise the limit of open files (LimitNOFILE= of the service, ulimit -n); a port takes one in each of two processes"
	case errors.Is(err, os.ErrPermission):
		e.Code, e.Hint = CodeNotPermitted, "run as root or give the binary cap_net_admin, cap_net_raw and cap_sys_admin"
	case errors.Is(err, netns.ErrNotFound) || errors.Is(err, link.ErrNotFound) || errors.Is(err, tap.ErrGone):
		e.Code = CodeNotFound
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV):
		e.Code = CodeNotFound
	case errors.Is(err, netns.ErrInvalid):
		e.Code = CodeInvalid
	case errors.Is(err, link.ErrConflict) || errors.Is(err, os.ErrExist) || errors.Is(err, unix.EBUSY):
		e.Code = CodeConflict
	}
	return e
}

// maxText bounds the text of an error in octets, so that a reply always fits.
const maxText = 2048

func clip(s string) string {
	if len(s) > maxText {
		return s[:maxText]
	}
	return s
}
