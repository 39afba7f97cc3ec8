package api

import (
	"fmt"
	"os"
	"path/filepath"
)

// DefaultSocket is where the switch listens unless told otherwise:
// $TAPESTRY_SOCKET, then /run/tapestry/tapestry.sock for root, else
// $XDG_RUNTIME_DIR/tapestry/tapestry.sock. A user without a runtime directory
// gets the one that systemd would have made.
func DefaultSocket() string {
	if s := os.Getenv("TAPESTRY_SOCKET"); s != "" {
		return s
	}
	if os.Geteuid() == 0 {
		return "/run/tapestry/tapestry.sock"
	}
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		dir = fmt.Sprintf("/run/user/%d", os.Geteuid())
	}
	return filepath.Join(dir, "tapestry", "tapestry.sock")
}
