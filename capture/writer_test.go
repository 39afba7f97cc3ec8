package capture_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"
	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/capture"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// TestWriterAgainstReader writes random packets and reads them back with
// gopacket's reader, which shares no code with our blocks.
func TestWriterAgainstReader(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b bytes.Buffer
		w := capture.NewWriter(&b, "test", "")
		interfaces := 0
		type packet struct {
			id, length int
			at         int64
			data       []byte
		}
		var want []packet
		for range rapid.IntRange(1, 30).Draw(t, "blocks") {
			switch k := rapid.IntRange(0, 9).Draw(t, "block"); {
			case interfaces == 0 || k == 0:
				if id, err := w.Interface(capture.Interface{Name: rapid.String().Draw(t, "name"), Snap: 65535}); err != nil || id != interfaces {
					t.Fatal(id, err)
				}
				interfaces++
			case k == 1:
				if err := w.Stats(rapid.IntRange(0, interfaces-1).Draw(t, "of"), 5, 1, time.Unix(1, 2)); err != nil {
					t.Fatal(err)
				}
			default:
				data := rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(t, "data")
				p := packet{rapid.IntRange(0, interfaces-1).Draw(t, "interface"), len(data) + rapid.IntRange(0, 9).Draw(t, "cut"),
					rapid.Int64Range(0, 1<<62).Draw(t, "time"), data}
				want = append(want, p)
				err := w.Packet(p.id, &capture.Packet{
					Time: time.Unix(0, p.at), Data: data, Len: p.length, Direction: capture.Out, Verdict: frame.Verdict{},
					Decision: rapid.String().Draw(t, "decision"), Note: rapid.String().Draw(t, "note"),
				}, rapid.Uint64Range(0, 3).Draw(t, "lost"))
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		r, err := pcapgo.NewNgReader(&b, pcapgo.NgReaderOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range want {
			data, ci, err := r.ReadPacketData()
			if err != nil || !bytes.Equal(data, p.data) || ci.InterfaceIndex != p.id || ci.Length != p.length || ci.Timestamp.UnixNano() != p.at {
				t.Fatalf("got %x %+v %v, want %+v", data, ci, err, p)
			}
		}
		if _, _, err := r.ReadPacketData(); err != io.EOF {
			t.Fatalf("at the end: got %v", err)
		}
	})
}
