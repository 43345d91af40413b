package shard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/gpu"
	"github.com/repromill/repromill/suites/endpoint"
	"github.com/repromill/repromill/suites/servers"
	"github.com/repromill/repromill/suites/throughput"
)

// measure measures a turn from its beginning to its end: what another pod measured
// of it was on another start of the server.
func (c Client) measure(ctx context.Context, s Suite, dir string, began time.Time) (int, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	n, err := c.Turns.Turn(ctx, throughput.Job{
		Suite: s.Suite, URL: func(spec.Arm) string { return "" }, Starter: beside{url: s.Endpoints[s.Turn.Arm.Name], seen: c.Seen, now: c.Now}, Dir: dir, Host: c.Node,
		Progress: func(what string, _, _ int) {
			c.say("%s", what)
			if !c.Folder.owns(c.Index, c.Pod) {
				stop(errTaken)
			}
		},
	}, *s.Turn)
	if err != nil {
		return status(err), err
	}
	if !c.Folder.owns(c.Index, c.Pod) {
		return ExitAgain, errTaken
	}
	// The GPUs are in use from the moment at which the server began to load.
	if at := n.Server.Identity.StartTime; !at.IsZero() && at.Before(began) {
		began = at
	}
	e := End{Pod: c.Pod, Node: c.Node, Began: began, Ended: c.Now().UTC(), Requests: n.Requests, Cells: n.Cells, Void: n.Void}
	if err := c.end(e); err != nil {
		return ExitAgain, err
	}
	c.say("is complete: %d cells, %d of them void, %d requests", e.Cells, e.Void, e.Requests)
	return ExitDone, nil
}

// beside is the server of a turn: kubelets start it before the client and end it
// after it.
type beside struct {
	url    string
	seen   string // a file
	now    func() time.Time
	client *endpoint.Client
}

// Start implements [servers.Starter]: a startup probe has held the client back until
// the server answered.
func (b beside) Start(_ context.Context, arm spec.Arm) (servers.Server, error) {
	c, err := endpoint.New(endpoint.Config{URL: b.url, Now: b.now})
	if err != nil {
		return nil, fmt.Errorf("server of arm %s: %w", arm.Name, err)
	}
	b.client = c
	return b, nil
}

func (b beside) Endpoint() string { return b.client.URL() }

// Identity adds to what the server says of itself the GPUs that its container
// has.
func (b beside) Identity(ctx context.Context) (endpoint.Identity, error) {
	id, err := b.client.Identity(ctx)
	if err == nil && b.seen != "" {
		seen := gpu.Read(b.seen)
		id.GPUUUIDs, id.Driver = seen.UUIDs, cmp.Or(id.Driver, seen.Driver)
	}
	return id, err
}

func (beside) Facts() servers.Facts { return servers.Facts{} }

func (beside) Restart(context.Context) error {
	return errors.New("restart a pod's server: only another pod is another start")
}

// Stop leaves it to the pod's end, which is near.
func (beside) Stop(context.Context) error { return nil }
