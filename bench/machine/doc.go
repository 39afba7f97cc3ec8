// Package machine says what a measurement ran on and what processor time and
// memory it used.
//
// Processor time of a process is read from its clock, to the nanosecond; that of
// the whole machine from /proc/stat, in hundredths of a second.
//
// # Concurrency
//
// Functions may be called from any goroutine, a Meter from one.
//
// # Standards
//
// proc(5), clock_getcpuclockid(3).
package machine
