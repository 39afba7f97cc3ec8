// Package integration tests the built binary against the real kernel and other
// programs: every test runs `tapestry up` in network namespaces of its own and
// looks at what containers, tc, tshark and the API see.
//
// The tests need namespaces and /dev/net/tun; what is missing they name.
package integration
