package tracer

// The pure parts, for tests.
var (
	SourceFor   = sourceFor
	PickAddress = pickAddress
)

// Ears are the namespaces that would be listened in, each with the interfaces
// that are not, and those that a port is behind.
func Ears(h *Here, ports ...string) (all []map[string]string) {
	for _, e := range earsFor(h, ports...) {
		m := map[string]string{"port": e.port, "netns": e.netns}
		for name, port := range e.far {
			m["far "+name] = port
		}
		for name := range e.deaf {
			m["deaf "+name] = "yes"
		}
		all = append(all, m)
	}
	return all
}
