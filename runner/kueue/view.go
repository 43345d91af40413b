package kueue

import (
	"context"
	"time"
)

// View looks at all Jobs of repromill in one namespace, whoever submitted them,
// and changes nothing.
type View struct {
	c         *client
	now       func() time.Time
	elsewhere func(cluster string) (*client, error)
	workers   workers
}

// NewView returns a view of the cluster and the namespace of a configuration,
// of which it reads nothing else. It does not call the cluster.
func NewView(cfg Config) (*View, error) {
	c, err := connect(cfg.Kubeconfig, cfg.Context, cfg.Namespace)
	if err != nil {
		return nil, err
	}
	cfg.fill()
	return &View{c: c, now: cfg.Now, elsewhere: func(name string) (*client, error) { return connect(cfg.Kubeconfig, name, c.namespace) }}, nil
}

// Summary is how all Jobs stand now, with an outlook.
func (v *View) Summary(ctx context.Context) (Summary, error) {
	f, err := v.snapshot(ctx)
	if err != nil {
		return Summary{}, err
	}
	return f.Summary(ctx), nil
}

// Jobs are the Jobs of one run as they stand now, in the order of their names.
func (v *View) Jobs(ctx context.Context, run string) ([]Line, error) {
	f, err := v.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	for name, w := range f.sentAway(run) {
		c := v.workers.of(w, v.elsewhere)
		if c == nil {
			continue
		}
		pods, err := c.pods(ctx, name)
		if err != nil {
			continue // what the worker cluster does not show the manager's status does not say either
		}
		f.mu.Lock()
		for i := range pods {
			if p, _ := prune(&pods[i]); p != nil {
				f.put(p)
			}
		}
		f.mu.Unlock()
	}
	return f.lines(ctx, run), nil
}

// snapshot is the picture of a moment: everything is read once and not watched.
func (v *View) snapshot(ctx context.Context) (*Fleet, error) {
	if err := v.c.checkKueue(ctx); err != nil {
		return nil, v.c.explain("look for Kueue", err)
	}
	f := newFleet(v.c, v.now)
	for _, d := range f.feeds() {
		if _, err := f.load(ctx, d); err != nil {
			return nil, v.c.explain("read "+d.kind, err)
		}
	}
	return f, nil
}

// Fleet begins to watch, waits until the picture is complete, and goes on until
// the context ends.
func (v *View) Fleet(ctx context.Context) (*Fleet, error) {
	if err := v.c.checkKueue(ctx); err != nil {
		return nil, v.c.explain("look for Kueue", err)
	}
	f := newFleet(v.c, v.now)
	f.start(ctx)
	for {
		f.mu.Lock()
		complete, changed := f.complete(), f.changed
		var broken error
		for kind, err := range f.stale {
			if !temporary(unwrapped(err)) {
				broken = v.c.explain("watch "+kind, err)
			}
		}
		f.mu.Unlock()
		if complete || broken != nil {
			return f, broken
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-changed:
		}
	}
}
