package tracer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/keeper"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/inject"
	"github.com/tapestry-net/tapestry/tunnel"
)

// Host is the running switch as a trace sees it. Its methods may be called from
// any goroutine.
type Host interface {
	// Here is everything as it is now. The caller changes none of it.
	Here() Here
	// Entry says what the filtering database has about a station that a decision
	// found behind port at, and which frame put it there. Both are empty when it has
	// the station elsewhere by now, or nowhere.
	Entry(v frame.VID, m frame.MAC, at frame.PortID) (entry, taught string)
	// Drops are the drop counters of all ports and peers.
	Drops() map[frame.PortID]Counts
	// Observe shows o what the switch forwards, and refused what the tunnel
	// refuses. When Unobserve returns the switch calls o no more.
	Observe(o, refused vswitch.Observer)
	Unobserve(o, refused vswitch.Observer)
	// Inject hands a frame to the switch as if a port had received it, unless too
	// many wait.
	Inject(f inject.Frame) bool
	// Ask asks a peer; see tunnel.Ask.
	Ask(ctx context.Context, id frame.PortID, text []byte, sealed bool) (tunnel.Told, error)
}

// Counts are counters by reason.
type Counts = [frame.NumReasons]uint64

// Here is a host's configuration and state in its users' names.
type Here struct {
	Host  string
	Ports map[string]Port
	Peers []Peer
	// Place is the name of a port, or of the peer that it stands for.
	Place   func(frame.PortID) (name string, peer bool)
	Network func(frame.VID) Network
}

// Network is one network.
type Network struct {
	Name    string
	VNI     int  // 0 = it stays on this host
	Encrypt bool // its frames leave the host by encrypted links alone
}

// encrypted are those of the networks that are encrypted.
func (h *Here) encrypted(vids []frame.VID) (out []frame.VID) {
	for _, v := range vids {
		if h.Network(v).Encrypt {
			out = append(out, v)
		}
	}
	return out
}

// Port is one port.
type Port struct {
	ID      frame.PortID
	Request keeper.PortRequest
	Reply   keeper.PortReply // as last opened
	Tag     frame.Tag        // of a frame that is injected there; zero = untagged
	VIDs    []frame.VID      // of its networks
	Down    string           // why it is down; empty = up
	Hint    string
}

// Peer is one tunnel peer.
type Peer struct {
	ID      frame.PortID
	Name    string
	Down    bool        // it answered, and stopped
	Passive bool        // it is no tapestry
	Sealed  bool        // it is spoken to by an encrypted link alone
	VIDs    []frame.VID // of the networks that it carries
}

// Tracer follows packets through one host.
type Tracer struct {
	host    Host
	keeper  *keeper.Client
	log     *slog.Logger
	errands *errands
	work    sync.WaitGroup
}

// New returns a Tracer that does nothing by itself.
func New(h Host, k *keeper.Client, log *slog.Logger) *Tracer {
	return &Tracer{host: h, keeper: k, log: log, errands: newErrands()}
}

// Close ends the watches for peers and waits for what is under way. No method
// may be called any more; the tunnel is closed.
func (t *Tracer) Close() {
	t.errands.close()
	t.work.Wait()
}

// noPort is the error for a name that is no port's.
func noPort(name string) error {
	return api.Errorf(api.CodeNotFound, "no port %q", clip(name)).WithHint("`tapestry port ls` lists the ports")
}

// clip keeps what somebody wrote short enough for a message.
func clip(s string) string {
	const most = 120
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// keeperHint is the mend that a refusal of the keeper names.
func keeperHint(err error) string {
	if k, ok := errors.AsType[*keeper.Error](err); ok {
		return k.Hint
	}
	return ""
}

// note is a line of explanation.
func note(format string, args ...any) api.Traced {
	return api.Traced{Kind: "note", What: fmt.Sprintf(format, args...)}
}
