package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/runner/server"
	"github.com/repromill/repromill/suites/endpoint"
	"github.com/repromill/repromill/suites/load/bench"
	"github.com/repromill/repromill/suites/servers"
)

// loadServer starts the server that `load --server` is to measure, and points the
// measurement at it.
func (a *app) loadServer(ctx context.Context, u *ui, f *loadFlags, cfg *bench.Config) (srv servers.Server, stop func(), err error) {
	if f.model == "" && (strings.Contains(f.server, "{model}") || !strings.Contains(f.server, "{port}")) {
		return nil, nil, usererrf("give --model with the model's name or folder", "--server %s does not say which model to serve", f.server)
	}
	c, err := a.serverConfig()
	if err != nil {
		return nil, nil, err
	}
	c.How, c.Now = func(spec.Arm) string { return f.server }, a.now
	c.Logs = filepath.Join(c.Dir, "load")
	c.Progress = func(_, doing string) { u.start("starting the server: " + doing) }
	host, err := server.New(c)
	if err != nil {
		return nil, nil, err
	}
	if srv, err = host.Start(ctx, spec.Arm{Name: "load", Model: f.model}); err != nil {
		return nil, nil, err
	}
	cfg.URLs = []string{srv.Endpoint()}
	cfg.Identify = func(ctx context.Context, _ int) (endpoint.Identity, error) { return srv.Identity(ctx) }
	return srv, func() { _ = srv.Stop(context.WithoutCancel(ctx)) }, nil
}

// printFacts says how a server that we started serves.
func (a *app) printFacts(f servers.Facts) {
	var parts []string
	add := func(format string, v ...any) { parts = append(parts, fmt.Sprintf(format, v...)) }
	if k := f.Kernel(); k != "" {
		add("kernels %s", k)
	}
	if f.Attention != "" {
		add("attention %s", f.Attention)
	}
	if f.KVTokens > 0 {
		add("cache of %s tokens", grouped(int(f.KVTokens)))
	}
	for _, t := range []struct {
		what string
		s    float64
	}{{"loaded in", f.LoadS}, {"compiled in", f.CompileS}, {"graphs in", f.GraphS}, {"ready after", f.ReadyS}} {
		if t.s > 0 {
			add("%s %s", t.what, time.Duration(t.s*1e9).Round(100*time.Millisecond))
		}
	}
	fmt.Fprintf(a.stdout, "served by us: %s; log %s\n", clean(strings.Join(parts, ", ")), f.Log)
	for _, w := range f.Warnings {
		fmt.Fprintf(a.stdout, "the server warns: %s\n", clean(w))
	}
}

// withFacts adds to rows of a server what its log says.
func withFacts(rows []schema.ServerRow, f *servers.Facts) []schema.ServerRow {
	for i := range rows {
		if f != nil {
			f.Describe(&rows[i])
		}
	}
	return rows
}
