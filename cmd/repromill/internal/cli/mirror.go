package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/planner/fetch/git"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/planner/target"
	"github.com/repromill/repromill/runner"
)

func (a *app) mirrorCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mirror",
		Short: "Fill an offline mirror, for air-gapped sites and tests",
		Long: `A mirror is a folder of files laid out by host and path, with bare git
repositories among them. Fill it where there is a network, carry it to where
there is none, and use it there with --mirror DIR or REPROMILL_MIRROR.`,
	}
	var dir, from, repo, commit string
	add := &cobra.Command{
		Use:   "add TARGET…",
		Short: "Fetch all that planning a target needs from the live sites into a mirror",
		Example: `  repromill mirror add --dir ./mirror 2604.08075
  repromill mirror add --dir ./mirror nvidia/Qwen3.6-27B-NVFP4
  repromill mirror add --dir ./mirror --from papers.txt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			items := make([]batchItem, 0, len(args))
			for i, t := range args {
				items = append(items, batchItem{Line: i + 1, Target: t, Status: "not_started"})
			}
			if from != "" {
				more, err := a.readTargets(from)
				if err != nil {
					return err
				}
				items = append(items, more...)
			}
			if len(items) == 0 {
				return usererrf("see `repromill mirror add --help`", "mirror add takes at least one target")
			}
			if a.cfg.String("mirror") != "" {
				return usererrf("leave out --mirror and REPROMILL_MIRROR; --dir names the folder to fill", "a mirror is filled from the live sites, and --mirror forbids them")
			}
			return a.mirrorAdd(cmd.Context(), dir, items, repo, commit)
		},
	}
	add.Flags().StringVar(&dir, "dir", "mirror", "the mirror's `FOLDER`; it is made when it lacks")
	add.Flags().StringVar(&from, "from", "", "read targets from `FILE`, one a line; - is standard input")
	add.Flags().StringVar(&repo, "repo", "", "add this repository instead of the links that are found")
	add.Flags().StringVar(&commit, "commit", "", "add this commit, branch or tag")
	cmd.AddCommand(add)
	return cmd
}

// mirrorModel adds what `inspect` reads of a model: its small files and the
// headers of its weights. What cannot be had is no failure: plans need none of it.
func (a *app) mirrorModel(ctx context.Context, dir string, t spec.Target) string {
	s, err := a.hubSubject(ctx, dir, t.ID, t.Revision)
	if err != nil {
		return "without the headers of its weights: " + clean(oneLine(err.Error()))
	}
	r, err := s.facts(ctx, false)
	switch {
	case err != nil:
		return "without the headers of its weights: " + clean(oneLine(err.Error()))
	case r.shards == nil:
		return "no safetensors headers"
	}
	return fmt.Sprintf("headers of %d files of weights", len(r.shards.Shards))
}

func (a *app) mirrorAdd(ctx context.Context, dir string, items []batchItem, repo, commit string) error {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(abs, 0o755); err != nil {
		return usererrf("name a folder that can be written with --dir", "cannot make the mirror: %v", err)
	}
	pl, err := a.pipelineInto(abs)
	if err != nil {
		return err
	}
	ui := a.ui()
	// One after another: each site allows one connection at a time anyway.
	batch(ctx, items, 1, func(ctx context.Context, it *batchItem) {
		p, err := pl.Plan(ctx, runner.PlanRequest{Target: it.Target, Repo: repo, Commit: commit}, ui.emit)
		if err != nil {
			it.fail(a.explain(err))
			return
		}
		it.Status, it.Detail = "added", "no code"
		if t, err := target.Parse(it.Target); err == nil && t.Kind == target.HFModel {
			it.Detail = a.mirrorModel(ctx, abs, t)
		}
		if p.Source.Repo != "" && !filepath.IsAbs(p.Source.Repo) {
			e, err := pl.Cloner.AddToMirror(ctx, abs, git.Request{Repo: p.Source.Repo, Ref: firstOf(p.Source.Ref, p.Source.Commit)})
			if err != nil {
				it.fail(a.explain(fmt.Errorf("the pages are added, the code is not: %w", err)))
				return
			}
			it.Detail = fmt.Sprintf("%s @ %s, %d files", e.Repo, short(e.Commit), e.Files)
		}
	})
	ui.abandon()
	if a.jsonOut {
		if err := a.printJSON(items); err != nil {
			return err
		}
	} else {
		batchTable(a.stdout, items)
		fmt.Fprintf(a.stdout, "\nuse it with: repromill plan --mirror %s TARGET\n", dir)
	}
	return batchExit(ctx, items)
}
