// Package keeper is the privileged half of the switch: it opens, moves, holds
// and removes interfaces and sockets for the worker, and parses no packet.
package keeper
