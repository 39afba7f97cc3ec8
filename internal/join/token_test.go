package join_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tapestry-net/tapestry/internal/join"
)

func drawToken(r *rapid.T) join.Token {
	t := join.Token{
		Expires: time.Unix(rapid.Int64Range(0, 253402300799).Draw(r, "expires"), 0),
		Host:    rapid.SampledFrom([]string{"", "a", "h128", strings.Repeat("z", 63)}).Draw(r, "host"),
	}
	copy(t.Fingerprint[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(r, "fingerprint"))
	for range rapid.IntRange(1, 8).Draw(r, "addresses") {
		a := rapid.SampledFrom([]string{"192.0.2.1", "10.0.0.1", "2001:db8::1", "127.0.0.1"}).Draw(r, "address")
		t.Addresses = append(t.Addresses, netip.AddrPortFrom(netip.MustParseAddr(a), rapid.Uint16Min(1).Draw(r, "port")))
	}
	return join.With(t)
}

// TestTokenRoundTrip also wants each changed character to be noticed.
func TestTokenRoundTrip(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		want := drawToken(r)
		text := want.Text()
		got, err := join.ParseToken(" " + text + "\n")
		if err != nil || !cmp.Equal(want, got, cmp.Comparer(func(a, b join.Token) bool { return a.Text() == b.Text() })) || got.ID() != want.ID() {
			r.Fatalf("got %v, %v, want %v", got, err, want)
		}
		i := rapid.IntRange(0, len(text)-1).Draw(r, "changed")
		c := rapid.SampledFrom([]byte("abcXYZ019-_ \x00")).Draw(r, "to")
		if changed := text[:i] + string(c) + text[i+1:]; text[i] != c && strings.TrimSpace(changed) != text {
			if _, err := join.ParseToken(changed); !errors.Is(err, join.ErrToken) {
				r.Fatalf("%q at %d: got error %v, want ErrToken", c, i, err)
			}
		}
	})
}

// TestTokenIsNotPrinted wants no verb to write the secret.
func TestTokenIsNotPrinted(t *testing.T) {
	tok := join.With(join.Token{Addresses: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1")}})
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(tok.Text(), "tapestry-"))
	if err != nil {
		t.Fatal(err)
	}
	secret := raw[33:49]
	for _, f := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		for _, v := range []any{tok, &tok, []join.Token{tok}} {
			got := fmt.Sprintf(f, v)
			for _, form := range []string{fmt.Sprintf("%x", secret), fmt.Sprint(secret)[1:20], string(secret), tok.Text()} {
				if strings.Contains(got, form) {
					t.Errorf("%s of %T: got %s", f, v, got)
				}
			}
		}
	}
}

func FuzzToken(f *testing.F) {
	f.Add(join.With(join.Token{Host: "h1", Addresses: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:4788"), netip.MustParseAddrPort("[2001:db8::1]:1")}}).Text())
	f.Add("tapestry-")
	f.Add("tapestry-AQ")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := join.ParseToken(text)
		if err != nil {
			if !errors.Is(err, join.ErrToken) {
				t.Errorf("got error %v, want ErrToken", err)
			}
			return
		}
		if got := tok.Text(); got != strings.TrimSpace(text) {
			t.Errorf("took %q for %q", text, got)
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add(message(`{"proof":"","host":"h1","csr":"` + base64.StdEncoding.EncodeToString(newCSR(f)) + `"}`))
	f.Add(message("{}"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Add(message(`{"proof":"","host":"h1","csr":"AAAA","address":"192.0.2.1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		key, host, address, err := join.Request(b)
		if err == nil && (key == nil || host == "" || strings.ContainsAny(host, "/\x00") || address.IsUnspecified()) {
			t.Errorf("took host %q at %v", host, address)
		}
	})
}
