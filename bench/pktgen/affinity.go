package pktgen

import (
	"errors"
	"fmt"
	"math/bits"
	"runtime"

	"golang.org/x/sys/unix"
)

// onCPU runs start on the first processor that this process may use, or the
// last. A child that start makes stays there, with all its threads.
func onCPU(last bool, start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return fmt.Errorf("read processor affinity: %w", err)
	}
	one.Set(choose(&all, last))
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("choose a processor: %w", err)
	}
	err := start()
	if e := unix.SchedSetaffinity(0, &all); e != nil {
		err = errors.Join(err, fmt.Errorf("restore processor affinity: %w", e))
	}
	return err
}

// choose is the first or last processor of a set.
func choose(set *unix.CPUSet, last bool) int {
	cpu := 0
	for i := range len(set) * bits.UintSize {
		if !set.IsSet(i) {
			continue
		}
		cpu = i
		if !last {
			break
		}
	}
	return cpu
}
