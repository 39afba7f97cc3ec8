// Package probe finds out what this kernel and this process can do, by doing it
// in a throw-away namespace. What a version number or a feature flag promises
// doesn't count: some kernels accept an offload and then refuse the frames.
//
// # Concurrency
//
// Run may be called from any goroutine. A conclusive result is computed once.
package probe
