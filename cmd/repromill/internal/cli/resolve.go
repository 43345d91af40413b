package cli

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/planner/target"
)

// resolved is what `resolve --json` prints for one target.
type resolved struct {
	Kind     string `json:"kind"`
	ID       string `json:"id"`
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Path     string `json:"path"`
	Ref      string `json:"ref"`
	URL      string `json:"url"`
}

// resolvedLine is one entry of a list of several targets.
type resolvedLine struct {
	Input string `json:"input"`
	*resolved
	Error string `json:"error,omitempty"`
	Fix   string `json:"fix,omitempty"`
}

func toResolved(t spec.Target) *resolved {
	return &resolved{Kind: t.Kind, ID: t.ID, Version: t.Version, Revision: t.Revision, Path: t.Path, Ref: t.Ref, URL: t.URL}
}

func (a *app) resolveCmd() *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "resolve TARGET…",
		Short: "Say what a string is: kind, canonical id, version or revision",
		Long: `Say what a string is, without any network: an arXiv id or any of the URLs that
carry one, a Hugging Face model, dataset or Space, a git repository, an
OpenReview forum, or a local folder (which starts with ./, ../, / or ~/).

Near misses are refused with the reason; nothing is guessed.`,
		Example: `  repromill resolve https://autoarxiv.org/abs/2604.08075
  repromill resolve --json 'https://arxiv.org/pdf/hep-th/9901001v3'
  repromill resolve nvidia/Qwen3.6-27B-NVFP4@main
  repromill resolve --from targets.txt`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if from != "" {
				items, err := a.readTargets(from)
				if err != nil {
					return err
				}
				for _, it := range items {
					args = append(args, it.Target)
				}
			}
			switch {
			case len(args) == 0:
				return usererrf("see `repromill resolve --help`", "resolve takes at least one target")
			case len(args) == 1 && from == "":
				return a.resolveOne(args[0])
			default:
				return a.resolveMany(args)
			}
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "read targets from `FILE`, one a line; - is standard input")
	return cmd
}

func (a *app) resolveOne(s string) error {
	t, err := target.Parse(s)
	if err != nil {
		return err
	}
	if a.jsonOut {
		return a.printJSON(toResolved(t))
	}
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	for _, f := range [][2]string{{"kind", t.Kind}, {"id", t.ID}, {"version", t.Version}, {"revision", t.Revision}, {"path", t.Path}, {"ref", t.Ref}, {"url", t.URL}} {
		if f[1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", f[0], clean(f[1]))
		}
	}
	return w.Flush()
}

func (a *app) resolveMany(args []string) error {
	lines := make([]resolvedLine, len(args))
	failed := false
	for i, s := range args {
		lines[i].Input = s
		t, err := target.Parse(s)
		if err != nil {
			failed = true
			lines[i].Error = err.Error()
			var user interface{ UserError() string }
			if errors.As(err, &user) {
				lines[i].Fix = user.UserError()
			}
			continue
		}
		lines[i].resolved = toResolved(t)
	}
	if a.jsonOut {
		if err := a.printJSON(lines); err != nil {
			return err
		}
	} else {
		w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "KIND\tID\tVERSION\tURL")
		for _, l := range lines {
			if l.resolved == nil {
				fmt.Fprintf(w, "-\t%s\t-\t%s\n", clean(l.Input), clean(oneLine(l.Error)))
				continue
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", l.Kind, clean(l.ID), firstOf(l.Version, l.Revision, l.Ref, "-"), clean(l.URL))
		}
		w.Flush()
	}
	if failed {
		return &exitError{exitUser}
	}
	return nil
}

// firstOf returns the first string that is not empty.
func firstOf(s ...string) string {
	for _, v := range s {
		if strings.TrimSpace(v) != "" {
			return v
		}
	}
	return ""
}
