package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/internal/api"
)

func (c *cli) fdbWhy() *cobra.Command {
	return &cobra.Command{
		Use: "why MAC", Short: "Why the switch believes that an address is where it is", Args: args("MAC"),
		Long: "Says which frame on which port taught the switch an address and when, where the\n" +
			"address was before, how often it moves, and when it will be forgotten. An address that\n" +
			"is not in the FDB gives exit code 5, with what the history still knows of it.",
		Example:           "  tapestry fdb why 02:00:00:00:00:01",
		ValidArgsFunction: c.complete(c.stations),
		RunE: func(cmd *cobra.Command, a []string) error {
			if _, err := parseMAC(cmd, a[0]); err != nil {
				return err
			}
			w, err := c.client().Why(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			if err := c.print(w, func() { c.printWhy(w) }); err != nil || len(w.Entries) > 0 {
				return err
			}
			return forgotten(w)
		},
	}
}

// forgotten is the error about an address that only the history knows.
func forgotten(w api.Why) error {
	e := api.Errorf(api.CodeNotFound, "%s is not in the FDB: frames for it are flooded", w.MAC)
	if len(w.History) == 0 {
		return e
	}
	last := w.History[len(w.History)-1]
	e.Msg += fmt.Sprintf("; it was %s at %s", gone(last.Event), clock(last.Time))
	if last.Port != "" {
		e.Msg += ", behind port " + last.Port
	}
	if last.Event == "aged" {
		return e.WithHint("it was silent for the ageing time of network %s; it is learned again with the next frame that it sends", last.Network)
	}
	return e.WithHint("it is learned again with the next frame that it sends")
}

// gone puts the end of an entry into words.
func gone(event string) string {
	if event == "aged" {
		return "aged out"
	}
	return event
}

func (c *cli) printWhy(w api.Why) {
	for _, e := range w.Entries {
		c.printBelief(e)
	}
	if len(w.History) > 0 {
		if len(w.Entries) > 0 {
			c.printf("\n")
		}
		c.printf("history, newest last\n")
		c.printHistory(w.History)
	}
}

func (c *cli) printBelief(e api.Belief) {
	place := "port " + e.Port
	if e.Peer != "" {
		place = "peer " + e.Peer
	}
	if e.Kind == "static" {
		c.printf("%s is at %s in network %s (VLAN %d), because a static entry says so.\n", e.MAC.String(), place, e.Network, e.VLAN)
		return
	}
	left := ""
	if e.AgeingLeft > 0 {
		left = fmt.Sprintf("; forgotten in %s if it stays silent", seconds(e.AgeingLeft))
	}
	c.printf("%s is behind %s in network %s (VLAN %d), last heard %s ago%s.\n", e.MAC.String(), place, e.Network, e.VLAN, seconds(e.AgeS), left)
	if t := e.TaughtBy; t != nil {
		c.printf("A frame that came in by port %s at %s taught it: %s.\n", t.Port, clock(t.Time), t.Frame)
	} else {
		c.printf("The frame that taught it is older than the history reaches back.\n")
	}
	if f := e.Flap; f != nil {
		least := ""
		if f.Least {
			least = "at least "
		}
		c.printf("It flaps between %s, %s%.0f moves a minute since %s: likely %s.\n", strings.Join(f.Ports, " and "), least, f.Rate, clock(f.Since), f.Cause)
		c.printf("  hint: %s\n", f.Hint)
	} else if e.Rate > 0 {
		c.printf("It moved %s in the last minute.\n", count(e.Rate, "time"))
	}
}

func (c *cli) fdbHistory() *cobra.Command {
	var r api.HistoryRequest
	var mac, since string
	cmd := &cobra.Command{
		Use: "history [flags]", Short: "What was learned, moved and forgotten", Args: args(), DisableFlagsInUseLine: true,
		Long: "Lists the newest events of the FDB that match all flags, newest last: who taught what,\n" +
			"when, by which frame, and for a move how many the station made in the minute up to it.",
		Example: "  tapestry fdb history --limit 20\n  tapestry fdb history --port c1 --since -5m",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r.Limit < 1 {
				return usagef(cmd, "--limit %d: want a number from 1", r.Limit)
			}
			var err error
			if mac != "" {
				if r.MAC, err = parseMAC(cmd, mac); err != nil {
					return err
				}
			}
			if r.Since, err = sinceFlag(cmd, since); err != nil {
				return err
			}
			list, err := c.client().History(cmd.Context(), r)
			if err != nil {
				return err
			}
			return c.print(list, func() { c.printHistory(list) })
		},
	}
	cmd.Flags().IntVar(&r.Limit, "limit", 100, "at most so many events")
	cmd.Flags().StringVar(&mac, "mac", "", "only this address")
	cmd.Flags().StringVar(&r.Network, "network", "", "only this network")
	cmd.Flags().StringVar(&r.Port, "port", "", "only what came to or left this port, or peer/NAME")
	cmd.Flags().StringVar(&since, "since", "", "only from then on: "+momentForms)
	return cmd
}

func (c *cli) printHistory(list []api.Taught) {
	t := c.table()
	for _, h := range list {
		place := h.Port
		if h.OldPort != "" {
			place = h.OldPort + " → " + h.Port
		}
		said := h.Frame
		if h.Rate > 1 {
			said += fmt.Sprintf(", %d moves in a minute", h.Rate)
		}
		if h.Flapping {
			said += ": it flaps"
		}
		if h.Missed > 0 {
			said += fmt.Sprintf(" (%s of %s before it were too many to be kept)", count(int(h.Missed), "event"), h.Port)
		}
		t.row(clock(h.Time), h.Event, h.Network, h.MAC, strings.TrimSpace(place), strings.TrimLeft(said, ", "))
	}
	t.flush()
}

func (c *cli) fdbAt() *cobra.Command {
	var network string
	cmd := &cobra.Command{
		Use: "at TIME [flags]", Short: "The table as it was", Args: args("TIME"), DisableFlagsInUseLine: true,
		Long: "Lists the entries as they were at a moment: those of the present, with every event of\n" +
			"the history since then undone. A row that may have come there by an event that is no\n" +
			"longer remembered is marked with a question mark. AGE counts from the last sign of life\n" +
			"that is remembered. TIME is " + momentForms + ".",
		Example: "  tapestry fdb at -5m --network blue",
		RunE: func(cmd *cobra.Command, a []string) error {
			when, err := parseMoment(a[0], time.Now())
			if err != nil {
				return usagef(cmd, "%v", err)
			}
			p, err := c.client().At(cmd.Context(), api.PastRequest{Time: when, Network: network})
			if err != nil {
				return err
			}
			return c.print(p, func() { c.printPast(p) })
		},
	}
	cmd.Flags().StringVar(&network, "network", "", "only this network")
	return cmd
}

func (c *cli) printPast(p api.Past) {
	t := c.table("NETWORK", "VLAN", "MAC", "PORT", "PEER", "KIND", "AGE", "MOVES", "KNOWN")
	for _, e := range p.Entries {
		age, known := seconds(e.AgeS), "yes"
		if e.AgeS < 0 {
			age = ""
		}
		if !e.Known {
			known = "?"
		}
		t.row(e.Network, e.VLAN, e.MAC, e.Port, e.Peer, e.Kind, age, e.Moves, known)
	}
	t.flush()
	if p.Time.Before(p.Reach) {
		fmt.Fprintf(c.err, "the history reaches back to %s only: no row is known for sure, and some may be missing\n", clock(p.Reach))
	}
	if p.Missed > 0 {
		fmt.Fprintf(c.err, "%s since then were too many to be kept: some rows may be missing\n", count(int(p.Missed), "event"))
	}
}
