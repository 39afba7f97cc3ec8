// Package config is the configuration file: what a host's switch shall be.
//
// Rule: a Config says what was written and nothing else. What was left out
// stays absent until Resolved fills it in, so a file survives being read and
// written, and a default can be told from a choice.
//
//	text ─ Parse ─▶ Config ─ Resolved ─▶ Config with every default filled in
//	          ▲        │ ╲
//	          └ Marshal┘  Diff ─▶ one line a change
//
// # The table
//
// Keys describes every key of the file: its type, default, bounds and meaning.
// The decoder knows the keys of that table and no others, takes bounds and
// choices from it, and WriteReference prints it.
//
// # Errors
//
// All errors of a file are reported at once, each with file, line, column,
// field, reason and likely mend. What a user wrote is quoted and clipped, so
// that a message is safe to print on a terminal.
//
// # Bounds
//
// A file has at most 4 MiB and 250,000 YAML nodes, one document, and no anchors
// or aliases: nothing in it can grow when it is read.
//
// # Ownership
//
// A Config is plain data that belongs to the caller. Clone and Resolved share
// nothing with their receiver; Parse keeps no reference to the text.
//
// # Concurrency
//
// Functions may be called at the same time; a Config that is read by several
// goroutines must not be changed.
//
// # Standards
//
// YAML 1.2 (of which JSON is a part), IEEE 802.1Q-2022 clause 9.6 (VID), clause
// 8.6.3 (reserved group addresses), RFC 7348 clause 5 (VNI).
package config
