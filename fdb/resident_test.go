//go:build linux

package fdb_test

import (
	"syscall"
	"testing"
	"unsafe"

	"github.com/tapestry-net/tapestry/fdb"
)

// TestResident counts the pages that an almost empty table of the largest size
// takes, when it is opened, swept, walked, flushed and opened again.
func TestResident(t *testing.T) {
	const limit = 1 << 20
	mem, err := syscall.Mmap(-1, 0, fdb.Size(limit), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(mem)
	tab := reopen(t, mem, limit)
	for i := range 10 {
		tab.Learn(station(i), 1, 0, nil)
	}
	tab.Learn(station(1), 2, 0, nil)
	again := reopen(t, mem, limit)
	again.Sweep(1, again.Places())
	again.Flush(fdb.Filter{Port: 2})
	again.History(100)
	if n := len(contents(again)); n != 9 {
		t.Errorf("%d entries, want 9", n)
	}
	// Three pages a station, of its two buckets and its note; two or three a
	// ring, of its start and its end; one in front.
	if got := residentPages(t, mem); got > 37 {
		t.Errorf("%d pages resident of %d, want at most 37", got, len(mem)/4096)
	}
}

func residentPages(t *testing.T, mem []byte) (n int) {
	t.Helper()
	pages := make([]byte, (len(mem)+4095)/4096)
	_, _, errno := syscall.Syscall(syscall.SYS_MINCORE,
		uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), uintptr(unsafe.Pointer(&pages[0])))
	if errno != 0 {
		t.Fatal(errno)
	}
	for _, p := range pages {
		n += int(p & 1)
	}
	return n
}
