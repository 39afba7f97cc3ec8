package integration_test

import (
	endian "encoding/binary"
	"fmt"
	"net"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const sinkPort = 7200

// sink counts the datagrams that come to a station by what they say, less
// zeros at the end.
type sink struct {
	conn *net.UDPConn

	mu    sync.Mutex
	heard map[string]int
	class map[string]uint8 // TOS of the last one
}

// sink listens at station i, to both families and to broadcasts.
func (f *fabric) sink(i int) *sink {
	f.t.Helper()
	s := &sink{heard: map[string]int{}, class: map[string]uint8{}}
	f.hosts[i-1].container.Do(func() error {
		c, err := listen(fmt.Sprintf("[::]:%d", sinkPort), func(fd int) error {
			for _, o := range [][3]int{
				{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16 << 20}, {unix.SOL_IP, unix.IP_RECVTOS, 1}, {unix.SOL_IPV6, unix.IPV6_RECVTCLASS, 1},
			} {
				if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			s.conn = c.(*net.UDPConn)
		}
		return err
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.listen()
	}()
	f.t.Cleanup(func() {
		s.conn.Close()
		<-done
	})
	return s
}

// listen ends when the connection does.
func (s *sink) listen() {
	b, oob := make([]byte, 2048), make([]byte, 256)
	for {
		n, k, _, _, err := s.conn.ReadMsgUDP(b, oob)
		if err != nil {
			return
		}
		text := strings.TrimRight(string(b[:n]), "\x00")
		s.mu.Lock()
		s.heard[text]++
		msgs, _ := unix.ParseSocketControlMessage(oob[:k])
		for _, m := range msgs {
			switch {
			case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_TOS && len(m.Data) > 0:
				s.class[text] = m.Data[0]
			case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_TCLASS && len(m.Data) > 3:
				s.class[text] = uint8(endian.NativeEndian.Uint32(m.Data))
			}
		}
		s.mu.Unlock()
	}
}

// count is how often a datagram has come.
func (s *sink) count(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard[text]
}

func (s *sink) tos(text string) uint8 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.class[text]
}

// all is what has come so far, and how often.
func (s *sink) all() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]int, len(s.heard))
	for k, v := range s.heard {
		out[k] = v
	}
	return out
}

// vxlan is an inner frame behind a good header.
func vxlan(vni uint32, inner []byte) []byte {
	return append(endian.BigEndian.AppendUint32([]byte{8, 0, 0, 0}, vni<<8), inner...)
}

// say sends one datagram from host i, in the place of a VTEP. tos is the outer
// one, 0 when it isn't given.
func (f *fabric) say(i int, to string, b []byte, tos ...uint8) {
	f.t.Helper()
	f.hosts[i-1].underlay.Do(func() error {
		dst, err := net.ResolveUDPAddr("udp", to)
		if err != nil {
			return err
		}
		c, err := listen(":0", func(fd int) error {
			if len(tos) == 0 {
				return nil
			}
			return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TOS, int(tos[0]))
		})
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.WriteTo(b, dst)
		return err
	})
}
