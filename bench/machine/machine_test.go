package machine_test

import (
	"os"
	"testing"
	"time"

	"github.com/tapestry-net/tapestry/bench/machine"
)

func TestParseBusy(t *testing.T) {
	got, err := machine.ParseBusy([]byte("cpu  100 20 30 4000 500 6 7 80 9 10\ncpu0 1 2 3\n"))
	if want := (100 + 20 + 30 + 6 + 7 + 80) * 10 * time.Millisecond; err != nil || got != want {
		t.Errorf("busy %v, %v; want %v", got, err, want)
	}
	for _, bad := range []string{"", "cpu 1 2", "intr 1 2 3 4 5 6 7 8 9", "cpu a b c d e f g h i"} {
		if _, err := machine.ParseBusy([]byte(bad)); err == nil {
			t.Errorf("%q was taken for /proc/stat", bad)
		}
	}
}

func TestProcessClock(t *testing.T) {
	pids, err := machine.Family(os.Getpid())
	if err != nil || len(pids) == 0 || pids[0] != os.Getpid() {
		t.Fatalf("family %v, %v; want this process first", pids, err)
	}
	before, err := machine.CPUTime(pids[0])
	if err != nil {
		t.Fatal(err)
	}
	after, err := machine.CPUTime(pids[0])
	if err != nil || before <= 0 || after < before {
		t.Errorf("processor time %v then %v, %v; want it to grow", before, after, err)
	}
}

// TestMeter watches this process work.
func TestMeter(t *testing.T) {
	m := machine.Meter{PIDs: []int{os.Getpid()}}
	m.Begin()
	for begin := time.Now(); time.Since(begin) < time.Millisecond; {
	}
	m.End()
	if m.Err != nil || m.Used <= 0 || m.Busy < 0 {
		t.Errorf("used %v, busy %v, %v; want some time of this process", m.Used, m.Busy, m.Err)
	}
	// No kernel gives out process numbers above 1<<22 (PID_MAX_LIMIT).
	gone := machine.Meter{PIDs: []int{1<<22 + 1}}
	gone.Begin()
	if gone.Err == nil {
		t.Error("a process that doesn't exist has a clock")
	}
}

func TestRSS(t *testing.T) {
	all, file, shared, err := machine.RSS(os.Getpid())
	if err != nil || all <= 0 || file+shared > all {
		t.Errorf("RSS = %v, %v, %v, %v; want parts of a whole", all, file, shared, err)
	}
}
