package switchtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
	"unsafe"

	"github.com/tapestry-net/tapestry/switch/frame"
	"golang.org/x/sys/unix"
)

// vnetLen is the length of struct virtio_net_hdr, which PACKET_VNET_HDR puts in
// front of every frame (virtio 1.2 clause 5.1.6, without num_buffers).
const vnetLen = 10

// Flags of struct virtio_net_hdr and of struct tpacket_auxdata.
const (
	vnetNeedsCsum = 1
	vnetDataValid = 2
	vnetECN       = 0x80

	tpVLANValid = unix.TP_STATUS_VLAN_VALID
	tpTPIDValid = unix.TP_STATUS_VLAN_TPID_VALID
)

// RawEnd is the container's side of a kernel port: a packet socket on the
// interface there, which sends and shows frames with their offload metadata.
// Tags that the kernel took out stand in Data again. It is a Far.
type RawEnd struct {
	fd   int
	buf  []byte
	oob  []byte
	once sync.Once
}

// OpenRawEnd opens a packet socket on ifname. within runs its argument where
// the interface is, in a namespace for one; nil runs it here. It needs
// CAP_NET_RAW there. The caller closes it.
func OpenRawEnd(ifname string, within func(func() error) error) (*RawEnd, error) {
	r := &RawEnd{fd: -1, buf: make([]byte, vnetLen+frame.MaxLen), oob: make([]byte, 256)}
	if within == nil {
		within = func(f func() error) error { return f() }
	}
	if err := within(func() error { return r.open(ifname) }); err != nil {
		r.Close()
		return nil, fmt.Errorf("open raw end on %s: %w", ifname, err)
	}
	return r, nil
}

func (r *RawEnd) open(ifname string) error {
	// Protocol 0 hears nothing until bind, so that no foreign frame is queued.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	r.fd = fd
	in, err := net.InterfaceByName(ifname)
	if err != nil {
		return err
	}
	for _, opt := range []int{unix.PACKET_AUXDATA, unix.PACKET_VNET_HDR, unix.PACKET_IGNORE_OUTGOING} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, opt, 1); err != nil {
			return os.NewSyscallError(fmt.Sprintf("setsockopt SOL_PACKET %d", opt), err)
		}
	}
	// The suite sends whole bursts before it reads. Without CAP_NET_ADMIN the
	// limit of the system holds, which is enough for most of them.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) != nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<20)
	}
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: in.Index}))
}

// Close releases the socket. It is idempotent.
func (r *RawEnd) Close() error {
	var err error
	r.once.Do(func() {
		if r.fd >= 0 {
			err = os.NewSyscallError("close", unix.Close(r.fd))
		}
	})
	return err
}

// Send puts f, whose Frags, Pop and Push are not looked at, on the interface.
// It waits while the interface's queue is full, for a while.
func (r *RawEnd) Send(f frame.Frame) error {
	var h [vnetLen]byte
	g := f.GSO
	if g.NeedsCsum {
		h[0] = vnetNeedsCsum
	}
	h[1] = byte(g.Type)
	if g.ECN {
		h[1] |= vnetECN
	}
	for i, v := range []uint16{g.HdrLen, g.Size, g.CsumStart, g.CsumOffset} {
		binary.NativeEndian.PutUint16(h[2+2*i:], v)
	}
	for end := time.Now().Add(patience); ; {
		_, err := unix.SendmsgBuffers(r.fd, [][]byte{h[:], f.Data}, nil, nil, 0)
		full := errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EAGAIN)
		if !full || time.Now().After(end) {
			return os.NewSyscallError("sendmsg", err)
		}
		r.wait(unix.POLLOUT, 10*time.Millisecond)
	}
}

// Receive waits for the next frame, until ctx is done.
func (r *RawEnd) Receive(ctx context.Context) (frame.Frame, error) {
	for {
		n, oobn, flags, _, err := unix.Recvmsg(r.fd, r.buf, r.oob, 0)
		switch {
		case err == nil && flags&unix.MSG_TRUNC == 0 && n >= vnetLen+frame.HeaderLen:
			return decode(r.buf[:n], r.oob[:oobn])
		case err == nil:
			return frame.Frame{}, fmt.Errorf("frame of %d octets, flags %#x: cut short", n, flags)
		case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR):
			return frame.Frame{}, os.NewSyscallError("recvmsg", err)
		}
		if err := ctx.Err(); err != nil {
			return frame.Frame{}, err
		}
		r.wait(unix.POLLIN, 20*time.Millisecond)
	}
}

// wait polls for events, at most d, so that a context is looked at in between.
func (r *RawEnd) wait(events int16, d time.Duration) {
	unix.Poll([]unix.PollFd{{Fd: int32(r.fd), Events: events}}, int(d.Milliseconds()))
}

// decode makes a frame of what recvmsg gave: header, bytes, control messages.
func decode(b, oob []byte) (frame.Frame, error) {
	f := frame.Frame{Data: append([]byte(nil), b[vnetLen:]...)}
	u16 := func(at int) uint16 { return binary.NativeEndian.Uint16(b[at:]) }
	if b[0]&vnetNeedsCsum != 0 {
		f.GSO.NeedsCsum, f.GSO.CsumStart, f.GSO.CsumOffset = true, u16(6), u16(8)
	}
	f.GSO.Valid = b[0]&vnetDataValid != 0
	if f.GSO.Type = frame.GSOType(b[1] &^ vnetECN); f.GSO.Type != frame.GSONone {
		f.GSO.ECN, f.GSO.HdrLen, f.GSO.Size = b[1]&vnetECN != 0, u16(2), u16(4)
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return f, os.NewSyscallError("parse control message", err)
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < int(unsafe.Sizeof(unix.TpacketAuxdata{})) {
			continue
		}
		aux := (*unix.TpacketAuxdata)(unsafe.Pointer(&m.Data[0]))
		if aux.Status&tpVLANValid == 0 {
			continue
		}
		t := frame.Tag{TPID: frame.EtherTypeCTag, TCI: aux.Vlan_tci}
		if aux.Status&tpTPIDValid != 0 {
			t.TPID = frame.EtherType(aux.Vlan_tpid)
		}
		f.Data = insert(f.Data, t)
		if f.GSO.NeedsCsum {
			f.GSO.CsumStart += frame.TagLen
		}
		if f.GSO.Type != frame.GSONone {
			f.GSO.HdrLen += frame.TagLen
		}
	}
	return f, nil
}
