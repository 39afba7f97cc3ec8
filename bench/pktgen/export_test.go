package pktgen

// OnCPU exports onCPU for tests.
var OnCPU = onCPU
