package api_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode"

	"github.com/tapestry-net/tapestry/internal/api/apitest"
)

// FuzzRequest sends any octets as the body of every request that has one. The
// server answers each with one JSON document without control characters, and
// tells the Backend nothing when it refuses a request as malformed.
func FuzzRequest(f *testing.F) {
	paths := []string{"apply", "item", "attach", "detach", "fdb/flush", "explain", "upgrade", "nowhere"}
	for i, body := range []string{
		`{"file":"f","yaml":"host: h","dry_run":true}`,
		`{"op":"add","kind":"port","name":"\u001b[2J","yaml":"{}"}`,
		`{"netns":"pid:1","label":"web","addresses":["10.1.0.9/24"]}`,
		`{"netns":"c1","ifname":"eth0"}`,
		`{"network":"","port":"","mac":""}`,
		`{"in":"c1","hex":"ffffffffffff0200000000010806"}`,
		`{}`,
		`[[[[[[`,
	} {
		f.Add(uint8(i), []byte(body))
	}
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		sw := apitest.New()
		w := httptest.NewRecorder()
		path := "/v1/" + paths[int(which)%len(paths)]
		handler(sw).ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(string(body))))
		reply := strings.TrimSuffix(w.Body.String(), "\n")
		if !json.Valid([]byte(reply)) || strings.ContainsFunc(reply, unicode.IsControl) {
			t.Errorf("%s %q: reply %q is no clean JSON", path, body, reply)
		}
		if n := len(sw.Asked()); w.Code == http.StatusBadRequest && n != 0 {
			t.Errorf("%s %q: refused, but the backend was told", path, body)
		}
	})
}
