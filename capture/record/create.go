package record

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNoCapture is wrapped by the error about a file that a capture would have
// overwritten.
var ErrNoCapture = errors.New("the file is there, and is no capture")

// ErrLink is wrapped by the error about a symbolic link to a file, or to nothing.
var ErrLink = errors.New("the name is a symbolic link")

// create opens path for a capture: a new file that its owner alone can read, or
// the pipe or device that is there. Packets must get neither into a file that
// somebody has put a link to, nor into one that others can read or have open.
func create(path string) (*os.File, error) {
	const private = 0o600
	fail := func(err error) (*os.File, error) { return nil, &fs.PathError{Op: "create", Path: path, Err: err} }
	st, err := os.Stat(path)
	if err == nil && !st.Mode().IsRegular() {
		if st.IsDir() {
			return fail(unix.EISDIR)
		}
		return os.OpenFile(path, os.O_WRONLY, 0)
	}
	if link, err := os.Lstat(path); err == nil {
		if link.Mode()&fs.ModeSymlink != 0 {
			return fail(ErrLink)
		}
		if err := replaceable(path); err != nil {
			return fail(err)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, private)
}

// replaceable returns an error unless the file is empty or a pcap or pcapng.
func replaceable(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return errors.Unwrap(err)
	}
	defer f.Close()
	var head [4]byte
	n, err := f.Read(head[:])
	if n == 0 {
		return nil
	}
	if err != nil {
		return errors.Unwrap(err)
	}
	if n == len(head) {
		// Both byte orders of a pcap, with micro- and with nanoseconds.
		switch binary.LittleEndian.Uint32(head[:]) {
		case blockSection, 0xa1b2c3d4, 0xd4c3b2a1, 0xa1b23c4d, 0x4d3cb2a1:
			return nil
		}
	}
	return ErrNoCapture
}

// position is where in f the next write goes: an output that the shell has
// redirected may append.
func position(f *os.File) int64 {
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err == nil && flags&unix.O_APPEND != 0 {
		if st, err := f.Stat(); err == nil {
			return st.Size()
		}
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil { // a pipe or a terminal, which nothing can be taken back from
		return 0
	}
	return at
}
