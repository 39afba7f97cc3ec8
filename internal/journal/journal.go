package journal

import (
	"cmp"
	"encoding/json"
	"slices"
	"sync"
	"time"
)

// Bounds, drawn in the package comment.
const (
	lineLen   = 64
	totalLen  = 4096
	maxRecord = 4096
	maxFile   = 512 << 10
	queueLen  = 1024 // records that may wait for the disk
)

// Record is one thing that happened.
type Record struct {
	Time    time.Time      `json:"time"`
	Kind    string         `json:"kind"`
	What    string         `json:"what"` // one sentence
	Port    string         `json:"port,omitempty"`
	Peer    string         `json:"peer,omitempty"`
	Network string         `json:"network,omitempty"`
	MAC     string         `json:"mac,omitempty"`
	Fields  map[string]any `json:"fields,omitempty"`
}

// subject is what a record is about.
type subject struct{ kind, port, peer string }

func (r *Record) subject() subject { return subject{r.Kind, r.Port, r.Peer} }

// entry is a record in its place among all others.
type entry struct {
	order uint64
	Record
}

// Journal is what is remembered.
type Journal struct {
	files *files
	disk  chan []byte // nil without files
	ended sync.WaitGroup

	mu     sync.Mutex
	lines  map[subject][]entry
	total  int
	order  uint64
	closed bool
	missed uint64 // records that never reached the disk
}

// Open reads what the process before has written into the directory dirfd, and
// goes on writing there. dirfd stays the caller's. failed is told, from another
// goroutine, of the first record of a series that can't be written.
func Open(dirfd int, failed func(error)) *Journal {
	j := &Journal{lines: map[subject][]entry{}, files: &files{dir: dirfd, fd: -1, failed: failed}, disk: make(chan []byte, queueLen)}
	for _, name := range []string{oldName, curName} {
		for r := range readRecords(dirfd, name) {
			j.keep(r)
		}
	}
	j.ended.Go(func() {
		defer j.files.close()
		for b := range j.disk {
			j.files.write(b)
		}
	})
	return j
}

// Append remembers r. A record that is too long loses its Fields, then the end
// of What.
func (j *Journal) Append(r Record) {
	b := encode(&r)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.keep(r)
	if j.closed {
		return
	}
	select {
	case j.disk <- b:
	default:
		j.missed++
	}
}

// encode is r as a line of the file, and cuts what is too long of it.
func encode(r *Record) []byte {
	b, err := json.Marshal(r)
	if err != nil || len(b) > maxRecord {
		r.Fields = nil
		r.What = clip(r.What, maxRecord/16) // each octet may become six
		for _, s := range []*string{&r.Kind, &r.Network, &r.MAC, &r.Port, &r.Peer} {
			*s = clip(*s, maxRecord/64)
		}
		b, _ = json.Marshal(r) // strings and a time always encode
	}
	return append(b, '\n')
}

func clip(s string, n int) string { return s[:min(len(s), n)] }

// keep puts r at the end of its line. The caller holds mu, or nobody else knows
// j yet.
func (j *Journal) keep(r Record) {
	j.order++
	s := r.subject()
	line := append(j.lines[s], entry{j.order, r})
	j.total++
	if len(line) > lineLen {
		line = slices.Delete(line, 0, 1)
		j.total--
	}
	j.lines[s] = line
	if j.total > totalLen {
		j.forget()
	}
}

// forget removes the oldest record of the longest line; of several, of the one
// that has been silent for longest.
func (j *Journal) forget() {
	var worst subject
	var line []entry
	for s, l := range j.lines {
		if len(l) > len(line) || len(l) == len(line) && l[len(l)-1].order < line[len(line)-1].order {
			worst, line = s, l
		}
	}
	if j.lines[worst] = slices.Delete(line, 0, 1); len(line) == 1 {
		delete(j.lines, worst)
	}
	j.total--
}

// Filter selects records; zero fields match all.
type Filter struct {
	Kinds []string
	Port  string
	Peer  string
	Since time.Time
	Limit int // the newest so many
}

// match reports whether f selects r. A record about no port and no peer is
// about all of them.
func (f *Filter) match(r *Record) bool {
	whole := r.Port == "" && r.Peer == ""
	return (len(f.Kinds) == 0 || slices.Contains(f.Kinds, r.Kind)) &&
		(f.Port == "" || f.Port == r.Port || whole) &&
		(f.Peer == "" || f.Peer == r.Peer || whole) &&
		(f.Since.IsZero() || !r.Time.Before(f.Since))
}

// Select returns the records that f selects, oldest first. Their Fields are
// shared: nobody writes into them.
func (j *Journal) Select(f Filter) []Record {
	j.mu.Lock()
	var found []entry
	for _, line := range j.lines {
		for i := range line {
			if f.match(&line[i].Record) {
				found = append(found, line[i])
			}
		}
	}
	j.mu.Unlock()
	slices.SortFunc(found, func(a, b entry) int { return cmp.Compare(a.order, b.order) })
	if f.Limit > 0 {
		found = found[max(0, len(found)-f.Limit):]
	}
	out := make([]Record, len(found))
	for i := range found {
		out[i] = found[i].Record
	}
	return out
}

// Missed is how many records never reached the disk because it was too slow.
func (j *Journal) Missed() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.missed
}

// Close writes what still waits, and lets go of the files. It is idempotent;
// what is appended afterwards stays in memory.
func (j *Journal) Close() {
	j.mu.Lock()
	if !j.closed {
		j.closed = true
		close(j.disk)
	}
	j.mu.Unlock()
	j.ended.Wait()
}
