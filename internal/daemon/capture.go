package daemon

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tapestry-net/tapestry/capture"
	"github.com/tapestry-net/tapestry/capture/filter"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// strangers is the name of what the tunnel refuses from nobody that it knows. No
// port's name has a slash.
const strangers = "tunnel/unknown"

// deviceDelay is how long packets are held back for those of interfaces of the
// host to come between them in their order.
const deviceDelay = 20 * time.Millisecond

// captureNames translates for captures with the names of the moment.
func (d *Daemon) captureNames(v *devices) capture.Names {
	return capture.Names{
		Port: func(id frame.PortID) string {
			switch {
			case id == capture.Strangers:
				return strangers
			case id > frame.MaxPortID:
				return v.name(id)
			}
			return d.names.Load().port(id)
		},
		Network: func(v frame.VID) string { return d.names.Load().network(v) },
	}
}

// Capture implements api.Backend.
func (d *Daemon) Capture(r api.CaptureRequest) (api.CaptureRun, error) {
	c := capture.Choice{Drops: r.Drops}
	if !r.Segment { // segments are cut before they are shortened
		c.Snap = r.Snaplen
	}
	dir, ok := map[string]capture.Direction{"": capture.Both, "both": capture.Both, "in": capture.In, "out": capture.Out}[r.Direction]
	if c.Direction = dir; !ok {
		return nil, api.Errorf(api.CodeInvalid, "direction %q: want in, out or both", clip(r.Direction))
	}
	if r.Snaplen < 0 || r.Snaplen > 0 && r.Snaplen < capture.MinSnap {
		return nil, api.Errorf(api.CodeInvalid, "snaplen %d: at least %d octets are kept of each packet", r.Snaplen, capture.MinSnap)
	}
	if r.Filter != "" {
		p, err := filter.Compile(r.Filter)
		if err != nil {
			e := api.Errorf(api.CodeInvalid, "filter: %v", err)
			if bad, ok := errors.AsType[*filter.Error](err); ok {
				e.Hint = bad.Hint
			}
			return nil, e
		}
		c.Filter = p
	}
	list, devs, err := d.captureSources(r.Ports)
	if err != nil {
		return nil, err
	}
	host, ports, announce, err := d.capturePorts(list, len(devs))
	if err != nil {
		return nil, err
	}
	v, err := d.openDevices(devs, c.Filter)
	if err != nil {
		return nil, err
	}
	c.Ports = ports
	names := d.captureNames(v)
	return func(ctx context.Context, w io.Writer, flush func() error) error {
		s := &capture.Stream{Ring: capture.NewRing(c, 0), Expander: capture.NewExpander(names, r.Segment, r.Snaplen), Ports: announce, Count: r.Count}
		if r.JSON {
			s.Sink = &captureLines{out: bufio.NewWriter(w), flush: flush, host: host, names: names}
		} else {
			png := capture.NewPcapng(w, flush, "tapestry "+d.version, "captured by the switch of "+host, d.describe(host, names, r))
			if s.Sink = png; r.Keys {
				k := d.keys.join()
				defer func() {
					d.keys.leave(k)
					d.logKeys()
				}()
				d.logKeys()
				png.Secrets = k.take
			}
		}
		return d.runCapture(ctx, s, v)
	}, nil
}

// runCapture lets s see what it is of until it ends.
func (d *Daemon) runCapture(ctx context.Context, s *capture.Stream, v *devices) error {
	if len(v.sockets) > 0 {
		s.Sort = deviceDelay
		watching, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			v.run(watching, s.Ring, func(name string, err error) { d.log.Info("capture of an interface ended", "ifname", name, "err", err) })
		}()
		defer func() { stop(); <-done }()
	}
	d.observe(s.Ring)
	defer d.unobserve(s.Ring)
	return s.Run(ctx)
}

// observe shows r every frame, and what the tunnel makes no frame of.
func (d *Daemon) observe(r *capture.Ring) {
	d.sw.Observe(r)
	d.observers.Add(r)
}

func (d *Daemon) unobserve(r *capture.Ring) {
	d.observers.Remove(r)
	d.sw.Unobserve(r) // and the loops have finished their batches
}

// captureSources takes the host's name off those of ports, and interfaces of the
// host out of them.
func (d *Daemon) captureSources(list []string) (ports, devs []string, err error) {
	d.mu.Lock()
	host := d.eff.Host
	d.mu.Unlock()
	for _, name := range list {
		name = strings.TrimPrefix(name, host+"/")
		dev, ok := strings.CutPrefix(name, devicePrefix)
		switch {
		case !ok:
			ports = append(ports, name)
		case dev == "":
			return nil, nil, api.Errorf(api.CodeInvalid, "port %q: want %sNAME with the name of an interface", clip(name), devicePrefix)
		case !slices.Contains(devs, dev):
			devs = append(devs, dev)
		}
	}
	return ports, devs, nil
}

// capturePorts resolves names, beside so many interfaces of the host; announce is
// all ports when none is named.
func (d *Daemon) capturePorts(list []string, devs int) (host string, ids, announce []frame.PortID, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	host = d.eff.Host
	for i := range devs {
		ids = append(ids, capture.Device(i))
	}
	for _, name := range list {
		id := d.portID(name)
		if name == strangers && d.vtep == nil {
			return "", nil, nil, &api.Error{Code: api.CodeNotFound, Msg: "no tunnel, so nothing is refused by it", Hint: "`tunnel:` in the file, or `tapestry peer add`, makes one"}
		}
		if id == 0 && name != strangers {
			return "", nil, nil, d.noPort(name)
		}
		ids = append(ids, id)
	}
	if len(ids) > 0 {
		return host, ids, ids, nil
	}
	for _, name := range slices.Sorted(maps.Keys(d.ports)) {
		announce = append(announce, d.ports[name].id)
	}
	for _, p := range d.peerSpecs() {
		announce = append(announce, p.ID)
	}
	if d.vtep != nil {
		announce = append(announce, capture.Strangers)
	}
	return host, nil, announce, nil
}

// describe says what a pcapng tells about a port.
func (d *Daemon) describe(host string, names capture.Names, r api.CaptureRequest) func(frame.PortID) capture.Interface {
	return func(id frame.PortID) capture.Interface {
		name := names.Port(id)
		i := capture.Interface{Name: host + "/" + name, Filter: r.Filter, Snap: r.Snaplen}
		d.mu.Lock()
		defer d.mu.Unlock()
		if _, ok := d.ports[name]; !ok {
			switch {
			case id == capture.Strangers:
				i.Description = "datagrams that the tunnel refused and knows no peer for, with their outer headers"
			case id > frame.MaxPortID:
				i.Description = "interface of the host: packets as its kernel handles them, which may be longer than the MTU and lack checksums"
			case strings.HasPrefix(name, peerPrefix):
				i.Description = "tunnel peer: frames without their outer headers, refused datagrams with them"
			}
			return i
		}
		row := d.portRow(name)
		i.Description = fmt.Sprintf("%s port %s", row.Kind, row.Device)
		if row.Netns != "" {
			i.Description += " in " + row.Netns
		}
		if row.Network != "" {
			i.Description += ", network " + row.Network
		}
		if len(row.Trunk) > 0 {
			i.Description += ", trunk of " + strings.Join(row.Trunk, " ")
		}
		i.Description = api.Clean(i.Description)
		return i
	}
}

// captureLines is a capture.Sink that writes api.Captured lines.
type captureLines struct {
	out   *bufio.Writer
	flush func() error
	host  string
	names capture.Names
}

// Port implements capture.Sink: each line names its port.
func (*captureLines) Port(frame.PortID) error { return nil }

// Packet implements capture.Sink.
func (l *captureLines) Packet(p *capture.Packet, lost uint64) error {
	c := api.Captured{
		Kind: "packet", Time: p.Time, Host: l.host, Port: l.names.Port(p.Port), Direction: p.Direction.String(), Length: p.Len,
		Network: l.names.Network(p.Verdict.VID), VLAN: int(p.Verdict.VID),
		Decision: p.Decision, Note: p.Note, Data: hex.EncodeToString(p.Data), Lost: lost,
	}
	if p.Verdict != (frame.Verdict{}) {
		c.Action, c.Reason = p.Verdict.Action.String(), p.Verdict.Reason.String()
	}
	if p.Refused != frame.ReasonNone {
		c.Refused = p.Refused.String()
	}
	return api.Encode(l.out, c)
}

// Lost implements capture.Sink.
func (l *captureLines) Lost(id frame.PortID, delivered, lost uint64) error {
	return api.Encode(l.out, api.Captured{Kind: "count", Time: time.Now(), Host: l.host, Port: l.names.Port(id), Delivered: delivered, Lost: lost})
}

// Flush implements capture.Sink.
func (l *captureLines) Flush() error {
	if err := l.out.Flush(); err != nil {
		return err
	}
	return l.flush()
}
