package machine

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Description is what the numbers hold for.
type Description struct {
	Kernel     string  `json:"kernel"`
	CPU        string  `json:"cpu"`
	CPUs       int     `json:"cpus"`
	MemoryMB   int     `json:"memory_mb"`
	Go         string  `json:"go"`
	BusyBefore float64 `json:"busy_before"` // share of all processors in use by others
}

// busyTime is how long the machine is watched before anything starts.
const busyTime = 500 * time.Millisecond

// Examine describes the machine that it runs on. It watches it for half a second.
func Examine() (Description, error) {
	m := Description{CPUs: runtime.NumCPU(), Go: runtime.Version(), CPU: "unknown processor"}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return m, fmt.Errorf("read kernel version: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(u.Release[:])
	if s := field("/proc/cpuinfo", "model name"); s != "" {
		m.CPU = s
	}
	kb, _ := strconv.Atoi(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"))
	m.MemoryMB = kb * 1024 / 1e6
	before, err := Busy()
	if err != nil {
		return m, err
	}
	time.Sleep(busyTime)
	after, err := Busy()
	m.BusyBefore = (after - before).Seconds() / busyTime.Seconds() / float64(m.CPUs)
	return m, err
}

// field is the value of the first line "name: value" of a file, or empty.
func field(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		k, v, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// userHZ is the unit of /proc/stat, 1/100 s on every Linux (proc(5)).
const userHZ = 100

// Busy is the time that all processors together have worked, with
// interrupts and time stolen by the hypervisor.
func Busy() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	return parseBusy(text)
}

func parseBusy(stat []byte) (time.Duration, error) {
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	// cpu user nice system idle iowait irq softirq steal guest guest_nice; guest
	// time is part of user time already.
	f := strings.Fields(string(line))
	if len(f) < 9 || f[0] != "cpu" {
		return 0, fmt.Errorf("read processor time: first line of /proc/stat is %.40q", line)
	}
	var ticks int64
	for _, i := range []int{1, 2, 3, 6, 7, 8} {
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read processor time: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / userHZ, nil
}

// CPUTime is the processor time of a process, all its threads, the ended ones
// too, to the nanosecond. It is the clock of clock_getcpuclockid(3), of which
// utime and stime in /proc/PID/stat are a rounded view.
func CPUTime(pid int) (time.Duration, error) {
	const clockSched = 2 // CPUCLOCK_SCHED
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|clockSched), &ts); err != nil {
		return 0, fmt.Errorf("read processor time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Family is pid and its children, which for a switch are keeper and worker.
func Family(pid int) ([]int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	pids := []int{pid}
	for _, d := range dirs {
		text, err := os.ReadFile(d)
		if err != nil {
			continue // it has ended
		}
		// The name may hold anything, so fields are counted from its last bracket.
		i := bytes.LastIndexByte(text, ')')
		f := strings.Fields(string(text[i+1:]))
		if len(f) < 2 || f[1] != strconv.Itoa(pid) {
			continue
		}
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(d)))
		if err != nil {
			return nil, err
		}
		pids = append(pids, child)
	}
	return pids, nil
}

// RSS is the resident memory of a process in MB, and of that the pages of files
// and of shared memory.
func RSS(pid int) (all, file, shared float64, err error) {
	status := fmt.Sprintf("/proc/%d/status", pid)
	mb := func(name string) float64 {
		kb, e := strconv.ParseInt(strings.TrimSuffix(field(status, name), " kB"), 10, 64)
		if e != nil && err == nil {
			err = fmt.Errorf("read %s of process %d: %w", name, pid, e)
		}
		return float64(kb) * 1024 / 1e6
	}
	all, file, shared = mb("VmRSS"), mb("RssFile"), mb("RssShmem")
	return all, file, shared, err
}
