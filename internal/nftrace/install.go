package nftrace

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Probe is what tells one packet and its answer from all others, whatever
// routers on its way change.
type Probe struct {
	Src      netip.Addr `json:"src"`
	Dst      netip.Addr `json:"dst"`      // of the same family
	Protocol uint8      `json:"protocol"` // of IP; ports or ID count for ICMP, ICMPv6, UDP and TCP
	SrcPort  uint16     `json:"src_port,omitempty"`
	DstPort  uint16     `json:"dst_port,omitempty"`
	ID       uint16     `json:"id,omitempty"` // of an echo request
}

// reply is the probe's answer.
func (p Probe) reply() Probe {
	p.Src, p.Dst, p.SrcPort, p.DstPort = p.Dst, p.Src, p.DstPort, p.SrcPort
	return p
}

func (p Probe) family() Family {
	if p.Src.Is4() {
		return IPv4
	}
	return IPv6
}

// field is a part of a packet that a probe determines.
type field struct {
	base   uint32 // one of unix.NFT_PAYLOAD_…_HEADER
	offset uint32
	value  []byte
}

// Octets of the headers that fields are found at (RFC 791, 8200, 792, 4443, 768, 9293).
const (
	src4, dst4, proto4   = 12, 16, 9
	src6, dst6           = 8, 24
	echo4, echoReply4    = 8, 0
	echo6, echoReply6    = 128, 129
	echoID               = 4
	srcPortAt, dstPortAt = 0, 2
)

// fields are what a packet of p, or its answer, has at which place.
func (p Probe) fields(reply bool) []field {
	icmpType := map[uint8]uint8{unix.IPPROTO_ICMP: echo4, unix.IPPROTO_ICMPV6: echo6}
	if reply {
		p = p.reply()
		icmpType = map[uint8]uint8{unix.IPPROTO_ICMP: echoReply4, unix.IPPROTO_ICMPV6: echoReply6}
	}
	src, dst := uint32(src4), uint32(dst4)
	if p.Src.Is6() {
		src, dst = src6, dst6
	}
	f := []field{
		{unix.NFT_PAYLOAD_NETWORK_HEADER, src, p.Src.AsSlice()},
		{unix.NFT_PAYLOAD_NETWORK_HEADER, dst, p.Dst.AsSlice()},
	}
	switch p.Protocol {
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		f = append(f, field{unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, []byte{icmpType[p.Protocol]}},
			field{unix.NFT_PAYLOAD_TRANSPORT_HEADER, echoID, binary.BigEndian.AppendUint16(nil, p.ID)})
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		f = append(f, field{unix.NFT_PAYLOAD_TRANSPORT_HEADER, srcPortAt, binary.BigEndian.AppendUint16(nil, p.SrcPort)},
			field{unix.NFT_PAYLOAD_TRANSPORT_HEADER, dstPortAt, binary.BigEndian.AppendUint16(nil, p.DstPort)})
	}
	return f
}

const (
	tableOwner  = 2 // NFT_TABLE_F_OWNER of linux/netfilter/nf_tables.h
	tablePrefix = "tapestry-trace-"
	// bufferSize is what a listening socket may hold of what was reported and
	// not yet read, in octets: some 500 reports.
	bufferSize = 1 << 20
)

// Open makes a table of the calling thread's namespace that marks packets of p
// and their answers, and returns the socket by which the kernel reports what
// its firewall does with them, and the table's name. The table is owned by the
// socket: it ends when its last descriptor is closed, by whomever and for
// whatever reason. The socket is non-blocking, close-on-exec and the caller's.
// The error wraps fs.ErrPermission without CAP_NET_ADMIN, and
// errors.ErrUnsupported on a kernel without nftables or before Linux 5.12.
func Open(p Probe) (fd int, table string, err error) {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	table = fmt.Sprintf("%s%x", tablePrefix, random)
	if fd, err = dial(); err != nil {
		return -1, "", fmt.Errorf("trace firewall: %w", err)
	}
	err = install(fd, table, p)
	if err == nil {
		// Only now: answers and reports don't mix.
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTRACE)
	}
	if err != nil {
		_ = unix.Close(fd) // takes the table with it
		return -1, "", fmt.Errorf("trace firewall: %w", explain(err))
	}
	return fd, table, nil
}

// dial opens a conversation with the kernel's firewall.
func dial() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return -1, fmt.Errorf("open netfilter socket: %w", explain(err))
	}
	// A smaller buffer than asked for is good enough.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferSize)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		_ = unix.Close(fd) // the error that counts is err
		return -1, fmt.Errorf("bind netfilter socket: %w", err)
	}
	return fd, nil
}

// explain names what is missing.
func explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: needs CAP_NET_ADMIN", err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: needs a kernel from Linux 5.12 on with nf_tables: %w", errors.ErrUnsupported, err)
	}
	return err
}

// install sends the table as one transaction and waits for its answer.
func install(fd int, table string, p Probe) error {
	family := p.family()
	seq := uint32(0)
	var b []byte
	add := func(typ, flags uint16, attrs ...[]byte) {
		seq++
		b = appendMessage(b, subsystem|typ, unix.NLM_F_REQUEST|flags, seq, family, 0, slices.Concat(attrs...))
	}
	b = appendMessage(b, unix.NFNL_MSG_BATCH_BEGIN, unix.NLM_F_REQUEST, seq, 0, unix.NFNL_SUBSYS_NFTABLES, nil)
	add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		text(unix.NFTA_TABLE_NAME, table), attr32(unix.NFTA_TABLE_FLAGS, tableOwner))
	for chain, hook := range map[string]uint32{"prerouting": unix.NF_INET_PRE_ROUTING, "output": unix.NF_INET_LOCAL_OUT} {
		// Before every other chain: those are to be reported.
		add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE,
			text(unix.NFTA_CHAIN_TABLE, table), text(unix.NFTA_CHAIN_NAME, chain),
			nested(unix.NFTA_CHAIN_HOOK, attr32(unix.NFTA_HOOK_HOOKNUM, hook), attr32(unix.NFTA_HOOK_PRIORITY, 1<<31)),
			attr32(unix.NFTA_CHAIN_POLICY, uint32(Accept)), text(unix.NFTA_CHAIN_TYPE, "filter"))
		for _, reply := range []bool{false, true} {
			add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND|unix.NLM_F_ACK,
				text(unix.NFTA_RULE_TABLE, table), text(unix.NFTA_RULE_CHAIN, chain),
				nested(unix.NFTA_RULE_EXPRESSIONS, expressions(p, reply)...))
		}
	}
	b = appendMessage(b, unix.NFNL_MSG_BATCH_END, unix.NLM_F_REQUEST, seq+1, 0, unix.NFNL_SUBSYS_NFTABLES, nil)
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send table: %w", err)
	}
	return await(fd, func(m message) bool { return m.seq == seq })
}

// expressions are a rule: compare each field, then mark the packet.
func expressions(p Probe, reply bool) [][]byte {
	const reg = unix.NFT_REG_1
	compare := func(v []byte) []byte {
		return expr("cmp", attr32(unix.NFTA_CMP_SREG, reg), attr32(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ),
			nested(unix.NFTA_CMP_DATA, attr(unix.NFTA_DATA_VALUE, v...)))
	}
	e := [][]byte{
		expr("meta", attr32(unix.NFTA_META_DREG, reg), attr32(unix.NFTA_META_KEY, unix.NFT_META_L4PROTO)),
		compare([]byte{p.Protocol}),
	}
	for _, f := range p.fields(reply) {
		e = append(e, expr("payload", attr32(unix.NFTA_PAYLOAD_DREG, reg), attr32(unix.NFTA_PAYLOAD_BASE, f.base),
			attr32(unix.NFTA_PAYLOAD_OFFSET, f.offset), attr32(unix.NFTA_PAYLOAD_LEN, uint32(len(f.value)))), compare(f.value))
	}
	return append(e,
		expr("immediate", attr32(unix.NFTA_IMMEDIATE_DREG, reg), nested(unix.NFTA_IMMEDIATE_DATA, attr(unix.NFTA_DATA_VALUE, 1))),
		expr("meta", attr32(unix.NFTA_META_KEY, unix.NFT_META_NFTRACE), attr32(unix.NFTA_META_SREG, reg)))
}

func expr(name string, attrs ...[]byte) []byte {
	return nested(unix.NFTA_LIST_ELEM, text(unix.NFTA_EXPR_NAME, name), nested(unix.NFTA_EXPR_DATA, attrs...))
}

// patience bounds the wait for the kernel's answer, which is there when a
// request has been sent, on a machine whose kernel answers at all.
const patience = time.Second

// await reads answers until done is given one, or one is an error.
func await(fd int, done func(message) bool) error {
	buf := make([]byte, 1<<16)
	for end := time.Now().Add(patience); ; {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			left := time.Until(end)
			if left <= 0 {
				return fmt.Errorf("wait for the kernel's answer: %w", os.ErrDeadlineExceeded)
			}
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1) // read again, whatever it says
			continue
		}
		if err != nil {
			return fmt.Errorf("read the kernel's answer: %w", err)
		}
		for m := range messages(buf[:n]) {
			if m.typ == unix.NLMSG_ERROR {
				if len(m.body) < 4 {
					return errShort
				}
				if errno := -int32(binary.NativeEndian.Uint32(m.body)); errno > 0 && errno <= math.MaxInt16 {
					return unix.Errno(errno)
				}
			}
			if done(m) {
				return nil
			}
		}
	}
}

// Legacy lists the tables of iptables-legacy in the calling thread's namespace,
// as "ip filter". Their rules discard packets without a report.
func Legacy() []string {
	var all []string
	for _, f := range []struct{ family, path string }{
		{"ip", "/proc/thread-self/net/ip_tables_names"}, {"ip6", "/proc/thread-self/net/ip6_tables_names"},
	} {
		b, err := os.ReadFile(f.path)
		if err != nil {
			continue // a kernel without them
		}
		for _, t := range strings.Fields(string(b)) {
			all = append(all, f.family+" "+t)
		}
	}
	return all
}
