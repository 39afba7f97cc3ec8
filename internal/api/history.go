package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/url"
	"reflect"
	"strconv"
	"time"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Taught is one event of the FDB's history: `fdb history` and `fdb why`.
type Taught struct {
	Time    time.Time `json:"time"`
	Event   string    `json:"event"` // learned, moved, aged, evicted, flushed, removed, static
	Network string    `json:"network"`
	VLAN    int       `json:"vlan"`
	MAC     frame.MAC `json:"mac"`
	Port    string    `json:"port"`
	OldPort string    `json:"old_port"` // of a move
	Frame   string    `json:"frame"`    // one line: the frame that taught it
	Head    string    `json:"head"`     // its first octets, hexadecimal
	// Missed counts events of the same port left out just before this one.
	Missed uint64 `json:"missed,omitempty"`
	// Rate of a move is how many moves of the station are recorded in the minute
	// up to this one, itself included.
	Rate int `json:"moves_per_minute,omitempty"`
	// Flapping is set when the station moved to and fro then.
	Flapping bool `json:"flapping,omitempty"`
}

// Flap is a station that moves to and fro.
type Flap struct {
	Network string    `json:"network"`
	VLAN    int       `json:"vlan"`
	MAC     frame.MAC `json:"mac"`
	Ports   []string  `json:"ports"` // between which
	Rate    float64   `json:"moves_per_minute"`
	Least   bool      `json:"at_least"` // some moves were too many to be recorded
	Since   time.Time `json:"since"`    // of the first move in the last minute
	Cause   string    `json:"cause"`    // the likely one
	Hint    string    `json:"hint"`     // what mends that
}

// Belief is what one network knows of an address, and why.
type Belief struct {
	Entry
	// AgeingLeft is when the entry will be forgotten, in seconds, if its station
	// stays silent; 0 = never.
	AgeingLeft int     `json:"ageing_left_s"`
	TaughtBy   *Taught `json:"taught_by"` // nil: older than the history reaches back, or static
	Rate       int     `json:"moves_per_minute"`
	Flap       *Flap   `json:"flap"` // nil: it doesn't
}

// Why is the answer to `fdb why MAC`.
type Why struct {
	MAC     frame.MAC `json:"mac"`
	Entries []Belief  `json:"entries"`    // one a network that knows it
	History []Taught  `json:"history"`    // newest last
	Reach   time.Time `json:"reaches_to"` // from when on the history is whole
}

// PastRequest asks for the FDB as it was.
type PastRequest struct {
	Time    time.Time
	Network string // empty = all
}

// Past is the answer to `fdb at TIME`.
type Past struct {
	Time    time.Time   `json:"time"`
	Reach   time.Time   `json:"reaches_to"` // from when on the history is whole
	Missed  uint64      `json:"missed"`     // events since then that were too many to be recorded
	Entries []PastEntry `json:"entries"`
}

// PastEntry is one row of a past. AgeS counts from the last sign of life up to
// then that is remembered, -1 if none is; Moves counts those remembered.
type PastEntry struct {
	Entry
	// Known is false when an event that is no longer remembered may have put the
	// entry there since.
	Known bool `json:"known"`
}

// HistoryRequest selects events of the FDB's history; zero fields match all.
type HistoryRequest struct {
	Limit   int // the newest so many
	MAC     frame.MAC
	Network string
	Port    string // the new or the former one; peer/NAME for a peer
	Since   time.Time
}

// pastReply is a Past whose entries are encoded one by one.
type pastReply struct {
	past Past
	rows iter.Seq[PastEntry]
}

func (p pastReply) encode(w *bufio.Writer) error {
	p.past.Entries = nil
	head, err := json.Marshal(p.past)
	if err != nil {
		return fmt.Errorf("encode past: %w", err)
	}
	w.Write(bytes.TrimSuffix(head, []byte("null}"))) // entries come last
	err = encodeList(w, func(yield func(reflect.Value) bool) {
		p.rows(func(e PastEntry) bool { return yield(reflect.ValueOf(e)) })
	})
	if err != nil {
		return err
	}
	return w.WriteByte('}')
}

// historyRoutes serves what the FDB remembers.
func historyRoutes(b Backend, ask asker) {
	ask("fdb/at", []string{"time", "network"}, func(q url.Values) (any, error) {
		t, err := timeOf("time", q.Get("time"))
		if err != nil || t.IsZero() {
			return nil, Errorf(CodeInvalid, "time %q: want RFC 3339", clip(q.Get("time")))
		}
		past, rows, err := b.At(PastRequest{Time: t, Network: q.Get("network")})
		return pastReply{past, rows}, err
	})
	ask("fdb/history", []string{"limit", "mac", "network", "port", "since"}, func(q url.Values) (any, error) {
		r := HistoryRequest{Network: q.Get("network"), Port: q.Get("port")}
		var err error
		if r.Limit, err = limitOf(q.Get("limit")); err != nil {
			return nil, err
		}
		if r.Since, err = timeOf("since", q.Get("since")); err != nil {
			return nil, err
		}
		if s := q.Get("mac"); s != "" {
			if r.MAC, err = frame.ParseMAC(s); err != nil {
				return nil, Errorf(CodeInvalid, "%v", err)
			}
		}
		return b.History(r)
	})
	ask("fdb/why", []string{"mac"}, func(q url.Values) (any, error) {
		m, err := frame.ParseMAC(q.Get("mac"))
		if err != nil {
			return nil, Errorf(CodeInvalid, "%v", err)
		}
		return b.Why(m.String())
	})
}

// timeOf reads a query parameter; empty is the zero time.
func timeOf(name, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return t, Errorf(CodeInvalid, "%s %q: want RFC 3339", name, clip(s))
	}
	return t, nil
}

// At asks for the FDB as it was.
func (c *Client) At(ctx context.Context, r PastRequest) (Past, error) {
	q := url.Values{"time": {r.Time.Format(time.RFC3339Nano)}}
	if r.Network != "" {
		q.Set("network", r.Network)
	}
	return ask[Past](ctx, c, "fdb/at?"+q.Encode())
}

// History asks for events of the FDB, oldest first; Limit 0 = all that are
// remembered.
func (c *Client) History(ctx context.Context, r HistoryRequest) ([]Taught, error) {
	q := url.Values{}
	if r.Limit > 0 {
		q.Set("limit", strconv.Itoa(r.Limit))
	}
	if !r.MAC.IsZero() {
		q.Set("mac", r.MAC.String())
	}
	if r.Network != "" {
		q.Set("network", r.Network)
	}
	if r.Port != "" {
		q.Set("port", r.Port)
	}
	if !r.Since.IsZero() {
		q.Set("since", r.Since.Format(time.RFC3339Nano))
	}
	return ask[[]Taught](ctx, c, "fdb/history?"+q.Encode())
}

// Why asks what taught the switch mac.
func (c *Client) Why(ctx context.Context, mac string) (Why, error) {
	return ask[Why](ctx, c, "fdb/why?mac="+url.QueryEscape(mac))
}
