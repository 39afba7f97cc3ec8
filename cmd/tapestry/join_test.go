package main

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tapestry-net/tapestry/internal/join"
	"github.com/tapestry-net/tapestry/internal/pki"
)

// offer is `tapestry pki token` while a script uses what it printed.
type offer struct {
	cmd      *exec.Cmd
	out, err bytes.Buffer
	drained  sync.WaitGroup
}

// offers holds each script's offer; scripts run at once.
var offers sync.Map // work folder of the script → *offer

// startOffer serves a token of the CA in a folder on loopback, and writes it
// into the file token: offer DIR [ARG...].
func startOffer(ts *testscript.TestScript, _ bool, args []string) {
	o := &offer{}
	o.cmd = exec.Command("tapestry", slices.Concat([]string{"pki", "token", "--dir", args[0], "--listen", "127.0.0.1:0"}, args[1:])...)
	o.cmd.Dir, o.cmd.Stderr = ts.MkAbs("."), &o.err
	out, err := o.cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(o.cmd.Start())
	r := bufio.NewReader(out)
	token, err := r.ReadString('\n')
	ts.Check(err)
	o.drained.Go(func() { _, _ = r.WriteTo(&o.out) })
	ts.Check(os.WriteFile(ts.MkAbs("token"), []byte(token), 0o600))
	offers.Store(ts.Getenv("WORK"), o)
	ts.Defer(func() {
		if o.cmd.ProcessState == nil {
			_ = o.cmd.Process.Kill()
			o.drained.Wait()
			_ = o.cmd.Wait()
		}
	})
}

// endOffer waits for the offer to end: offered CODE TEXT.
func endOffer(ts *testscript.TestScript, _ bool, args []string) {
	v, _ := offers.Load(ts.Getenv("WORK"))
	o := v.(*offer)
	o.drained.Wait()
	err := o.cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		ts.Fatalf("%v", err)
	}
	all := o.out.String() + o.err.String()
	if got := o.cmd.ProcessState.String(); got != "exit status "+args[0] || !strings.Contains(all, args[1]) {
		ts.Fatalf("got %s, want exit status %s and %q in\n%s", got, args[0], args[1], all)
	}
}

// removeOffer ends the offer as another shell would: removeoffer DIR.
func removeOffer(ts *testscript.TestScript, _ bool, args []string) {
	ca, err := pki.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer ca.Close()
	list, err := join.Tokens(ca)
	ts.Check(err)
	for _, t := range list {
		ts.Check(ts.Exec("tapestry", "pki", "token", "rm", t.ID, "--dir", args[0]))
	}
}

// TestRenewalHint names a certificate that ends soon, and what renews it.
func TestRenewalHint(t *testing.T) {
	var out, hint bytes.Buffer
	c := &cli{out: &out, err: &hint}
	now := time.Now()
	c.printCertificates([]listed{
		{pki.Issued{Host: "h1", NotAfter: now.Add(50 * time.Hour)}, pki.Valid, true},
		{pki.Issued{Host: "h2", NotAfter: now.Add(5000 * time.Hour)}, pki.Valid, false},
	}, now)
	if got := hint.String(); !strings.HasPrefix(got, "hint: the certificate of h1 ends in 2 days: `tapestry pki issue h1 --renew`") || strings.Contains(got, "h2") {
		t.Errorf("got %q", got)
	}
}
