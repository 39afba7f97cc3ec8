package daemon

import (
	"errors"
	"fmt"
	"net"
)

var errDeviceDown = errors.New("is set down")

// deviceState tells whether an existing interface is still the one that was
// opened, and up.
func deviceState(name string, index int) error {
	i, err := net.InterfaceByName(name)
	switch {
	case err != nil:
		return fmt.Errorf("interface %s has gone", name)
	case i.Index != index:
		return fmt.Errorf("interface %s is another one now (ifindex %d, was %d)", name, i.Index, index)
	case i.Flags&net.FlagUp == 0:
		return fmt.Errorf("interface %s %w", name, errDeviceDown)
	}
	return nil
}
