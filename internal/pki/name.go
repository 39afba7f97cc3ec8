package pki

import (
	"fmt"
	"regexp"
	"strings"
)

// namePattern is the pattern of all names in a configuration.
const namePattern = `[a-z0-9][a-z0-9._-]{0,62}`

var nameRE = regexp.MustCompile(`\A` + namePattern + `\z`)

// CheckHost says why host can't be a host's name in this folder, or nil. The
// error is ErrInvalid.
func CheckHost(host string) error {
	switch {
	case !nameRE.MatchString(host) || strings.Contains(host, ".."):
		return fmt.Errorf("host name %q %w: want %s without two dots in a row", host, ErrInvalid, namePattern)
	case host+".crt" == caFile:
		return fmt.Errorf("host name %q %w: its files would be the CA's", host, ErrInvalid)
	}
	return nil
}
