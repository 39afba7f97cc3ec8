package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// momentForms is what parseMoment understands, for help texts.
const momentForms = "10:02:31 or 10:02 (today), 2006-01-02T15:04:05Z (RFC 3339), -5m or 5m ago"

// parseMoment reads a moment of the past: a time of day is today's.
func parseMoment(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		if t, err := time.Parse(layout, s); err == nil {
			y, m, d := now.Date()
			return time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), now.Location()), nil
		}
	}
	ago, relative := strings.CutPrefix(s, "-")
	if !relative {
		ago, relative = strings.CutSuffix(s, " ago")
	}
	if d, err := time.ParseDuration(strings.TrimSpace(ago)); relative && err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("time %q: want %s", s, momentForms)
}

// sinceFlag reads the flag --since; empty is the zero time.
func sinceFlag(cmd *cobra.Command, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := parseMoment(s, time.Now())
	if err != nil {
		return t, usagef(cmd, "--since: %v", err)
	}
	return t, nil
}

// momentArgs lets `fdb at -5m` stand for `fdb at "5m ago"`: what begins with a
// minus would be taken for a flag, and -5, which lacks a unit, as well.
func momentArgs(args []string) []string {
	at := slices.Index(args, "at")
	if at < 1 || args[at-1] != "fdb" {
		return args
	}
	out := slices.Clone(args)
	for i := at + 1; i < len(out); i++ {
		if ago, ok := strings.CutPrefix(out[i], "-"); ok && ago != "" && strings.Contains("0123456789.", ago[:1]) {
			out[i] = ago + " ago"
		}
	}
	return out
}
