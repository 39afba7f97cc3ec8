package pki

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxFile bounds a file in octets: an index of a hundred thousand certificates.
const maxFile = 32 << 20

// Errors that callers branch upon.
var (
	ErrExists   = errors.New("is there already") // a file or a certificate would be replaced
	ErrNotFound = errors.New("isn't there")
	ErrInvalid  = errors.New("isn't valid")       // a name or a number is none
	ErrExposed  = errors.New("is open to others") // a file or folder that others may read
)

// A Folder holds files that nobody but their owner may read. It may be used from
// any goroutine.
type Folder struct {
	root *os.Root
	path string
}

// OpenFolder opens the folder at path, and if create is set makes it, and those
// above it. One that others can read or write, or that belongs to another user,
// is refused.
func OpenFolder(path string, create bool) (*Folder, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", path, err)
	}
	if create {
		err := os.MkdirAll(filepath.Dir(abs), 0o755)
		if err == nil {
			err = os.Mkdir(abs, 0o700)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("make folder: %w", err)
		}
	}
	root, err := os.OpenRoot(abs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("folder %s %w", abs, ErrNotFound)
	} else if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	f := &Folder{root, abs}
	info, err := root.Stat(".")
	if err == nil {
		err = private(abs, info)
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return f, nil
}

// private refuses what others than this user could read or write.
func private(path string, info fs.FileInfo) error {
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s %w: its mode is %04o", path, ErrExposed, info.Mode().Perm())
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s %w: it belongs to user %d", path, ErrExposed, st.Uid)
	}
	return nil
}

// Close closes the folder; its files stay.
func (f *Folder) Close() error { return f.root.Close() }

// Path is the absolute path of the file name in the folder.
func (f *Folder) Path(name string) string { return filepath.Join(f.path, name) }

// Has reports whether there is something called name.
func (f *Folder) Has(name string) bool {
	_, err := f.root.Lstat(name)
	return err == nil
}

// Read returns a file's octets. One that others can read is refused.
func (f *Folder) Read(name string) ([]byte, error) {
	file, err := f.root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s %w", f.Path(name), ErrNotFound)
	} else if err != nil {
		return nil, fmt.Errorf("open %s: %w", f.Path(name), err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Path(name), err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: no regular file", f.Path(name))
	}
	if err := private(f.Path(name), info); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", f.Path(name), err)
	case len(b) > maxFile:
		return nil, fmt.Errorf("read %s: more than %d octets", f.Path(name), maxFile)
	}
	return b, nil
}

// Create writes a file that isn't there yet, whole or not at all; when it
// returns nil the file is on disk. If there is one, the error is ErrExists.
func (f *Folder) Create(name string, b []byte) error { return f.write(name, b, f.root.Link) }

// Replace is Create for a file that may be there.
func (f *Folder) Replace(name string, b []byte) error { return f.write(name, b, f.root.Rename) }

// write lays b down under a passing name, to which settle gives its own.
func (f *Folder) write(name string, b []byte, settle func(from, to string) error) error {
	temp := "." + name + "." + strings.ToLower(rand.Text()[:8])
	file, err := f.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", f.Path(name), err)
	}
	defer f.root.Remove(temp) // gone already if it was renamed
	_, err = file.Write(b)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = settle(temp, name)
	}
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s %w", f.Path(name), ErrExists)
	}
	if err == nil {
		err = f.sync()
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", f.Path(name), err)
	}
	return nil
}

// sync brings the folder's names to the disk.
func (f *Folder) sync() error {
	d, err := f.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Remove removes a file; one that isn't there is ErrNotFound.
func (f *Folder) Remove(name string) error {
	err := f.root.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s %w", f.Path(name), ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", f.Path(name), err)
	}
	return nil
}

// Names lists the files of the folder, sorted, without those that are being
// written.
func (f *Folder) Names() ([]string, error) {
	list, err := fs.ReadDir(f.root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", f.path, err)
	}
	var names []string
	for _, e := range list {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Lock makes the file name if it isn't there and waits until no other process,
// or other holder in this one, has it locked. The caller closes what it returns,
// which unlocks it; the end of the process does too.
func (f *Folder) Lock(name string) (io.Closer, error) {
	return f.flock(name, os.O_CREATE, syscall.LOCK_EX)
}

// Held reports whether somebody has the file name locked.
func (f *Folder) Held(name string) bool {
	l, err := f.flock(name, 0, syscall.LOCK_EX|syscall.LOCK_NB)
	if err != nil {
		return errors.Is(err, syscall.EWOULDBLOCK)
	}
	l.Close()
	return false
}

func (f *Folder) flock(name string, flag, how int) (io.Closer, error) {
	file, err := f.root.OpenFile(name, os.O_RDWR|flag|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", f.Path(name), err)
	}
	for {
		if err = syscall.Flock(int(file.Fd()), how); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Path(name), err)
	}
	return file, nil
}
