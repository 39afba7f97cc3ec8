package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/join"
)

// maxTokenText bounds what is read as a token, in octets.
const maxTokenText = 4096

func (c *cli) join() *cobra.Command {
	var o join.Order
	var address string
	cmd := &cobra.Command{
		Use: "join TOKEN", Short: "Take this host into a fabric", Args: args("TOKEN"),
		Long: "Makes this host's key, gets a certificate for it from the host where `tapestry pki token`\n" +
			"waits, and writes both with the CA's certificate, the revocation list and a file for\n" +
			"`tapestry up`. Nothing is sent before the other side has shown that it is the CA of the\n" +
			"token, and the key stays here.\n\n" +
			"TOKEN may be - (standard input) or @PATH (a file), which keeps it out of the list of\n" +
			"processes and the history of the shell.",
		Example: "  tapestry join TOKEN\n  ssh h128 sudo tapestry pki token h130 | sudo tapestry join -",
		RunE: func(cmd *cobra.Command, a []string) error {
			text, err := tokenText(cmd, a[0])
			if err != nil {
				return err
			}
			if o.Token, err = join.ParseToken(text); err != nil {
				return pkiError(err)
			}
			if o.Host == "" && o.Token.Host == "" {
				if o.Host, err = ownName("", false); err != nil {
					return err
				}
			}
			if o.Dir, err = pkiDir(o.Dir); err != nil {
				return err
			}
			if address != "" {
				if o.Address, err = netip.ParseAddr(address); err != nil {
					return usagef(cmd, "--address %q: want an IP address", address)
				}
			}
			r, err := join.Join(cmd.Context(), o)
			if err != nil {
				return pkiError(err)
			}
			return c.print(r, func() { c.printJoined(r) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Host, "host", "", "name of this host (default the one in the token, or the hostname)")
	f.StringVar(&o.Dir, "dir", "", dirUsage)
	f.StringVar(&address, "address", "", "where other hosts reach this one (default where the CA sees it)")
	f.BoolVar(&o.Renew, "renew", false, "replace this host's key and certificate")
	return cmd
}

// tokenText is the token that an argument is or names.
func tokenText(cmd *cobra.Command, arg string) (string, error) {
	path, named := strings.CutPrefix(arg, "@")
	if !named && arg != "-" {
		return arg, nil
	}
	in := cmd.InOrStdin()
	if named {
		f, err := os.Open(path)
		switch {
		case os.IsNotExist(err):
			return "", api.Errorf(api.CodeNotFound, "read token: %v", err)
		case os.IsPermission(err):
			return "", api.Errorf(api.CodeNotPermitted, "read token: %v", err)
		case err != nil:
			return "", fmt.Errorf("read token: %w", err)
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
			return "", api.Errorf(api.CodeNotPermitted, "read token: others can read %s", path).WithHint("chmod 600 %s", path)
		}
		in = f
	}
	// One line: who pipes a token in may keep the pipe open.
	line, err := bufio.NewReader(io.LimitReader(in, maxTokenText)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read token: %w", err)
	}
	return line, nil
}

func (c *cli) printJoined(r join.Result) {
	c.printf("%s has joined, certificate until %s\n", r.Host, r.NotAfter.Format(time.DateOnly))
	if r.Kept {
		c.printf("%s is as it was; a running switch takes the certificate up: tapestry apply -c FILE\n", r.File)
		return
	}
	c.printf("peers: %s; networks: %s\n", listOf(r.Peers), listOf(r.Networks))
	c.printf("next: tapestry up -c %s\n", r.File)
	c.printf("and on every other host: tapestry peer add %s --address %s\n", r.Host, r.Address.String())
}

// listOf is names in one line.
func listOf(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
