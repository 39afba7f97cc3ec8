package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxBlock bounds one block of a stream: a GSO frame with its options.
const maxBlock = 1 << 20

// Rotation says when a new file is begun; zero values mean never.
type Rotation struct {
	Size  int64         // octets
	Every time.Duration // since the file's first block
}

// Files writes a pcapng stream into one file after the other, whole blocks
// only, each file complete by itself. The files can be read by their owner only.
//
// With a rotation the files are NAME_00001.EXT, NAME_00002.EXT, …
type Files struct {
	path     string
	rotation Rotation
	now      func() time.Time

	file   *os.File
	number int
	size   int64 // octets of whole blocks in file
	opened time.Time
	empty  bool   // file has no packets yet
	prefix []byte // section header and interfaces, which each file begins with
	part   []byte // of a block that has not come whole
	err    error

	packets, ended uint64            // written; lost, as far as sections that have ended say
	lost           map[uint32]uint64 // by interface of the present section
}

// Create opens the first file; "-" is the standard output. now is the clock of
// Rotation.Every.
func Create(path string, r Rotation, now func() time.Time) (*Files, error) {
	f := &Files{path: path, rotation: r, now: now, lost: map[uint32]uint64{}}
	return f, f.open()
}

// Packets is how many packets were written, and Lost how many the switch says
// it had to leave out.
func (f *Files) Packets() uint64 { return f.packets }

// Lost is the number of packets that the stream says were lost.
func (f *Files) Lost() uint64 {
	n := f.ended
	for _, v := range f.lost {
		n += v
	}
	return n
}

// Name is the file that is being written.
func (f *Files) Name() string {
	if f.rotation == (Rotation{}) {
		return f.path
	}
	ext := filepath.Ext(f.path)
	return fmt.Sprintf("%s_%05d%s", strings.TrimSuffix(f.path, ext), f.number, ext)
}

// Count is how many files were begun.
func (f *Files) Count() int { return f.number }

func (f *Files) open() error {
	f.number++
	if f.path == "-" {
		f.file, f.opened = os.Stdout, f.now()
		return nil
	}
	file, err := os.OpenFile(f.Name(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("create capture file: %w", err)
	}
	if st, err := file.Stat(); err == nil && st.Mode().IsRegular() && st.Mode().Perm() != 0o600 {
		if err := file.Chmod(0o600); err != nil {
			file.Close()
			return fmt.Errorf("make capture file private: %w", err)
		}
	}
	f.file, f.size, f.opened, f.empty = file, 0, f.now(), true
	return f.put(f.prefix)
}

// Write takes a piece of the stream. When a file can't be written it is cut
// back to its last whole block, and every later Write fails.
func (f *Files) Write(b []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	f.part = append(f.part, b...)
	rest := f.part
	for len(rest) >= 8 {
		n := int(binary.LittleEndian.Uint32(rest[4:]))
		if n < 12 || n%4 != 0 || n > maxBlock {
			f.err = fmt.Errorf("read capture: a block of %d octets is no pcapng", n)
			return 0, f.err
		}
		if len(rest) < n {
			break
		}
		if f.err = f.block(rest[:n]); f.err != nil {
			return 0, f.err
		}
		rest = rest[n:]
	}
	f.part = append(f.part[:0], rest...)
	return len(b), nil
}

// Resync forgets a block that was cut off with its stream; another stream, with
// a section of its own, follows.
func (f *Files) Resync() { f.part = f.part[:0] }

// block writes one block, in a new file when it is time.
func (f *Files) block(b []byte) error {
	switch kind := binary.LittleEndian.Uint32(b); kind {
	case blockSection:
		f.prefix = append(f.prefix[:0], b...)
		f.ended = f.Lost()
		clear(f.lost)
		return f.put(b)
	case blockInterface:
		f.prefix = append(f.prefix, b...)
		return f.put(b)
	case blockPacket:
		r := f.rotation
		full := r.Size > 0 && f.size+int64(len(b)) > r.Size
		old := r.Every > 0 && f.now().Sub(f.opened) >= r.Every
		if !f.empty && (full || old) {
			if err := f.Close(); err != nil {
				return err
			}
			if err := f.open(); err != nil {
				return err
			}
		}
		f.empty = false
		f.packets++
	case blockStats:
		f.stats(b)
	}
	return f.put(b)
}

// stats notes what an interface statistics block says about losses.
func (f *Files) stats(b []byte) {
	const fixed, optDropped = 20, 5
	le := binary.LittleEndian
	for o := b[min(fixed, len(b)-4) : len(b)-4]; len(o) >= 4; {
		code, n := le.Uint16(o), int(le.Uint16(o[2:]))
		if code == optEnd || len(o) < 4+n {
			return
		}
		if code == optDropped && n == 8 {
			f.lost[le.Uint32(b[8:])] = le.Uint64(o[4:])
		}
		o = o[min(4+(n+3)&^3, len(o)):]
	}
}

func (f *Files) put(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	_, err := f.file.Write(b)
	if err == nil {
		f.size += int64(len(b))
		return nil
	}
	// What is there stays a valid pcapng. A pipe can't be cut, nor needs it.
	if cut := f.file.Truncate(f.size); cut != nil && !errors.Is(cut, unix.EINVAL) {
		err = errors.Join(err, cut)
	}
	return fmt.Errorf("write capture: %w", err)
}

// Close closes the file that is being written.
func (f *Files) Close() error {
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	if err != nil {
		return fmt.Errorf("close capture file: %w", err)
	}
	return nil
}
