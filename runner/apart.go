package runner

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/seed"
	"github.com/repromill/repromill/runner/shard"
	"github.com/repromill/repromill/suites/accuracy"
	"github.com/repromill/repromill/suites/harness"
)

// Apart reports whether the arms of a suite are asked one after another: as the
// plan says, and where they are for GPU models that no one node has.
func Apart(s spec.Suite) bool {
	return s.Placing == spec.OneAfterAnother ||
		slices.ContainsFunc(s.Arms, func(a spec.Arm) bool { return a.SKU != "" && s.Arms[0].SKU != "" && a.SKU != s.Arms[0].SKU })
}

// halves are blocks of which each arm's part is a folder of its own, numbered
// through the blocks and the arms in each.
type halves struct {
	at   func(i int) shard.Folder
	stop string // why no more are asked
}

// Ends implements [blocks].
func (h *halves) Ends(n int) (map[int]shard.End, error) {
	out := map[int]shard.End{}
	for i := range n {
		e, ok, err := h.at(i).End(0)
		if err != nil {
			return nil, err
		}
		if ok {
			out[i] = e
		}
	}
	return out, nil
}

// Answers implements [blocks].
func (h *halves) Answers(n int, parts bool) (out []string, err error) {
	for i := range n {
		dirs, err := h.at(i).Answers(1, parts)
		if err != nil {
			return nil, err
		}
		out = append(out, dirs...)
	}
	return out, nil
}

// Stopped implements [blocks].
func (h *halves) Stopped() string { return h.stop }

func (d *drive) apartFolder(s spec.Suite) string {
	return filepath.Join(d.answers(), safeName(s.ID), "apart")
}

func (d *drive) halves(s spec.Suite) *halves {
	return &halves{at: func(i int) shard.Folder {
		return shard.Folder(filepath.Join(d.apartFolder(s), fmt.Sprintf("%03d-%02d", i/len(s.Arms), i%len(s.Arms))))
	}}
}

// blocksApart is in how many blocks a suite is asked, fixed when it is begun.
func (d *drive) blocksApart(s spec.Suite) int {
	list, err := os.ReadDir(d.apartFolder(s))
	for i := 0; i < len(list) && err == nil; i++ {
		if decl, err := shard.Folder(filepath.Join(d.apartFolder(s), list[i].Name())).Declared(); err == nil && decl.Part != nil {
			return decl.Part.Of
		}
	}
	return d.req.Sharding.apart(s)
}

// PartAttempt is how a block is asked of one arm; folder is its place on the
// volume. Key lacks the arm and the block.
func PartAttempt(key AttemptKey, arm spec.Arm, block int, at accuracy.Serving, folder string) (Attempt, error) {
	key.Arm, key.Shard = arm.Name, block
	return alone(key, arm, at, folder)
}

// askApart has a suite asked block by block, each of one arm after another, until
// the verdict is in. Every other block begins with the last arm, so that what
// drifts falls on all alike.
func (d *drive) askApart(ctx context.Context, s spec.Suite) (res harness.Result, of int, err error) {
	all, err := sidecars(s, d.serving())
	if err != nil {
		return res, 0, err
	}
	if err := d.seed(ctx, s, all); err != nil {
		return res, 0, err
	}
	h, blocks, arms := d.halves(s), d.blocksApart(s), len(s.Arms)
	w := &shardWatch{drive: d, suite: s, folder: h, of: blocks * arms}
	st := Status{Phase: Succeeded}
	for block := 0; block < blocks && h.stop == "" && st.Phase == Succeeded; block++ {
		for k := 0; k < arms && st.Phase == Succeeded; k++ {
			arm := k
			if block%2 == 1 {
				arm = arms - 1 - k
			}
			part := shard.Part{Arm: s.Arms[arm].Name, Index: block, Of: blocks}
			if st, err = d.askPart(ctx, s, s.Arms[arm], part, h.at(block*arms+arm)); err != nil {
				return res, w.of, err
			}
		}
		if h.stop, err = w.look(ctx); err != nil {
			return res, w.of, err
		}
	}
	res, err = w.conclude(ctx, st)
	return res, w.of, err
}

// askPart has a block asked of one arm by a pod.
func (d *drive) askPart(ctx context.Context, s spec.Suite, arm spec.Arm, p shard.Part, folder shard.Folder) (Status, error) {
	a, err := PartAttempt(AttemptKey{RunID: d.run.ID, Stage: StageSuite(s.ID)}, arm, p.Index, d.serving(), string(folder))
	if err != nil {
		return Status{}, err
	}
	if _, err := folder.Declare(shard.Suite{Suite: s, Of: 1, Part: &p, Endpoints: endpointsOf(a.Shards.Servers), Data: seed.Hub(d.shared())}); err != nil {
		return Status{}, err
	}
	return d.shardAttempt(ctx, a, nil)
}
