// Package fdb is the filtering database: it remembers behind which port each
// MAC address of each VLAN was last seen.
//
//	memory   header 128 | usage | buckets | notes | ring of stations | ring of changes   octets
//	usage    used 32 | the same inverted 32, a bit for each 64 buckets                   one atomic word
//	bucket   8 words: a cache line
//	word     rest of the key 47 | second 1 | live 1 | static 1 | port 14                 one atomic word
//	note     tick 24 | moves 8                                                           half an atomic word
//	record   order 8 | wall time 8 | key 8 | what 8 | missed 8 | head 56                 octets
//
// A key is a MAC address and a VID. It is mixed, by a permutation whose secrets
// are drawn when the memory is first opened, so that nobody outside can aim at
// one bucket. Each key has two buckets. The number of the bucket stands for a
// part of the mixed key, the word in it for the rest: together they are the key,
// so that a lookup is exact and needs nothing but one word. It reads one cache
// line, or two, whatever happened before.
//
// What a lookup does not need is in the notes, a parallel array that only
// learning, ageing and listing read. The words of 1,048,576 entries take 11 MB
// of cache, everything together takes 20 MB of memory. Opening, ageing and
// listing leave pages alone in which there has never been an entry; a lookup
// reads where its key belongs.
//
// An entry goes into its first bucket, or into the second if that is full. If
// both are full, an entry of them gives way: it moves to its own second bucket.
// In a full table one lookup in 16 needs the second bucket, one in seven when
// all entries have been replaced many times.
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
//   - Key and port change in one store of one word.
//   - The note of a new entry is written before its word, and a note is believed
//     only if the word stood still while it was read.
//   - An entry that gives way is written into its second bucket before it
//     leaves the first, where readers look first.
//   - A refresh is a compare-and-swap of the note. Before an entry ages or gives
//     way, its note is swapped for one that says it is gone, so that a refresh
//     comes before that and counts, or takes the lock. A refresh that is late
//     for a removed entry fails, unless the next one in its place was noted in
//     the very tick: it can then only look younger.
//
// A process killed at any store leaves the table consistent: an entry that
// nobody has stored the word of is an empty place, and Open takes away an entry
// that was leaving. A move is two stores; killed between them, the station stays
// on its old port with a young note. Sums are not stored; Open counts again.
//
// Damaged memory is refused where it can be told: in the header, in the history,
// and in words that no key of a station gives. The usage carries its own check,
// and what is damaged of it counts as used, so that no entry is lost with it.
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
// most count as equal, and may take from each other: so a port can lose that
// much to one that has as many, and nothing more. The victim is the oldest of a
// few, which are looked for in the newcomer's own buckets, then by a hand going
// round the table. A port at its own limit learns nothing more until its entries
// age: replacing would have to search the table for the few entries of one port.
//
// # History
//
// Two rings remember who taught what: one for stations learned, aged, evicted
// and flushed, one for moves, static entries and removals, so that no spray of
// new addresses pushes out a move. In each ring a port may write an eighth of
// the ring at once and one record a second from then on; what it does beyond
// that is counted in its next record as missed.
//
// At undoes the events of the rings one after the other, so that the table can
// be shown as it was at a moment before. It is sure of a row only as far as
// both rings reach back, and where no missed event may have put the entry
// there. Flaps reads in the ring of changes which stations move to and fro.
//
// # Standards
//
// IEEE 802.1Q-2022 clause 8.8. Differences: one database per switch,
// independent learning only, ageing time per VLAN.
package fdb
