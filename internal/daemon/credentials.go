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
	digest [sha256.Size]byte // of the files
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
	digest := sha256.New()
	read := func(field, path string, secret bool) ([]byte, error) {
		if path == "" {
			return nil, nil
		}
		b, err := readCredential(path, secret)
		if err != nil {
			return nil, credentialError(field, err, path)
		}
		fmt.Fprintf(digest, "%s %d ", field, len(b))
		digest.Write(b)
		return b, nil
	}
	var files [5][]byte
	for i, f := range []struct {
		field, path string
		secret      bool
	}{{"cert", t.Cert, false}, {"key", t.Key, true}, {"ca", t.CA, false}, {"crl", t.CRL, false}, {"psk_file", t.PSKFile, true}} {
		var err error
		if files[i], err = read(f.field, f.path, f.secret); err != nil {
			return nil, err
		}
	}
	var cred *dtls.Credentials
	var err error
	if t.PSKFile != "" {
		cred, err = dtls.SharedKey(files[4])
	} else {
		cred, err = dtls.Certificates(files[0], files[1], files[2], files[3])
	}
	if err != nil {
		return nil, &api.Error{Code: api.CodeInvalid, Msg: fmt.Sprintf("tunnel.dtls: %v", err)}
	}
	out := &credentials{Credentials: cred}
	digest.Sum(out.digest[:0])
	return out, nil
}

var errReadable = errors.New("others can read it")

// readCredential reads a regular file. A secret must be this user's or root's, and
// for nobody else to read.
func readCredential(path string, secret bool) ([]byte, error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("want an absolute path, or one beside a file that is applied")
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxCredential {
		return nil, fmt.Errorf("want a regular file of at most %d octets", maxCredential)
	}
	if secret {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return nil, err
		}
		if info.Mode().Perm()&0o077 != 0 || st.Uid != 0 && int(st.Uid) != os.Geteuid() {
			return nil, errReadable
		}
	}
	return io.ReadAll(io.LimitReader(f, maxCredential))
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
