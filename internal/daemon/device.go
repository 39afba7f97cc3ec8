package daemon

import (
	"errors"
	"fmt"
	"net"
)

var errDeviceDown = errors.New("is set down")

// interfaces are those of the daemon's namespace by name, as of one moment.
type interfaces map[string]net.Interface

func listInterfaces() (interfaces, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	m := make(interfaces, len(all))
	for _, i := range all {
		m[i.Name] = i
	}
	return m, nil
}

// device tells whether an existing interface is still the one that was opened,
// and up.
func (m interfaces) device(name string, index int) error {
	i, ok := m[name]
	switch {
	case !ok:
		return fmt.Errorf("interface %s has gone", name)
	case i.Index != index:
		return fmt.Errorf("interface %s is another one now (ifindex %d, was %d)", name, i.Index, index)
	case i.Flags&net.FlagUp == 0:
		return fmt.Errorf("interface %s %w", name, errDeviceDown)
	}
	return nil
}
