package record_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/capture"
	"github.com/tapestry-net/tapestry/capture/record"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// stream is a pcapng of ten packets, before one of which some were lost.
func stream(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := capture.NewWriter(&b, "tapestry test", "")
	id, err := w.Interface(capture.Interface{Name: "h128/c1"})
	for i, n := range []int{60, 61, 62, 1500, 1500, 7000, 7000, 7000, 7000, 7000} {
		p := &capture.Packet{Time: time.Unix(1700000000, int64(i)), Data: make([]byte, n), Len: n, Direction: capture.In, Decision: "drop storm"}
		err = errors.Join(err, w.Packet(id, p, uint64(i/9)*5))
	}
	if err := errors.Join(err, w.Stats(id, 10, 5, time.Unix(1700000000, 0))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestFiles(t *testing.T) {
	octets := stream(t)
	dir := t.TempDir()
	now := time.Unix(0, 0)
	path := filepath.Join(dir, "f.pcapng")
	f, err := record.Create(path, record.Rotation{Size: 5000, Every: time.Hour}, func() time.Time { return now }, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Octet by octet: blocks come in pieces. The clock passes an hour in between.
	for i := range octets {
		if i == 900 {
			now = now.Add(2 * time.Hour)
		}
		if _, err := f.Write(octets[i : i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if f.Packets() != 10 || f.Lost() == 0 {
		t.Errorf("counted %d packets, %d lost", f.Packets(), f.Lost())
	}
	files, _ := filepath.Glob(filepath.Join(dir, "f_*.pcapng"))
	if len(files) != f.Count() || len(files) < 3 {
		t.Fatalf("files %v, count %d", files, f.Count())
	}
	n := 0
	for i, name := range files {
		if st, _ := os.Stat(name); st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, st.Mode())
		}
		got := switchtest.TShark(t, name, "frame.interface_name")
		n += len(got)
		if i == 0 && (len(got) == 0 || got[0] != "h128/c1") {
			t.Errorf("first file: %q", got)
		}
	}
	if n != 10 {
		t.Errorf("all files have %d packets, want 10", n)
	}
}

// TestFilesKeep: the newest files stay, and no other than those of this capture
// are removed.
func TestFilesKeep(t *testing.T) {
	octets, dir := stream(t), t.TempDir()
	other := filepath.Join(dir, "f_0000.pcapng")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := record.Create(filepath.Join(dir, "f.pcapng"), record.Rotation{Size: 300, Keep: 2}, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(octets); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	if want := []string{other, f.First(), f.Name()}; !slices.Equal(files, want) || f.Count() != 2 || f.Removed() < 2 {
		t.Errorf("files %q, count %d, removed %d; want %q", files, f.Count(), f.Removed(), want)
	}
	for _, name := range files[1:] {
		if got := switchtest.TShark(t, name, "frame.interface_name"); len(got) == 0 {
			t.Errorf("%s has no packet", name)
		}
	}
}

// TestCreate: packets go to no file that was there for something else, nor where
// a link leads.
func TestCreate(t *testing.T) {
	octets, dir := stream(t), t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, mode os.FileMode, text string) string {
		t.Helper()
		if err := errors.Join(os.WriteFile(in(name), []byte(text), mode), os.Chmod(in(name), mode)); err != nil {
			t.Fatal(err)
		}
		return in(name)
	}
	notes, old := write("notes", 0o644, "dear diary"), write("old.pcapng", 0o644, string(octets))
	reader, err := os.Open(old)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := errors.Join(os.Symlink(old, in("link")), os.Symlink(in("nothing"), in("dangling")), unix.Mkfifo(in("fifo"), 0o600),
		os.Symlink(in("fifo"), in("to-fifo"))); err != nil {
		t.Fatal(err)
	}
	fifo, err := os.OpenFile(in("fifo"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer fifo.Close()
	for name, want := range map[string]error{
		notes: record.ErrNoCapture, in("link"): record.ErrLink, in("dangling"): record.ErrLink, dir: unix.EISDIR,
		in("fifo"): nil, in("to-fifo"): nil, old: nil, write("empty", 0o644, ""): nil, write("old.pcap", 0o644, "\xd4\xc3\xb2\xa1"): nil,
	} {
		f, err := record.Create(name, record.Rotation{}, time.Now, nil)
		if !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
		if err == nil {
			if !strings.HasSuffix(name, "fifo") {
				_, _ = f.Write(octets)
			}
			_ = f.Close()
		}
		if st, err := os.Stat(name); want == nil && err == nil && st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, st.Mode())
		}
	}
	if b, _ := os.ReadFile(notes); string(b) != "dear diary" {
		t.Errorf("the diary is %q", b)
	}
	if _, err := os.Stat(in("nothing")); err == nil {
		t.Error("a file was made where a link leads")
	}
	if b, _ := io.ReadAll(reader); !bytes.Equal(b, octets) {
		t.Error("who had the former file open reads the new packets")
	}
}

// TestPipeUnread: a capture that is to end waits no longer for the reader of a
// pipe, and counts what the reader has left.
func TestPipeUnread(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	fifo, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer fifo.Close()
	if _, err := unix.FcntlInt(fifo.Fd(), unix.F_SETPIPE_SZ, 16384); err != nil {
		t.Fatal(err)
	}
	quit := make(chan struct{})
	close(quit)
	f, err := record.Create(path, record.Rotation{}, time.Now, quit)
	if err != nil {
		t.Fatal(err)
	}
	octets := stream(t)
	if n, err := f.Write(octets); n != len(octets) || err != nil {
		t.Errorf("wrote %d of %d: %v", n, len(octets), err)
	}
	whole, err := record.Create(filepath.Join(t.TempDir(), "f"), record.Rotation{}, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = whole.Write(octets)
	if f.Packets() == 0 || f.Packets() == whole.Packets() || f.Packets()+f.Lost() != whole.Packets()+whole.Lost() {
		t.Errorf("%d packets and %d lost, want %d in all and some lost", f.Packets(), f.Lost(), whole.Packets()+whole.Lost())
	}
	_, _ = f.Close(), whole.Close()
}

// TestFullDiskRotates: a file that can't even begin is none.
func TestFullDiskRotates(t *testing.T) {
	dir := tiny(t)
	f, err := record.Create(filepath.Join(dir, "f.pcapng"), record.Rotation{Size: 4096}, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	octets := stream(t)
	for err == nil {
		f.Resync()
		_, err = f.Write(octets)
	}
	if !errors.Is(err, unix.ENOSPC) || !f.Broken() {
		t.Errorf("got %v, want no space left", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(files) != f.Count() || f.Name() != files[len(files)-1] {
		t.Errorf("it says %d files up to %s; there are %q", f.Count(), f.Name(), files)
	}
	for _, name := range files {
		if got := switchtest.TShark(t, name, "frame.len"); len(got) == 0 {
			t.Errorf("%s is empty", name)
		}
	}
	if len(files) < 2 {
		t.Errorf("files %q, want several", files)
	}
}

// TestFilesThatCannotBegin: a file that could not be begun is none of the capture's.
func TestFilesThatCannotBegin(t *testing.T) {
	octets := stream(t)
	for name, hinder := range map[string]func(dir string) error{
		"another's": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "f_00002.pcapng"), []byte("dear diary"), 0o600)
		},
		"no room": func(dir string) error {
			if err := os.WriteFile(filepath.Join(dir, "rest"), make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
				return fmt.Errorf("fill the disk: got %w", err)
			}
			return nil
		},
	} {
		dir := tiny(t)
		f, err := record.Create(filepath.Join(dir, "f.pcapng"), record.Rotation{Size: 400}, time.Now, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(octets[:400]); err != nil { // the first packet, and a part of the next
			t.Fatal(err)
		}
		if err := hinder(dir); err != nil {
			t.Fatal(err)
		}
		if _, err = f.Write(octets[400:]); err == nil {
			t.Fatalf("%s: the second file was begun", name)
		}
		if err := f.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		files, _ := filepath.Glob(filepath.Join(dir, "f_*"))
		if f.Count() != 1 || f.Name() != f.First() || f.Name() != files[0] || f.Packets() == 0 {
			t.Errorf("%s: it says %d packets in %d files up to %s; there are %q", name, f.Packets(), f.Count(), f.Name(), files)
		}
		if got := switchtest.TShark(t, f.First(), "frame.len"); len(got) != int(f.Packets()) {
			t.Errorf("%s: %d packets can be read, %d were written", name, len(got), f.Packets())
		}
	}
}

func TestFilesRefuseNonsense(t *testing.T) {
	f, err := record.Create(filepath.Join(t.TempDir(), "f"), record.Rotation{}, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write([]byte("GET / HTTP/1.1\r\n")); err == nil {
		t.Error("a stream that is no pcapng was written")
	}
	if _, err := record.Create(filepath.Join(t.TempDir(), "no", "f"), record.Rotation{}, time.Now, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing folder: got %v", err)
	}
}

// tiny is a file system of 32 KiB.
func tiny(t *testing.T) string {
	t.Helper()
	netnstest.Require(t, "root")
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=32k"); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// TestFullDisk writes to a file system of 32 KiB: an error says so, and what is
// there is a valid file.
func TestFullDisk(t *testing.T) {
	dir := tiny(t)
	path := filepath.Join(dir, "f.pcapng")
	f, err := record.Create(path, record.Rotation{}, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(f, bytes.NewReader(stream(t)))
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want no space left on %s", err, path)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if got := switchtest.TShark(t, path, "frame.len"); len(got) != int(f.Packets()) {
		t.Errorf("%d packets can be read, %d were written", len(got), f.Packets())
	}
}

func FuzzFiles(f *testing.F) {
	f.Add([]byte{0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0})
	f.Add([]byte{5, 0, 0, 0, 28, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 5, 0, 8, 0, 1, 0, 0, 0})
	f.Add([]byte{5, 0, 0, 0, 12, 0, 0, 0, 12, 0, 0, 0})
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		files, err := record.Create(filepath.Join(dir, "f"), record.Rotation{Size: 200}, time.Now, nil)
		if err != nil {
			t.Fatal(err)
		}
		for len(b) > 0 {
			n := min(len(b), 7)
			if _, err := files.Write(b[:n]); err != nil {
				break
			}
			b = b[n:]
		}
		_ = files.Close()
	})
}
