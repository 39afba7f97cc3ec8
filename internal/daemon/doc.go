// Package daemon wires the worker: it turns the desired state of package config
// into ports opened by the keeper, a spec of the switch, and answers of the
// API. It is the one place where these know each other.
//
//	config ──> commit ──> keeper (interfaces) ──> state file ──> switch ──> API
//
// # Changes
//
// Every change, from a whole file to one attached container, is a new desired
// state that goes through commit: validated as a whole, its interfaces opened
// first, saved on disk, put into force, and only then acknowledged. When a step
// fails the steps before it are undone and the old state stays.
//
// What tunnel and switch must agree on changes in three steps (force.go): the
// tunnel closes the networks concerned, the switch follows, the tunnel opens them.
// At no moment does a VLAN mean one network here and another one there.
//
// # Health
//
// A port whose interface or namespace has gone is down, with a reason, and is
// opened again as soon as its cause has gone. Ports are looked at once a second
// with one poll(2) for all of them.
//
// # Concurrency
//
// One mutex serialises changes. Readers of the API take it for as long as a
// copy takes. The forwarding loops know nothing of it.
package daemon
