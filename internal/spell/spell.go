// Package spell measures how far a mistyped word is from one that exists, for
// "did you mean".
package spell

// Distance counts the single-octet edits between a and b (Levenshtein). It takes
// time in proportion to the product of their lengths: the caller bounds them.
func Distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d++
			}
			diagonal = row[j+1]
			row[j+1] = min(d, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
