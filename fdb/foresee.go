package fdb

import "github.com/tapestry-net/tapestry/switch/frame"

// Foresee tells what Learn would do, and the port that the entry names when that
// is another one. It changes nothing. Known stands for Refreshed too, and Inserted
// for Full: what a full table gives up is chosen when it is needed.
func (t *Table) Foresee(k Key, p frame.PortID) (Outcome, frame.PortID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, w := t.find(k)
	limited := t.ports[p].limit > 0 && int(t.owned[p].Load()) >= t.ports[p].limit
	switch {
	case w != 0 && w.port() == p:
		return Known, 0
	case w.static():
		return Static, w.port()
	case limited:
		return PortLimit, w.port()
	case w == 0:
		return Inserted, 0
	}
	return Moved, w.port()
}
