package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"github.com/repromill/repromill/runner/kueue"
)

// podLogs says of which containers the output is wanted.
type podLogs struct {
	shard     int
	container string
	previous  bool
}

func (p *podLogs) add(fl *pflag.FlagSet) {
	fl.IntVar(&p.shard, "shard", 0, "of pods in the cluster: only shard `N`, from 1 on")
	fl.StringVar(&p.container, "container", "", "of pods in the cluster: only the container `NAME`, such as server-fp8 or client")
	fl.BoolVar(&p.previous, "previous", false, "of pods in the cluster: what the start before this one printed")
}

func (p *podLogs) asked() bool { return p.shard != 0 || p.container != "" || p.previous }

// podLogs prints what pods print, each under its name; only one can be followed.
func (a *app) podLogs(ctx context.Context, run string, p podLogs, follow bool) error {
	if p.shard < 0 {
		return usererrf("count shards from 1 on", "--shard %d is none", p.shard)
	}
	v, err := a.clusterView()
	if err != nil {
		return err
	}
	list, err := v.Printed(ctx, run, p.shard, p.container)
	if err != nil {
		return err
	}
	if follow && len(list) > 1 {
		return usererrf("name one with --shard and --container: "+list[0].String(), "one container can be followed, and these are %d", len(list))
	}
	for _, x := range list {
		fmt.Fprintf(a.stderr, "== %s\n", clean(x.String()))
		if err := a.copyPodLog(ctx, x, p.previous, follow); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) copyPodLog(ctx context.Context, x kueue.Printed, previous, follow bool) error {
	r, err := x.Open(ctx, previous, follow)
	var nothing *kueue.NothingPrintedError
	if errors.As(err, &nothing) {
		fmt.Fprintln(a.stderr, clean(nothing.Error()))
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.Copy(shown(a.stdout), r); err != nil && ctx.Err() == nil {
		return fmt.Errorf("read the logs of %s: %w", x, err)
	}
	return ctx.Err()
}
