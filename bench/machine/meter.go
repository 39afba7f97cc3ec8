package machine

import "time"

// Meter reads, at both edges of a window, what processor time was used. Begin
// and End are called by one goroutine.
type Meter struct {
	PIDs []int // of the processes to watch
	// Used is the time of the processes in the window, and Busy that of the
	// whole machine.
	Used, Busy time.Duration
	Err        error // why either is not to be trusted

	cpu, sys time.Duration // at the beginning
}

// Begin opens the window.
func (m *Meter) Begin() { m.cpu, m.sys = m.read() }

// End closes the window.
func (m *Meter) End() {
	cpu, sys := m.read()
	m.Used, m.Busy = cpu-m.cpu, sys-m.sys
}

func (m *Meter) read() (cpu, sys time.Duration) {
	sys, err := Busy()
	for _, pid := range m.PIDs {
		d, e := CPUTime(pid)
		if e != nil {
			err = e
		}
		cpu += d
	}
	if err != nil {
		m.Err = err
	}
	return cpu, sys
}
