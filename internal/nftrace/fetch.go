package nftrace

import (
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"
)

// At is the place of a rule.
type At struct {
	Family Family `json:"family"`
	Table  string `json:"table"`
	Chain  string `json:"chain"`
	Handle uint64 `json:"handle,omitempty"` // 0 = the chain's policy
}

// Raw is a chain, and a rule of it unless it is a policy that was asked for, as
// the kernel describes them; Describe reads it.
type Raw struct {
	Chain []byte `json:"chain"`
	Rule  []byte `json:"rule,omitempty"`
}

// maxRaw bounds one description in octets; a longer one is left out.
const maxRaw = 16 << 10

// Fetch reads a rule of the calling thread's namespace. The error wraps
// fs.ErrNotExist when it has gone, and fs.ErrPermission without CAP_NET_ADMIN.
func Fetch(at At) (Raw, error) {
	fd, err := dial()
	if err != nil {
		return Raw{}, fmt.Errorf("read firewall rule: %w", err)
	}
	defer unix.Close(fd)
	var r Raw
	r.Chain, err = get(fd, unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_NEWCHAIN, at.Family,
		text(unix.NFTA_CHAIN_TABLE, at.Table), text(unix.NFTA_CHAIN_NAME, at.Chain))
	if err == nil && at.Handle != 0 {
		r.Rule, err = get(fd, unix.NFT_MSG_GETRULE, unix.NFT_MSG_NEWRULE, at.Family,
			text(unix.NFTA_RULE_TABLE, at.Table), text(unix.NFTA_RULE_CHAIN, at.Chain), attr64(unix.NFTA_RULE_HANDLE, at.Handle))
	}
	if err != nil {
		return Raw{}, fmt.Errorf("read firewall rule %s %s %s handle %d: %w", at.Family, at.Table, at.Chain, at.Handle, explainGet(err))
	}
	return r, nil
}

func explainGet(err error) error {
	if err == unix.ENOENT {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return explain(err)
}

// get asks for one object and returns its attributes.
func get(fd int, ask, answer uint16, family Family, attrs ...[]byte) (body []byte, err error) {
	b := appendMessage(nil, subsystem|ask, unix.NLM_F_REQUEST, 1, family, 0, slices.Concat(attrs...))
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("ask: %w", err)
	}
	err = await(fd, func(m message) bool {
		if m.typ != subsystem|answer {
			return false
		}
		if len(m.body) <= maxRaw {
			body = slices.Clone(m.body)
		}
		return true
	})
	return body, err
}
