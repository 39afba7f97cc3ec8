package daemon

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/tunnel/dtls"
)

// maxCredential bounds one file of keys or certificates in octets.
const maxCredential = 1 << 20

// credentials are those of encrypted links as they were read last.
type credentials struct {
	*dtls.Credentials
	digest [5][sha256.Size]byte // of each file
	list   stamp                // of the revocation lists' file
}

// same reports whether both were read from the same octets.
func (c *credentials) same(o *credentials) bool {
	if c == nil || o == nil {
		return c == o
	}
	return c.digest == o.digest
}

// readCredentials reads the files that c names; nil when it has no encrypted
// links. The worker reads them as the user that it runs as.
func readCredentials(c *config.Config) (*credentials, error) {
	if c.Tunnel == nil || c.Tunnel.DTLS == nil {
		return nil, nil
	}
	t := c.Tunnel.DTLS
	out := new(credentials)
	var files [5][]byte
	for i, f := range []struct {
		field, path string
		secret      bool
	}{{"cert", t.Cert, false}, {"key", t.Key, true}, {"ca", t.CA, false}, {"crl", t.CRL, false}, {"psk_file", t.PSKFile, true}} {
		if f.path == "" {
			continue
		}
		b, at, err := readCredential(f.path, f.secret)
		if err != nil {
			return nil, credentialError(f.field, err, f.path)
		}
		files[i], out.digest[i] = b, sha256.Sum256(b)
		if i == listFile {
			out.list = at
		}
	}
	var err error
	if t.PSKFile != "" {
		out.Credentials, err = dtls.SharedKey(files[4])
	} else {
		out.Credentials, err = dtls.Certificates(files[0], files[1], files[2], files[listFile])
	}
	if err != nil {
		return nil, &api.Error{Code: api.CodeInvalid, Msg: fmt.Sprintf("tunnel.dtls: %v", err)}
	}
	return out, nil
}

// listFile is the place of the revocation lists among the files.
const listFile = 3

// stamp tells a file that was changed or replaced from the one before.
type stamp struct {
	dev, ino      uint64
	size          int64
	mtime, change unix.Timespec
}

func stampOf(st *unix.Stat_t) stamp { return stamp{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim} }

var errReadable = errors.New("others can read it")

// readCredential reads a regular file. A secret must be this user's or root's, and
// for nobody else to read.
func readCredential(path string, secret bool) (b []byte, at stamp, err error) {
	if !filepath.IsAbs(path) {
		return nil, at, errors.New("want an absolute path, or one beside a file that is applied")
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, at, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, at, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxCredential {
		return nil, at, fmt.Errorf("want a regular file of at most %d octets", maxCredential)
	}
	if secret && (st.Mode&0o077 != 0 || st.Uid != 0 && int(st.Uid) != os.Geteuid()) {
		return nil, at, errReadable
	}
	b, err = io.ReadAll(io.LimitReader(f, maxCredential))
	return b, stampOf(&st), err
}

func credentialError(field string, err error, path string) error {
	e := &api.Error{Code: api.CodeInvalid, Msg: fmt.Sprintf("tunnel.dtls.%s: read %q: %v", field, path, err)}
	switch {
	case errors.Is(err, errReadable):
		e.Hint = fmt.Sprintf("chmod 600 %q, and chown it to the user that runs the switch; if somebody may have read it, make a new one", path)
	case errors.Is(err, fs.ErrNotExist):
		e.Hint = "a relative path is beside the configuration file"
	}
	return e
}
