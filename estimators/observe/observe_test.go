package observe

import (
	"math"
	"strings"
	"testing"

	"github.com/repromill/repromill/results/schema"
)

func cell(change func(*Run)) Run {
	r := Run{Run: schema.RunRow{Common: schema.Common{RunID: "r1"}, SKU: "h200"},
		Servers: []schema.ServerRow{{ServerID: "s", Arm: "fp8", Engine: "vLLM", EngineVersion: "0.19.0", Model: "lab/m", Precision: "fp8", KVDtype: "auto", SKU: "h200", GPUs: schema.Int(2)}}}
	for i := range 20 {
		r.Requests = append(r.Requests, schema.RequestRow{Suite: "throughput", Arm: "fp8", Cell: "c8", RequestID: int64(i), ServerID: "s", Mode: "closed", Concurrency: schema.Int(8),
			Phase: "steady", Status: "ok", ISL: schema.Int(1000), OSL: schema.Int(100), E2ES: schema.Float(2), TTFTS: schema.Float(0.2), TPOTS: schema.Float(0.018)})
	}
	if change != nil {
		change(&r)
	}
	return r
}

func TestRows(t *testing.T) {
	rows, skipped := Rows(cell(func(r *Run) {
		// A ramp, an error and a drain say nothing of the steady state.
		for i, phase := range []string{"warmup", "ramp", "drain"} {
			r.Requests[i].Phase, r.Requests[i].E2ES = phase, schema.Float(90)
		}
		r.Requests[3].Status, r.Requests[3].E2ES = "error", schema.Float(500)
	}))
	if len(rows) != 1 || len(skipped) != 0 {
		t.Fatalf("%+v, %+v", rows, skipped)
	}
	r := rows[0]
	if math.Abs(r.Throughput-400) > 1e-9 || r.Concurrency != 8 || r.ISL != 1000 || r.OSL != 100 || r.GPUs != 2 || r.TP != 2 || r.Framework != "vllm-0.19.0" ||
		r.Precision != "fp8/fp8/fp8" || r.SKU != "h200" || r.Source != "run r1" || math.Abs(r.TPOT-0.018) > 1e-9 {
		t.Errorf("8 in flight of 100 tokens in 2 s are 400 tokens a second: %+v", r)
	}
}

func TestWhatTeachesNothing(t *testing.T) {
	for why, change := range map[string]func(*Run){
		"simulated":             func(r *Run) { r.Requests[0].Simulated = true },
		"open loop":             func(r *Run) { r.Requests[0].Mode = "open" },
		"steady requests":       func(r *Run) { r.Requests = r.Requests[:5] },
		"which server answered": func(r *Run) { r.Servers = nil },
		"server changed":        func(r *Run) { r.Servers[0].Changed = true },
		"model is not known":    func(r *Run) { r.Servers[0].Model = "" },
		"number format":         func(r *Run) { r.Servers[0].Precision = "odd" },
		"not run on a GPU":      func(r *Run) { r.Servers[0].SKU, r.Run.SKU = "", "cpu" },
		"number of GPUs":        func(r *Run) { r.Servers[0].GPUs = schema.Opt[int64]{} },
	} {
		rows, skipped := Rows(cell(change))
		if len(rows) != 0 || len(skipped) != 1 || !strings.Contains(skipped[0].Why, why) || skipped[0].Cell != "r1/throughput/fp8/c8" {
			t.Errorf("%s: %+v, %+v", why, rows, skipped)
		}
	}
}

func TestLengths(t *testing.T) {
	var l Lengths
	l.Add([]schema.SampleRow{
		{Suite: "aime", Model: "lab/m", Outcome: "correct", PromptTokens: schema.Int(100), OutputTokens: schema.Int(1000)},
		{Suite: "aime", Model: "lab/m", Outcome: "truncated", PromptTokens: schema.Int(200), OutputTokens: schema.Int(3000)},
		{Suite: "aime", Model: "lab/m", Outcome: "error", OutputTokens: schema.Int(9)},
		{Suite: "aime", Model: "lab/m", Outcome: "wrong"},
		{Suite: "aime", Model: "lab/m", Outcome: "wrong", OutputTokens: schema.Int(9), Common: schema.Common{Simulated: true}},
	})
	rows := l.Rows()
	if len(rows) != 1 || rows[0].N != 2 || rows[0].Out != 2000 || rows[0].In != 150 {
		t.Errorf("%+v", rows)
	}
}

func TestScores(t *testing.T) {
	f := schema.Float
	s := Scores([]schema.EstimateRow{
		{SKU: "h100", Quantity: "gpu_hours", P10: f(1), P50: f(2), P90: f(4), Measured: f(2.5)},
		{SKU: "h100", Quantity: "gpu_hours", P10: f(1), P50: f(2), P90: f(4), Measured: f(8)},
		{SKU: "cpu", Quantity: "gpu_hours", P10: f(0), P50: f(0), P90: f(0), Measured: f(0)},
		{SKU: "h100", Quantity: "usd", P50: f(2)},
	})
	if len(s) != 2 || s[0].Name != "gpu_hours" || s[0].N != 2 || s[0].Coverage != 50 {
		t.Errorf("%+v", s)
	}
}
