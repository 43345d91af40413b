package bench_test

import (
	"context"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/suites/endpoint"
	"github.com/repromill/repromill/suites/load"
	"github.com/repromill/repromill/suites/load/bench"
	"github.com/repromill/repromill/suites/load/measure"
	"github.com/repromill/repromill/suites/load/simserver"
)

func server(t testing.TB, cfg simserver.Config) string {
	t.Helper()
	s := simserver.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.Run(ctx); close(done) }()
	h := httptest.NewServer(s)
	t.Cleanup(func() { h.CloseClientConnections(); cancel(); <-done; h.Close() })
	return h.URL
}

func open(t testing.TB, cfg bench.Config) *bench.Bench {
	t.Helper()
	cfg.Chat, cfg.Timeout = true, 30*time.Second
	b, err := bench.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func spec(rate float64, n int) load.Spec {
	return load.Spec{Mode: load.Open, Rate: rate, Requests: n, ISL: load.Length{Mean: 40}, OSL: load.Length{Mean: 6}, Seed: 1}
}

func codes(c *bench.Cell) (out []string) {
	for _, f := range c.Flags {
		out = append(out, f.Code)
	}
	return out
}

func TestCell(t *testing.T) {
	b := open(t, bench.Config{URLs: []string{server(t, simserver.Config{StepBase: time.Millisecond})}, NullURL: server(t, simserver.Config{Null: true}), SLO: measure.SLO{TTFT: 30}})
	if !b.Simulated() || b.Model() != "simulated" || len(b.Warnings) > 0 {
		t.Fatalf("simulated %v, model %s, %v", b.Simulated(), b.Model(), b.Warnings)
	}
	s := spec(60, 40)
	s.Warmup = 3
	c, err := b.Cell(t.Context(), s, 0)
	if err != nil {
		t.Fatal(err)
	}
	if c.Summary.Sent != 40 || c.Summary.Statuses[load.OK] != 40 || c.Check == nil || c.Check.Events == 0 || c.Check.LagP99 <= 0 {
		t.Errorf("%+v, check %+v", c.Summary.Statuses, c.Check)
	}
	for _, code := range []string{measure.OSLShort, measure.ISLOff, measure.Cached, measure.DuplicatePrompt, bench.OthersLoad, bench.Restarted, measure.Errors} {
		if slices.Contains(codes(c), code) {
			t.Errorf("%s is raised: %+v", code, c.Flags)
		}
	}
	if c.GPUSeconds == nil || *c.GPUSeconds <= 0 || c.Preempted == nil || *c.Preempted != 0 {
		t.Errorf("GPU seconds %v, preemptions %v", c.GPUSeconds, c.Preempted)
	}
	again, err := b.Cell(t.Context(), s, 1)
	if err != nil {
		t.Fatal(err)
	}
	if again.Result.Records[0].PromptSHA == c.Result.Records[0].PromptSHA {
		t.Error("a repeat sends the same prompts")
	}
	reqs, metrics := b.Rows(c, bench.Place{Common: schema.Common{RunID: "r"}, Suite: "load", Arm: "a"})
	if len(reqs) != 43 || !reqs[0].Simulated || reqs[0].Phase != "warmup" || !reqs[5].SLOMet.Valid || len(reqs[5].ITLS) != 5 || reqs[5].ServerID == "" {
		t.Errorf("%d rows, %+v", len(reqs), reqs[5])
	}
	if i := slices.IndexFunc(metrics, func(m schema.MetricRow) bool { return m.Metric == "whole_run_ttft_intended_p50" }); i < 0 || metrics[i].Unit != "s" {
		t.Error("the median TTFT is missing")
	}
	if rows := b.ServerRows([]*bench.Cell{c}, bench.Place{Common: schema.Common{RunID: "r"}, Arm: "a"}); len(rows) != 2 || rows[0].Changed || rows[0].EngineVersion != "0.0.0+simulated" {
		t.Errorf("%+v", rows)
	}
}

// TestCaughtOut: what makes a cell void is seen.
func TestCaughtOut(t *testing.T) {
	for want, cfg := range map[string]simserver.Config{
		measure.OSLShort:   {Faults: simserver.Faults{EarlyStop: 1}},
		measure.UsageWrong: {Faults: simserver.Faults{WrongUsage: true}},
		measure.Chunked:    {Faults: simserver.Faults{PerChunk: 3}},
		measure.Errors:     {Faults: simserver.Faults{CloseMid: 0.5}},
		bench.Preempted:    {KVTokens: 16 * 14, Block: 16},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			cfg.StepBase = 500 * time.Microsecond
			b := open(t, bench.Config{URLs: []string{server(t, cfg)}})
			s := load.Spec{Mode: load.Closed, Concurrency: 6, Requests: 24, ISL: load.Length{Mean: 30}, OSL: load.Length{Mean: 40}, Seed: 1}
			c, err := b.Cell(t.Context(), s, 0)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(codes(c), want) {
				t.Errorf("flags %v", codes(c))
			}
		})
	}
}

// TestOtherServer: a server that is replaced by another in the middle voids the
// cell, and so does somebody else's load.
func TestOtherServer(t *testing.T) {
	first := simserver.New(simserver.Config{Null: true, TTFT: time.Millisecond, ITL: time.Millisecond, Version: "1+simulated"})
	second := simserver.New(simserver.Config{Null: true, TTFT: time.Millisecond, ITL: time.Millisecond, Version: "2+simulated"})
	var n atomic.Int64
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/chat") {
			n.Add(1)
		}
		if n.Load() > 8 {
			second.ServeHTTP(w, r)
			return
		}
		first.ServeHTTP(w, r)
	}))
	defer h.Close()
	b := open(t, bench.Config{URLs: []string{h.URL}})
	c, err := b.Cell(t.Context(), load.Spec{Mode: load.Closed, Concurrency: 2, Requests: 20, ISL: load.Length{Mean: 30}, OSL: load.Length{Mean: 4}, Seed: 1}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Void || !slices.Contains(codes(c), bench.Restarted) {
		t.Errorf("void %v, flags %v", c.Void, codes(c))
	}
	if _, m := b.Rows(c, bench.Place{}); m[0].Status == "ok" || m[0].Value.Valid {
		t.Errorf("a void cell is quoted: %+v", m[0])
	}
}

func TestNormalise(t *testing.T) {
	for engine, page := range map[string]string{
		"vllm": `# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="m"} 3
vllm:num_requests_running{model_name="n"} 4
vllm:num_preemptions_total{model_name="m"} 12
vllm:spec_decode_num_draft_tokens_total 100
`,
		"sglang":    "sglang:num_running_reqs{tp_rank=\"0\"} 7\nsglang:token_usage 0.28\nsglang:num_queue_reqs 1\n",
		"tgi":       "tgi_batch_current_size 7\ntgi_queue_size 2\n",
		"llama.cpp": "llamacpp:requests_processing 7\nllamacpp:kv_cache_usage_ratio 0.5\n",
	} {
		c := bench.Normalise(endpoint.ParseMetrics([]byte(page)))
		if c.Engine != engine || c.Running != 7 {
			t.Errorf("%s: %+v", engine, c)
		}
		if engine == "vllm" && (c.PreemptionsTotal != 12 || c.DraftTotal != 100 || !math.IsNaN(c.KVUsage)) {
			t.Errorf("%+v", c)
		}
	}
}
