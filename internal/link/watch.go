package link

import (
	"fmt"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Change is one thing that happened to an interface.
type Change struct {
	Link    Link
	Deleted bool
	// Lost is set, and the rest is zero, when the kernel had to discard events:
	// the receiver looks at everything afresh.
	Lost bool
}

// Watcher reports what happens to the interfaces of one namespace. It needs no
// privilege.
type Watcher struct {
	done  chan struct{}
	once  sync.Once
	ended sync.WaitGroup
}

// Watch begins to report changes in the calling thread's namespace. report runs
// on the Watcher's goroutine and should not block for long.
func Watch(report func(Change)) (*Watcher, error) {
	w := &Watcher{done: make(chan struct{})}
	ch, err := w.subscribe()
	if err != nil {
		return nil, err
	}
	w.ended.Add(1)
	go w.run(ch, report)
	return w, nil
}

// Close ends the reports; none comes after it has returned. It is idempotent
// and must not be called by report.
func (w *Watcher) Close() error {
	w.once.Do(func() { close(w.done) })
	w.ended.Wait()
	return nil
}

func (w *Watcher) subscribe() (chan netlink.LinkUpdate, error) {
	ch := make(chan netlink.LinkUpdate, 64)
	err := netlink.LinkSubscribeWithOptions(ch, w.done, netlink.LinkSubscribeOptions{ReceiveBufferSize: 1 << 20})
	if err != nil {
		return nil, fmt.Errorf("watch interfaces: %w", explain(err))
	}
	return ch, nil
}

// run passes changes on. The subscription ends by itself when its receive
// buffer has overflowed; then a new one replaces it.
func (w *Watcher) run(ch chan netlink.LinkUpdate, report func(Change)) {
	defer w.ended.Done()
	for {
		for u := range ch {
			select {
			case <-w.done: // drained, so that the subscription can end
			default:
				report(Change{Link: fromNetlink(u.Link), Deleted: u.Header.Type == unix.RTM_DELLINK})
			}
		}
		select {
		case <-w.done:
			return
		default:
		}
		var err error
		if ch, err = w.subscribe(); err != nil {
			return
		}
		report(Change{Lost: true})
	}
}
