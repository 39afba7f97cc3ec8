// Package api is how the running switch is asked and told: HTTP and JSON on a
// unix socket, with the documents, a server and a client. The server decides
// who may speak and what is well formed; everything else is the Backend's.
//
//	GET  /v1/status  stats  networks  ports  fdb  fdb/history?limit=N  fdb/why?mac=M
//	POST /v1/apply  item  attach  detach  fdb/flush  explain  upgrade
//	GET  /v1/events?kind=K&kind=…      one JSON object a line, until the caller leaves
//	GET  /metrics                      Prometheus text
//
// A refusal is an Error document; its code is the exit code of the command line
// and chooses the HTTP status.
//
//	code    2    4    5    6    any other
//	status  400  403  404  409  500
//
// # Who may speak
//
// The socket's file mode comes first. Of those it lets in, the server serves
// root, the daemon's own user, the file's owner and the members of the file's
// group, as the kernel reports them (SO_PEERCRED, SO_PEERGROUPS). Calls that
// change something are logged with the caller's user and process.
//
// # Bounds
//
// A request has at most 4 MiB, 16 KiB of it headers, and no field that is not
// declared here. Everything the server sends is JSON whose strings hold no raw
// control character, so that a hostile name cannot steer a terminal.
//
// # Concurrency
//
// A Server and a Client may be used from any goroutine.
package api
