package journal

import "io"

// Decode is decode as a list.
func Decode(r io.Reader) (out []Record) {
	decode(r, func(rec Record) bool {
		out = append(out, rec)
		return true
	})
	return out
}

// Encode is encode.
func Encode(r Record) []byte { return encode(&r) }

// Bounds for tests.
const (
	LineLen   = lineLen
	TotalLen  = totalLen
	MaxRecord = maxRecord
	MaxFile   = maxFile
)

// Total is how many records are remembered, counted.
func (j *Journal) Total() (n int) {
	for _, l := range j.lines {
		n += len(l)
	}
	return n
}
