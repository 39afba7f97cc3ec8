//go:build !race

package tunnel_test

// racing is whether the race detector, which takes its time, is at work.
const racing = false
