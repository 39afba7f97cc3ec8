//go:build race

package dtls_test

// racing is whether the race detector, which takes its time, is at work.
const racing = true
