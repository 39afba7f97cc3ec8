package keeper

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// memory is a memfd that outlives every worker.
type memory struct {
	fd   int
	size int64 // octets
}

var noMemory = memory{fd: -1}

// maxMemory bounds a memory in octets: 1 GiB, thirty times the largest FDB that
// the switch is measured with.
const maxMemory = 1 << 30

// newMemory makes zeroed memory that nobody can resize, so that a mapping of it
// can't be pulled away.
func newMemory(size int64) (memory, error) {
	fd, err := unix.MemfdCreate("tapestry-fdb", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return noMemory, fmt.Errorf("make fdb memory: %w", err)
	}
	if err = unix.Ftruncate(fd, size); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err != nil {
		closeAll([]int{fd})
		return noMemory, fmt.Errorf("make fdb memory of %d octets: %w", size, err)
	}
	return memory{fd: fd, size: size}, nil
}

func (m *memory) close() {
	if m.fd >= 0 {
		closeAll([]int{m.fd})
	}
	*m = noMemory
}
