package daemon

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"
)

// This file is how the keys of encrypted links come from one worker to the next:
// in memory without a name, whose only descriptor goes by way of the keeper, which
// never looks into it. They are on no disk, and in no log, argument or environment.

// maxHanded bounds what is handed over in octets: ten thousand links and more.
const maxHanded = 64 << 20

// quiesce ends this worker's part in an upgrade. Nothing touches frames any more.
func (d *Daemon) quiesce() error {
	fd, err := d.handLinks()
	if err != nil {
		d.log.Warn("encrypted links get new keys", "err", err)
	}
	if err = d.keeper.Quiesced(fd); fd >= 0 {
		closeFD(fd)
	}
	return err
}

// handLinks ends the encrypted links and returns memory with what the next worker
// needs to go on with them, -1 if there are none.
func (d *Daemon) handLinks() (fd int, err error) {
	d.mu.Lock()
	v := d.vtep
	d.mu.Unlock()
	if v == nil {
		return -1, nil
	}
	// First of all: without memory the links end as ever, and the peers are told.
	fd, err = unix.MemfdCreate("tapestry-keys", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("make memory: %w", err)
	}
	b := v.Hand()
	defer clear(b)
	switch {
	case len(b) > maxHanded:
		err = fmt.Errorf("%d octets: more than %d", len(b), maxHanded)
	case len(b) > 0:
		if err = fill(fd, b); err == nil {
			return fd, nil
		}
	}
	closeFD(fd)
	return -1, err
}

// fill writes b to the memory fd and has it resized no more. It can still be
// zeroed.
func fill(fd int, b []byte) error {
	if err := unix.Ftruncate(fd, int64(len(b))); err != nil {
		return fmt.Errorf("size memory: %w", err)
	}
	mem, err := unix.Mmap(fd, 0, len(b), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map memory: %w", err)
	}
	copy(mem, b)
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("unmap memory: %w", err)
	}
	if _, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL); err != nil {
		return fmt.Errorf("seal memory: %w", err)
	}
	return nil
}

// takeHanded reads, zeroes and closes what the worker before has handed over, if
// it has. Its memory can't shrink: the keeper sees to that.
func takeHanded(fd int) ([]byte, error) {
	if fd < 0 {
		return nil, nil
	}
	defer closeFD(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("look at memory: %w", err)
	}
	if st.Size < 1 || st.Size > maxHanded {
		return nil, fmt.Errorf("memory of %d octets: want 1 to %d", st.Size, maxHanded)
	}
	mem, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map memory: %w", err)
	}
	b := bytes.Clone(mem)
	clear(mem)
	if err := unix.Munmap(mem); err != nil {
		return nil, fmt.Errorf("unmap memory: %w", err)
	}
	return b, nil
}
