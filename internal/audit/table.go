package audit

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/tapestry-net/tapestry/switch/frame"
)

// Key is a station in a VLAN.
type Key struct {
	VID frame.VID
	MAC frame.MAC
}

func (k Key) compare(o Key) int {
	return cmp.Or(cmp.Compare(k.VID, o.VID), cmp.Compare(k.MAC.Uint64(), o.MAC.Uint64()))
}

// Entry is what the table says of a station.
type Entry struct {
	Key
	Port   frame.PortID
	Static bool
}

// Member is a port or peer as it should be.
type Member struct {
	Name   string // a peer's is peer/NAME
	Reason string // why it is down; empty = up
	VIDs   []frame.VID
	MAC    frame.MAC // of its interface, if that is ours; zero = unknown
}

// Wanted is what the table is compared with.
type Wanted struct {
	Members map[frame.PortID]Member
	Static  map[Key]frame.PortID
	Network func(frame.VID) string
	Ageing  func(frame.VID) string // how long it is, for a hint
}

// port is what to call id.
func (w *Wanted) port(id frame.PortID) string {
	if m, ok := w.Members[id]; ok {
		return m.Name
	}
	return fmt.Sprintf("#%d", id)
}

func (w *Wanted) station(k Key) string {
	return fmt.Sprintf("station %s in network %s", k.MAC, w.Network(k.VID))
}

// owner is the port whose interface has the address of k, if it is a member of
// the VLAN.
func (w *Wanted) owners() map[Key]frame.PortID {
	out := map[Key]frame.PortID{}
	for id, m := range w.Members {
		for _, v := range m.VIDs {
			if !m.MAC.IsZero() {
				out[Key{v, m.MAC}] = id
			}
		}
	}
	return out
}

// Table compares the entries of the filtering database with w. Entries that
// are wrong for one reason are one finding.
func Table(entries iter.Seq[Entry], w *Wanted) []Finding {
	type place struct {
		port frame.PortID
		vid  frame.VID // 0 where the VLAN doesn't matter
		why  string
	}
	wrong := map[place][]Key{}
	owners := w.owners()
	static := maps.Clone(w.Static)
	var out list
	for e := range entries {
		m, known := w.Members[e.Port]
		switch {
		case !known:
			wrong[place{e.Port, 0, "gone"}] = append(wrong[place{e.Port, 0, "gone"}], e.Key)
		case !slices.Contains(m.VIDs, e.VID):
			wrong[place{e.Port, e.VID, "member"}] = append(wrong[place{e.Port, e.VID, "member"}], e.Key)
		case m.Reason != "":
			wrong[place{e.Port, 0, "down"}] = append(wrong[place{e.Port, 0, "down"}], e.Key)
		}
		if own, ok := owners[e.Key]; ok && own != e.Port && known && static[e.Key] == 0 {
			out.note(AreaFDB, w.station(e.Key), "port "+w.port(own), "port "+w.port(e.Port),
				"find who else has the address, or what sends its frames back: tapestry fdb why "+e.MAC.String(),
				"the address belongs to the interface of port %s, the table has it behind port %s", w.port(own), w.port(e.Port))
		}
		if want, ok := static[e.Key]; ok && (want != e.Port || !e.Static) {
			out.note(AreaFDB, w.station(e.Key), "static, port "+w.port(want), kindOf(e)+", port "+w.port(e.Port), "tapestry apply -c FILE sets it right",
				"a static entry for port %s is configured, the table has a %s one for port %s", w.port(want), kindOf(e), w.port(e.Port))
		} else if !ok && e.Static {
			out.note(AreaFDB, w.station(e.Key), "no static entry", "static, port "+w.port(e.Port), "tapestry fdb rm "+w.Network(e.VID)+" "+e.MAC.String(),
				"the table has a static entry for port %s that is not configured", w.port(e.Port))
		}
		delete(static, e.Key)
	}
	for _, k := range slices.SortedFunc(maps.Keys(static), Key.compare) {
		out.note(AreaFDB, w.station(k), "static, port "+w.port(static[k]), "no entry", "raise fdb_limit if the table is full; tapestry apply -c FILE sets it right",
			"a static entry for port %s is configured, the table has none", w.port(static[k]))
	}
	for _, p := range slices.SortedFunc(maps.Keys(wrong), func(a, b place) int {
		return cmp.Or(cmp.Compare(a.port, b.port), cmp.Compare(a.vid, b.vid), strings.Compare(a.why, b.why))
	}) {
		w.noteWrong(&out, p.why, p.port, p.vid, wrong[p])
	}
	return out.told()
}

func kindOf(e Entry) string {
	if e.Static {
		return "static"
	}
	return "dynamic"
}

// noteWrong tells of entries that point where no frame can go.
func (w *Wanted) noteWrong(out *list, why string, id frame.PortID, vid frame.VID, keys []Key) {
	slices.SortFunc(keys, Key.compare)
	subject := fmt.Sprintf("%d entries of port %s", len(keys), w.port(id))
	if len(keys) == 1 {
		subject = "the entry of " + keys[0].MAC.String() + " of port " + w.port(id)
	}
	flush := "tapestry fdb flush --port " + w.port(id)
	switch why {
	case "gone":
		out.note(AreaFDB, subject, "a port or peer that exists", w.port(id), "tapestry fdb flush --mac "+keys[0].MAC.String(),
			"there is no port or peer of that number any more; the first is %s", keys[0].MAC)
	case "member":
		out.note(AreaFDB, subject, "a member of network "+w.Network(vid), "no member", flush,
			"the port is no member of network %s; the first is %s", w.Network(vid), keys[0].MAC)
	case "down":
		out.note(AreaFDB, subject, "up", "down: "+w.Members[id].Reason, "bring it up, or "+flush+" so that frames are flooded instead of refused",
			"the port is down (%s); frames for them are refused as egress_down until they age", w.Members[id].Reason)
	}
}
