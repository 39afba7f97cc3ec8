package daemon

import (
	"slices"
	"testing"

	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/tunnel"
)

// TestTightened says which networks are closed on the way from one spec to
// another, and whose addresses are forgotten.
func TestTightened(t *testing.T) {
	red := tunnel.Network{VID: 10, VNI: 1, Encrypt: true}
	blue := tunnel.Network{VID: 20, VNI: 2}
	with := func(n tunnel.Network, edit func(*tunnel.Network)) tunnel.Network { edit(&n); return n }
	clear := with(red, func(n *tunnel.Network) { n.Encrypt = false })
	for _, c := range []struct {
		name         string
		was, is      []tunnel.Network
		closed, gone []frame.VID
	}{
		{"nothing", []tunnel.Network{red, blue}, []tunnel.Network{red, blue}, nil, nil},
		{"other settings", []tunnel.Network{red, blue}, []tunnel.Network{with(red, func(n *tunnel.Network) { n.MTU = 1300 }), blue}, nil, nil},
		{"one more", []tunnel.Network{blue}, []tunnel.Network{red, blue}, []frame.VID{10}, nil},
		{"one less", []tunnel.Network{red, blue}, []tunnel.Network{red}, nil, []frame.VID{20}},
		{"encryption off", []tunnel.Network{red}, []tunnel.Network{clear}, []frame.VID{10}, nil},
		{"encryption on", []tunnel.Network{clear}, []tunnel.Network{red}, []frame.VID{10}, nil},
		{"VNI", []tunnel.Network{blue}, []tunnel.Network{with(blue, func(n *tunnel.Network) { n.VNI = 3 })}, []frame.VID{20}, []frame.VID{20}},
		{"VLANs swapped", []tunnel.Network{red, blue},
			[]tunnel.Network{with(blue, func(n *tunnel.Network) { n.VID = 10 }), with(red, func(n *tunnel.Network) { n.VID = 20 })},
			[]frame.VID{10, 20}, []frame.VID{10, 20}},
		{"closed still", []tunnel.Network{with(blue, func(n *tunnel.Network) { n.Closed = true })}, []tunnel.Network{blue}, []frame.VID{20}, nil},
	} {
		whole := tunnel.Spec{Networks: c.is}
		first, gone := tightened(c.was, whole)
		var closed []frame.VID
		for i, n := range first.Networks {
			if n.Closed {
				closed = append(closed, n.VID)
			}
			if whole.Networks[i].Closed {
				t.Errorf("%s: the whole spec has changed", c.name)
			}
		}
		if !slices.Equal(closed, c.closed) || !slices.Equal(gone, c.gone) {
			t.Errorf("%s: closed %v, gone %v; want %v, %v", c.name, closed, gone, c.closed, c.gone)
		}
	}
}
