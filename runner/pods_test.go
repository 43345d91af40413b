package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/shard"
	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/accuracy"
	"github.com/repromill/repromill/suites/compare"
	"github.com/repromill/repromill/suites/data"
	"github.com/repromill/repromill/suites/endpoint"
	"github.com/repromill/repromill/suites/endpoint/endpointtest"
	"github.com/repromill/repromill/suites/harness"
	"github.com/repromill/repromill/suites/load/simserver"
	"github.com/repromill/repromill/suites/throughput"
)

// pods is an executor that does in this process what the pods of a suite do, with
// the servers of urls in place of those beside a client.
type pods struct {
	suites asking
	urls   map[string]string // by arm
	fault  func(a Attempt) (Status, bool)

	mu      sync.Mutex
	asked   []string
	known   map[string]Status
	stop    map[string]context.CancelFunc
	running int
	most    int
}

func newPods(urls map[string]string) *pods {
	return &pods{urls: urls, known: map[string]Status{}, stop: map[string]context.CancelFunc{}}
}

func (p *pods) Submit(_ context.Context, a Attempt) (Handle, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := a.Key.String()
	if _, ok := p.known[key]; ok {
		return Handle(key), nil
	}
	p.asked = append(p.asked, fmt.Sprintf("%s %d/%d", a.Key.Arm, a.Key.Shard, a.Key.N))
	if p.fault != nil {
		if st, is := p.fault(a); is {
			p.known[key] = st
			return Handle(key), nil
		}
	}
	f := shard.Folder(a.Dir)
	s, err := f.Declared()
	if err != nil || len(s.Endpoints) != len(a.Shards.Servers) {
		return "", fmt.Errorf("%d endpoints for %d servers: %w", len(s.Endpoints), len(a.Shards.Servers), err)
	}
	for arm := range s.Endpoints {
		s.Endpoints[arm] = p.urls[arm]
	}
	b, err := json.Marshal(s)
	if err == nil {
		err = os.WriteFile(filepath.Join(a.Dir, "suite.json"), b, 0o644)
	}
	if err != nil {
		return "", err
	}
	ctx, stop := context.WithCancel(context.Background())
	p.known[key], p.stop[key] = Status{Phase: Running, Started: time.Now()}, stop
	p.running++
	p.most = max(p.most, p.running)
	go p.run(ctx, key, f, s.Of)
	return Handle(key), nil
}

func (p *pods) run(ctx context.Context, key string, f shard.Folder, of int) {
	st := Status{Phase: Succeeded, Started: time.Now(), Usage: Usage{WallSeconds: 2}}
	for i := range of {
		code, err := shard.Client{Folder: f, Index: i, Pod: "pod-" + AttemptKey{RunID: key}.Hash(), Node: "n1", Suites: p.suites, Turns: &throughput.Bench{}, Out: io.Discard, Now: time.Now}.Run(ctx)
		if ctx.Err() != nil {
			st.Phase, st.Reason = Cancelled, ReasonCancelled
		} else if code != shard.ExitDone {
			st.Phase, st.Reason, st.Message = Failed, ReasonStart, err.Error()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	st.Finished = time.Now()
	p.known[key] = st
	p.running--
}

func (p *pods) Observe(_ context.Context, h Handle) (Status, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[string(h)], nil
}

func (p *pods) Cancel(_ context.Context, h Handle) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if stop := p.stop[string(h)]; stop != nil {
		stop()
	}
	return nil
}

func (p *pods) Stop(ctx context.Context, h Handle, _ string) error { return p.Cancel(ctx, h) }

// asking is an accuracy suite of n questions whose right answer is "yes".
type asking int

func (n asking) Items(context.Context) ([]suites.Item, error) {
	out := make([]suites.Item, n)
	for i := range out {
		out[i] = suites.Item{ID: fmt.Sprintf("q%d", i), Question: "Is it?", Reference: "yes"}
	}
	return out, nil
}

func (n asking) Prompt(it suites.Item, _ int) (suites.Prompt, error) {
	return suites.Prompt{Messages: []suites.Message{{Role: "user", Content: it.ID + " " + it.Question}}}, nil
}

func (n asking) Grader() suites.Grader { return yes{} }

type yes struct{}

func (yes) Rule() suites.Rule { return suites.Rule{Suite: "numbers", Name: "yes", Version: "1"} }

func (yes) Grade(it suites.Item, text string) suites.Grade {
	g := suites.Grade{Rule: "yes@1", Outcome: suites.Wrong, Stage: 1, Extracted: text}
	if text == it.Reference {
		g.Outcome, g.Score = suites.Correct, 1
	}
	return g
}

func (n asking) Refusal(spec.Suite, accuracy.Serving) string { return "" }
func (n asking) Files(spec.Suite) ([]data.File, error)       { return nil, nil }
func (n asking) config(j accuracy.Job) (c harness.Config, err error) {
	c = harness.Config{Name: "numbers", Suite: n, Dir: j.Dir, Shard: j.Shard, Only: j.Only, From: j.From, Seed: 7, NoSync: true, Progress: j.Progress,
		Terms: harness.Terms{Method: "wor_e", Options: compare.Options{Margin: 0.05, Alpha: 0.05, Look: 16}}}
	for _, a := range j.Suite.Arms {
		arm := harness.Arm{Name: a.Name}
		if url := j.Serving.URL(a); url != "" {
			if arm.Server, err = endpoint.New(endpoint.Config{URL: url}); err != nil {
				return c, err
			}
		}
		c.Arms = append(c.Arms, arm)
	}
	return c, nil
}

func (n asking) Run(ctx context.Context, j accuracy.Job) (harness.Result, error) {
	c, err := n.config(j)
	if err != nil {
		return harness.Result{}, err
	}
	if j.From != nil {
		return harness.Merge(ctx, c, j.From...)
	}
	return harness.Run(ctx, c)
}

func (n asking) Answers(ctx context.Context, j accuracy.Job, res harness.Result, f func(harness.Answer) error) error {
	c, err := n.config(j)
	if err != nil {
		return err
	}
	return harness.Answers(ctx, c, res, f)
}

var twoArms = []spec.Arm{{Name: "fp8", Model: "org/m-FP8", TP: 1}, {Name: "nvfp4", Model: "org/m-NVFP4", TP: 1}}

// inPods is a runner over pods, with a plan of one suite.
func inPods(t *testing.T, p *pods, s spec.Suite) *bench {
	t.Helper()
	plan := &spec.Plan{Schema: spec.SchemaV1, Target: spec.Target{Input: "org/m", Kind: "hf_model", ID: "org/m"}, Model: &spec.Model{ID: "org/m"}, Suites: []spec.Suite{s}}
	plan.Seal()
	return newBench(t, nil, func(c *Config) {
		c.Executors, c.Planner = map[string]Executor{"kueue": p}, planned{plan}
		c.Suites, c.Throughput = p.suites, &throughput.Bench{}
	})
}

func askingServers(t *testing.T) map[string]string {
	urls := map[string]string{}
	for arm, right := range map[string]float64{"fp8": 0.95, "nvfp4": 0.8} {
		srv := endpointtest.New(endpointtest.Config{Model: arm, Version: "1", Started: time.Unix(1_790_000_000, 0), Answer: func(a endpointtest.Asked) endpointtest.Reply {
			id, _, _ := strings.Cut(a.Prompt, " ")
			h := fnv.New64a()
			fmt.Fprint(h, arm, id)
			if float64(h.Sum64()%1000) < 1000*right {
				return endpointtest.Reply{Text: "yes"}
			}
			return endpointtest.Reply{Text: "no"}
		}})
		t.Cleanup(srv.Close)
		urls[arm] = srv.URL + "/v1"
	}
	return urls
}

// TestArmsOneAfterAnother: a suite whose arms are asked one after another comes to
// what it comes to side by side, with one server at a time, and stops as early.
func TestArmsOneAfterAnother(t *testing.T) {
	suite := spec.Suite{ID: "numbers", Name: "numbers", Kind: "accuracy", Selected: true, Status: "auto", Questions: 300, Repeats: 1, Seed: 7, Arms: twoArms}
	drive := func(p *pods, s spec.Suite, of int) (*bench, string, Outcome) {
		t.Helper()
		p.suites = 300
		b := inPods(t, p, s)
		id := b.create(Request{Target: "org/m", Yes: true, Executor: "kueue", Sharding: Sharding{Of: of}})
		out, err := b.Drive(t.Context(), id)
		must(t, err)
		return b, id, out
	}
	urls := askingServers(t)
	_, _, want := drive(newPods(urls), suite, 6)
	used := want.Suites[0].Result.Used
	if used <= 50 || used > 250 || want.Suites[0].Shards != 6 {
		t.Fatalf("side by side: %+v", want.Suites[0])
	}
	p := newPods(urls)
	lost := 0
	p.fault = func(a Attempt) (Status, bool) { // a pod is lost in the middle of a block
		if a.Key.Arm == "fp8" && a.Key.Shard == 1 && a.Key.N == 0 {
			lost++
			return Status{Phase: Failed, Reason: ReasonLost, Message: "the Job is gone"}, true
		}
		return Status{}, false
	}
	suite.Placing = spec.OneAfterAnother
	b, id, got := drive(p, suite, 6)
	r, w := got.Suites[0].Result, want.Suites[0].Result
	x, _ := json.Marshal(r.Comparisons)
	y, _ := json.Marshal(w.Comparisons)
	if got.Verdict != want.Verdict || r.Used != used || string(x) != string(y) || got.Suites[0].Shards != 12 || !strings.Contains(r.Stopped, "decided") {
		t.Errorf("verdict %s over %d, %q, %d parts; want %s over %d", got.Verdict, r.Used, r.Stopped, got.Suites[0].Shards, want.Verdict, used)
	}
	var order []string
	for block := range (used + 49) / 50 {
		two := []string{fmt.Sprintf("fp8 %d/0", block), fmt.Sprintf("nvfp4 %d/0", block)}
		if block%2 == 1 {
			slices.Reverse(two)
		}
		order = append(order, two...)
		if block == 1 {
			order = append(order, "fp8 1/1")
		}
	}
	if !slices.Equal(p.asked, order) || p.most != 1 || lost != 1 {
		t.Errorf("asked %v, want %v; %d at a time", p.asked, order, p.most)
	}
	rec := b.res.recs[id]
	if n := len(rec.Attempts); n != len(order) {
		t.Errorf("%d attempts are recorded, want %d", n, len(order))
	}
	b.consistent(id)
	// Arms for GPU models that no node has both of are never side by side.
	suite.Placing, suite.Arms = "", slices.Clone(twoArms)
	suite.Arms[0].SKU, suite.Arms[1].SKU = "h200", "b200"
	if !Apart(suite) {
		t.Error("an H200 and a B200 are to be in one pod")
	}
}

// TestThroughputInPods: every start is an attempt of its own, in the order in which
// arms are interleaved; what a lost one measured is not there, and its time is
// counted once.
func TestThroughputInPods(t *testing.T) {
	urls := map[string]string{}
	for arm, step := range map[string]time.Duration{"fp8": 4 * time.Millisecond, "nvfp4": 2 * time.Millisecond} {
		h := simserver.New(simserver.Config{StepBase: step, Model: arm})
		ctx, end := context.WithCancel(context.Background())
		go h.Run(ctx)
		srv := httptest.NewServer(h)
		t.Cleanup(func() { srv.Close(); end() })
		urls[arm] = srv.URL + "/v1"
	}
	s, err := throughput.Propose(throughput.Wish{ISL: []int{16}, OSL: []int{6}, Concurrencies: []int{2}, Requests: 8, Rounds: 2, Floors: []float64{1}}, twoArms, 7, true)
	must(t, err)
	p := newPods(urls)
	b := inPods(t, p, s)
	ctx, interrupt := context.WithCancel(t.Context())
	p.fault = func(a Attempt) (Status, bool) {
		switch fmt.Sprintf("%s %d/%d", a.Key.Arm, a.Key.Shard, a.Key.N) {
		case "nvfp4 0/0":
			return Status{Phase: Failed, Reason: ReasonLost, Message: "the Job is gone", Usage: Usage{WallSeconds: 5}}, true
		case "nvfp4 1/0":
			interrupt()
		}
		return Status{}, false
	}
	id := b.create(Request{Target: "org/m", Yes: true, Executor: "kueue"})
	if _, err := b.Drive(ctx, id); !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted: %v", err)
	}
	out, err := b.Drive(t.Context(), id)
	must(t, err)
	r := out.Suites[0].Throughput
	if r == nil || r.Rounds != 2 || len(r.Blocks) != 4 || len(r.Servers) != 4 || out.Suites[0].Shards != 4 {
		t.Fatalf("%+v", out.Suites[0])
	}
	if want := []string{"fp8 0/0", "nvfp4 0/0", "nvfp4 0/1", "nvfp4 1/0", "nvfp4 1/1", "fp8 1/0"}; !slices.Equal(p.asked, want) || p.most != 1 {
		t.Errorf("submitted %v, want %v; %d at a time", p.asked, want, p.most)
	}
	if sum := b.res.recs[id]; out.Spend.WallSeconds < 4*2+5 || out.Spend.WallSeconds > 5*2+5+1 || len(sum.Attempts) != 6 {
		t.Errorf("spent %+v over %d attempts", out.Spend, len(sum.Attempts))
	}
	// An arm that cannot be had leaves the run to be taken up.
	p = newPods(urls)
	p.fault = func(a Attempt) (Status, bool) {
		return Status{Phase: Failed, Reason: ReasonStart, Message: "the image cannot be pulled"}, a.Key.Arm == "nvfp4"
	}
	b = inPods(t, p, s)
	var user *UserError
	if _, err := b.Drive(t.Context(), b.create(Request{Target: "org/m", Yes: true, Executor: "kueue"})); !errors.As(err, &user) || !strings.Contains(err.Error(), "round 1 of arm nvfp4 was not measured") || !strings.Contains(err.Error(), "cannot be pulled") {
		t.Errorf("%v", err)
	}
}
