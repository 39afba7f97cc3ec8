package capture_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/capture"
	"github.com/tapestry-net/tapestry/internal/netns/netnstest"
	"github.com/tapestry-net/tapestry/switch/switchtest"
)

// withKeys puts the keys of files into what mergecap made of them, as the how-to does.
func withKeys(t *testing.T, both string, files []string) string {
	t.Helper()
	whole, keys := both+".whole", both+".keys"
	lines, err := netnstest.Command(t, append([]string{"grep", "-aoh", "CLIENT_RANDOM [0-9a-f]* [0-9a-f]*"}, files...)...).Output()
	if err := errors.Join(err, os.WriteFile(keys, lines, 0o600)); err != nil {
		t.Fatal(err)
	}
	if out, err := netnstest.Try("editcap", "--inject-secrets", "tls,"+keys, both, whole); err != nil {
		t.Fatalf("editcap: %v\n%s", err, out)
	}
	octets, err := os.ReadFile(whole)
	if err != nil || !bytes.Contains(octets, []byte("CLIENT_RANDOM 00 ff\nCLIENT_RANDOM 01 ff\n")) {
		t.Errorf("not all keys are in it: %v", err)
	}
	return whole
}

// TestInteropMerge: the captures of two hosts become one in the order of time, in
// which each packet keeps its host, its port and its decision.
func TestInteropMerge(t *testing.T) {
	netnstest.Require(t, "tshark") // mergecap comes with it
	dir := t.TempDir()
	var files, want []string
	for i, host := range []string{"h128", "h130"} {
		name := filepath.Join(dir, host)
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		w := capture.NewWriter(f, "test", "captured by the switch of "+host)
		for port := range 2 + i { // one has more ports than the other
			id, err := w.Interface(capture.Interface{Name: fmt.Sprintf("%s/c%d", host, port)})
			if err != nil {
				t.Fatal(err)
			}
			at := time.Unix(1700000000, int64(10*port+i))
			p := capture.Packet{Time: at, Data: make([]byte, 60), Len: 60, Direction: capture.In, Decision: "drop storm"}
			if err := w.Packet(id, &p, 0); err != nil {
				t.Fatal(err)
			}
			want = append(want, fmt.Sprintf("1700000000.%09d|%s/c%d|0x00000001|drop storm", at.Nanosecond(), host, port))
		}
		if err := errors.Join(w.Secrets(fmt.Appendf(nil, "CLIENT_RANDOM %02x ff\n", i)), f.Close()); err != nil {
			t.Fatal(err)
		}
		files = append(files, name)
	}
	both := filepath.Join(dir, "both.pcapng")
	if out, err := netnstest.Try(append([]string{"mergecap", "-w", both}, files...)...); err != nil {
		t.Fatalf("mergecap: %v\n%s", err, out)
	}
	slices.Sort(want) // by time
	for _, file := range []string{both, withKeys(t, both, files)} {
		got := switchtest.TShark(t, file, "frame.time_epoch", "frame.interface_name", "frame.packet_flags_direction", "frame.comment")
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", file, got, want)
		}
	}
}
