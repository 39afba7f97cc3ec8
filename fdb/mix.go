package fdb

// A key is mixed into 60 other bits, from which it can be had back: the left
// and the right half in turn take a hash of the other one, a Feistel network of
// three rounds. The hash of a round is (a*x + b) >> 34 of 30 bits with 64-bit
// secrets a and b, which is strongly universal (Dietzfelbinger 1996). Two keys
// that somebody has chosen without knowing the secrets meet in a bucket no more
// often than two random ones.
//
// The product of the left half and the number of buckets names the first bucket
// in its integer part. Products lie at least 2^fracShift apart, so the upper
// bits of their fraction tell them apart; these and the right half are the rest
// that a word stores. Bucket and rest together give the key, so equal words in
// one bucket are equal keys.
const (
	halfLen  = 30
	halfMask = 1<<halfLen - 1

	fracShift = 13                  // of the fraction, left out
	fracLen   = halfLen - fracShift // of the fraction, stored

	// minBuckets is how many make products lie far enough apart.
	minBuckets = 1 << fracShift
)

// mix returns the halves of k, mixed.
func (t *Table) mix(k Key) (l, r uint64) {
	s := &t.seed
	l, r = uint64(k)>>halfLen, uint64(k)&halfMask
	l ^= (r*s[0] + s[1]) >> (64 - halfLen)
	r ^= (l*s[2] + s[3]) >> (64 - halfLen)
	l ^= (r*s[4] + s[5]) >> (64 - halfLen)
	return l, r
}

// unmix undoes mix.
func (t *Table) unmix(l, r uint64) Key {
	s := &t.seed
	l ^= (r*s[4] + s[5]) >> (64 - halfLen)
	r ^= (l*s[2] + s[3]) >> (64 - halfLen)
	l ^= (r*s[0] + s[1]) >> (64 - halfLen)
	return Key(l<<halfLen | r)
}

// home returns the first bucket of the key that mixes to l and r, and its word
// there, without port and static bit.
func (t *Table) home(l, r uint64) (uint64, word) {
	x := l * t.n()
	return x >> halfLen, word(r<<fracLen|x&halfMask>>fracShift)<<restShift | liveBit
}

// first is home of k.
func (t *Table) first(k Key) (uint64, word) { return t.home(t.mix(k)) }

// second returns the second bucket of the key whose word in its first bucket bi
// is w, and the word there.
func (t *Table) second(bi uint64, w word) (uint64, word) {
	if bi += t.stride(w); bi >= t.n() {
		bi -= t.n()
	}
	return bi, w | secondBit
}

// stride is how far the second bucket of a key is behind its first one: at
// least one, less than once round.
func (t *Table) stride(w word) uint64 {
	r := uint64(w) >> (restShift + fracLen)
	return 1 + r*(t.n()-1)>>halfLen
}

// key returns the key of word w in bucket bi. A word that no key has gives some
// key too, perhaps of more than 60 bits.
func (t *Table) key(bi uint64, w word) Key {
	if w&secondBit != 0 {
		if bi += t.n() - t.stride(w); bi >= t.n() {
			bi -= t.n()
		}
	}
	rest := uint64(w) >> restShift
	x := bi<<halfLen | rest<<fracShift&halfMask
	l := (x + t.n() - 1) / t.n()
	return t.unmix(l, rest>>fracLen)
}

// n is the number of buckets.
func (t *Table) n() uint64 { return uint64(len(t.buckets)) }
