package main

import (
	"slices"
	"testing"
	"time"
)

func TestParseMoment(t *testing.T) {
	now := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	for s, want := range map[string]string{
		"10:02:31":                  "2026-01-02T10:02:31Z",
		"10:02":                     "2026-01-02T10:02:00Z",
		"2026-01-01T23:00:00+02:00": "2026-01-01T21:00:00Z",
		"-5m":                       "2026-01-02T14:59:05Z",
		"1h30m ago":                 "2026-01-02T13:34:05Z",
		"5m":                        "", "now": "", "": "", "--5m": "", "-5m ago": "", "25:00": "",
	} {
		got, err := parseMoment(s, now)
		switch {
		case want == "" && err == nil:
			t.Errorf("%q: got %v, want an error", s, got)
		case want != "" && (err != nil || got.UTC().Format(time.RFC3339) != want):
			t.Errorf("%q: got %v, %v; want %s", s, got, err, want)
		}
	}
}

func TestMomentArgs(t *testing.T) {
	for _, c := range []struct{ in, want []string }{
		{[]string{"fdb", "at", "-5m", "--json"}, []string{"fdb", "at", "5m ago", "--json"}},
		{[]string{"fdb", "at", "-5"}, []string{"fdb", "at", "5 ago"}},
		{[]string{"fdb", "at", "-"}, []string{"fdb", "at", "-"}},
		{[]string{"--json", "fdb", "at", "-h"}, []string{"--json", "fdb", "at", "-h"}},
		{[]string{"capture", "-5m"}, []string{"capture", "-5m"}},
		{[]string{"at"}, []string{"at"}},
	} {
		if got := momentArgs(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
}
