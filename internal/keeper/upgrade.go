package keeper

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// upgrade is the time in which two workers run. It passes through two phases:
//
//	begun      next initialises; k.cur forwards and waits for the answer to id
//	handing    next stands by; k.cur has its answer, quiesces and ends
//
// When k.cur has ended in the second phase next takes its place. Whatever else
// happens, the upgrade is given up and there is one worker, or a fresh one.
type upgrade struct {
	id      uint64 // of the upgrade request
	next    *worker
	exe     int    // the file that next runs
	standby uint64 // of next's standby request; 0 in the first phase
	fdb     memory // what next has asked for in place of k.fdb, if it has
	keys    []int  // what k.cur has handed over, a descriptor or none: never read or mapped here
	takes   int64  // octets of it that next takes at most
}

// keySeals are those of memory that nobody can resize, or seal further: it can be
// mapped without care, and zeroed.
const keySeals = unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL

// admitKeys returns fds if they are what a worker may send with an operation: one
// descriptor of sealed memory with the last that it asks for.
func admitKeys(op string, fds []int) []int {
	if op == opQuiesced && len(fds) == 1 {
		if seals, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GET_SEALS, 0); err == nil && seals&keySeals == keySeals {
			return fds
		}
	}
	discard(fds)
	return nil
}

// forNext is what the next worker is given: nothing that is too long for it.
func (u *upgrade) forNext() []int {
	for _, fd := range u.keys {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Size < 1 || st.Size > u.takes {
			return nil
		}
	}
	return u.keys
}

// begin starts the binary on disk beside the running worker.
func (k *keeper) begin(w *worker, id uint64) error {
	exe, err := openExecutable(k.opts.Binary)
	if err != nil {
		return err
	}
	next, err := k.start(exe, true)
	if err != nil {
		closeAll([]int{exe})
		return err
	}
	u := &upgrade{id: id, next: next, exe: exe, fdb: noMemory}
	k.upgrade = u
	k.after(k.opts.Patience, func() {
		if k.upgrade == u && u.standby == 0 {
			k.giveUp(fmt.Sprintf("the new worker didn't come to standby in %v", k.opts.Patience))
		}
	})
	return nil
}

// hand has the running worker quiesce in favour of the one that stands by.
func (k *keeper) hand(u *upgrade, standby uint64) {
	u.standby = standby
	old := k.cur
	k.answer(old, reply{ID: u.id})
	k.after(k.opts.Patience, func() {
		if k.alive[old] {
			k.log.Error("worker doesn't quiesce, killing it", "generation", old.generation)
			old.kill()
		}
	})
}

// promote makes the worker that stands by the running one. Its predecessor is
// dead, so nobody else touches a frame or the FDB.
func (k *keeper) promote() {
	u := k.upgrade
	k.upgrade, k.cur = nil, u.next
	closeAll([]int{k.exe})
	k.exe = u.exe
	if u.fdb != noMemory {
		k.fdb.close()
		k.fdb = u.fdb
	}
	k.log.Info("worker took over", "generation", k.cur.generation)
	k.answer(k.cur, reply{ID: u.standby}, u.forNext()...)
	closeAll(u.keys)
}

// giveUp ends an upgrade. In its first phase the running worker is told why and
// goes on; in the second it is about to end and a fresh one will follow.
func (k *keeper) giveUp(why string) {
	u := k.upgrade
	k.upgrade = nil
	k.log.Error("upgrade given up", "why", why)
	if u.standby == 0 && k.cur != nil {
		k.answer(k.cur, reply{ID: u.id, Error: &Error{
			Code: CodeFailed, Msg: clip(why) + "; the running worker goes on", Hint: "the log has what the new worker printed",
		}})
	}
	u.next.kill()
	u.close()
}

// close lets go of what an upgrade holds that comes to nothing.
func (u *upgrade) close() {
	u.fdb.close()
	closeAll([]int{u.exe})
	closeAll(u.keys)
}
