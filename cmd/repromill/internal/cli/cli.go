// Package cli is the command line: one file per subcommand, each a function of
// the invocation's arguments, environment and streams.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/cmd/repromill/internal/config"
	"github.com/repromill/repromill/suites/accuracy"
)

// Exit codes are a promise to scripts.
const (
	exitOK          = 0
	exitOurs        = 1   // something on our side broke
	exitUser        = 2   // the input has to change; the message says how
	exitFailOn      = 3   // an outcome named with --fail-on
	exitInterrupted = 130 // Ctrl-C
)

// app is one invocation.
type app struct {
	args   []string
	env    map[string]string
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	cfg    *config.Config
	now    func() time.Time

	hook     func(string) // see failpoint
	hookOnce sync.Once

	jsonOut bool
	noColor bool
	quiet   bool
	mirror  string
	serving accuracy.Serving // of suites, as this invocation says

	shown atomic.Pointer[ui] // what progress goes to
}

// Main runs one invocation and returns the process's exit code. args[0] is the
// program's name; env is a list of NAME=VALUE, of which the last wins.
func Main(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if code, ok := hidden(args); ok {
		return code
	}
	a := &app{args: args, env: map[string]string{}, stdin: stdin, stdout: stdout, stderr: stderr, now: time.Now}
	for _, kv := range env {
		if k, v, ok := strings.Cut(kv, "="); ok {
			a.env[k] = v
		}
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := a.root()
	root.SetArgs(args[1:])
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	return a.exit(ctx, err)
}

func (a *app) getenv(name string) string { return a.env[name] }

// userError is a mistake in the input, with the fix.
type userError struct{ problem, fix string }

func (e *userError) Error() string     { return e.problem }
func (e *userError) UserError() string { return e.fix }

func usererrf(fix, format string, args ...any) error {
	return &userError{fmt.Sprintf(format, args...), fix}
}

// exitError ends the process with a code after everything has been printed.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit %d", e.code) }

func (a *app) exit(ctx context.Context, err error) int {
	err = a.explain(err)
	var code *exitError
	var user interface{ UserError() string }
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return code.code
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintln(a.stderr, "repromill: interrupted")
		return exitInterrupted
	case errors.As(err, &user):
		a.printError(err, user.UserError())
		return exitUser
	default:
		a.printError(err, "")
		return exitOurs
	}
}

// printError writes one message for people, or one object for programs.
func (a *app) printError(err error, fix string) {
	if a.jsonOut {
		b, _ := json.Marshal(map[string]string{"error": err.Error(), "fix": fix})
		fmt.Fprintln(a.stderr, string(b))
		return
	}
	fmt.Fprintf(a.stderr, "repromill: %s\n", clean(err.Error()))
	if fix != "" && !strings.Contains(err.Error(), fix) {
		fmt.Fprintf(a.stderr, "  fix: %s\n", clean(fix))
	}
}

// clean makes text of unknown origin safe to print on a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		if r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0) || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) {
			return '\uFFFD'
		}
		return r
	}, s)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "repromill",
		Short: "Check what a paper or a model card claims, with the smallest run that can tell",
		Long: `repromill takes an arXiv URL or a Hugging Face model id, finds the code, plans the
smallest run that checks the claim, says what it costs, runs it in a sandbox and
commits the verdict as Parquet.

  repromill run https://arxiv.org/abs/2604.08075     plan, approve, run, verdict
  repromill plan 2604.08075                          look before anything runs
  repromill results list                             what has been found out

Exit codes: 0 done; 1 a failure of ours; 2 the input has to change (the message
says how); 3 an outcome named with --fail-on; 130 interrupted.`,
		SilenceUsage:               true,
		SilenceErrors:              true,
		SuggestionsMinimumDistance: 2,
		Args:                       cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			fix := "commands are listed by `repromill --help`; to check a paper or model: repromill run " + args[0]
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				fix = "did you mean `repromill " + near[0] + "`?"
			}
			return usererrf(fix, "%q is no command", args[0])
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(a.getenv)
			if err != nil {
				return err
			}
			a.cfg = cfg
			if a.mirror != "" {
				if err := cfg.SetFlag("mirror", a.mirror, "mirror"); err != nil {
					return err
				}
			}
			return cfg.Absolute("mirror", "paths.cache", "paths.state", "paths.results")
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usererrf("see `"+cmd.CommandPath()+" --help`", "%v", err)
	})
	root.PersistentFlags().BoolVar(&a.jsonOut, "json", false, "print JSON, whose shape is a promise")
	root.PersistentFlags().BoolVar(&a.noColor, "no-color", false, "no colours (NO_COLOR does the same)")
	root.PersistentFlags().BoolVarP(&a.quiet, "quiet", "q", false, "no progress on standard error")
	root.PersistentFlags().StringVar(&a.mirror, "mirror", "", "use the offline mirror in `DIR` and contact nothing else")
	root.AddCommand(a.commands()...)
	return root
}

func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.bundleCmd(),
		a.rerunCmd(),
		a.resolveCmd(),
		a.planCmd(),
		a.runCmd(),
		a.serveCmd(),
		a.shardCmd(),
		a.mergeCmd(),
		a.submitCmd(),
		a.statusCmd(),
		a.watchCmd(),
		a.logsCmd(),
		a.cancelCmd(),
		a.resultsCmd(),
		a.gradeCmd(),
		a.compareCmd(),
		a.powerCmd(),
		a.quantizeCmd(),
		a.loadCmd(),
		a.inspectCmd(),
		a.keysCmd(),
		a.engineCmd(),
		a.estimateCmd(),
		a.mirrorCmd(),
		a.nightlyCmd(),
		a.imageCmd(),
		a.cacheCmd(),
		a.configCmd(),
		a.doctorCmd(),
		a.versionCmd(),
	}
}

// printJSON writes one indented document.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// exactArgs is cobra.ExactArgs with an error that counts as the user's.
func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usererrf("see `"+cmd.CommandPath()+" --help`", "%s takes %s, got %d arguments", cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}
