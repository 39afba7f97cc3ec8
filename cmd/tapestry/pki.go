package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/join"
	"github.com/tapestry-net/tapestry/internal/pki"
)

const dirUsage = "folder of keys and certificates (default /etc/tapestry/pki, or ~/.config/tapestry/pki for a normal user)"

func (c *cli) pkiGroup() *cobra.Command {
	cmd := &cobra.Command{
		Use: "pki", Short: "Certificates of encrypted links: init, issue, revoke, crl, ls, token",
		Long: "Makes the certificates by which hosts know each other on encrypted links. The CA is a\n" +
			"folder on one host; no switch is needed. See docs/howto/encrypt.md.",
		Example: "  tapestry pki init\n  tapestry pki token",
	}
	cmd.AddCommand(c.pkiInit(), c.pkiIssue(), c.pkiRevoke(), c.pkiCRL(), c.pkiLs(), c.pkiToken())
	group(cmd)
	return cmd
}

// pkiDir is the folder that --dir names, or the user's own.
func pkiDir(dir string) (string, error) {
	if dir != "" {
		return dir, nil
	}
	if os.Geteuid() == 0 {
		return "/etc/tapestry/pki", nil
	}
	base, err := os.UserConfigDir()
	if err != nil {
		return "", api.Errorf(api.CodeInvalid, "find the folder: %v", err).WithHint("name it with --dir")
	}
	return filepath.Join(base, "tapestry", "pki"), nil
}

// withCA calls f with the CA in a folder.
func withCA(dir string, f func(ca *pki.CA) error) error {
	dir, err := pkiDir(dir)
	if err != nil {
		return err
	}
	ca, err := pki.Open(dir)
	if err != nil {
		return pkiError(err)
	}
	defer ca.Close()
	return pkiError(f(ca))
}

// pkiError gives an error of packages pki and join its exit code and hint.
func pkiError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*api.Error](err); ok {
		return err
	}
	code, hint := api.CodeFailed, ""
	refused, _ := errors.AsType[*join.RefusedError](err)
	switch {
	case errors.Is(err, pki.ErrExposed):
		code, hint = api.CodeNotPermitted, "take it from the others: chmod 700 the folder, 600 the file, and chown it if it isn't yours"
	case errors.Is(err, pki.ErrExists):
		code, hint = api.CodeConflict, "nothing was replaced. A host whose certificate ends gets a new one with --renew"
	case errors.Is(err, pki.ErrNotFound):
		code, hint = api.CodeNotFound, "`tapestry pki init` makes a CA; `tapestry pki ls` lists what it has issued; --dir names its folder"
	case errors.Is(err, pki.ErrInvalid):
		code = api.CodeInvalid
	case errors.Is(err, join.ErrToken):
		code, hint = api.CodeInvalid, "copy all of the line that `tapestry pki token` printed"
	case errors.Is(err, join.ErrForeign):
		code, hint = api.CodeNotPermitted, "nothing was sent to it. Is the clock right? Else somebody is in between: ask who made the token"
	case errors.Is(err, join.ErrExpired), errors.Is(err, join.ErrRemoved):
		code, hint = api.CodeNotPermitted, "`tapestry pki token` makes another"
	case errors.Is(err, join.ErrUnreachable):
		hint = "`tapestry pki token` must still wait, at an address that this host reaches (--address); its TCP port must be open"
	case refused != nil && refused.Refusal == join.Denied:
		code, hint = api.CodeNotPermitted, "`tapestry pki token` makes another"
	case refused != nil && refused.Refusal == join.Taken:
		code, hint = api.CodeConflict, "choose another name with --host; or on the CA: `tapestry pki revoke HOST`, or `tapestry pki token HOST --renew`"
	case refused != nil && refused.Refusal == join.Invalid:
		code = api.CodeInvalid
	case errors.Is(err, syscall.EADDRINUSE):
		code, hint = api.CodeConflict, "another token is waiting there: choose another port, such as --listen :0"
	case errors.Is(err, fs.ErrPermission):
		code = api.CodeNotPermitted
	}
	e := api.Errorf(code, "%v", err)
	if hint != "" {
		e = e.WithHint("%s", hint)
	}
	return e
}

// made is what init and issue print.
type made struct {
	Fingerprint string      `json:"fingerprint,omitempty"` // of a new CA
	Host        *pki.Issued `json:"certificate,omitempty"`
	Cert        string      `json:"cert,omitempty"` // paths
	Key         string      `json:"key,omitempty"`
	CA          string      `json:"ca"`
	CRL         string      `json:"crl"`
}

func (c *cli) pkiInit() *cobra.Command {
	var dir, name, host string
	var only bool
	cmd := &cobra.Command{
		Use: "init", Short: "Make a CA, and this host's certificate", Args: args(),
		Long: "Makes a CA in a folder: its key, which never leaves it, its certificate and an empty\n" +
			"revocation list; and this host's own key and certificate. What is there is never replaced.",
		Example: "  tapestry pki init",
		RunE: func(*cobra.Command, []string) error {
			dir, err := pkiDir(dir)
			if err != nil {
				return err
			}
			if host, err = ownName(host, only); err != nil {
				return err
			}
			ca, err := pki.Init(dir, name)
			if err != nil {
				return pkiError(err)
			}
			defer ca.Close()
			sum := ca.Fingerprint()
			m := made{Fingerprint: hex.EncodeToString(sum[:]), CA: ca.Folder().Path("ca.crt"), CRL: ca.Folder().Path("revoked.crl")}
			if only {
				return c.printMade(m)
			}
			i, err := ca.Issue(pki.Order{Host: host, Own: true})
			if err != nil {
				return pkiError(err)
			}
			return c.printMade(m.of(ca, i))
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", dirUsage)
	cmd.Flags().StringVar(&name, "name", "tapestry CA", "name of the CA, for people")
	cmd.Flags().StringVar(&host, "host", "", "name of this host, as in its file (default the hostname)")
	cmd.Flags().BoolVar(&only, "ca-only", false, "make no certificate for this host")
	return cmd
}

// ownName is this host's name, unless it needs none.
func ownName(host string, needless bool) (string, error) {
	if needless {
		return "", nil
	}
	if host == "" {
		host, _ = os.Hostname()
	}
	if err := pki.CheckHost(host); err != nil {
		return "", api.Errorf(api.CodeInvalid, "%v", err).WithHint("name this host with --host, as `host` in its file does")
	}
	return host, nil
}

// of adds a host's certificate to what is printed.
func (m made) of(ca *pki.CA, i pki.Issued) made {
	m.Host, m.Cert, m.Key = &i, ca.Folder().Path(i.Host+".crt"), ca.Folder().Path(i.Host+".key")
	return m
}

func (c *cli) printMade(m made) error {
	return c.print(m, func() {
		if m.Fingerprint != "" {
			c.printf("CA %s, SHA-256 %s\n", m.CA, m.Fingerprint)
		}
		if i := m.Host; i != nil {
			c.printf("certificate of %s until %s, serial number %s\n", i.Host, i.NotAfter.Format(time.DateOnly), i.Serial)
			c.printf("in the file of %s:\n\n", i.Host)
			_, _ = c.out.Write(dtlsText(m.Cert, m.Key, m.CA, m.CRL))
		}
	})
}

// dtlsText is the section of a file that names these files.
func dtlsText(cert, key, ca, crl string) []byte {
	return (&config.Config{Tunnel: &config.Tunnel{DTLS: &config.DTLS{Cert: cert, Key: key, CA: ca, CRL: crl}}}).Marshal()
}

func (c *cli) pkiIssue() *cobra.Command {
	var dir string
	var days int
	var renew bool
	cmd := &cobra.Command{
		Use: "issue HOST", Short: "Make a host's key and certificate", Args: args("HOST"),
		Long: "Makes HOST.key and HOST.crt in the CA's folder. The host needs both and ca.crt and\n" +
			"revoked.crl; with `tapestry join` its key needn't travel. --renew makes a new key and\n" +
			"certificate although the old one is valid; it stays valid until it ends or is revoked.",
		Example: "  tapestry pki issue h130 --days 90",
		RunE: func(cmd *cobra.Command, a []string) error {
			life, err := lifetime(cmd, days)
			if err != nil {
				return err
			}
			return withCA(dir, func(ca *pki.CA) error {
				i, err := ca.Issue(pki.Order{Host: a[0], Life: life, Renew: renew})
				if err != nil {
					return err
				}
				m := made{CA: ca.Folder().Path("ca.crt"), CRL: ca.Folder().Path("revoked.crl")}
				return c.printMade(m.of(ca, i))
			})
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", dirUsage)
	daysFlag(cmd, &days)
	cmd.Flags().BoolVar(&renew, "renew", false, "although the host has a valid certificate; replaces its files")
	return cmd
}

// maxDays is ten years, after which the CA ends too.
const maxDays = 3650

func daysFlag(cmd *cobra.Command, days *int) {
	cmd.Flags().IntVar(days, "days", int(pki.DefaultLife.Hours()/24), "days that the certificate is valid, 1 to 3650")
}

func lifetime(cmd *cobra.Command, days int) (time.Duration, error) {
	if days < 1 || days > maxDays {
		return 0, usagef(cmd, "--days %d: want 1 to %d", days, maxDays)
	}
	return time.Duration(days) * 24 * time.Hour, nil
}

// revoked is what revoke prints.
type revoked struct {
	Host    string `json:"host"`
	Revoked int    `json:"revoked"` // certificates that hadn't been before
	CRL     string `json:"crl"`
}

func (c *cli) pkiRevoke() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "revoke HOST", Short: "Take a host's certificates back", Args: args("HOST"),
		Long: "Revokes all certificates of a host, and their keys, and makes a new revocation list. It\n" +
			"counts where it has arrived: copy revoked.crl to every host, whose switch takes it up.",
		Example: "  tapestry pki revoke h130",
		RunE: func(_ *cobra.Command, a []string) error {
			return withCA(dir, func(ca *pki.CA) error {
				n, err := ca.Revoke(a[0])
				if err != nil {
					return err
				}
				r := revoked{a[0], n, ca.Folder().Path("revoked.crl")}
				return c.print(r, func() {
					c.printf("revoked %s of %s\n", count(n, "certificate"), r.Host)
					c.printf("copy %s to every host: its switch takes it up within seconds\n", r.CRL)
				})
			})
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", dirUsage)
	return cmd
}

// renewedList is what crl prints.
type renewedList struct {
	CRL        string    `json:"crl"`
	NextUpdate time.Time `json:"next_update"`
}

func (c *cli) pkiCRL() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "crl", Short: "Make the revocation list anew", Args: args(),
		Long: "Makes the revocation list anew, with all that has been revoked. A list is good for 30\n" +
			"days: hosts warn in its last 7, and keep it in force after them. Copy revoked.crl to\n" +
			"every host, whose switch takes it up.",
		Example: "  tapestry pki crl",
		RunE: func(*cobra.Command, []string) error {
			return withCA(dir, func(ca *pki.CA) error {
				until, err := ca.RenewList()
				if err != nil {
					return err
				}
				r := renewedList{ca.Folder().Path("revoked.crl"), until}
				return c.print(r, func() {
					c.printf("%s is good until %s\n", r.CRL, until.Format(time.DateOnly))
					c.printf("copy it to every host: its switch takes it up within seconds\n")
				})
			})
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", dirUsage)
	return cmd
}

// listed is one certificate as ls shows it.
type listed struct {
	pki.Issued
	State       pki.State `json:"state"`
	ExpiresSoon bool      `json:"expires_soon,omitempty"` // and the host has no newer one
}

func (c *cli) pkiLs() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "ls", Short: "List certificates", Args: args(),
		Long:    "Lists what the CA has issued: valid, expired or revoked, and says what ends soon.",
		Example: "  tapestry pki ls --json",
		RunE: func(*cobra.Command, []string) error {
			return withCA(dir, func(ca *pki.CA) error {
				all, err := ca.List()
				if err != nil {
					return err
				}
				newest, _, err := ca.Hosts()
				if err != nil {
					return err
				}
				now := time.Now()
				list := []listed{}
				for _, i := range all {
					list = append(list, listed{i, i.State(now), i.ExpiresSoon(now) && newest[i.Host].Serial == i.Serial})
				}
				ends, err := ca.ListEnds()
				if err != nil {
					return err
				}
				return c.print(list, func() {
					c.printCertificates(list, now)
					if ends.Sub(now) < pki.ListSoon {
						fmt.Fprintf(c.err, "hint: revoked.crl is good until %s: `tapestry pki crl` makes it anew\n", ends.Format(time.DateOnly))
					}
				})
			})
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", dirUsage)
	return cmd
}

func (c *cli) printCertificates(list []listed, now time.Time) {
	t := c.table("HOST", "STATE", "NOT BEFORE", "NOT AFTER", "SERIAL", "ADDRESS")
	for _, i := range list {
		at := ""
		if i.Address.IsValid() {
			at = i.Address.String()
		}
		t.row(i.Host, i.State, i.NotBefore.Format(time.RFC3339), i.NotAfter.Format(time.RFC3339), i.Serial, at)
	}
	t.flush()
	for _, i := range list {
		if i.ExpiresSoon {
			fmt.Fprintf(c.err, "hint: the certificate of %[1]s ends in %[2]s: `tapestry pki issue %[1]s --renew`, or where the host has joined `tapestry pki token %[1]s --renew` and there `tapestry join TOKEN --renew`\n",
				i.Host, count(int(i.NotAfter.Sub(now).Hours()/24), "day"))
		}
	}
}
