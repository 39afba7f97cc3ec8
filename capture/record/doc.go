// Package record writes the pcapng stream of a capture into files or a pipe: whole
// blocks only, so that what is there can be read at any time.
//
//	stream ──Write──> blocks ──> f_00001.pcapng, f_00002.pcapng, …   each begins with the
//	                                                                  section header and interfaces
//	                         ──> a pipe, as long as somebody reads it
//
// Packets are private: files are made for their owner alone, nothing but a former
// capture is replaced, and no symbolic link leads to a file.
//
// # Ownership
//
// Files owns the file that it writes, and copies what it keeps of a Write.
//
// # Concurrency
//
// Files belongs to one goroutine.
//
// # Standards
//
// draft-ietf-opsawg-pcapng; pipe(7) for what a pipe takes at once.
package record
