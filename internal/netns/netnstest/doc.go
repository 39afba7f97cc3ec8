// Package netnstest gives tests network namespaces of their own: nothing that a
// test does reaches the machine's interfaces.
//
//	func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }
//
//	func TestPing(t *testing.T) {
//		netnstest.Require(t, "netns", "tun")
//		ns := netnstest.New(t)
//		ns.Run("ip", "link", "set", "lo", "up")
//	}
//
// Main re-executes the test binary in a new network and mount namespace, and in
// a new user namespace when it isn't root. /run is a private tmpfs there, so
// names under /run/netns belong to the test alone.
//
// Programs that a test runs by this package end in bounded time, and what the
// tests leave running, because they ran out of time themselves, is killed.
//
// A test that lacks something skips with the name of what is missing and how to
// get it; when TAPESTRY_TEST_REQUIRE, a comma list, names it, the test fails.
package netnstest
