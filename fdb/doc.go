// Package fdb is the filtering database: it remembers behind which port each
// MAC address of each VLAN was last seen.
//
//	memory   header 128 | buckets | ring of stations | ring of changes      octets, 64-aligned
//	bucket   8 places of key 8, value 8
//	key      MAC (48 bits) | VID (12 bits)                                  one atomic word
//	value    port 14 | tick 24 | moves 8 | reuse 16 | static 1 | live 1     one atomic word, high to low
//	record   order 8 | wall time 8 | key 8 | what 8 | missed 8 | head 56    octets
//
// Each key has two buckets, chosen by a hash whose seed is drawn when the
// memory is first opened, so nobody outside can aim at one bucket. An entry
// lives in its first bucket, or in the emptier one if that was rather full when
// it was learned, and never changes its place. A lookup therefore reads at most sixteen keys, whatever happened
// before: removal leaves nothing behind that a later lookup has to step over.
//
// # Ownership
//
// The table lives in memory that the caller gives and keeps, without pointers,
// so that the memory may be shared and outlive the process: a later process
// opens it and knows every address again. One process at a time may write.
//
// # Concurrency
//
// Lookup, and Learn of a source that is where it was, may be called from any
// goroutine and take no lock. Everything that adds, moves or removes serialises
// on a mutex. A reader sees an entry as it was before or after a change, never
// between:
//
//   - A value is live only while the key beside it stands still. A writer takes
//     the value's live bit away before it touches the key, and publishes the new
//     value after the key is written.
//   - A reader takes the value, then the key, then the value again, and believes
//     them only if both values are the same word. Every new owner of a place
//     gets the next reuse number, so the same word cannot come back under
//     another key until the place has been reused 65,536 times within the one
//     tick (125 ms) that the word also carries, all between two loads.
//   - A refresh is a compare-and-swap of the whole value, so it cannot revive a
//     removed entry nor touch the next owner of its place.
//
// A process killed at any store leaves the table consistent for the same
// reason: a key without a live value is an empty place. Sums are not stored;
// Open counts again.
//
// # Ageing
//
// A dynamic entry disappears when its source has been silent for the ageing
// time (default 300 s). To spare writes, a refresh is recorded only when the
// stored tick is older than an eighth of that time, so an entry may live up to
// an eighth less than configured. Static entries never age.
//
// # Limits
//
// When the table is full, the port with the most dynamic entries loses one to
// the newcomer, never a port with no more than the learner has; a port that has
// the most itself replaces one of its own. Ports within a sixty-fourth of the
// most count as equal. The victim is the oldest of a few that a hand,
// going round the table, meets first. A port at its own limit learns nothing
// more until its entries age: replacing would have to search the table for the
// few entries of one port.
//
// # History
//
// Two rings remember who taught what: one for stations learned, aged, evicted
// and flushed, one for moves, static entries and removals, so that no spray of
// new addresses pushes out a move. In each ring a port may write an eighth of
// the ring at once and one record a second from then on; what it does beyond
// that is counted in its next record as missed.
//
// # Standards
//
// IEEE 802.1Q-2022 clause 8.8. Differences: one database per switch,
// independent learning only, ageing time per VLAN.
package fdb
