package pki

import "time"

// SetClock lets a test choose the time.
func SetClock(c *CA, now func() time.Time) { c.now = now }

var ParseIndex = parseIndex
