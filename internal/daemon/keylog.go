package daemon

import (
	"slices"
	"sync"
)

// maxKeyLog bounds in octets what a capture that is slow has not taken yet. A
// handshake's line has 181.
const maxKeyLog = 1 << 20

// keyLogs hands the secrets of encrypted links to the captures that were allowed
// to have them. They are in memory only as long as one runs.
type keyLogs struct {
	mu      sync.Mutex
	readers []*keyReader
}

// keyReader is what one capture has not taken yet.
type keyReader struct {
	mu    sync.Mutex
	lines []byte
}

// Write implements io.Writer. It never blocks for long, nor fails.
func (k *keyLogs) Write(b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.readers {
		r.mu.Lock()
		if len(r.lines)+len(b) <= maxKeyLog {
			r.lines = append(r.lines, b...)
		}
		r.mu.Unlock()
	}
	return len(b), nil
}

// take returns what is new.
func (r *keyReader) take() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.lines
	r.lines = nil
	return lines
}

func (k *keyLogs) join() *keyReader {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := &keyReader{}
	k.readers = append(k.readers, r)
	return r
}

func (k *keyLogs) leave(r *keyReader) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.readers = slices.DeleteFunc(k.readers, func(o *keyReader) bool { return o == r })
	clear(r.take())
}

// read reports whether anybody reads.
func (k *keyLogs) read() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.readers) > 0
}

// logKeys makes the links' secrets come to those who read, if there are any.
func (d *Daemon) logKeys() {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.vtep == nil:
	case d.keys.read():
		d.vtep.KeyLog(&d.keys)
	default:
		d.vtep.KeyLog(nil)
	}
}
