package api

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peer is the process at the other end of a connection, as the kernel saw it
// when it connected.
type peer struct {
	uid, gid uint32
	pid      int32
	groups   []uint32 // supplementary
}

// maxGroups is NGROUPS_MAX of Linux, the most that SO_PEERGROUPS reports.
const maxGroups = 65536

// peerOf asks the kernel who connected.
func peerOf(c net.Conn) (peer, error) {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return peer{}, fmt.Errorf("read peer credentials: %T is no unix socket", c)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return peer{}, fmt.Errorf("read peer credentials: %w", err)
	}
	var p peer
	var inner error
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); inner != nil {
			return
		}
		p = peer{uid: cred.Uid, gid: cred.Gid, pid: cred.Pid}
		p.groups, inner = peerGroups(fd)
	})
	if err == nil {
		err = inner
	}
	if err != nil {
		return peer{}, fmt.Errorf("read peer credentials: %w", err)
	}
	return p, nil
}

// peerGroups reads the supplementary groups of the peer. x/sys has no call for
// this option: its string form stops at the first zero octet.
func peerGroups(fd uintptr) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ENOPROTOOPT:
			return nil, nil // before Linux 4.13: the primary group has to do
		case errno != unix.ERANGE || len(groups) >= maxGroups:
			return nil, errno
		}
		groups = make([]uint32, min(int(size/4), maxGroups))
	}
}

// access says whose connections are served.
type access struct {
	uids []uint32
	gid  uint32
	file bool // the socket file was found, so gid counts
}

// accessOf reads the owner and group of the socket that l listens on.
func accessOf(l net.Listener) access {
	a := access{uids: []uint32{0, uint32(os.Geteuid())}}
	fi, err := os.Stat(l.Addr().String())
	if err != nil {
		return a
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		a.uids = append(a.uids, st.Uid)
		a.gid, a.file = st.Gid, true
	}
	return a
}

// admits reports whether p may speak.
func (a access) admits(p peer) bool {
	if slices.Contains(a.uids, p.uid) {
		return true
	}
	return a.file && (p.gid == a.gid || slices.Contains(p.groups, a.gid))
}

// LogValue implements slog.LogValuer.
func (p peer) LogValue() slog.Value {
	return slog.GroupValue(slog.Uint64("uid", uint64(p.uid)), slog.Int("pid", int(p.pid)))
}
