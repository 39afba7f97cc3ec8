// Package link makes, finds, sets up and removes the machine's interfaces, and
// says where and why not the machine sends a packet; it is where netlink is
// spoken.
//
//	container's namespace        daemon's namespace
//	┌──────┐   veth pair   ┌──────────┐   tc clsact, u32, mirred   ┌─────┐
//	│ eth0 ├───────────────┤ host end ├────── redirect, both ──────┤ TAP ├─ switch
//	└──────┘               └──────────┘            ways            └─────┘
//
// # Ownership
//
// Every interface that the product makes carries an Owner in its ifalias. What
// a daemon that was killed leaves behind is found by it, and an interface
// without it, or with another's, is never changed: that is ErrConflict.
//
// # Concurrency
//
// A Conn is used by one goroutine at a time. A Watcher has a goroutine of its
// own, which Close ends.
//
// # Standards
//
// rtnetlink(7), tc(8), proc_sys_net(5), RFC 3704 for the reverse path filter.
package link
