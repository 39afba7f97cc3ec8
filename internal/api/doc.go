// Package api is the control API of a running switch: HTTP and JSON on a unix
// socket, its types, server and client.
package api
