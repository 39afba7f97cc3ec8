package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Blocks and options of draft-ietf-opsawg-pcapng section 4.
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockStats     = 5
	blockPacket    = 6
	blockSecrets   = 10
	optEnd         = 0
)

// maxBlock bounds one block of a stream: a GSO frame with its options.
const maxBlock = 1 << 20

// Rotation says when a new file is begun; zero values mean never.
type Rotation struct {
	Size  int64         // octets
	Every time.Duration // since the file's first block
	Keep  int           // how many files stay, the newest; 0 = all
}

// Files writes a pcapng stream into one file after the other, whole blocks
// only, each file complete by itself. The files can be read by their owner only.
//
// With a rotation the files are NAME_00001.EXT, NAME_00002.EXT, … Those beyond
// Rotation.Keep are removed, the oldest first.
//
// A file that is there already is replaced when it is a capture or empty, and is
// otherwise an error. A symbolic link is followed to a pipe or a device, as
// /dev/stdout is one, and never to a file.
type Files struct {
	path     string
	rotation Rotation
	now      func() time.Time

	file   *os.File
	out    io.Writer // file, or a pipe
	quit   <-chan struct{}
	left   bool   // the reader of a pipe is waited for no longer
	unread uint64 // packets that it left
	number int
	start  int64 // where in file the first block stands
	size   int64 // octets of whole blocks in file
	opened time.Time
	empty  bool   // file has no packets yet
	prefix []byte // section header, interfaces and secrets, which each file begins with
	part   []byte // of a block that has not come whole
	err    error

	packets, ended uint64            // written; lost, as far as sections that have ended say
	lost           map[uint32]uint64 // by interface of the present section
}

// Create opens the first file; "-" is the standard output. now is the clock of
// Rotation.Every. When quit is closed, the reader of a pipe is given half a second
// to take what comes; what it leaves is counted. nil = it is waited for always.
func Create(path string, r Rotation, now func() time.Time, quit <-chan struct{}) (*Files, error) {
	f := &Files{path: path, rotation: r, now: now, quit: quit, lost: map[uint32]uint64{}}
	if err := f.open(); err != nil {
		return nil, err
	}
	return f, nil
}

// Packets is how many packets were written.
func (f *Files) Packets() uint64 { return f.packets }

// Lost is how many packets the switch says it had to leave out, and the reader of
// a pipe left.
func (f *Files) Lost() uint64 {
	n := f.ended + f.unread
	for _, v := range f.lost {
		n += v
	}
	return n
}

// Name is the file that is being written.
func (f *Files) Name() string { return f.name(f.number) }

// First is the oldest file that is still there.
func (f *Files) First() string { return f.name(f.number - f.Count() + 1) }

func (f *Files) name(number int) string {
	if f.rotation.Size == 0 && f.rotation.Every == 0 {
		return f.path
	}
	ext := filepath.Ext(f.path)
	return fmt.Sprintf("%s_%05d%s", strings.TrimSuffix(f.path, ext), number, ext)
}

// Count is how many files there are.
func (f *Files) Count() int { return f.number - f.Removed() }

// Removed is how many files were removed to keep the rest.
func (f *Files) Removed() int {
	if f.rotation.Keep == 0 {
		return 0
	}
	return max(f.number-f.rotation.Keep, 0)
}

// open begins the next file.
func (f *Files) open() error {
	f.number++
	f.size, f.opened, f.empty = 0, f.now(), true
	if f.path == "-" {
		f.use(os.Stdout)
		f.start = position(os.Stdout)
		return nil
	}
	file, err := create(f.Name())
	if err != nil {
		f.number--
		return fmt.Errorf("create capture file: %w", err)
	}
	f.use(file)
	if err := f.put(f.prefix); err != nil {
		// A file without its section header would be none.
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		f.number--
		return err
	}
	if f.Removed() > 0 {
		old := f.name(f.Removed())
		if err := os.Remove(old); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the oldest capture file: %w", err)
		}
	}
	return nil
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

// Broken reports whether a Write has failed, and the next ones will.
func (f *Files) Broken() bool { return f.err != nil }

// Resync forgets a block that was cut off with its stream; another stream, with
// a section of its own, follows.
func (f *Files) Resync() { f.part = f.part[:0] }

// block writes one block, in a new file when it is time.
func (f *Files) block(b []byte) error {
	if len(f.prefix) == 0 && binary.LittleEndian.Uint32(b) != blockSection {
		return errors.New("read capture: no pcapng section header comes first")
	}
	switch kind := binary.LittleEndian.Uint32(b); kind {
	case blockSection:
		f.prefix = append(f.prefix[:0], b...)
		f.ended = f.Lost() - f.unread
		clear(f.lost)
		return f.put(b)
	case blockInterface, blockSecrets:
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
		if err := f.put(b); err != nil {
			return err
		}
		if f.left {
			f.unread++
		} else {
			f.packets++
		}
		return nil
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

// use makes file the one that is written.
func (f *Files) use(file *os.File) {
	f.file, f.out = file, file
	if isPipe(file) {
		f.out = &pipe{file, f.quit}
	}
}

func (f *Files) put(b []byte) error {
	if len(b) == 0 || f.left {
		return nil
	}
	_, err := f.out.Write(b)
	if err == nil {
		f.size += int64(len(b))
		return nil
	}
	if errors.Is(err, errUnread) {
		f.left = true
		return nil
	}
	// What is there stays a valid pcapng. A pipe can't be cut, nor needs it.
	if cut := f.file.Truncate(f.start + f.size); cut != nil && !errors.Is(cut, unix.EINVAL) {
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
