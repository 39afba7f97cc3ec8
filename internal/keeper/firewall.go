package keeper

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/nftrace"
	"golang.org/x/sys/unix"
)

// FirewallRequest asks to be told what the firewall of a place does with a
// probe; see package nftrace.
type FirewallRequest struct {
	Place
	Probe nftrace.Probe `json:"probe"`
}

// RuleRequest asks for a rule of the firewall of a place.
type RuleRequest struct {
	Place
	At nftrace.At `json:"at"`
}

// firewallReply is what travels beside the socket.
type firewallReply struct {
	Table  string   `json:"table"`
	Legacy []string `json:"legacy,omitempty"`
}

// ruleReply is a rule that the worker puts into words.
type ruleReply struct {
	Raw  nftrace.Raw `json:"raw"`
	Hint string      `json:"hint"`
}

func (r *FirewallRequest) validate() error {
	if err := validateEnds("trace firewall", r.Probe.Src, r.Probe.Dst); err != nil {
		return err
	}
	want := uint8(unix.IPPROTO_ICMP)
	if r.Probe.Src.Is6() {
		want = unix.IPPROTO_ICMPV6
	}
	switch r.Probe.Protocol {
	case want, unix.IPPROTO_TCP, unix.IPPROTO_UDP:
	default:
		return invalid("trace firewall: protocol %d: want %d (ICMP of the addresses' family), 6 or 17", r.Probe.Protocol, want)
	}
	return r.Place.validate("trace firewall")
}

// maxObject bounds the name of a table or chain in octets (NFT_NAME_MAXLEN).
const maxObject = 255

func (r *RuleRequest) validate() error {
	for _, n := range []string{r.At.Table, r.At.Chain} {
		if n == "" || len(n) > maxObject || strings.ContainsRune(n, 0) {
			return invalid("firewall rule: table or chain %.80q: want 1 to %d octets", n, maxObject)
		}
	}
	return r.Place.validate("firewall rule")
}

func (k *keeper) firewall(r *FirewallRequest) (reply, []int, error) {
	if r == nil {
		return reply{}, nil, invalid("trace firewall: no probe given")
	}
	if err := r.validate(); err != nil {
		return reply{}, nil, err
	}
	var f firewallReply
	rep, fds, err := k.pass(r.Place, func() (fd int, err error) {
		fd, f.Table, err = nftrace.Open(r.Probe)
		f.Legacy = nftrace.Legacy()
		return fd, err
	})
	if errors.Is(err, errors.ErrUnsupported) {
		err = &Error{Code: CodeFailed, Msg: err.Error(), Hint: "uname -r; modprobe nf_tables"}
	}
	rep.Firewall = &f
	return rep, fds, err
}

func (k *keeper) rule(r *RuleRequest) (reply, []int, error) {
	if r == nil {
		return reply{}, nil, invalid("firewall rule: none given")
	}
	if err := r.validate(); err != nil {
		return reply{}, nil, err
	}
	a := ruleReply{Hint: fmt.Sprintf("%snft -a list chain %v %s %s", k.enter(r.Place), r.At.Family, link.Word(r.At.Table), link.Word(r.At.Chain))}
	err := k.inside(r.Place, func() (err error) {
		a.Raw, err = nftrace.Fetch(r.At)
		return err
	})
	return reply{Rule: &a}, nil, err
}

// Firewall follows a probe and its answer through the firewall of a place, from
// now until the Listener is closed: the caller sends the probe afterwards.
// legacy names tables of iptables-legacy there, whose rules can't be followed.
func (c *Client) Firewall(r FirewallRequest) (l *nftrace.Listener, legacy []string, err error) {
	a, err := c.call(request{Op: opFirewall, Firewall: &r}, 1)
	if err != nil {
		return nil, nil, err
	}
	if a.Firewall == nil {
		closeAll(a.fds)
		return nil, nil, errShort
	}
	if l, err = nftrace.New(a.fds[0], a.Firewall.Table, r.Probe); err != nil {
		closeAll(a.fds)
		return nil, nil, err
	}
	return l, a.Firewall.Legacy, nil
}

// Rule puts the rule or the policy of a step into words. hint is the command
// that shows it among its neighbours, to be run in the daemon's namespace. The
// code of a refusal is CodeNotFound when it has gone.
func (c *Client) Rule(r RuleRequest) (rule nftrace.Rule, hint string, err error) {
	a, err := c.call(request{Op: opRule, Rule: &r}, 0)
	if err != nil {
		return nftrace.Rule{}, "", err
	}
	if a.Rule == nil {
		return nftrace.Rule{}, "", errShort
	}
	return nftrace.Describe(a.Rule.Raw), a.Rule.Hint, nil
}
