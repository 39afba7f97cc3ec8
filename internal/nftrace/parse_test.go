package nftrace_test

import (
	"encoding/hex"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapestry-net/tapestry/internal/nftrace"
)

// What a kernel 6.18 reported of the answer to a ping that a rule dropped, of
// the ping itself at the end of that chain, and how it described chain and rule.
const (
	dropReport = "9c000000110a000000000000000000000200000008000f00000000020800040000000003080006008e31480f06000200690000000600010074000000" +
		"0c00030000000000000000020c000500080001000000000008000a000000000106000b0003040000180008004500001c50df0000400115fe0a010002" +
		"0a0100010c0009000000edca123400011200070000000000000000000000000008000000"
	policyReport = "44000000110a000000000000000000000200000008000f0000000002080004000000000108000600370de38306000200690000000600010074000000" +
		"0800100000000001"
	chainSeen = "060001007400000006000300690000000c0002000000000000000001140004000800010000000001080002000000000008000500000000010b000700" +
		"66696c746572000008000a00000000010800060000000001"
	ruleSeen = "060001007400000006000200690000000c0003000000000000000002c0000400340001000c0001007061796c6f616400240002000800010000000001" +
		"0800020000000001080003000000000c08000400000000042c00010008000100636d700020000200080001000000000108000200000000000c000300" +
		"080001000a0100022c0001000c000100636f756e746572001c0002000c000100000000000000001c0c0002000000000000000001300001000e000100" +
		"696d6d6564696174650000001c0002000800010000000000100002000c00020008000100000000000e0007000008616e7377657273000000"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReadsReportsAsSeen(t *testing.T) {
	p := echo("10.1.0.1", "10.1.0.2")
	want := []nftrace.Step{{
		At: nftrace.At{Family: nftrace.IPv4, Table: "t", Chain: "i", Handle: 2}, Packet: 0x8e31480f, Reply: true, Verdict: nftrace.Drop, In: 1,
	}}
	both := append(unhex(t, policyReport), unhex(t, dropReport)...) // of a packet never seen before, and of the answer
	if diff := cmp.Diff(want, nftrace.Take(both, p)); diff != "" {
		t.Error(diff)
	}
	p.ID++
	if got := nftrace.Take(both, p); len(got) != 0 {
		t.Errorf("another probe: got %v", got)
	}
	r := nftrace.Describe(nftrace.Raw{Chain: unhex(t, chainSeen), Rule: unhex(t, ruleSeen)})
	wantRule := nftrace.Rule{
		Hook: "input", Policy: "accept", Text: "ip saddr 10.1.0.2 counter packets 1 bytes 28 drop", Comment: "answers",
		Counted: true, Packets: 1, Bytes: 28,
	}
	if diff := cmp.Diff(wantRule, r); diff != "" {
		t.Error(diff)
	}
}

// FuzzReports: a datagram of whatever octets is read within its bounds, and
// yields no step without its place.
func FuzzReports(f *testing.F) {
	f.Add(unhex(f, dropReport))
	f.Add(append(unhex(f, dropReport), unhex(f, policyReport)...))
	p := echo("10.1.0.1", "10.1.0.2")
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, s := range nftrace.Take(b, p) {
			if s.Table == "" || s.Chain == "" || s.String() == "" {
				t.Errorf("got the step %+v", s)
			}
		}
	})
}

// FuzzDescribe: a description of whatever octets is read within its bounds.
func FuzzDescribe(f *testing.F) {
	f.Add(unhex(f, chainSeen), unhex(f, ruleSeen))
	f.Fuzz(func(t *testing.T, chain, rule []byte) {
		r := nftrace.Describe(nftrace.Raw{Chain: chain, Rule: rule})
		if len(r.Text) > 16*(len(rule)+1)+128*256 || len(r.Comment) > 256 {
			t.Errorf("%d octets became %d of text", len(rule), len(r.Text))
		}
	})
}
