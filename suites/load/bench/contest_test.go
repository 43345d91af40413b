package bench_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/suites/load"
	"github.com/repromill/repromill/suites/load/bench"
	"github.com/repromill/repromill/suites/load/compare"
	"github.com/repromill/repromill/suites/load/simserver"
)

// arm serves a simulated server for each start.
func arm(t *testing.T, name string, step time.Duration, log *[]string) bench.Arm {
	return bench.Arm{Name: name, Start: func(context.Context) (bench.Up, error) {
		s := simserver.New(simserver.Config{StepBase: step})
		ctx, cancel := context.WithCancel(context.Background())
		go s.Run(ctx)
		h := httptest.NewServer(s)
		*log = append(*log, "start "+name)
		return bench.Up{Config: bench.Config{URLs: []string{h.URL}, Chat: true, Timeout: time.Minute}, Fresh: true, Stop: func() error {
			*log = append(*log, "stop "+name)
			h.CloseClientConnections()
			cancel()
			h.Close()
			return nil
		}}, nil
	}}
}

// TestContest: arms are started anew in every round, in turn, and are sent the
// same prompts in the same places; no prompt comes twice. A step that is twice
// as long halves the throughput.
func TestContest(t *testing.T) {
	var log []string
	prompts := map[string]map[string]string{"a": {}, "b": {}}
	c := bench.Contest{Arms: []bench.Arm{arm(t, "a", 10*time.Millisecond, &log), arm(t, "b", 20*time.Millisecond, &log)},
		Specs:  []load.Spec{{Mode: load.Closed, Concurrency: 3, Requests: 6, ISL: load.Length{Mean: 20}, OSL: load.Length{Mean: 6}, Seed: 1}},
		Rounds: 3, Repeats: 2,
		Seen: func(m bench.Measured) {
			for _, r := range m.Cell.Result.Records {
				prompts[m.Arm.Name][fmt.Sprint(m.Index, r.Index)] = r.PromptSHA
			}
		}}
	blocks, err := c.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(log, ", "); got != "start a, stop a, start b, stop b, start b, stop b, start a, stop a, start a, stop a, start b, stop b" {
		t.Error(got)
	}
	if len(blocks) != 12 || len(prompts["a"]) != 36 {
		t.Fatalf("%d blocks, %d prompts", len(blocks), len(prompts["a"]))
	}
	seen := map[string]bool{}
	for at, sha := range prompts["a"] {
		if prompts["b"][at] != sha || seen[sha] {
			t.Errorf("prompt %s: %s and %s, seen %v", at, sha, prompts["b"][at], seen[sha])
		}
		seen[sha] = true
	}
	for i := range blocks { // a machine under load voids cells; the ratio is that of the steps all the same
		blocks[i].Void = false
	}
	got, err := compare.Equal(blocks, "a", "b", compare.Options{Metrics: []string{compare.TPOTp50}})
	if err != nil || len(got) != 1 || math.Abs(got[0].Ratio-2) > 0.3 || got[0].Base.Starts != 3 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestContestOfOne: servers that are not ours are one start, however many
// rounds there are, and the arms take turns.
func TestContestOfOne(t *testing.T) {
	up := func(name, url string) bench.Arm {
		return bench.Arm{Name: name, Start: func(context.Context) (bench.Up, error) {
			return bench.Up{Config: bench.Config{URLs: []string{url}, Chat: true, Timeout: time.Minute}}, nil
		}}
	}
	var order []string
	c := bench.Contest{Arms: []bench.Arm{up("a", server(t, simserver.Config{StepBase: 5 * time.Millisecond})), up("b", server(t, simserver.Config{StepBase: 5 * time.Millisecond}))},
		Specs:  []load.Spec{{Mode: load.Closed, Concurrency: 2, Requests: 6, ISL: load.Length{Mean: 20}, OSL: load.Length{Mean: 4}, Seed: 1}},
		Rounds: 3, Repeats: 1, Together: true, Seen: func(m bench.Measured) { order = append(order, m.Arm.Name) }}
	blocks, err := c.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(order, []string{"a", "b", "b", "a", "a", "b"}) {
		t.Errorf("%v", order)
	}
	if n := len(bench.Processes(blocks, "a")); n != 1 {
		t.Errorf("%d processes", n)
	}
	for i := range blocks {
		blocks[i].Void = false
	}
	got, err := compare.Equal(blocks, "a", "b", compare.Options{Metrics: []string{compare.TPOTp50}})
	if err != nil || len(got) != 1 || got[0].Verdict != compare.Refused || got[0].Over != compare.OverProcesses {
		t.Errorf("%+v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c.Seen = func(bench.Measured) { cancel() }
	if blocks, err := c.Run(ctx); err != nil || len(blocks) != 1 {
		t.Errorf("stopped: %d blocks, %v", len(blocks), err)
	}
	// An arm that does not come up again costs nothing that was measured.
	c.Seen, c.Arms[1].Start = nil, func(context.Context) (bench.Up, error) { return bench.Up{}, errors.New("no GPU is free") }
	c.Together = false
	if blocks, err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "arm b, round 1: no GPU is free") || len(blocks) != 1 {
		t.Errorf("failed: %d blocks, %v", len(blocks), err)
	}
}
