package api

import (
	"context"
	"iter"
	"time"
)

// Backend is the running switch as the API server sees it. internal/daemon
// implements it. All methods may be called from any goroutine. Errors are
// *Error where the exit code matters; anything else is code 1.
type Backend interface {
	Status() Status
	Stats() Stats
	Networks() []Network
	Ports() []Port
	Peers() []Peer
	// FDB yields every entry, by network and address, as the table is while it
	// is read.
	FDB() iter.Seq[Entry]
	// At yields the entries as they were, by network and address. r.Time is set.
	At(r PastRequest) (Past, iter.Seq[PastEntry], error)
	History(r HistoryRequest) ([]Taught, error)
	Why(mac string) (Why, error)

	Apply(ctx context.Context, r ApplyRequest) (ApplyReply, error)
	Item(ctx context.Context, r ItemRequest) (ApplyReply, error)
	Attach(ctx context.Context, r AttachRequest) (Port, error)
	Detach(ctx context.Context, r DetachRequest) error
	Flush(r FlushRequest) (FlushReply, error)
	Explain(r ExplainRequest) (ExplainReply, error)
	// Check compares what there is with what there should be.
	Check(ctx context.Context, r CheckRequest) (CheckReply, error)
	Upgrade(ctx context.Context) (UpgradeReply, error)

	// Events returns a stream that ends when ctx does. A reader that is too
	// slow loses events; the stream says how many. kinds empty = all but frame.
	// Unless since is zero the stream begins with what is remembered since then.
	Events(ctx context.Context, kinds []string, since time.Time) <-chan Event
	// Happened returns what is remembered, oldest first.
	Happened(r HappenedRequest) []Event

	// Capture validates r and readies a capture, which costs nothing until it runs.
	Capture(r CaptureRequest) (CaptureRun, error)

	// Trace validates r, resolves its names and readies a trace.
	Trace(ctx context.Context, r TraceRequest) (TraceRun, error)
}

// Error is an error with the contract's exit code.
type Error struct {
	Code int    `json:"code"` // 1 failed, 2 invalid, 4 not permitted, 5 not found, 6 conflict
	Msg  string `json:"error"`
	Hint string `json:"hint,omitempty"`
	// Retry says that the same request will be taken before long; Client sends
	// it again by itself.
	Retry bool `json:"retry,omitempty"`
}

// Error implements error.
func (e *Error) Error() string { return e.Msg }
