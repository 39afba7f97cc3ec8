package keeper

import (
	"net/netip"
	"strings"

	"github.com/tapestry-net/tapestry/internal/link"
)

// DiagnoseRequest asks what the kernel would do with a packet in a place.
type DiagnoseRequest struct {
	Place
	Flow link.Flow `json:"flow"`
}

func (r *DiagnoseRequest) validate() error {
	if r.Flow.In != "" && !ifnameOK(r.Flow.In) {
		return invalid("diagnose: interface name %.80q: want 1 to 15 printable characters without / : %% or quotes", r.Flow.In)
	}
	if err := validateEnds("diagnose", r.Flow.Src, r.Flow.Dst); err != nil {
		return err
	}
	return r.Place.validate("diagnose")
}

// validateEnds accepts two addresses of one family.
func validateEnds(what string, src, dst netip.Addr) error {
	for _, a := range []netip.Addr{src, dst} {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
			return invalid("%s: address %v: want an IPv4 or IPv6 address without zone", what, a)
		}
	}
	if src.Is4() != dst.Is4() {
		return invalid("%s: from %v to %v: want addresses of one family", what, src, dst)
	}
	return nil
}

func (k *keeper) diagnose(r *DiagnoseRequest) (reply, []int, error) {
	if r == nil {
		return reply{}, nil, invalid("diagnose: no packet given")
	}
	if err := r.validate(); err != nil {
		return reply{}, nil, err
	}
	var d link.Diagnosis
	err := k.inside(r.Place, func() (err error) {
		d, err = link.Diagnose(r.Flow)
		return err
	})
	if err != nil {
		return reply{}, nil, err
	}
	for i := range d.Findings {
		d.Findings[i].Hint = k.enter(r.Place) + d.Findings[i].Hint
	}
	return reply{Diagnosis: &d}, nil, nil
}

// enter is what stands before a command that is to run in the namespace of p.
func (k *keeper) enter(p Place) string {
	h := k.held[p.Port]
	if h == nil || h.Request.Netns == "" {
		return ""
	}
	spec := h.Request.Netns
	if pid, ok := strings.CutPrefix(spec, "pid:"); ok {
		spec = "/proc/" + pid + "/ns/net"
	}
	if strings.HasPrefix(spec, "/") {
		return "nsenter --net=" + link.Word(spec) + " "
	}
	return "ip netns exec " + link.Word(spec) + " "
}

// Diagnose says what the kernel would do with a packet in a place, without
// sending one. Each Finding's hint is a command to be run in the daemon's
// namespace. The code of a refusal is CodeNotFound when the port or the
// interface isn't there.
func (c *Client) Diagnose(r DiagnoseRequest) (link.Diagnosis, error) {
	a, err := c.call(request{Op: opDiagnose, Diagnose: &r}, 0)
	if err != nil {
		return link.Diagnosis{}, err
	}
	if a.Diagnosis == nil {
		return link.Diagnosis{}, errShort
	}
	return *a.Diagnosis, nil
}
