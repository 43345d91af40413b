package job

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/estimators/calibrate"
	"github.com/repromill/repromill/estimators/sku"
	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/planner/spec"
)

const llama70 = `{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":8192,"intermediate_size":28672,"num_hidden_layers":80,
"num_attention_heads":64,"num_key_value_heads":8,"vocab_size":128256,"max_position_embeddings":131072,"torch_dtype":"bfloat16"}`

func parse(t testing.TB, config string) *model.Model {
	t.Helper()
	m, err := model.Parse(model.Input{ID: "lab/m", Config: []byte(config)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func gpus(t testing.TB, ids ...string) []*sku.SKU {
	t.Helper()
	var out []*sku.SKU
	for _, id := range ids {
		g, err := sku.Find(id)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, g)
	}
	return out
}

func config(t testing.TB, ids ...string) Config {
	return Config{
		Models: map[string]*model.Model{"lab/m": parse(t, llama70)}, SKUs: gpus(t, ids...), Price: sku.DefaultPrice, Now: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
		Hosted: func(_ string, params float64) (sku.TokenPrice, bool) { return sku.DefaultTokenPrice(params) },
	}
}

func suite(change func(*spec.Suite)) *spec.Plan {
	s := spec.Suite{ID: "mmlupro", Name: "mmlupro", Kind: "accuracy", Questions: 12032, Repeats: 1, Status: "auto",
		Arms: []spec.Arm{{Name: "nvfp4", Model: "lab/m", Format: "nvfp4"}, {Name: "fp8", Model: "lab/m", Format: "fp8"}}}
	if change != nil {
		change(&s)
	}
	s.Selected = true
	return &spec.Plan{Suites: []spec.Suite{s}}
}

func one(t testing.TB, p *spec.Plan, c Config) spec.Estimate {
	t.Helper()
	list, err := Estimate(p, c)
	if err != nil || len(list) == 0 {
		t.Fatalf("%d estimates, %v", len(list), err)
	}
	for i := range list {
		p := spec.Plan{Schema: spec.SchemaV1, Estimates: list}
		if err := p.Validate(); err != nil && strings.Contains(err.Error(), "estimates[") {
			t.Fatalf("estimate %d breaks the plan's schema: %v", i, err)
		}
	}
	return list[0]
}

func TestSuite(t *testing.T) {
	whole := one(t, suite(nil), config(t, "b200"))
	if whole.GPUHours == nil || whole.Fits != "yes" || whole.USD == nil || whole.OwnedUSD == nil || whole.HostedUSD == nil || len(whole.Parts) != 2 || whole.WallS == nil {
		t.Fatalf("%+v", whole)
	}
	if whole.GPUs != 2 || math.Abs(whole.GPUHours.P50-2*whole.WallS.P50/3600) > 1e-9 {
		t.Errorf("two arms hold a GPU each for %g s: %+v", whole.WallS.P50, whole)
	}
	if whole.OwnedUSD.P50 >= whole.USD.P50 {
		t.Errorf("owned %v is not below on demand %v", whole.OwnedUSD, whole.USD)
	}
	// Tokens by throughput bound what the GPU-hours can be: 12,032 × 1,800 tokens
	// at some thousand a second on each arm.
	if h := whole.GPUHours.P50; h < 1 || h > 24 {
		t.Errorf("%g GPU-hours", h)
	}
	stop := one(t, suite(func(s *spec.Suite) { s.Compare = &spec.Compare{Margin: 0.01, Stop: "wor_e"} }), config(t, "b200"))
	if stop.GPUHours.P50 > 0.7*whole.GPUHours.P50 || stop.GPUHours.P90 < whole.GPUHours.P50 {
		t.Errorf("early stopping saves in the middle and not at the end: %+v, %+v", stop.GPUHours, whole.GPUHours)
	}
	double := one(t, suite(func(s *spec.Suite) { s.Repeats = 2 }), config(t, "b200"))
	if r := double.GPUHours.P50 / whole.GPUHours.P50; r < 1.6 || r > 2.05 {
		t.Errorf("twice the questions take %.2f times as long", r)
	}
	short := one(t, suite(func(s *spec.Suite) { s.Sampling = map[string]any{"max_tokens": 200.0} }), config(t, "b200"))
	if short.GPUHours.P90 > 0.5*whole.GPUHours.P50 {
		t.Errorf("a budget of 200 tokens bounds answers: %+v", short.GPUHours)
	}
	c := config(t, "b200")
	cal, err := calibrate.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	seen := calibrate.LengthRow{Suite: "mmlupro", Model: "lab/m"}
	for i := range 40 {
		seen.Add(300, float64(380+i))
	}
	cal.Lengths, c.Calibration = append(cal.Lengths, seen), cal
	got := one(t, suite(nil), c)
	if got.GPUHours.P50 >= 0.5*whole.GPUHours.P50 || got.GPUHours.P90/got.GPUHours.P10 > whole.GPUHours.P90/whole.GPUHours.P10 || !strings.Contains(strings.Join(got.Assumptions, " "), "measured on 40") {
		t.Errorf("measured lengths count: %+v", got)
	}
}

// TestSuiteOverNodes: an arm over two servers holds all GPUs of both.
func TestSuiteOverNodes(t *testing.T) {
	got := one(t, suite(func(s *spec.Suite) { s.Arms[1].TP, s.Arms[1].GPUs = 8, 16 }), config(t, "h200"))
	if got.Fits != "yes" || got.GPUs != 17 || math.Abs(got.GPUHours.P50-17*got.WallS.P50/3600) > 1e-9 {
		t.Errorf("%+v", got)
	}
	for _, p := range got.Parts {
		if p.Name == "suite/mmlupro/fp8" && math.Abs(p.GPUHours.P50-16*got.WallS.P50/3600) > 1e-9 {
			t.Errorf("the arm over two servers: %+v", p)
		}
	}
	if got := one(t, suite(func(s *spec.Suite) { s.Arms[1].TP, s.Arms[1].GPUs = 8, 12 }), config(t, "h200")); got.Fits != "no" {
		t.Errorf("a server and a half: %+v", got)
	}
}

func TestSuiteThatCannotBeEstimated(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*spec.Suite)
		sku    string
		fits   string
		why    string
	}{
		"unknown model": {func(s *spec.Suite) { s.Arms[1].Model = "lab/other" }, "b200", "unknown", "structure of lab/other was not read"},
		"does not fit":  {nil, "rtx-4060", "no", "does not fit"},
		"no arms":       {func(s *spec.Suite) { s.Arms = nil }, "b200", "unknown", "has no arm"},
	} {
		e := one(t, suite(c.change), config(t, c.sku))
		if e.GPUHours != nil || e.USD != nil || e.Fits != c.fits || !strings.Contains(e.Reason, c.why) {
			t.Errorf("%s: %+v", name, e)
		}
	}
	list, err := Estimate(suite(func(s *spec.Suite) { s.Arms[0].SKU, s.Arms[1].SKU = "h200", "NVIDIA H200" }), config(t, "b200", "h200"))
	if err != nil || len(list) != 1 || list[0].SKU != "h200" {
		t.Errorf("pinned to an H200: %+v, %v", list, err)
	}
	served := one(t, suite(func(s *spec.Suite) { s.Arms[0].Endpoint, s.Arms[1].Endpoint = "http://x/v1", "http://y/v1" }), config(t, "b200"))
	if served.GPUHours == nil || served.GPUHours.P90 != 0 || served.HostedUSD == nil {
		t.Errorf("served elsewhere: %+v", served)
	}
}

func TestThroughputCells(t *testing.T) {
	p := suite(func(s *spec.Suite) {
		s.Kind, s.Load = "throughput", &spec.Load{Mode: "closed", Concurrencies: []int{1, 64}, ISL: []int{1024, 8192}, OSL: []int{1024}, Warmup: 10}
	})
	cells, total := cells(p.Suites[0].Load)
	if len(cells) != 4 || total != 2*(100+640)+4*10 {
		t.Errorf("%d cells, %d requests", len(cells), total)
	}
	if e := one(t, p, config(t, "h200")); e.GPUHours == nil || e.GPUHours.P50 < 0.1 {
		t.Errorf("%+v", e)
	}
}

func run(change func(*spec.Run), work ...string) *spec.Plan {
	r := spec.Run{ID: "minimal", Kind: "minimal", Route: "reduced_training", Selected: true, TimeoutS: 7200, GPUs: spec.GPUNeed{Min: 8}}
	for i := 0; i+1 < len(work); i += 2 {
		r.Work = append(r.Work, spec.Fact{Name: work[i], Value: work[i+1], Kind: spec.Published, Evidence: []spec.Evidence{{File: "train.py", Line: i + 1}}})
	}
	if change != nil {
		change(&r)
	}
	return &spec.Plan{Runs: []spec.Run{r}}
}

func TestRun(t *testing.T) {
	gpt := []string{spec.WorkParameters, "124e6", spec.WorkLayers, "12", spec.WorkHidden, "768", spec.WorkContext, "1024", spec.WorkSteps, "600000", spec.WorkBatchAll, "480",
		spec.WorkPrecision, "bf16", spec.WorkClass, "pretraining"}
	e := one(t, run(nil, gpt...), config(t, "a100-40gb"))
	if e.GPUHours == nil || e.Method != "operations" || e.GPUHours.P10 > 768 || e.GPUHours.P90 < 768 || e.GPUs != 8 {
		t.Errorf("four days on eight A100: %+v", e)
	}
	if !strings.Contains(strings.Join(e.SupportedBy, " "), "train.py:9") {
		t.Errorf("no place is named: %v", e.SupportedBy)
	}
	vague := one(t, run(nil, append(slices.Clone(gpt[:10]), spec.WorkBatchSome, "12", spec.WorkAccumulate, "40")...), config(t, "a100-40gb"))
	if w := vague.GPUHours.P90 / vague.GPUHours.P10; w < 8 || !strings.Contains(strings.Join(vague.Assumptions, " "), "one GPU or of all 8") {
		t.Errorf("a batch that may be of one GPU or of eight: %+v", vague)
	}
	stated := one(t, run(nil, spec.WorkHours, "144", spec.WorkHoursSKU, "v100", spec.WorkHoursGPUs, "8"), config(t, "v100"))
	if stated.Method != "stated" || stated.GPUHours.P10 > 1152 || stated.GPUHours.P90 < 1152 {
		t.Errorf("%+v", stated)
	}
	step := one(t, run(nil, spec.WorkStepTime, "0.5", spec.WorkSteps, "7200"), config(t, "h100"))
	if step.Method != "step" || math.Abs(step.BusyHours.P50-8) > 1e-9 {
		t.Errorf("7,200 steps of half a second on 8 GPUs are 8 GPU-hours: %+v", step.BusyHours)
	}
	none := one(t, run(nil, spec.WorkEpochs, "100"), config(t, "h100"))
	if none.GPUHours != nil || none.USD != nil || !strings.Contains(none.Reason, "not known") || !strings.Contains(none.Reason, "bounds it at 16 GPU-hours") {
		t.Errorf("nothing is known: %+v", none)
	}
	big := one(t, run(func(r *spec.Run) { r.GPUs.Min = 1 }, spec.WorkParameters, "70e9", spec.WorkContext, "1024", spec.WorkItems, "1000", spec.WorkEpochs, "1"), config(t, "a100"))
	if big.GPUHours != nil || big.Fits != "no" {
		t.Errorf("70 B parameters are not trained on one GPU: %+v", big)
	}
}

func TestCPU(t *testing.T) {
	e := one(t, run(func(r *spec.Run) { r.GPUs.Min = 0 }), config(t, "h100"))
	if e.SKU != "cpu" || e.GPUHours == nil || *e.GPUHours != (spec.Interval{}) || !strings.Contains(e.SupportedBy[0], "no selected run asks for a GPU") || e.WallS != nil || e.Reason == "" {
		t.Errorf("%+v", e)
	}
	e = one(t, run(func(r *spec.Run) { r.GPUs.Min = 0 }, spec.WorkHours, "0.01", spec.WorkHoursSKU, "cpu"), config(t, "h100"))
	if e.WallS == nil || e.WallS.P10 > 36 || e.WallS.P90 < 36 || e.GPUHours.P90 != 0 || e.Reason != "" {
		t.Errorf("half a minute by the authors' word: %+v", e)
	}
	e = one(t, &spec.Plan{}, config(t, "h100"))
	if e.SKU != "none" || e.GPUHours != nil || e.Reason == "" {
		t.Errorf("nothing to run: %+v", e)
	}
	// A GPU is taken where there is one: its cost is shown when something is known.
	may := run(func(r *spec.Run) { r.GPUs = spec.GPUNeed{Hint: "uses a GPU where there is one"} }, spec.WorkHours, "1", spec.WorkHoursSKU, "a100", spec.WorkHoursGPUs, "1")
	if e := one(t, may, config(t, "a100")); e.SKU != "a100" || e.GPUHours == nil {
		t.Errorf("%+v", e)
	}
}

func TestRunsThatAreNotSelected(t *testing.T) {
	p := run(func(r *spec.Run) { r.GPUs.Min = 0 })
	full := run(func(r *spec.Run) { r.ID, r.Kind, r.Selected = "full", "full", false }, spec.WorkHours, "144", spec.WorkHoursSKU, "v100", spec.WorkHoursGPUs, "8").Runs[0]
	blind := run(func(r *spec.Run) { r.ID, r.Kind, r.Selected = "blind", "full", false }, spec.WorkEpochs, "3").Runs[0]
	p.Runs = append(p.Runs, full, blind)
	list, err := Estimate(p, config(t, "v100", "h100"))
	if err != nil || len(list) != 3 || list[0].SKU != "cpu" || list[1].Scope != "run/full" || list[2].Scope != "run/full" {
		t.Errorf("%+v, %v", list, err)
	}
}

func BenchmarkPlan(b *testing.B) {
	c := config(b, "a100", "h100", "h200", "b200", "gb200", "l40s", "rtx-pro-6000-server")
	p := suite(nil)
	if _, err := Estimate(p, c); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Estimate(p, c); err != nil {
			b.Fatal(err)
		}
	}
}
