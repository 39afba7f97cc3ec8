package syntax_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tapestry-net/tapestry/capture/filter/syntax"
)

// TestParse is the tree of the package comment: and and or from the left, and
// offsets that a tag has moved.
func TestParse(t *testing.T) {
	outer, inside := syntax.Env{Link: 12, Payload: 14}, syntax.Env{Link: 16, Payload: 18}
	want := syntax.Logic{
		A: syntax.Primitive{Qual: syntax.Qual{Kind: syntax.KindVLAN}, Value: syntax.Value{Given: true, Num: 10}, Env: outer},
		B: syntax.Logic{
			Or: true,
			A:  syntax.Primitive{Qual: syntax.Qual{Proto: syntax.ProtoTCP, Kind: syntax.KindPort}, Value: syntax.Value{Num: 443}, Env: inside},
			B: syntax.Relation{
				Op: "<",
				A:  &syntax.Number{Op: "load", A: &syntax.Number{Val: 8}, Of: syntax.ProtoIP, Size: 1, Env: inside},
				B:  &syntax.Number{Val: 2},
			},
		},
	}
	got, regs, err := syntax.Parse("vlan 10 and (tcp port 443 or ip[8] < 2)")
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(syntax.Value{})); diff != "" || regs != 0 || err != nil {
		t.Errorf("%d registers, %v, tree (-want +got):\n%s", regs, err, diff)
	}
	if got, _, err := syntax.Parse(" "); got != nil || err != nil {
		t.Errorf("nothing: got %v, %v", got, err)
	}
	if _, regs, err := syntax.Parse("vxlan and vxlan"); regs != 2 || err != nil {
		t.Errorf("two inner frames: %d registers, %v", regs, err)
	}
}

// FuzzParse: whatever the text, there is a tree, nothing, or an error within it.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"tcp port 80 or 443", "((((", "ip[ip[ip[0]]] = 1", "net 10/8", "vxlan 1 or vlan", "host ::/", "not -1 < len", `ether proto \arp`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, regs, err := syntax.Parse(text)
		if err == nil && regs >= 0 {
			return
		}
		e, ok := errors.AsType[*syntax.Error](err)
		if !ok || n != nil || e.Column < 1 || e.Column > len(text)+1 {
			t.Errorf("%q: got %v, %#v", text, n, err)
		}
	})
}
