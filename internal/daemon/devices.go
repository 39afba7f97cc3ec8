package daemon

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tapestry-net/tapestry/capture"
	"github.com/tapestry-net/tapestry/capture/filter"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/internal/watch"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// devicePrefix stands before the name of an interface of the host where a port's
// is expected.
const devicePrefix = "dev/"

// dropsEvery is how often the kernel is asked what it has dropped.
const dropsEvery = 500 * time.Millisecond

// devices are the interfaces of the host that one capture hears.
type devices struct {
	names   []string
	sockets []*watch.Socket
}

// openDevices opens them with what can be judged in the kernel of the filter.
func (d *Daemon) openDevices(names []string, p *filter.Program) (*devices, error) {
	if len(names) > capture.MaxDevices {
		return nil, api.Errorf(api.CodeInvalid, "%d interfaces of the host: want at most %d", len(names), capture.MaxDevices)
	}
	v := &devices{names: names}
	for _, name := range names {
		fd, all, err := d.keeper.Watch(keeper.WatchRequest{Ifname: name})
		if err != nil {
			v.close()
			return nil, noDevice(name, err)
		}
		i := slices.IndexFunc(all, func(i keeper.Interface) bool { return i.Name == name })
		var o watch.Options
		// Where there is no Ethernet header the program's offsets are others, and
		// the ring alone judges.
		if p != nil && i >= 0 && (all[i].Loop || all[i].MAC != frame.MAC{}) {
			o.Filter = p.Socket()
		}
		s, err := watch.New(fd, o)
		if err != nil {
			v.close()
			return nil, fmt.Errorf("capture %s%s: %w", devicePrefix, name, err)
		}
		v.sockets = append(v.sockets, s)
	}
	return v, nil
}

func noDevice(name string, err error) error {
	e := api.AsError(refusal("capture "+devicePrefix+name, err))
	if e.Code == api.CodeNotFound {
		e.Hint = "`ip link` in the switch's namespace lists the interfaces"
	}
	return e
}

// name is what a capture calls interface id, which is a Device.
func (v *devices) name(id frame.PortID) string {
	return devicePrefix + v.names[id-capture.Device(0)]
}

// run fills r until ctx ends, and returns when nothing more comes.
func (v *devices) run(ctx context.Context, r *capture.Ring, log func(name string, err error)) {
	var work sync.WaitGroup
	for i, s := range v.sockets {
		work.Go(func() {
			if err := hear(ctx, s, r.Source(capture.Device(i))); ctx.Err() == nil {
				log(v.names[i], err)
			}
		})
		work.Go(func() { countDrops(ctx, s, r.Source(capture.Device(i))) })
	}
	work.Wait()
	v.close()
}

func (v *devices) close() {
	for _, s := range v.sockets {
		_ = s.Close() // nothing is lost with it
	}
}

// hear moves packets of a socket into a ring until reading fails, as it does when
// ctx ends or the interface is gone.
func hear(ctx context.Context, s *watch.Socket, to *capture.Source) error {
	var framed []byte
	for {
		packets, err := s.Read(ctx)
		if err != nil {
			return err
		}
		for i := range packets {
			p := &packets[i]
			at, dir, data := time.Unix(0, p.Time), capture.In, p.Data
			if p.Time == 0 {
				at = time.Now()
			}
			if p.Direction == watch.Outgoing {
				dir = capture.Out
			}
			if !p.Ethernet { // all interfaces of a capture have Ethernet headers
				framed = append(framed[:0], make([]byte, frame.HeaderLen)...)
				framed[12], framed[13] = byte(p.EtherType>>8), byte(p.EtherType)
				framed = append(framed, data...)
				data = framed
			}
			to.Hear(dir, at, data)
		}
	}
}

// countDrops tells a ring what the kernel had no room for, until ctx ends.
func countDrops(ctx context.Context, s *watch.Socket, to *capture.Source) {
	tick := time.NewTicker(dropsEvery)
	defer tick.Stop()
	for told := uint64(0); ; {
		n, err := s.Dropped()
		if err == nil && n > told {
			to.Lose(n - told)
			told = n
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
