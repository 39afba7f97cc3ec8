// Package journal remembers what happened to ports, peers and the switch itself
// in bounded memory and bounded files, also for the process that comes next.
//
//	memory   a line of records for each subject: kind, port and peer
//	files    journal.1, then journal: one JSON object a line, oldest first
//
// # Bounds
//
// A line keeps its newest 64 records and all lines together 4,096, of at most
// 4 KiB each: 16 MiB at the very most, a tenth of that as a rule. Beyond that the
// longest line loses its oldest record, so that a port that comes and goes all
// day long pushes out its own past and nobody else's. A file is given a second
// name and begun anew at half a MiB; what was under the second name is lost.
//
// # Ownership
//
// The files lie in a directory that the caller has opened and keeps. One
// process writes at a time. A file that is damaged, or was cut off by a crash,
// loses the lines that can't be read.
//
// # Concurrency
//
// All methods may be called from any goroutine. None waits for the disk but
// Close: a goroutine writes, and where it can't keep up, or the disk is full,
// records stay in memory only.
package journal
