package watch

import "golang.org/x/sys/unix"

const ControlLen = controlLen

// Assemble is what Read makes of n octets in room and of their control messages.
func Assemble(room []byte, n int, hatype uint16, control []byte) Packet {
	return assemble(room, n, &unix.RawSockaddrLinklayer{Hatype: hatype}, control)
}
