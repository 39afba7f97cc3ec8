package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"os"

	"golang.org/x/sys/unix"
)

// Names in the directory.
const (
	curName = "journal"
	oldName = "journal.1"
)

// files is the writing end. It belongs to one goroutine.
type files struct {
	dir    int
	fd     int // of the current file; -1 = not open
	size   int
	failed func(error)
	broken bool // the last record couldn't be written, and that was told
}

// write appends one line. What fails is tried again with the next one.
func (f *files) write(line []byte) {
	err := f.ready(len(line))
	if err == nil {
		var n int
		n, err = unix.Write(f.fd, line)
		f.size += max(n, 0)
		if err == nil && n < len(line) {
			err = io.ErrShortWrite // the rest of the line is lost: it is skipped when read
			f.close()
		}
	}
	if err != nil && !f.broken && f.failed != nil {
		f.failed(fmt.Errorf("write %s: %w", curName, err))
	}
	f.broken = err != nil
}

// ready has the current file open with room for n octets.
func (f *files) ready(n int) error {
	if f.fd >= 0 && f.size+n > maxFile {
		f.close()
		if err := unix.Renameat(f.dir, curName, f.dir, oldName); err != nil {
			return err
		}
	}
	if f.fd >= 0 {
		return nil
	}
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_APPEND | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(f.dir, curName, flags, 0o600)
	if err != nil {
		return err
	}
	size, err := unix.Seek(fd, 0, unix.SEEK_END)
	if err != nil {
		unix.Close(fd)
		return err
	}
	f.fd, f.size = fd, int(size)
	var last [1]byte
	if f.size > 0 {
		if _, err := unix.Pread(fd, last[:], size-1); err == nil && last[0] != '\n' {
			// A crash has cut the last line off; ours begins on a line of its own.
			if n, err := unix.Write(fd, []byte{'\n'}); err == nil {
				f.size += n
			}
		}
	}
	if f.size+n > maxFile {
		return f.ready(n) // an earlier process filled it
	}
	return nil
}

func (f *files) close() {
	if f.fd >= 0 {
		_ = unix.Close(f.fd) // written without a buffer of our own
	}
	f.fd = -1
}

// readRecords yields the records of a file, none if it can't be read.
func readRecords(dir int, name string) iter.Seq[Record] {
	return func(yield func(Record) bool) {
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return
		}
		f := os.NewFile(uintptr(fd), name)
		defer f.Close()
		decode(io.LimitReader(f, 2*maxFile), yield)
	}
}

// decode yields the records of r, one a line. Lines that are none, or too long,
// are left out.
func decode(r io.Reader, yield func(Record) bool) {
	in := bufio.NewReaderSize(r, maxRecord+1)
	for {
		line, long, err := in.ReadLine()
		if err != nil {
			return
		}
		if long {
			for long && err == nil {
				_, long, err = in.ReadLine()
			}
			continue
		}
		var rec Record
		if json.Unmarshal(bytes.TrimSpace(line), &rec) != nil || rec.Kind == "" || rec.Time.IsZero() {
			continue
		}
		if !yield(rec) {
			return
		}
	}
}
