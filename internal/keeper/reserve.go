package keeper

import "golang.org/x/sys/unix"

// reserveLen is more descriptors than taking a port away needs for a moment:
// two namespaces, three netlink sockets and what the runtime opens.
const reserveLen = 16

// reserve is a stock of descriptors. It is given up while a port is taken away,
// so that this works when all others are in use.
type reserve []int

// fill takes as many as are missing and can be had.
func (r *reserve) fill(fd int) {
	for len(*r) < reserveLen {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return
		}
		*r = append(*r, dup)
	}
}

func (r *reserve) giveUp() {
	closeAll(*r)
	*r = (*r)[:0]
}
