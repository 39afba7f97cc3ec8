package integration_test

import (
	"fmt"
	"sync"
	"testing"
)

// TestChangesDuringUpgrades: a change that meets an upgrade is put off, not
// refused, and every one that was acknowledged is there in the end.
func TestChangesDuringUpgrades(t *testing.T) {
	n := start(t, "networks: {blue: {vlan: 10}}\n")
	const each, writers = 5, 3
	var work sync.WaitGroup
	for w := range writers {
		work.Go(func() {
			for i := range each {
				if _, errs, code := n.try("network", "add", fmt.Sprintf("n%d-%d", w, i)); code != 0 {
					t.Errorf("network add: exit %d: %s", code, errs)
				}
			}
		})
	}
	for range 3 {
		n.cli("upgrade")
	}
	work.Wait()
	var networks []struct{ Name string }
	n.json(&networks, "network", "ls")
	if got, want := len(networks), 1+each*writers; got != want {
		t.Errorf("%d networks, want %d: %v", got, want, networks)
	}
}
