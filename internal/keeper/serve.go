package keeper

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"runtime/debug"
	"slices"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
	"golang.org/x/sys/unix"
)

// serve answers one request of w; bad says why it couldn't be decoded.
func (k *keeper) serve(w *worker, r request, bad error) {
	rep, fds, err := reply{}, []int(nil), bad
	if err == nil {
		err = k.admit(w, r)
	}
	if err == nil {
		rep, fds, err = k.carryOut(w, r)
	}
	if err == errLater {
		return
	}
	if err != nil {
		rep, fds = reply{Error: toError(err)}, nil
		closeAll(r.keys)
	}
	rep.ID = r.ID
	k.answer(w, rep, fds...)
	w.heard = time.Now()
	closeAll(k.passing)
	k.passing = k.passing[:0]
}

// errLater means that the answer follows when something else has happened.
var errLater = &Error{Msg: "later"}

// admit refuses what w may not ask for at present.
func (k *keeper) admit(w *worker, r request) error {
	if r.Op == opHello {
		return nil
	}
	if !w.greeted {
		return invalid("request %.16q before hello", r.Op)
	}
	if k.stopping && r.Op != opRemove {
		return &Error{Code: CodeFailed, Msg: "the keeper is stopping"}
	}
	next := k.upgrade != nil && w == k.upgrade.next
	if !next && w != k.cur {
		return &Error{Code: CodeFailed, Msg: "this worker has been replaced"}
	}
	switch r.Op {
	case opOpen:
		if next && k.held[r.portName()] == nil {
			return conflict("a worker that hasn't taken over opens no new port")
		}
		fallthrough
	case opSet, opRemove, opSweep, opFDB:
		if k.upgrade != nil && !next {
			return conflict("an upgrade is under way")
		}
	}
	switch r.Op {
	case opSet, opRemove, opSweep, opKeepUDP, opReady, opUpgrade, opGiveUp, opQuiesced,
		opWatch, opInterfaces, opRaw, opDiagnose, opFirewall, opRule:
		if next {
			return conflict("a worker that hasn't taken over can't ask for %s", r.Op)
		}
	}
	return nil
}

func (r *request) portName() string {
	if r.Port == nil {
		return ""
	}
	return r.Port.Name
}

// carryOut does what an admitted request asks for. The descriptors it returns
// stay the keeper's.
func (k *keeper) carryOut(w *worker, r request) (reply, []int, error) {
	switch r.Op {
	case opHello:
		return k.hello(w, r)
	case opFDB:
		return k.memory(w, r.Size)
	case opOpen:
		return k.openPort(w, r.Port)
	case opUDP:
		return k.openUDP(w, r.UDP)
	case opKeepUDP:
		k.keepUDP(r.Keep)
		return reply{}, nil, nil
	case opSet:
		return k.setPort(r.Set)
	case opRemove:
		return reply{}, nil, k.remove(r.Name)
	case opList:
		return k.list(r.Name)
	case opLost:
		return reply{Names: k.lost()}, nil, nil
	case opSweep:
		return k.sweep(w, r)
	case opReady:
		w.ready = true
		return reply{}, nil, k.sayReady()
	case opUpgrade:
		if k.upgrade != nil {
			return reply{}, nil, conflict("an upgrade is under way already")
		}
		if err := k.begin(w, r.ID); err != nil {
			return reply{}, nil, err
		}
		return reply{}, nil, errLater
	case opGiveUp:
		if u := k.upgrade; u != nil && u.standby == 0 {
			k.giveUp("whoever has asked for it waits no longer")
		}
		return reply{}, nil, nil
	case opStandby:
		return k.standby(w, r)
	case opQuiesced:
		return reply{}, nil, k.quiesced(w, r)
	case opAbort:
		return reply{}, nil, k.abort(w, r.Error)
	}
	return k.look(r)
}

// look does what a trace or a capture asks for. The keeper holds nothing of it:
// what is opened ends with the worker.
func (k *keeper) look(r request) (reply, []int, error) {
	switch r.Op {
	case opWatch:
		return k.watch(r.Watch)
	case opInterfaces:
		return k.interfaces(r.Interfaces)
	case opRaw:
		return k.openRaw(r.Raw)
	case opDiagnose:
		return k.diagnose(r.Diagnose)
	case opFirewall:
		return k.firewall(r.Firewall)
	case opRule:
		return k.rule(r.Rule)
	}
	return reply{}, nil, invalid("request %.16q: no such request", r.Op)
}

func (k *keeper) hello(w *worker, r request) (reply, []int, error) {
	if r.Proto != protocolVersion {
		return reply{}, nil, &Error{
			Code: CodeConflict,
			Msg:  fmt.Sprintf("worker speaks version %d, the running keeper %d", r.Proto, protocolVersion),
			Hint: "restart the switch instead: its ports are found again by name",
		}
	}
	w.greeted = true
	return reply{
		Generation: w.generation, Instance: k.opts.Instance, StateDir: k.opts.StateDir,
		Takeover: w != k.cur,
	}, []int{k.site.dir, k.site.listener}, nil
}

func (k *keeper) memory(w *worker, size int64) (reply, []int, error) {
	if size < 1 || size > maxMemory {
		return reply{}, nil, invalid("fdb memory: size %d: want 1 to %d octets", size, int64(maxMemory))
	}
	if k.fdb.size == size {
		return reply{}, []int{k.fdb.fd}, nil
	}
	m, err := newMemory(size)
	if err != nil {
		return reply{}, nil, err
	}
	at := &k.fdb
	if w != k.cur {
		at = &k.upgrade.fdb // the running worker's stays until it has ended
	}
	at.close()
	*at = m
	return reply{Fresh: true}, []int{m.fd}, nil
}

func (k *keeper) openPort(w *worker, r *PortRequest) (reply, []int, error) {
	if r == nil {
		return reply{}, nil, invalid("open: no port given")
	}
	if err := r.validate(); err != nil {
		return reply{}, nil, err
	}
	h := k.held[r.Name]
	if h != nil && r.Reopen && w == k.cur {
		if err := k.remove(r.Name); err != nil {
			k.log.Warn("port is opened again without having been removed cleanly", "port", r.Name, "err", err)
			k.drop(r.Name)
		}
		h = nil
	}
	if h == nil {
		var err error
		if h, err = k.make(*r); err != nil {
			return reply{}, nil, err
		}
		return reply{Port: &h.Reply}, []int{h.FD}, nil
	}
	if !r.sameInterface(&h.Request) {
		return reply{}, nil, conflict("port %s is held as another %s port: remove it first", r.Name, h.Request.Kind)
	}
	asked := *r
	k.fillIn(r)
	if s := r.changes(h); s != nil {
		if w != k.cur {
			return reply{}, nil, conflict("a worker that hasn't taken over can't change port %s", r.Name)
		}
		if err := k.set(h, *s); err != nil {
			return reply{}, nil, err
		}
		h.Request.MAC = asked.MAC
	}
	p := h.Reply
	p.Reattached = true
	return reply{Port: &p}, []int{h.FD}, nil
}

// make opens a port that isn't held.
func (k *keeper) make(r PortRequest) (*Held, error) {
	for _, h := range k.held {
		if r.Device != "" && h.Request.Device == r.Device || r.Adopt != "" && h.Request.Adopt == r.Adopt {
			return nil, conflict("open port %s: interface %s belongs to port %s", r.Name, r.Device+r.Adopt, h.Request.Name)
		}
	}
	r.Reopen = false
	asked := r
	k.fillIn(&r)
	p, fd, err := k.dev.Open(r)
	if err != nil {
		return nil, fmt.Errorf("open port %s: %w", r.Name, err)
	}
	h := &Held{Request: asked, Reply: p, FD: fd}
	k.held[r.Name] = h
	k.log.Info("port opened", "port", r.Name, "kind", r.Kind, "device", p.Device, "reattached", p.Reattached)
	return h, nil
}

// fillIn gives an interface of ours an address when the request has none.
func (k *keeper) fillIn(r *PortRequest) {
	if r.MAC.IsZero() && r.Device == "" && r.Adopt == "" {
		r.MAC = derivedMAC(k.opts.Instance, r.Name)
	}
}

// derivedMAC is the same whenever the port is made again, and a locally
// administered unicast address (IEEE 802 clause 8.4).
func derivedMAC(instance, port string) frame.MAC {
	sum := sha256.Sum256([]byte(instance + "/" + port))
	m := frame.MAC(sum[:6])
	m[0] = m[0]&^1 | 2
	return m
}

func (k *keeper) setPort(s *SetRequest) (reply, []int, error) {
	if s == nil {
		return reply{}, nil, invalid("set: no port given")
	}
	if err := s.validate(); err != nil {
		return reply{}, nil, err
	}
	h := k.held[s.Name]
	if h == nil {
		return reply{}, nil, &Error{Code: CodeNotFound, Msg: fmt.Sprintf("set port %s: it isn't open", s.Name)}
	}
	if h.Request.Device != "" || h.Request.Adopt != "" {
		return reply{}, nil, invalid("set port %s: its interface isn't ours to change", s.Name)
	}
	if err := k.set(h, *s); err != nil {
		return reply{}, nil, err
	}
	return reply{Port: &h.Reply}, nil, nil
}

func (k *keeper) set(h *Held, s SetRequest) error {
	p, err := k.dev.Set(*h, s)
	if err != nil {
		return fmt.Errorf("set port %s: %w", s.Name, err)
	}
	h.Reply = p
	if !s.MAC.IsZero() {
		h.Request.MAC = s.MAC
	}
	if s.MTU != 0 {
		h.Request.MTU = s.MTU
	}
	if s.Addresses != nil {
		h.Request.Addresses, h.Request.Gateway = s.Addresses, s.Gateway
	}
	return nil
}

// remove takes a port's interfaces away. A port that can't be removed stays
// held, so that it can be tried again.
func (k *keeper) remove(name string) error {
	h := k.held[name]
	if h == nil {
		return nil
	}
	k.reserve.giveUp()
	defer k.reserve.fill(k.exe)
	if err := k.dev.Remove(*h); err != nil {
		return fmt.Errorf("remove port %s: %w", name, err)
	}
	k.drop(name)
	k.log.Info("port removed", "port", name)
	return nil
}

// drop forgets a port.
func (k *keeper) drop(name string) {
	_ = unix.Close(k.held[name].FD) // carries frames only: nothing to lose
	delete(k.held, name)
}

// list returns the held ports behind the name after, as many as one message
// takes.
func (k *keeper) list(after string) (reply, []int, error) {
	var rep reply
	var fds []int
	room := maxMessage - maxText
	for _, name := range slices.Sorted(maps.Keys(k.held)) {
		if name <= after {
			continue
		}
		h := k.held[name]
		b, err := json.Marshal(h)
		if err != nil {
			return reply{}, nil, fmt.Errorf("list port %s: %w", name, err)
		}
		room -= len(b) + 1
		if room < 0 || len(fds) == maxFDs {
			rep.More = true
			break
		}
		rep.Held, fds = append(rep.Held, *h), append(fds, h.FD)
	}
	return rep, fds, nil
}

// lost names the held ports whose namespace has gone, as many as one message
// takes.
func (k *keeper) lost() []string {
	var names []string
	for name, h := range k.held {
		if len(names) < sweepLen && k.dev.Lost(*h) {
			names = append(names, name)
		}
	}
	return names
}

// maxKeep bounds the names of one sweep; a switch has no more ports.
const maxKeep = 1 << 16

func (k *keeper) sweep(w *worker, r request) (reply, []int, error) {
	for _, n := range r.Names {
		if !nameOK(n) {
			return reply{}, nil, invalid("sweep: port name %.80q: want the pattern %s", n, namePattern)
		}
	}
	if w.keep = append(w.keep, r.Names...); len(w.keep) > maxKeep {
		w.keep = nil
		return reply{}, nil, invalid("sweep: more than %d ports", maxKeep)
	}
	if r.More {
		return reply{}, nil, nil
	}
	keep := make(map[string]bool, len(w.keep))
	for _, n := range w.keep {
		keep[n] = true
	}
	w.keep = nil
	var removed []string
	for _, name := range slices.Sorted(maps.Keys(k.held)) {
		if keep[name] {
			continue
		}
		device := k.held[name].Reply.Device
		if err := k.remove(name); err != nil {
			return reply{}, nil, err
		}
		removed = append(removed, device)
	}
	swept, err := k.dev.Sweep(func(port string) bool { return keep[port] })
	if err != nil {
		return reply{}, nil, fmt.Errorf("remove leftover interfaces: %w", err)
	}
	removed = append(removed, swept...)
	if len(removed) > 0 {
		k.log.Info("removed what no port needs", "interfaces", removed)
	}
	// The list is for a message; a worker loses nothing when it is cut.
	return reply{Names: removed[:min(len(removed), sweepLen)]}, nil, nil
}

func (k *keeper) sayReady() error {
	if k.ready {
		return nil
	}
	k.ready = true
	if _, err := io.WriteString(k.opts.Stdout, "ready\n"); err != nil {
		k.log.Warn("print ready", "err", err)
	}
	if err := notify("READY=1"); err != nil {
		k.log.Warn("notify service manager", "err", err)
	}
	debug.FreeOSMemory() // what opening the first ports took is not needed again
	return nil
}

func (k *keeper) standby(w *worker, r request) (reply, []int, error) {
	if w == k.cur {
		return reply{}, nil, nil
	}
	if k.upgrade.standby != 0 {
		return reply{}, nil, conflict("this worker stands by already")
	}
	k.upgrade.takes = r.Size
	k.hand(k.upgrade, r.ID)
	return reply{}, nil, errLater
}

func (k *keeper) quiesced(w *worker, r request) error {
	u := k.upgrade
	if u == nil || u.standby == 0 {
		return conflict("no worker stands by to take over")
	}
	closeAll(u.keys) // of an earlier call
	u.keys = r.keys
	k.after(linger, w.kill)
	return nil
}

// linger is how long a worker that has quiesced may take to exit. Frames wait
// in the queues meanwhile, and a queue of 1,000 is full after it at 1,000 a
// second.
const linger = time.Second

func (k *keeper) abort(w *worker, why *Error) error {
	if why == nil {
		return invalid("abort: no reason given")
	}
	if w != k.cur {
		k.giveUp(why.Msg)
		return nil
	}
	if k.ready {
		return conflict("a switch that has forwarded isn't ended by its worker")
	}
	k.why = toError(why)
	k.stop()
	return nil
}

func conflict(format string, a ...any) *Error {
	return &Error{Code: CodeConflict, Msg: fmt.Sprintf(format, a...)}
}
