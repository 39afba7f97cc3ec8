package keeper

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// The state file as it lies on disk; everything in network octet order:
//
//	offset  octets
//	     0       8  "TAPSTATE"
//	     8       4  version, 1
//	    12       8  length n of the body
//	    20      32  SHA-256 of the body
//	    52       n  body, opaque
const (
	stateName    = "state"
	stateTemp    = "state.new"
	stateMagic   = "TAPSTATE"
	stateVersion = 1
	stateHeader  = 8 + 4 + 8 + sha256.Size
	// maxState bounds the body in octets: more than 4,094 networks and 65,535
	// ports take, and little enough to be read whole.
	maxState = 256 << 20
)

// ErrNoState is returned by LoadState when nothing has been saved yet.
var ErrNoState = errors.New("no state has been saved")

// SaveState replaces the state file in the directory dirfd by body, so that
// after a crash at any instant either the old or the new one is read back
// whole. When it returns nil the new one is on disk; after an error the old one
// is still there. One process calls it at a time.
func SaveState(dirfd int, body []byte) error {
	if len(body) > maxState {
		return fmt.Errorf("save state: %d octets are more than the limit of %d", len(body), maxState)
	}
	err := writeState(dirfd, body)
	if err == nil {
		if err = unix.Renameat(dirfd, stateTemp, dirfd, stateName); err == nil {
			err = unix.Fsync(dirfd)
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		_ = unix.Unlinkat(dirfd, stateTemp, 0) // gives the room back
		return fmt.Errorf("save state: the state directory is full, the old state is kept: %w", err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("save state: the state directory is read-only, the old state is kept: %w", err)
	}
	return fmt.Errorf("save state: %w", err)
}

func writeState(dirfd int, body []byte) error {
	fd, err := unix.Openat(dirfd, stateTemp, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("open %s: %w", stateTemp, err)
	}
	f := os.NewFile(uintptr(fd), stateTemp)
	_, err = f.Write(encodeState(body))
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func encodeState(body []byte) []byte {
	b := make([]byte, 0, stateHeader+len(body))
	b = append(b, stateMagic...)
	b = binary.BigEndian.AppendUint32(b, stateVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(len(body)))
	sum := sha256.Sum256(body)
	b = append(b, sum[:]...)
	return append(b, body...)
}

// LoadState returns the body last saved in the directory dirfd, ErrNoState when
// there is none, or a *DamagedError; it never takes a damaged file for an
// empty one.
func LoadState(dirfd int) ([]byte, error) {
	fd, err := unix.Openat(dirfd, stateName, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, ErrNoState
	}
	if err != nil {
		return nil, fmt.Errorf("load state %s: %w", statePath(dirfd), err)
	}
	f := os.NewFile(uintptr(fd), stateName)
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, stateHeader+maxState+1))
	if err != nil {
		return nil, fmt.Errorf("load state %s: %w", statePath(dirfd), err)
	}
	body, err := decodeState(b)
	if err != nil {
		return nil, &DamagedError{Path: statePath(dirfd), Why: err.Error()}
	}
	return body, nil
}

// DamagedError says that a state file is not as it was written.
type DamagedError struct {
	Path string // of the file
	Why  string
}

// Error implements error.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("state file %s is damaged: %s; move it away to start empty, or put a copy back", e.Path, e.Why)
}

func decodeState(b []byte) ([]byte, error) {
	if len(b) < stateHeader {
		return nil, fmt.Errorf("%d octets are less than its header of %d", len(b), stateHeader)
	}
	if !bytes.HasPrefix(b, []byte(stateMagic)) {
		return nil, fmt.Errorf("it doesn't begin with %s", stateMagic)
	}
	if v := binary.BigEndian.Uint32(b[8:]); v != stateVersion {
		return nil, fmt.Errorf("its version is %d, this program reads %d", v, stateVersion)
	}
	head, body := b[:stateHeader], b[stateHeader:]
	if n := binary.BigEndian.Uint64(head[12:]); n != uint64(len(body)) {
		return nil, fmt.Errorf("its body has %d octets, its header says %d", len(body), n)
	}
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], head[20:]) {
		return nil, errors.New("its checksum doesn't match")
	}
	return body, nil
}

// statePath names the file for a message.
func statePath(dirfd int) string {
	dir, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", dirfd))
	if err != nil {
		return stateName
	}
	return dir + "/" + stateName
}
