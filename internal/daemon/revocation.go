package daemon

import (
	"crypto/sha256"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapestry-net/tapestry/internal/api"
)

// listSoon is how long before it should have been replaced a revocation list is a
// problem.
const listSoon = 7 * 24 * time.Hour

// listHint says what to do about a list that is old.
const listHint = "`tapestry pki crl` where the CA is, and copy the new list over the old one: it is taken up at once"

// lists is what the health watch knows of the revocation lists' file.
type lists struct {
	seen  stamp  // at the last look: one that is being written is waited for
	tried stamp  // of the last one that was read anew
	err   string // why it could not be; the one before stays in force
	told  string // of its age, last
}

// lookAtLists reads the revocation lists anew when their file has changed: links
// that they don't allow end. What can't be read leaves the former lists in force.
// The caller holds mu.
func (d *Daemon) lookAtLists(now time.Time) {
	if d.cred == nil || d.cfg.Tunnel == nil || d.cfg.Tunnel.DTLS == nil || d.cfg.Tunnel.DTLS.CRL == "" {
		d.lists = lists{}
		return
	}
	path := d.cfg.Tunnel.DTLS.CRL
	var at stamp
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err == nil {
		at = stampOf(&st)
	}
	settled := at == d.lists.seen
	d.lists.seen = at
	switch {
	case at == d.cred.list:
		d.lists.tried, d.lists.err = at, ""
	case settled && (at != d.lists.tried || at == stamp{} && d.lists.err == ""):
		d.lists.tried, d.lists.err = at, ""
		if err := d.takeLists(path); err != nil {
			d.lists.err = err.Error()
			d.tellLists(fmt.Sprintf("the revocation list could not be read anew, and the one before stays in force: %v", err))
		}
	}
	if told := d.cred.age(now); told != d.lists.told {
		d.lists.told = told
		if told != "" {
			d.tellLists(told + ", and stays in force")
		}
	}
}

// takeLists brings the lists in a file into force.
func (d *Daemon) takeLists(path string) error {
	b, at, err := readCredential(path, false)
	if err != nil {
		return credentialError("crl", err, path)
	}
	former := d.cred
	if digest := sha256.Sum256(b); digest == former.digest[listFile] {
		former.list = at
		return nil
	}
	c := &credentials{digest: former.digest, list: at}
	c.digest[listFile] = sha256.Sum256(b)
	if c.Credentials, err = former.WithList(b); err != nil {
		return err
	}
	d.cred = c
	if err := d.enforce(); err != nil {
		d.cred = former
		return err
	}
	d.log.Info("revocation list read anew", "file", path)
	d.hub.publish(api.Event{Kind: "config", What: "the revocation list was read anew"})
	return nil
}

// tellLists tells what is wrong with the lists.
func (d *Daemon) tellLists(what string) {
	d.log.Warn(what)
	d.hub.publish(api.Event{Kind: "config", What: what})
}

// age says that the lists are old, or will be soon; empty = neither.
func (c *credentials) age(now time.Time) string {
	const what = "the list of revoked certificates"
	switch at := c.ListExpires(); {
	case at.IsZero() || at.Sub(now) > listSoon:
		return ""
	case at.Before(now):
		return fmt.Sprintf("%s has expired (%s)", what, at.Format(time.DateTime))
	default:
		return fmt.Sprintf("%s expires on %s", what, at.Format(time.DateTime))
	}
}

// listProblems says what is wrong with the lists. The caller holds mu.
func (d *Daemon) listProblems(now time.Time) []api.Problem {
	var out []api.Problem
	if d.cred == nil {
		return nil
	}
	if what := d.cred.age(now); what != "" {
		out = append(out, api.Problem{What: what + "; it stays in force", Hint: listHint})
	}
	if d.lists.err != "" {
		out = append(out, api.Problem{What: "the list of revoked certificates could not be read anew: " + d.lists.err, Hint: "the one before stays in force; " + listHint})
	}
	return out
}
