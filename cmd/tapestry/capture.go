package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/capture"
	"github.com/tapestry-net/tapestry/capture/dissect"
	"github.com/tapestry-net/tapestry/capture/filter"
	"github.com/tapestry-net/tapestry/capture/record"
	"github.com/tapestry-net/tapestry/internal/api"
)

type captureFlags struct {
	api.CaptureRequest
	write      string
	rotateSize string
	rotateTime time.Duration
	rotateKeep int
}

func (c *cli) capture() *cobra.Command {
	var f captureFlags
	cmd := &cobra.Command{
		Use: "capture [flags]", Short: "Show or record frames, each with the decision about it", Args: args(), DisableFlagsInUseLine: true,
		Long: `Shows frames as ports receive them (in) and each copy as it leaves (out), one line
a frame, until interrupted. With -w it writes a pcapng: one named interface a
port, directions, nanoseconds, and the switch's decision as each packet's comment.
A reader that is too slow loses packets, and is told how many; the switch never waits.
Filters are those of tcpdump, and vxlan [VNI].

Ports and peers show frames as they are inside encrypted links. To see a link as
it crosses an interface, and to take it apart, capture dev/INTERFACE --with-keys:
the links get new keys, which the file holds for Wireshark. Only root may.`,
		Example: `  tapestry capture --port c1 --filter 'tcp port 443'
  tapestry capture --drops
  tapestry capture -w - | wireshark -k -i -
  tapestry capture --port dev/eth1 --filter 'udp port 4788' --with-keys -w links.pcapng`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFilter(f.Filter); err != nil {
				return err
			}
			if f.write == "" {
				if f.rotateSize != "" || f.rotateTime != 0 || f.rotateKeep != 0 {
					return usagef(cmd, "only files are rotated").WithHint("name one with -w")
				}
				if f.Keys {
					return usagef(cmd, "--with-keys is for files").WithHint("name one with -w")
				}
				return c.showPackets(cmd.Context(), f.CaptureRequest)
			}
			if f.Keys {
				fmt.Fprintln(c.err, "WARNING: this capture holds the keys of all encrypted links of this host.\nWho has the file reads everything that crosses them. Delete it when you are done.")
			}
			rot, err := f.rotation(cmd)
			if err != nil {
				return err
			}
			return c.recordPackets(cmd.Context(), f.CaptureRequest, f.write, rot)
		},
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&f.Ports, "port", nil, "only this port, peer/NAME, tunnel/unknown or dev/INTERFACE of the host (repeatable; default all of the switch)")
	fl.StringVar(&f.Filter, "filter", "", "only packets that match this tcpdump expression")
	fl.StringVar(&f.Direction, "direction", "both", "in: as received, out: each copy as it leaves, or both")
	fl.BoolVar(&f.Drops, "drops", false, "only frames that were dropped and copies that were refused")
	fl.Uint64Var(&f.Count, "count", 0, "end after so many packets")
	fl.IntVar(&f.Snaplen, "snaplen", 0, "octets kept of each packet, at least 64 (default all)")
	fl.BoolVar(&f.Segment, "segment", false, "show GSO frames as the segments that they stand for")
	fl.BoolVar(&f.Keys, "with-keys", false, "write the keys of encrypted links into the pcapng; root only")
	fl.StringVarP(&f.write, "write", "w", "", "write a pcapng to this file; - is the standard output")
	fl.StringVar(&f.rotateSize, "rotate-size", "", "begin another file when one would get larger, such as 100MB")
	fl.DurationVar(&f.rotateTime, "rotate-time", 0, "begin another file after this time, such as 1h")
	fl.IntVar(&f.rotateKeep, "rotate-files", 0, "keep so many files, the newest (default all)")
	return cmd
}

// rotation is what the flags say of files.
func (f *captureFlags) rotation(cmd *cobra.Command) (record.Rotation, error) {
	r := record.Rotation{Every: f.rotateTime, Keep: f.rotateKeep}
	var err error
	if r.Size, err = octets(f.rotateSize); err != nil {
		return r, usagef(cmd, "--rotate-size %q: %v", f.rotateSize, err)
	}
	switch rotates := r.Size > 0 || r.Every > 0; {
	case r.Every < 0:
		return r, usagef(cmd, "--rotate-time %v: want a time such as 1h", r.Every)
	case r.Keep < 0:
		return r, usagef(cmd, "--rotate-files %d: want a number of files", r.Keep)
	case r.Keep > 0 && !rotates:
		return r, usagef(cmd, "--rotate-files says how many files stay, not when another begins").WithHint("add --rotate-size or --rotate-time")
	case f.write == "-" && rotates:
		return r, usagef(cmd, "the standard output can't be rotated")
	}
	return r, nil
}

// checkFilter refuses a bad expression before anything is asked, and shows where
// it is bad.
func checkFilter(expr string) error {
	_, err := filter.Compile(expr)
	bad, ok := errors.AsType[*filter.Error](err)
	if !ok {
		return err
	}
	if len(expr) > filter.MaxLen {
		return api.Errorf(api.CodeInvalid, "filter: %v", bad) // a column of so much shows nobody anything
	}
	e := api.Errorf(api.CodeInvalid, "filter: %v\n  %s\n  %*s", bad, expr, bad.Column, "^")
	e.Hint = bad.Hint
	return e
}

// octets reads 500, 64KB, 100MB or 2GB.
func octets(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	number := strings.TrimRight(strings.ToUpper(s), "KMGB")
	unit, ok := map[string]int64{"": 1, "B": 1, "K": 1e3, "KB": 1e3, "M": 1e6, "MB": 1e6, "G": 1e9, "GB": 1e9}[strings.ToUpper(s)[len(number):]]
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || !ok || n <= 0 || n > (1<<62)/unit {
		return 0, errors.New("want a size such as 100MB")
	}
	return n * unit, nil
}

// streams calls take with one stream after the other until the capture is
// complete: another stream follows when the worker was replaced.
func (c *cli) streams(ctx context.Context, r api.CaptureRequest, seen func() uint64, take func(io.Reader) error) error {
	client := c.client()
	for {
		q := r
		if q.Count > 0 {
			q.Count -= seen()
		}
		body, err := client.Capture(ctx, q)
		if err == nil {
			err = take(body)
			body.Close()
		}
		switch {
		case ctx.Err() != nil, r.Count > 0 && seen() >= r.Count:
			return nil
		case err != nil && !errors.Is(err, io.EOF) && !client.Broken(err):
			return err
		}
		fmt.Fprintln(c.err, "the worker was replaced: packets in between are lost")
	}
}

// showPackets prints one line a packet.
func (c *cli) showPackets(ctx context.Context, r api.CaptureRequest) error {
	r.JSON = true
	d := dissect.New()
	var n uint64
	var lost losses
	err := c.streams(ctx, r, func() uint64 { return n }, func(body io.Reader) error {
		lost.begin()
		return api.DecodeCaptured(body, func(p *api.Captured) error {
			if p.Kind == "count" {
				lost.of[p.Port] = p.Lost
				return nil
			}
			octets, err := hex.DecodeString(p.Data)
			if err != nil {
				return api.Errorf(api.CodeFailed, "read capture: %v", err)
			}
			p.Frame = d.Whole(octets)
			if err := c.print(p, func() { c.printPacket(p) }); err != nil {
				return err
			}
			n++
			return nil
		})
	})
	if err == nil {
		c.captured(n, lost.all(), "")
	}
	return err
}

// losses sums what was lost of each port, over all workers that delivered: each of
// them counts from 0.
type losses struct {
	ended uint64
	of    map[string]uint64 // of the present worker, by port
}

func (l *losses) begin() { *l = losses{l.all(), map[string]uint64{}} }

func (l *losses) all() uint64 {
	n := l.ended
	for _, v := range l.of {
		n += v
	}
	return n
}

func (c *cli) printPacket(p *api.Captured) {
	if p.Lost > 0 {
		c.printf("%d packets of %s lost: the reader is too slow\n", p.Lost, p.Port)
	}
	note := ""
	if p.Note != "" && p.Note != capture.PartialChecksum { // which nearly every frame has
		note = "; " + p.Note
	}
	if p.Refused != "" {
		note += "; refused: " + p.Refused
	}
	line := fmt.Sprintf("%s  %-8s %-3s  %s  (%d octets)  %s%s", p.Time.Format("15:04:05.000000"), p.Port, p.Direction, p.Frame, p.Length, p.Decision, note)
	c.printf("%s\n", strings.TrimRight(line, " "))
}

// recordPackets writes the capture to path. The file is made when the switch has
// agreed: a request that it refuses replaces nothing.
func (c *cli) recordPackets(ctx context.Context, r api.CaptureRequest, path string, rot record.Rotation) error {
	if st, err := os.Stdout.Stat(); path == "-" && err == nil && st.Mode()&os.ModeCharDevice != 0 {
		return api.Errorf(api.CodeInvalid, "a pcapng is nothing for a terminal").WithHint("tapestry capture -w - | wireshark -k -i -")
	}
	var files *record.Files
	seen := func() uint64 {
		if files == nil {
			return 0
		}
		return files.Packets()
	}
	err := c.streams(ctx, r, seen, func(body io.Reader) (err error) {
		if files == nil {
			if files, err = createCapture(path, rot, ctx.Done()); err != nil {
				return err
			}
		}
		files.Resync()
		if _, err = io.Copy(files, body); files.Broken() {
			return api.Errorf(api.CodeFailed, "%v", err).WithHint("what was written so far is whole")
		}
		return err
	})
	if files == nil {
		return err
	}
	if e := files.Close(); err == nil {
		err = e
	}
	c.captured(files.Packets(), files.Lost(), written(files, path))
	return err
}

// createCapture opens the first file.
func createCapture(path string, rot record.Rotation, quit <-chan struct{}) (*record.Files, error) {
	files, err := record.Create(path, rot, time.Now, quit)
	switch {
	case errors.Is(err, record.ErrNoCapture):
		return nil, api.Errorf(api.CodeConflict, "%v", err).WithHint("name another file, or remove this one: only captures are overwritten")
	case errors.Is(err, record.ErrLink):
		return nil, api.Errorf(api.CodeConflict, "%v", err).WithHint("name the file itself: packets go to no file by a link")
	case err != nil:
		return nil, api.FileError(err)
	}
	return files, nil
}

// written says where the packets are.
func written(files *record.Files, path string) string {
	where := ""
	switch {
	case files.Count() > 1:
		where = fmt.Sprintf(" to %d files, %s to %s", files.Count(), files.First(), files.Name())
	case path != "-":
		where = " to " + files.Name()
	}
	if n := files.Removed(); n > 0 {
		where += fmt.Sprintf(" (%d older ones removed)", n)
	}
	return where
}

func (c *cli) captured(n, lost uint64, where string) {
	noun := "packets"
	if n == 1 {
		noun = "packet"
	}
	fmt.Fprintf(c.err, "%d %s captured%s, %d lost\n", n, noun, api.Clean(where), lost)
}
