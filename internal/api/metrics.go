package api

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
)

// collector turns the Backend's own counters into metrics when it is scraped;
// nothing is counted twice and the forwarding loops know nothing of it.
type collector struct {
	backend Backend
	all     []*prometheus.Desc

	build, uptime, generation                    *prometheus.Desc
	rxFrames, verdicts, copies, drops            *prometheus.Desc
	portUp, portRestarts, portDrops, portEntries *prometheus.Desc
	portMoves, peerMoves, fdbFlapping            *prometheus.Desc
	portRxFrames, portRxBytes                    *prometheus.Desc
	portTxFrames, portTxBytes                    *prometheus.Desc
	peerUp, peerMTU, peerDrops                   *prometheus.Desc
	peerRxFrames, peerRxBytes                    *prometheus.Desc
	peerTxFrames, peerTxBytes                    *prometheus.Desc
	peerLinkUp, peerKeyAge, peerRecordsLeft      *prometheus.Desc
	peerHandshakes                               *prometheus.Desc
	tunnelMissed                                 *prometheus.Desc
	fdbEntries, fdbLimit, fdbMoves, fdbEvicted   *prometheus.Desc
	loops, wakeups, spins                        *prometheus.Desc
	writes, coalesced, segmented                 *prometheus.Desc
}

func newCollector(b Backend) *collector {
	c := &collector{backend: b}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		d := prometheus.NewDesc("tapestry_"+name, help, labels, nil)
		c.all = append(c.all, d)
		return d
	}
	c.build = desc("build_info", "The running program; always 1.", "version", "goversion")
	c.uptime = desc("uptime_seconds", "Seconds since the worker started.")
	c.generation = desc("worker_generation", "Workers started since the keeper did.")

	c.rxFrames = desc("received_frames_total", "Frames that entered the switch; a GSO frame counts once.")
	c.verdicts = desc("verdicts_total", "Decisions about received frames.", "action")
	c.copies = desc("copies_total", "Forwarded copies before coalescing.", "result")
	c.drops = desc("drops_total", "Frames and copies not sent on.", "reason")

	c.portUp = desc("port_up", "Whether the port forwards.", "port", "kind")
	c.portRestarts = desc("port_restarts_total", "How often the port healed.", "port")
	c.portDrops = desc("port_drops_total", "Frames and copies not sent on.", "port", "reason")
	c.portEntries = desc("port_fdb_entries", "Dynamic FDB entries that the port owns.", "port")
	c.portMoves = desc("port_fdb_moves_total", "Stations that moved to the port from another.", "port")
	c.portRxFrames = desc("port_receive_frames_total", "Frames into the switch.", "port")
	c.portRxBytes = desc("port_receive_bytes_total", "Octets into the switch, without FCS.", "port")
	c.portTxFrames = desc("port_transmit_frames_total", "Frames out of the switch.", "port")
	c.portTxBytes = desc("port_transmit_bytes_total", "Octets out of the switch, without FCS.", "port")

	c.peerUp = desc("peer_up", "Whether the tunnel peer is there.", "peer")
	c.peerMTU = desc("peer_mtu_octets", "Longest inner packet that the path to the peer carries.", "peer")
	c.peerDrops = desc("peer_drops_total", "Datagrams, frames and copies of the peer not sent on.", "peer", "reason")
	c.peerMoves = desc("peer_fdb_moves_total", "Stations that moved to the peer from a port or another peer.", "peer")
	c.peerRxFrames = desc("peer_receive_frames_total", "Frames from the peer into the switch.", "peer")
	c.peerRxBytes = desc("peer_receive_bytes_total", "Octets of inner frames into the switch.", "peer")
	c.peerTxFrames = desc("peer_transmit_frames_total", "Frames out of the switch to the peer.", "peer")
	c.peerTxBytes = desc("peer_transmit_bytes_total", "Octets of inner frames to the peer.", "peer")

	c.peerLinkUp = desc("peer_link_up", "Whether the encrypted link to the peer is established, where a network demands one.", "peer")
	c.peerKeyAge = desc("peer_link_key_age_seconds", "Age of the keys of the encrypted link.", "peer")
	c.peerRecordsLeft = desc("peer_link_records_left", "Records that the keys of the encrypted link may still seal.", "peer")
	c.peerHandshakes = desc("peer_link_handshakes_total", "Handshakes of the encrypted link that ended well.", "peer")

	c.tunnelMissed = desc("tunnel_kernel_drops_total", "Datagrams that the kernel dropped before the switch read them.")

	c.fdbEntries = desc("fdb_entries", "Entries of the filtering database.")
	c.fdbLimit = desc("fdb_limit", "Entries that the filtering database may hold.")
	c.fdbMoves = desc("fdb_moves_total", "Stations that moved from port to port.")
	c.fdbFlapping = desc("fdb_flapping_stations", "Stations that move to and fro at present.")
	c.fdbEvicted = desc("fdb_evictions_total", "Entries taken by the table limit.")

	c.loops = desc("loops", "Forwarding loops.")
	c.wakeups = desc("loop_wakeups_total", "Returns from waiting with work to do.")
	c.spins = desc("loop_spins_total", "Empty polls before sleeping.")
	c.writes = desc("loop_writes_total", "Frames handed to ports after coalescing.")
	c.coalesced = desc("loop_coalesced_total", "Copies that left inside another's GSO frame.")
	c.segmented = desc("loop_segmented_total", "GSO frames cut for an egress that carries none.")
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.all {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		for i := range labels {
			labels[i] = Clean(labels[i]) // a label must be UTF-8
		}
		ch <- prometheus.MustNewConstMetric(d, t, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		send(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		send(d, prometheus.GaugeValue, v, labels...)
	}

	st := c.backend.Status()
	gauge(c.build, 1, st.Version, runtime.Version())
	gauge(c.fdbEntries, float64(st.FDB.Entries))
	gauge(c.fdbLimit, float64(st.FDB.Limit))
	gauge(c.fdbFlapping, float64(st.FDB.Flapping))

	s := c.backend.Stats()
	gauge(c.uptime, float64(s.UptimeS))
	gauge(c.generation, float64(s.Generation))
	count(c.rxFrames, s.RxFrames)
	for action, n := range s.Verdicts {
		count(c.verdicts, n, action)
	}
	count(c.copies, s.Copies.Sent, "sent")
	count(c.copies, s.Copies.Refused, "refused")
	for reason, n := range s.Drops {
		count(c.drops, n, reason)
	}
	count(c.tunnelMissed, s.Missed)
	gauge(c.loops, float64(s.Loop.Loops))
	count(c.wakeups, s.Loop.Wakeups)
	count(c.spins, s.Loop.Spins)
	count(c.writes, s.Loop.Writes)
	count(c.coalesced, s.Loop.Coalesced)
	count(c.segmented, s.Loop.Segmented)
	count(c.fdbMoves, s.Loop.Moves)
	count(c.fdbEvicted, s.Loop.Evicted)

	for _, p := range c.backend.Ports() {
		up := 0.0
		if p.State == "up" {
			up = 1
		}
		gauge(c.portUp, up, p.Name, p.Kind)
		gauge(c.portEntries, float64(p.Entries), p.Name)
		count(c.portRestarts, p.Restarts, p.Name)
		count(c.portMoves, p.Moves, p.Name)
		count(c.portRxFrames, p.RX.Frames, p.Name)
		count(c.portRxBytes, p.RX.Bytes, p.Name)
		count(c.portTxFrames, p.TX.Frames, p.Name)
		count(c.portTxBytes, p.TX.Bytes, p.Name)
		for reason, n := range p.Drops {
			count(c.portDrops, n, p.Name, reason)
		}
	}
	c.peers(count, gauge)
}

// peers collects what is known of the tunnel's peers.
func (c *collector) peers(count func(*prometheus.Desc, uint64, ...string), gauge func(*prometheus.Desc, float64, ...string)) {
	for _, p := range c.backend.Peers() {
		up := 0.0
		if p.State == "up" {
			up = 1
		}
		gauge(c.peerUp, up, p.Name)
		gauge(c.peerMTU, float64(p.MTU), p.Name)
		count(c.peerMoves, p.Moves, p.Name)
		count(c.peerRxFrames, p.RX.Frames, p.Name)
		count(c.peerRxBytes, p.RX.Bytes, p.Name)
		count(c.peerTxFrames, p.TX.Frames, p.Name)
		count(c.peerTxBytes, p.TX.Bytes, p.Name)
		for reason, n := range p.Drops {
			count(c.peerDrops, n, p.Name, reason)
		}
		c.link(p, count, gauge)
	}
}

// link collects what is known of a peer's encrypted link.
func (c *collector) link(p Peer, count func(*prometheus.Desc, uint64, ...string), gauge func(*prometheus.Desc, float64, ...string)) {
	l := p.Link
	if l == nil {
		return
	}
	up := 0.0
	if l.Up() {
		up = 1
		gauge(c.peerKeyAge, float64(l.KeyAge), p.Name)
		gauge(c.peerRecordsLeft, float64(l.Left), p.Name)
	}
	gauge(c.peerLinkUp, up, p.Name)
	count(c.peerHandshakes, l.Handshakes, p.Name)
}
