package main

import "testing"

// TestLosses: what one worker lost is not forgotten when the next one counts.
func TestLosses(t *testing.T) {
	var l losses
	if l.all() != 0 {
		t.Errorf("before anything: %d lost", l.all())
	}
	l.begin()
	l.of["c1"], l.of["c2"] = 3, 4
	l.of["c1"] = 5
	l.begin()
	l.of["c1"] = 1
	if got := l.all(); got != 10 {
		t.Errorf("got %d lost, want 5 and 4 of the first worker and 1 of the second", got)
	}
}
