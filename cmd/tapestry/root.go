package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tapestry-net/tapestry/internal/api"
	"github.com/tapestry-net/tapestry/internal/spell"
)

// cli is one run of the program.
type cli struct {
	out, err io.Writer
	socket   string
	json     bool
}

// helpText ends with the examples, which are what most readers look for.
const helpText = `{{with or .Long .Short}}{{. | trimTrailingWhitespaces}}{{end}}

Usage:
  {{.UseLine}}{{if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsagesWrapped 100 | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Flags of every command:
{{.InheritedFlags.FlagUsagesWrapped 100 | trimTrailingWhitespaces}}{{end}}{{if .HasExample}}

Example:
{{.Example}}{{end}}
`

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "tapestry",
		Short: "A userspace switch for containers",
		Long: `tapestry weaves containers and namespaces into networks: it is an Ethernet
switch that runs as one program and can say why each frame went where it went.

Exit codes: 0 done, 1 failed, 2 wrong usage or invalid file, 3 the daemon can't
be reached, 4 not permitted, 5 not found, 6 conflict.`,
		Example: `  tapestry up -c tapestry.yaml
  tapestry attach web --network blue --address 10.1.0.9/24
  tapestry status`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.SetHelpTemplate(helpText)
	root.SetUsageTemplate(helpText)
	root.SetHelpCommand(&cobra.Command{Hidden: true})
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(flagError)
	root.PersistentFlags().StringVar(&c.socket, "socket", "", "control socket of the switch (default $TAPESTRY_SOCKET, then "+
		"/run/tapestry/tapestry.sock, or $XDG_RUNTIME_DIR/tapestry/tapestry.sock for a normal user)")
	root.PersistentFlags().BoolVar(&c.json, "json", false, "print one JSON document (a stream: one object a line)")

	root.AddCommand(c.commands()...)
	group(root)
	c.completeAll(root)
	return root
}

// commands are all that the program does.
func (c *cli) commands() []*cobra.Command {
	return []*cobra.Command{
		c.up(), c.worker(), c.check(), c.apply(), c.upgrade(),
		c.status(), c.stats(), c.events(), c.doctor(),
		c.networkGroup(), c.portGroup(), c.attach(), c.detach(), c.fdbGroup(), c.peerGroup(), c.explain(), c.capture(), c.extcap(), c.trace(),
		c.pkiGroup(), c.join(),
		c.bench(), c.benchInside(), c.benchTraffic(),
		c.completion(), c.version(), c.generate(),
	}
}

// group makes a command that only holds others refuse what is none of them.
func group(cmd *cobra.Command) {
	cmd.Use += " COMMAND"
	cmd.DisableFlagsInUseLine = true
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			e := usagef(cmd, "unknown command %q", args[0])
			if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
				return e.WithHint("did you mean `%s %s`?", cmd.CommandPath(), like[0])
			}
			return e
		}
		if !cmd.HasParent() {
			return cmd.Help()
		}
		var names []string
		for _, sub := range cmd.Commands() {
			names = append(names, sub.Name())
		}
		return usagef(cmd, "say what to do: %s", strings.Join(names, ", "))
	}
}

// client speaks to the switch that the flags name.
func (c *cli) client() *api.Client {
	socket := c.socket
	if socket == "" {
		socket = api.DefaultSocket()
	}
	return api.Dial(socket)
}

// exit prints err and returns its exit code.
func (c *cli) exit(err error) int {
	if err == nil {
		return 0
	}
	e := api.AsError(invalid(err))
	fmt.Fprintf(c.err, "tapestry: %s\n", cleanLines(e.Msg))
	if e.Hint != "" {
		fmt.Fprintf(c.err, "hint: %s\n", cleanLines(e.Hint))
	}
	return e.Code
}

// usagef is an error of how cmd was called.
func usagef(cmd *cobra.Command, format string, args ...any) *api.Error {
	msg := fmt.Sprintf(format, args...)
	if path := strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), "tapestry"), " "); path != "" {
		msg = path + ": " + msg
	}
	return (&api.Error{Code: api.CodeInvalid, Msg: msg}).WithHint("see `%s --help`", cmd.CommandPath())
}

// args wants exactly the arguments that names lists; the last may be optional,
// as in [VALUE].
func args(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, got []string) error {
		least := len(names)
		if least > 0 && strings.HasPrefix(names[least-1], "[") {
			least--
		}
		switch {
		case len(got) < least:
			return usagef(cmd, "%s is missing", names[len(got)])
		case len(got) > len(names):
			return usagef(cmd, "%q is one argument too many", got[len(names)])
		}
		return nil
	}
}

// flagValues are what the types of flags want, in words for people.
var flagValues = map[string]string{
	"int": "a whole number", "uint32": "a whole number from 0", "uint64": "a whole number from 0",
	"duration": "a duration such as 500ms, 10s or 1h", "bool": "true or false",
}

// flagError says what a flag wants, or names the one that was probably meant.
func flagError(cmd *cobra.Command, err error) error {
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		want := cmp.Or(flagValues[bad.GetFlag().Value.Type()], bad.GetFlag().Value.Type())
		return usagef(cmd, "--%s %q: want %s", bad.GetFlag().Name, bad.GetValue(), want)
	}
	e := usagef(cmd, "%v", err)
	_, bad, ok := strings.Cut(err.Error(), "unknown flag: --")
	if !ok {
		return e
	}
	best, least := "", 3
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if d := spell.Distance(bad, f.Name); d < least && !f.Hidden {
			best, least = f.Name, d
		}
	})
	if best != "" {
		return e.WithHint("did you mean --%s? See `%s --help`", best, cmd.CommandPath())
	}
	return e
}

// nearest is the name within two edits of s, or empty.
func nearest(s string, names []string) string {
	best, least := "", 3
	for _, n := range names {
		if d := spell.Distance(s, n); d < least {
			best, least = n, d
		}
	}
	return best
}

// known refuses a name that is none of names.
func known(kind, name string, names []string) error {
	if slices.Contains(names, name) {
		return nil
	}
	return notFound(kind, name, names)
}

// notFound is the error for a name that is none of those known.
func notFound(kind, name string, known []string) error {
	e := api.Errorf(api.CodeNotFound, "no %s %q", kind, name)
	if like := nearest(name, known); like != "" {
		return e.WithHint("did you mean %s?", like)
	}
	slices.Sort(known)
	if len(known) == 0 || len(known) > 20 {
		return e.WithHint("see `tapestry %s ls`", kind)
	}
	return e.WithHint("there are %s", strings.Join(known, ", "))
}
