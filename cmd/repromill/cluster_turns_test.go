//go:build linux && cluster

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/runner/shard"
	"github.com/repromill/repromill/suites/load/bench"
	"github.com/repromill/repromill/suites/load/compare"
	"github.com/repromill/repromill/suites/throughput"
)

// turnFolder is that of a turn of the one throughput suite on the volume.
func turnFolder(t *testing.T, round, n int) shard.Folder {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(os.Getenv("REPROMILL_CLUSTER_VOLUME"), "repromill", "runs", "*", "answers", "throughput", "turns", fmt.Sprintf("%03d-%02d", round, n)))
	if err != nil || len(list) > 1 {
		t.Fatalf("%v %v", list, err)
	}
	if len(list) == 0 {
		return ""
	}
	return shard.Folder(list[0])
}

// TestClusterThroughput: a two-arm throughput suite in pods, of which one is
// preempted while it measures: what that one measured is nowhere, and all else is
// there once.
func TestClusterThroughput(t *testing.T) {
	s := newSuiteSite(t, 10, "cluster: {cpu: 300m, priority: repromill-nightly}\n")
	serve := func(arm, step string) string {
		return fmt.Sprintf("%s=docker:%s /bin/models %s --host {host} --port {port} --model {model} --step %s", arm, s.image, modelEntry, step)
	}
	run := s.command("run", "org/tiny-NVFP4", "--baseline", "org/tiny-FP8", "--suites", "throughput", "--load-isl", "16", "--load-osl", "16", "--load-concurrency", "2", "--load-requests", "30",
		"--load-rounds", "2", "--load-floor", "1", "--mirror", s.dir+"/mirror", "--server", serve("fp8", "10ms"), "--server", serve("nvfp4", "20ms"), "--executor", "kueue", "--yes", "--json")
	var out, errs bytes.Buffer
	run.Stdout, run.Stderr = &out, &errs
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	defer run.Process.Kill()
	defer func() {
		if t.Failed() {
			t.Logf("the run said:\n%s", &errs)
		}
	}()
	// The second round begins with the second arm: its turn is the third.
	says := func(f shard.Folder, what string) bool {
		b, _ := os.ReadFile(f.Log())
		return f != "" && strings.Contains(string(b), what)
	}
	waitFor(t, "the third turn measures", func() bool { return says(turnFolder(t, 1, 1), "closed-c2") })
	preempt(t)
	if err := run.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, &errs)
	}
	var got struct {
		RunID  string `json:"run_id"`
		Suites []struct {
			Shards     int               `json:"shards"`
			Throughput throughput.Result `json:"throughput"`
		} `json:"suites"`
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	res := got.Suites[0].Throughput
	if got.Suites[0].Shards != 4 || res.Rounds != 2 || len(res.Blocks) != 4 || len(res.Servers) != 4 || res.Lost != 1 || !res.Simulated || res.Stopped != "" {
		t.Errorf("%d starts, %d rounds, %d blocks, %d servers, %d lost, %q", got.Suites[0].Shards, res.Rounds, len(res.Blocks), len(res.Servers), res.Lost, res.Stopped)
	}
	if !strings.Contains(strings.Join(res.Warnings, "\n"), "round 2 of nvfp4: 1 starts ended in the middle") {
		t.Errorf("nobody was told of the start that was lost: %q", res.Warnings)
	}
	var starts []string
	values, void := map[string][]float64{}, 0
	for _, b := range bench.Blocks(res.Blocks) {
		if b.Void {
			void++
		} else {
			values[b.Arm] = append(values[b.Arm], b.Values[compare.OutputPerGPU])
		}
	}
	for _, in := range res.Servers {
		starts = append(starts, in.Arm+" "+in.Identity.StartTime.String())
		if strings.Contains(in.Endpoint, "127.0.0.1") {
			t.Errorf("a server of a pod is said to be at %s", in.Endpoint)
		}
	}
	slices.Sort(starts)
	if len(slices.Compact(starts)) != 4 {
		t.Errorf("servers started %v", starts)
	}
	for arm, v := range values {
		void += len(v) // as many as were measured, and each arm's voids are told
		if text := fmt.Sprintf("%s: %d of 2 cells are void", arm, 2-len(v)); len(v) < 2 && !strings.Contains(strings.Join(res.Warnings, "\n"), text) {
			t.Errorf("nobody was told that %s: %q", text, res.Warnings)
		}
	}
	if void != 4 {
		t.Errorf("%d cells are void or have values, want 4", void)
	}
	for _, c := range res.Comparisons {
		if a, b := values["fp8"], values["nvfp4"]; c.Metric == compare.OutputPerGPU && c.Base.Cell != "" && c.Floor == 0 && c.Ratio != 0 && len(a) == 2 && len(b) == 2 {
			if want := math.Sqrt(b[0] * b[1] / a[0] / a[1]); math.Abs(c.Ratio/want-1) > 0.05 {
				t.Errorf("%s: ratio %g, measured were %v and %v", c.Base.Cell, c.Ratio, a, b)
			}
		}
	}
	asked := map[string]int{}
	for _, r := range rowsIn[schema.RequestRow](t, s.dir) {
		if r.RunID == got.RunID {
			asked[r.PromptSHA]++
			asked[fmt.Sprint(r.Arm, r.Block)]++
		}
	}
	for _, arm := range []string{"fp8", "nvfp4"} {
		for round := range 2 {
			if n := asked[fmt.Sprint(arm, round)]; n != 30+2 {
				t.Errorf("%d rows of requests of %s in round %d, want 30 and 2 of warm-up", n, arm, round+1)
			}
		}
	}
	if len(asked) != 4+2*32 {
		t.Errorf("%d different prompts, want the same 32 for both arms in each round, and no other", len(asked)-4)
	}
	if o, err := s.command("results", "verify").CombinedOutput(); err != nil {
		t.Errorf("verify: %v\n%s", err, o)
	}
	t.Logf("values %v; %q", values, res.Warnings)
}

// TestClusterApart: a suite whose arms are served one after another gives the rows and
// the verdict of a local run that asks them side by side.
func TestClusterApart(t *testing.T) {
	s := newSuiteSite(t, 60, "cluster: {cpu: 300m}\n")
	want := s.local(t, 0.60)
	var got suiteOutcome
	s.json(t, &got, s.suite(0.60, "", "", "--shards", "2", "--arms", "one-after-another")...)
	a, b := got.Suites[0].Result, want.Suites[0].Result
	if got.Verdict != want.Verdict || a.Used != b.Used || string(a.Comparisons[0].Result) != string(b.Comparisons[0].Result) || got.Suites[0].Shards != 4 {
		t.Errorf("%s over %d questions in %d parts, want %s over %d: %s", got.Verdict, a.Used, got.Suites[0].Shards, want.Verdict, b.Used, a.Comparisons[0].Result)
	}
	if x, y := s.rows(t, got.RunID), s.rows(t, want.RunID); !slices.Equal(x, y) || len(x) != 2*b.Used {
		t.Errorf("%d rows, want %d of the local run", len(x), len(y))
	}
}
