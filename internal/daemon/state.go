package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/internal/keeper"
	"github.com/tapestry-net/tapestry/switch/frame"
)

// state is what survives a crash: the desired configuration as last
// acknowledged, and what was assigned to it.
type state struct {
	Config string                  `json:"config"`          // YAML, canonical
	VLANs  map[string]frame.VID    `json:"vlans"`           // by network
	Ports  map[string]portRecord   `json:"ports"`           // by name
	Peers  map[string]frame.PortID `json:"peers,omitempty"` // their port numbers, by name
	Next   frame.PortID            `json:"next"`            // the next port number to try

	Revision uint64 `json:"revision,omitempty"` // how often the configuration has changed
}

// portRecord is what a port keeps for as long as it is configured.
type portRecord struct {
	ID frame.PortID `json:"id"`
	// Attached is what `attach` was called with, empty for a port of the file.
	Attached string `json:"attached,omitempty"`
	// NetnsID is the inode of the namespace of a port whose namespace is named
	// by a process, whose number may be another's later.
	NetnsID uint64 `json:"netns_id,omitempty"`
}

func newState() state {
	return state{VLANs: map[string]frame.VID{}, Ports: map[string]portRecord{}, Peers: map[string]frame.PortID{}, Next: 1}
}

// clone is a deep copy.
func (s state) clone() state {
	s.VLANs, s.Ports, s.Peers = maps.Clone(s.VLANs), maps.Clone(s.Ports), maps.Clone(s.Peers)
	return s
}

// assign gives every port and peer of c a number, forgets those that c has no more, and
// leaves all others as they are, because the filtering database knows them.
func (s *state) assign(c *config.Config) error {
	used := map[frame.PortID]bool{}
	for name, r := range s.Ports {
		if _, ok := c.Ports[name]; !ok {
			delete(s.Ports, name)
			continue
		}
		used[r.ID] = true
	}
	var peers map[string]*config.Peer
	if c.Tunnel != nil {
		peers = c.Tunnel.Peers
	}
	for name, id := range s.Peers {
		if _, ok := peers[name]; !ok {
			delete(s.Peers, name)
			continue
		}
		used[id] = true
	}
	for _, name := range slices.Sorted(maps.Keys(c.Ports)) {
		if _, ok := s.Ports[name]; ok {
			continue
		}
		id, ok := s.free(used)
		if !ok {
			return fmt.Errorf("port %s: all %d port numbers are in use", name, frame.MaxPortID)
		}
		used[id] = true
		s.Ports[name] = portRecord{ID: id}
	}
	for _, name := range slices.Sorted(maps.Keys(peers)) {
		if _, ok := s.Peers[name]; ok {
			continue
		}
		id, ok := s.free(used)
		if !ok {
			return fmt.Errorf("peer %s: all %d port numbers are in use", name, frame.MaxPortID)
		}
		used[id] = true
		s.Peers[name] = id
	}
	return nil
}

// note records the namespace that p was opened in, where its name may come to
// mean another one.
func (s *state) note(p *port) {
	r := s.Ports[p.name]
	r.NetnsID = 0
	if strings.HasPrefix(p.req.Netns, "pid:") || strings.HasPrefix(p.req.Netns, "/proc/") {
		r.NetnsID = p.reply.NetnsID
	}
	p.netns = r.NetnsID
	s.Ports[p.name] = r
}

// free finds a number that is not in use, going round, so that a number is not
// soon given to another port.
func (s *state) free(used map[frame.PortID]bool) (frame.PortID, bool) {
	for range frame.MaxPortID {
		id := s.Next
		s.Next++
		if s.Next > frame.MaxPortID {
			s.Next = 1
		}
		if id != 0 && !used[id] {
			return id, true
		}
	}
	return 0, false
}

// load reads the state that was last acknowledged; ok is false when there is
// none yet.
func load(dirfd int) (s state, ok bool, err error) {
	b, err := keeper.LoadState(dirfd)
	if errors.Is(err, keeper.ErrNoState) {
		return newState(), false, nil
	}
	if err != nil {
		return state{}, false, err
	}
	s = newState()
	if err := json.Unmarshal(b, &s); err != nil {
		return state{}, false, fmt.Errorf("load state: %w", err)
	}
	return s, true, nil
}

// save makes s durable.
func (s state) save(dirfd int) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return keeper.SaveState(dirfd, b)
}
