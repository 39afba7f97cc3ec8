package main

import (
	"encoding/binary"
	"os"

	"github.com/rogpeppe/go-internal/testscript"
)

// writePcap writes a capture of two packets: pcap FILE. The second is of 60
// octets, of which 14 were kept.
func writePcap(ts *testscript.TestScript, _ bool, args []string) {
	be := binary.BigEndian
	b := be.AppendUint32(nil, 0xa1b2c3d4)
	b = append(b, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 1)
	for i, length := range []uint32{14, 60} {
		b = append(b, make([]byte, 8)...)
		b = be.AppendUint32(be.AppendUint32(b, 14), length)
		b = append(b, "\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00"...)
		b = append(b, byte(i+1), 0x88, 0xb5)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}
