package runner

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/seed"
	"github.com/repromill/repromill/runner/shard"
	"github.com/repromill/repromill/suites/accuracy"
	"github.com/repromill/repromill/suites/throughput"
)

// inPods makes pods measure the turns of a throughput suite, each by an attempt of
// its own. The arms of a round cannot be one pod: its servers would start
// together, and no container gets the GPUs of another. They cannot be indexes of
// one Job either, whose pods are alike, where arms have images, numbers of GPUs
// and GPU models of their own. So that nothing of the suite runs beside a cell, a
// turn is submitted when the one before it has ended.
func (d *drive) inPods(ctx context.Context, s spec.Suite, j *throughput.Job) error {
	all, err := sidecars(s, d.serving())
	if err != nil {
		return err
	}
	j.Elsewhere = func(ctx context.Context, t throughput.Turn) (throughput.Turned, error) { return d.turn(ctx, s, t) }
	return d.seed(ctx, s, all)
}

// TurnAttempt is how a turn of a throughput suite is submitted; folder is its
// place on the volume. Key lacks the arm and the round.
func TurnAttempt(key AttemptKey, t throughput.Turn, at accuracy.Serving, folder string) (Attempt, error) {
	key.Arm, key.Shard = t.Name, t.Round
	a, err := alone(key, t.Arm, at, folder)
	if err != nil {
		return Attempt{}, err
	}
	a.Shards.Alone = true
	return a, nil
}

// alone is an attempt whose one pod has the server of one arm.
func alone(key AttemptKey, arm spec.Arm, at accuracy.Serving, folder string) (Attempt, error) {
	servers, err := sidecars(spec.Suite{Arms: []spec.Arm{arm}}, defaultServing(at))
	if err != nil {
		return Attempt{}, err
	}
	return Attempt{Key: key, Dir: folder, Writable: []string{folder}, GPUs: servers[0].GPUs, SKU: arm.SKU, Shards: &Shards{Of: 1, Parallel: 1, Servers: servers}}, nil
}

// turnFolder is where a turn is measured.
func (d *drive) turnFolder(s spec.Suite, t throughput.Turn) shard.Folder {
	return shard.Folder(filepath.Join(d.answers(), safeName(s.ID), "turns", fmt.Sprintf("%03d-%02d", t.Round, t.N)))
}

// turn has one start of an arm measured by a pod.
func (d *drive) turn(ctx context.Context, s spec.Suite, t throughput.Turn) (out throughput.Turned, err error) {
	folder := d.turnFolder(s, t)
	a, err := TurnAttempt(AttemptKey{RunID: d.run.ID, Stage: StageSuite(s.ID)}, t, d.serving(), string(folder))
	if err != nil {
		return out, err
	}
	if a.SKU == "" && a.GPUs > 0 {
		a.SKU = d.measuredOn(a.Key.Stage)
	}
	decl := shard.Suite{Suite: s, Of: 1, Turn: &t, Endpoints: endpointsOf(a.Shards.Servers), Data: seed.Hub(d.shared())}
	if _, err := folder.Declare(decl); err != nil {
		return out, err
	}
	st, err := d.shardAttempt(ctx, a, nil)
	if err != nil {
		return out, err
	}
	for _, x := range d.attempts {
		if x.Stage == a.Key.Stage && x.Arm == a.Key.Arm && x.Shard == a.Key.Shard {
			out.Spend.Seconds += x.Spend.WallSeconds
			out.Spend.GPUSeconds += 3600 * x.Spend.GPUHours
			out.Spend.USD += x.Spend.USD
		}
	}
	switch {
	case st.Phase == Succeeded:
		out.Dir, out.Lost, err = folder.Measured()
		return out, err
	case st.Reason == ReasonWrongSKU:
		return out, &voidSuite{failure(st)}
	}
	if out.Stopped = d.capReached(); out.Stopped != "" {
		return out, nil
	}
	return out, &UserError{fmt.Sprintf("suite %s is incomplete: round %d of arm %s was not measured; %s", s.ID, t.Round+1, t.Name, failure(st)),
		"remove the cause and take the run up again, with: repromill run --resume " + d.run.ID + "; rounds that are complete are kept"}
}

// measuredOn is the GPU model that an earlier turn of a stage had: where the plan
// names none, all have the same.
func (d *drive) measuredOn(stage string) string {
	for _, x := range d.attempts {
		if x.Stage != stage || !x.Final {
			continue
		}
		if st, err := decodeStatus(x); err == nil && st.Phase == Succeeded && st.Placement.SKU != "" {
			return st.Placement.SKU
		}
	}
	return ""
}
