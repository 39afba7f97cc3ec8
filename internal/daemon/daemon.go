package daemon

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/fdb"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/internal/link"
	"github.com/tapestry-net/tapestry/internal/tracer"
	vswitch "github.com/tapestry-net/tapestry/switch"
	"github.com/tapestry-net/tapestry/switch/frame"
	"github.com/tapestry-net/tapestry/switch/port/inject"
	"github.com/tapestry-net/tapestry/tunnel"
)

// downDepth is how many ports may fail before the first has been seen to.
const downDepth = 256

// Daemon is the running worker. It implements api.Backend.
type Daemon struct {
	keeper     *keeper.Client
	state      *os.File // the state directory
	stateDir   string
	generation uint64
	version    string
	hostname   string
	started    time.Time
	log        *slog.Logger

	table      *fdb.Table
	tableLimit int
	sw         *vswitch.Switch
	frames     *frameWatch
	tracer     *tracer.Tracer
	inject     *inject.Source   // of probes that don't come by a port's descriptor
	observers  tunnel.Observers // of what the tunnel refuses
	hub        *hub
	names      atomic.Pointer[names]

	down       chan vswitch.Event // ports that the switch lost
	healthQuit chan struct{}
	stopHealth sync.Once
	quit       chan struct{} // closed when another worker takes over
	upgrading  atomic.Bool   // from the order until it fails: no changes
	upgraded   atomic.Bool
	handed     []byte // what the worker before has handed over, while this one starts
	work       sync.WaitGroup

	// cutsMu guards what is noted of things that mu may not be taken for.
	cutsMu sync.Mutex
	cuts   map[frame.PortID]string   // what the loop guard says of the ports it has cut
	storms map[frame.PortID]*stormAt // that have begun and are not over
	peers  map[frame.PortID]toldPeer
	links  map[string]toldLink
	keys   keyLogs

	lately  map[refusedBy]refusedLately // what the tunnel refused in the last minute
	refused map[refusedBy]uint64        // its counters as last read

	// flapping are the groups of flapping stations as last told, moves the table's
	// counter then, and flapsSeen when; the health watch's own.
	flapping  map[string]api.Flap
	moves     uint64
	flapsSeen time.Time

	// mu serialises changes and guards what follows.
	mu       sync.Mutex
	cfg      *config.Config // as written
	eff      *config.Config // with every default filled in
	st       state
	ports    map[string]*port
	looks    int // at the ports' health
	vtep     *vtep
	kept     *keeper.UDPKeep    // the sockets that the keeper was last told to keep; nil = it may hold others
	ways     map[netip.Addr]int // MTUs of the underlay by peer, as last looked up
	notice   *link.Notice       // of what may change them; nil = none
	starting bool               // until the first state is in force
	cred     *credentials       // of encrypted links, nil = none
	credErr  error              // why they couldn't be read at the start
	lists    lists
	own      []netip.Addr // see meetOwn
	// refusedBefore is what tunnels refused that are closed, and peerRefused the
	// part of it that present peers sent.
	refusedBefore tunnel.Drops
	peerRefused   map[frame.PortID]tunnel.Drops
	missing       missing
}

// port is one configured port and what became of it.
type port struct {
	name  string
	id    frame.PortID
	req   keeper.PortRequest
	netns uint64           // inode that its namespace must have; 0 = any
	reply keeper.PortReply // as last opened

	queue   vswitch.Queue // nil when it can't be opened
	fd      int           // of the queue; -1 with it nil
	reason  string        // why it is down; empty = up
	hint    string
	since   time.Time // of up or down
	heals   uint64    // how often it came back
	renamed string    // what its interface is called now; empty = as it was opened

	plain  bool   // the kernel refused a GSO write: opened without offloads
	missed uint64 // frames that the kernel dropped before the switch could read them

	attempts int       // failed openings in a row
	next     time.Time // of the next one
}

// renaming says what became of the interface of a port that is up all the same.
func (p *port) renaming() string {
	return fmt.Sprintf("interface %s has been renamed to %s, where a restarted switch won't find it", p.reply.Device, p.renamed)
}

// up reports whether frames can flow.
func (p *port) up() bool { return p.queue != nil && p.reason == "" }
