package daemon

import (
	"errors"
	"fmt"
	"net"
)

var errDeviceDown = errors.New("is set down")

// hasCarrier tells whether both ends of a veth are up; the error is that it is
// gone.
func hasCarrier(name string) (bool, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return false, fmt.Errorf("interface %s has gone", name)
	}
	return i.Flags&net.FlagRunning != 0, nil
}

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
