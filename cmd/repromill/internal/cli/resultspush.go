package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/cmd/repromill/internal/cache"
	"github.com/repromill/repromill/results/bucket"
	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/runner"
)

func (a *app) resultsPushCmd() *cobra.Command {
	var to string
	var follow, takeOver bool
	cmd := &cobra.Command{
		Use:   "push [RUN…]",
		Short: "Commit runs to an object store",
		Long: `Put committed runs into an object store (s3://, gs://, azblob://, file:///), in the
layout of the results folder: data first, the manifest last and only if there is
none. Pushing may be killed anywhere and repeated; the rows are there once. With
the setting results.bucket every run is pushed when it is committed.

A collector runs ` + "`results push --follow`" + ` beside the folder: it holds the store's
credentials and runs nothing foreign, so that what runs foreign code needs none
(examples/cluster/collector.yaml).`,
		Example: `  repromill results push --to 's3://lab-results/papers?region=eu-central-1'
  repromill results push 01K9… --to gs://lab-results
  duckdb -c "SELECT * FROM read_parquet('s3://lab-results/papers/claims/*/**/*.parquet', hive_partitioning=true)"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := a.openBucket(cmd.Context(), to)
			if err != nil {
				return err
			}
			defer b.Close()
			ds, err := a.dataset()
			if err != nil {
				return err
			}
			p := &pusher{a: a, from: ds, to: b, takeOver: takeOver, done: map[string]bool{}}
			if follow {
				return p.follow(cmd.Context(), args)
			}
			return p.all(cmd.Context(), args)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&to, "to", "", "`URL` of the object store; the setting results.bucket is the default")
	fl.BoolVar(&follow, "follow", false, "go on with every run that is committed, until interrupted")
	fl.BoolVar(&takeOver, "take-over", false, "replace what another commit of the run began and nobody can finish")
	return cmd
}

// openBucket opens the object store at a URL or that of the configuration.
func (a *app) openBucket(ctx context.Context, url string) (*bucket.Bucket, error) {
	if url = firstOf(url, a.cfg.String("results.bucket")); url == "" {
		return nil, usererrf("name it with --to URL, or set results.bucket (REPROMILL_RESULTS_BUCKET)", "no object store is configured")
	}
	return bucket.Open(ctx, url, bucket.Config{Hook: a.failpoint()})
}

// pusher brings the runs of a folder to an object store.
type pusher struct {
	a        *app
	from     *dataset.Dataset
	to       *bucket.Bucket
	takeOver bool
	done     map[string]bool // runs that are known to be there
}

// all pushes the given runs, or all that are committed.
func (p *pusher) all(ctx context.Context, ids []string) error {
	list, err := p.todo(ctx, ids)
	if err != nil {
		return err
	}
	out := []bucket.Pushed{}
	var failed error
	for _, id := range list {
		one, err := p.to.Push(ctx, p.from, id, p.takeOver)
		if err != nil {
			failed = errors.Join(failed, err)
			if ctx.Err() != nil {
				break
			}
			continue // one run that cannot be pushed keeps no other back
		}
		p.done[id] = true
		out = append(out, one)
		if !p.a.jsonOut {
			p.say(one)
		}
	}
	if p.a.jsonOut {
		return errors.Join(p.a.printJSON(out), failed)
	}
	if len(out) == 0 && failed == nil {
		fmt.Fprintf(p.a.stdout, "all committed runs are in %s\n", p.to.Name())
	}
	return failed
}

// todo are the runs that may not be in the store yet; those that were named
// are pushed whether they are there or not, which says so.
func (p *pusher) todo(ctx context.Context, ids []string) ([]string, error) {
	if len(ids) > 0 {
		return ids, nil
	}
	there, err := p.to.Runs(ctx)
	if err != nil {
		return nil, err
	}
	list, err := p.from.List(ctx)
	if err != nil && len(list) == 0 {
		return nil, err
	}
	for _, m := range list {
		if !there[m.RunID] && m.Problem == "" {
			ids = append(ids, m.RunID)
		}
	}
	return ids, nil
}

func (p *pusher) say(one bucket.Pushed) {
	switch {
	case one.Other:
		fmt.Fprintf(p.a.stdout, "%s  another commit of it is in %s and stays\n", one.RunID, p.to.Name())
	case one.Already:
		fmt.Fprintf(p.a.stdout, "%s  is in %s already\n", one.RunID, p.to.Name())
	default:
		fmt.Fprintf(p.a.stdout, "%s  %d files, %s, to %s\n", one.RunID, one.Files, cache.Size(one.Bytes), p.to.Name())
	}
}

// followEvery is how often a collector looks for new runs.
const followEvery = 5 * time.Second

// follow pushes whatever is committed until ctx ends. What fails now is tried
// again; it is said once for as long as it stays the same.
func (p *pusher) follow(ctx context.Context, ids []string) error {
	said := ""
	for {
		err := p.fresh(ctx, ids)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			said = ""
		} else if text := err.Error(); text != said {
			said = text
			fmt.Fprintln(p.a.stderr, "repromill:", text, "(tried again)")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(followEvery):
		}
	}
}

// fresh pushes what is committed and not known to be in the store.
func (p *pusher) fresh(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		list, err := p.from.List(ctx)
		if err != nil && len(list) == 0 {
			return err
		}
		for _, m := range list {
			if m.Problem == "" {
				ids = append(ids, m.RunID)
			}
		}
	}
	var failed error
	for _, id := range ids {
		if p.done[id] {
			continue
		}
		one, err := p.to.Push(ctx, p.from, id, p.takeOver)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		p.done[id] = true
		if p.a.jsonOut {
			failed = errors.Join(failed, p.a.printJSON(one))
		} else if !one.Already {
			p.say(one)
		}
	}
	return failed
}

// inBucket commits to the results folder and then to the object store.
type inBucket struct {
	runner.Results
	a *app
	d *dataset.Dataset
}

// Commit is done when the run is in the store: until then the run goes on from
// here when it is resumed.
func (r inBucket) Commit(ctx context.Context, rec *runner.Record) (string, error) {
	manifest, err := r.Results.Commit(ctx, rec)
	if err != nil {
		return manifest, err
	}
	b, err := r.a.openBucket(ctx, "")
	if err != nil {
		return manifest, err
	}
	defer b.Close()
	if _, err := b.Push(ctx, r.d, rec.Run.ID, false); err != nil {
		return manifest, fmt.Errorf("the run is committed in %s and not in the object store yet: %w", r.d.Root(), err)
	}
	return manifest, nil
}

// results is where runs are committed.
func (a *app) results(d *dataset.Dataset) runner.Results {
	local := runner.InDataset(d)
	if a.cfg.String("results.bucket") == "" {
		return local
	}
	return inBucket{local, a, d}
}
