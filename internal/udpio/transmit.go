package udpio

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attempts is how often a message is offered to the kernel. All but the last
// may have been answered with an error of an earlier datagram.
const attempts = 3

// send sends all runs, those of one socket together, and empties the Sender.
// The order of what leaves by one socket is kept; between sockets there is none.
func (s *Sender) send() {
	for i := range s.runs {
		if s.runs[i].sent {
			continue
		}
		sock := s.runs[i].sock
		n := 0
		for j := i; j < len(s.runs); j++ {
			if r := &s.runs[j]; r.sock == sock {
				r.sent = true
				s.runOf[n] = j
				s.compose(n, r.dest, r.tos, s.pieces(n, r), r.segment())
				n++
			}
		}
		s.sendRuns(sock, n)
	}
	clear(s.iov[:s.iovs]) // drop references
	s.datagrams, s.runs, s.iovs, s.arena = s.datagrams[:0], s.runs[:0], 0, 0
}

// pieces are those of the run that is to be message i.
func (s *Sender) pieces(i int, r *run) []unix.Iovec {
	if r.flat {
		s.flat[i].Base = &s.memory[r.at]
		s.flat[i].SetLen(r.octets)
		return s.flat[i : i+1]
	}
	first := s.datagrams[r.first].iov
	return s.iov[first : first+r.iovs]
}

// segment is the size that the kernel is to cut at; 0 = not at all.
func (r *run) segment() int {
	if r.count == 1 {
		return 0
	}
	return r.size
}

// compose fills message i.
func (s *Sender) compose(i int, d *Dest, tos uint8, iov []unix.Iovec, segment int) {
	h := &s.messages[i].hdr
	h.Name, h.Namelen = d.name(), d.rawLen
	h.Iov = unsafe.SliceData(iov) // of an empty datagram there are none
	h.SetIovlen(len(iov))
	c, n := s.control[i][:], 0
	if segment > 0 {
		n += putControl(c, unix.SOL_UDP, unix.UDP_SEGMENT, uint32(segment), 2)
	}
	switch {
	case tos == 0: // the socket's own
	case d.IPv6():
		n += putControl(c[n:], unix.SOL_IPV6, unix.IPV6_TCLASS, uint32(tos), 4)
	default:
		n += putControl(c[n:], unix.SOL_IP, unix.IP_TOS, uint32(tos), 4)
	}
	h.Control = nil
	if n > 0 {
		h.Control = &c[0]
	}
	h.SetControllen(n)
}

// sendRuns sends the first n messages, which are the runs of runOf.
func (s *Sender) sendRuns(sock *Socket, n int) {
	for i := 0; i < n; {
		done, errno := sendmmsg(sock.fd, s.messages[i:n])
		if i += done; errno == 0 {
			continue
		}
		r := &s.runs[s.runOf[i]]
		if errno == unix.EAGAIN {
			// The socket is full: so it is for the others too.
			for ; i < n; i++ {
				s.failRun(&s.runs[s.runOf[i]], errno)
			}
			return
		}
		if r.count > 1 && (errno == unix.EIO || errno == unix.EINVAL || errno == unix.EMSGSIZE) {
			s.sendPlain(r, errno, i)
		} else {
			s.failRun(r, errno)
		}
		i++
	}
}

// sendPlain sends a run that the kernel did not want to cut as single datagrams.
// EMSGSIZE: each is larger than the egress takes, except perhaps the last.
// EIO, EINVAL: the egress can't complete the checksum (or, on older kernels,
// the size again); if the first one leaves by itself then that was it, and
// UDP_SEGMENT is not tried again on the way to this Dest. Message free is the
// run's own, no longer needed.
func (s *Sender) sendPlain(r *run, why syscall.Errno, free int) {
	for k := range r.count {
		d := &s.datagrams[r.first+k]
		s.compose(free, r.dest, r.tos, s.iov[d.iov:d.iov+d.iovs], 0)
		_, errno := sendmmsg(r.sock.fd, s.messages[free:free+1])
		if errno != 0 {
			s.fail(d.tag, errno)
		} else if k == 0 && why != unix.EMSGSIZE {
			r.dest.refused.Store(true)
		}
	}
}

func (s *Sender) failRun(r *run, errno syscall.Errno) {
	for k := range r.count {
		s.fail(s.datagrams[r.first+k].tag, errno)
	}
}

// sendmmsg sends as many of m as the kernel takes. With an error, message done
// is the one that failed.
func sendmmsg(fd int, m []message) (done int, errno syscall.Errno) {
	for range attempts {
		done, errno = mmsg(unix.SYS_SENDMMSG, fd, &m[0], len(m))
		if errno == 0 {
			return done, 0
		}
		if !deferred(errno) {
			return 0, errno
		}
		drainErrors(fd)
	}
	return 0, errno
}

// deferred reports whether errno may stem from an ICMP message about an earlier
// datagram: those are the errors that the kernel makes of them.
func deferred(errno syscall.Errno) bool {
	switch errno {
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENONET,
		unix.ENOPROTOOPT, unix.EOPNOTSUPP, unix.EPROTO, unix.EACCES, unix.EMSGSIZE:
		return true
	}
	return false
}

// drainErrors empties the socket's error queue, which also withdraws an error
// that still waits to be reported. Nothing is read: the next datagram tells
// what holds.
func drainErrors(fd int) {
	var msg unix.Msghdr
	for range 64 {
		_, _, errno := syscall.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if errno != 0 {
			return
		}
		msg = unix.Msghdr{}
	}
}
