package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/config"
	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/join"
	"github.com/tapestry-net/tapestry/internal/pki"
)

// maxExpires bounds the life of a token: its listener is open as long.
const maxExpires = 7 * 24 * time.Hour

// offered is what token prints first: the token, and what it is.
type offered struct {
	Token string `json:"token"`
	join.Live
}

func (c *cli) pkiToken() *cobra.Command {
	var dir, file string
	var addresses []string
	var days int
	o := join.Offer{Log: slog.New(slog.DiscardHandler)}
	cmd := &cobra.Command{
		Use: "token [HOST]", Short: "Let one host join, and wait for it", Args: args("[HOST]"),
		Long: "Prints a token and waits until a host has used it with `tapestry join`, until it\n" +
			"expires, or until it is removed (Ctrl-C, or `tapestry pki token rm ID`). The TCP port is\n" +
			"open only as long. Exit code 0 means that a host has joined. With HOST only that host\n" +
			"may; with -c the host learns the networks and peers of that file.\n\n" +
			"Who has the token can join: give it to nobody else.",
		Example: "  tapestry pki token\n  tapestry pki token h130 -c tapestry.yaml --expires 10m --address 192.168.18.128\n  tapestry pki token ls",
		RunE: func(cmd *cobra.Command, a []string) (err error) {
			if o.Life, err = lifetime(cmd, days); err != nil {
				return err
			}
			if len(a) > 0 {
				o.Host = a[0]
			}
			if o.Renew && o.Host == "" {
				return usagef(cmd, "--renew wants the name of the host")
			}
			if o.For < time.Second || o.For > maxExpires {
				return usagef(cmd, "--expires %v: want 1s to %v", o.For, maxExpires)
			}
			if o.Addresses, err = listenAddresses(cmd, addresses); err != nil {
				return err
			}
			if file != "" {
				text, err := readFile(cmd, file)
				if err != nil {
					return err
				}
				if o.File, err = config.Parse(file, text); err != nil {
					return invalid(err)
				}
			}
			o.Log = c.log()
			return withCA(dir, func(ca *pki.CA) error { return c.wait(cmd.Context(), ca, o) })
		},
	}
	cmd.AddCommand(c.tokenLs(), c.tokenRm())
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", dirUsage)
	f.StringVarP(&file, "config", "c", "", "the file whose networks and peers the host is told")
	f.DurationVar(&o.For, "expires", time.Hour, "how long the token lives, at most 168h")
	f.StringVar(&o.Listen, "listen", ":4788", "TCP address to wait at; port 0 is any")
	f.StringArrayVar(&addresses, "address", nil, "IP or IP:PORT where the host finds it, repeatable, at most 8 (default the addresses of this host)")
	f.BoolVar(&o.Renew, "renew", false, "although the host has a valid certificate")
	daysFlag(cmd, &days)
	return cmd
}

// listenAddresses reads --address; a port that isn't written is 0.
func listenAddresses(cmd *cobra.Command, list []string) (out []netip.AddrPort, err error) {
	for _, s := range list {
		a, err := netip.ParseAddrPort(s)
		if err != nil {
			ip, err := netip.ParseAddr(strings.Trim(s, "[]"))
			if err != nil {
				return nil, usagef(cmd, "--address %q: want IP, IP:PORT or [IPv6]:PORT", s)
			}
			a = netip.AddrPortFrom(ip, 0)
		}
		out = append(out, a)
	}
	return out, nil
}

// wait serves a token to its end.
func (c *cli) wait(ctx context.Context, ca *pki.CA, o join.Offer) error {
	l, err := join.Listen(ca, o)
	if err != nil {
		return err
	}
	t := l.Token()
	if err := c.print(offered{t.Text(), join.Live{ID: t.ID(), Host: t.Host, Expires: t.Expires, Addresses: t.Addresses}}, func() {
		c.printf("%s\n", t.Text())
		fmt.Fprintf(c.err, "on the host that joins: tapestry join TOKEN\nwaiting at %v until %s; Ctrl-C ends it\n", t.Addresses, clock(t.Expires.Local()))
	}); err != nil {
		return err
	}
	j, err := l.Serve(ctx)
	switch {
	case ctx.Err() != nil && err != nil:
		return api.Errorf(api.CodeFailed, "nobody has joined: interrupted")
	case err != nil:
		return api.Errorf(api.CodeFailed, "nobody has joined: %v", err)
	}
	if j.Lost {
		fmt.Fprintf(c.err, "hint: %s hasn't said that it has its certificate; if it hasn't: tapestry pki revoke %s, and another token\n", j.Host, j.Host)
	}
	return c.print(j, func() {
		c.printf("%s joined from %s, certificate until %s\n", j.Host, j.Address.String(), j.NotAfter.Format(time.DateOnly))
		if !o.Renew {
			c.printf("on every other host: tapestry peer add %s --address %s\n", j.Host, j.Address.String())
		}
	})
}

func (c *cli) tokenLs() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "ls", Short: "List the tokens that live", Args: args(),
		Long: "Lists the tokens whose listener is open. None can be shown again.", Example: "  tapestry pki token ls",
		RunE: func(*cobra.Command, []string) error {
			return withCA(dir, func(ca *pki.CA) error {
				list, err := join.Tokens(ca)
				if err != nil {
					return err
				}
				return c.print(list, func() {
					t := c.table("ID", "HOST", "EXPIRES", "ADDRESSES", "PID")
					for _, l := range list {
						t.row(l.ID, l.Host, l.Expires.Format(time.RFC3339), strings.Trim(fmt.Sprint(l.Addresses), "[]"), l.PID)
					}
					t.flush()
				})
			})
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", dirUsage)
	return cmd
}

func (c *cli) tokenRm() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "rm ID", Short: "End a token", Args: args("ID"),
		Long: "Ends a token: nobody can use it any more, and its listener closes.", Example: "  tapestry pki token rm 5f1c09ab",
		RunE: func(_ *cobra.Command, a []string) error {
			return withCA(dir, func(ca *pki.CA) error {
				if err := join.Remove(ca, a[0]); err != nil {
					return err
				}
				return c.print(struct {
					Removed string `json:"removed"`
				}{a[0]}, func() { c.printf("token %s is removed\n", a[0]) })
			})
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", dirUsage)
	return cmd
}
