package serving

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/repromill/repromill/estimators/sku"
	"github.com/repromill/repromill/planner/model"
)

// Configurations of public models, reduced to what the counts need.
var gptOSS = strings.Replace(gptOSSShort, `"attention_bias"`, `"layer_types":[`+strings.TrimSuffix(strings.Repeat(`"sliding_attention","full_attention",`, 18), ",")+`],"attention_bias"`, 1)

const (
	llama70B = `{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":8192,"intermediate_size":28672,"num_hidden_layers":80,
"num_attention_heads":64,"num_key_value_heads":8,"vocab_size":128256,"max_position_embeddings":131072,"torch_dtype":"bfloat16"}`
	llama405B = `{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":16384,"intermediate_size":53248,"num_hidden_layers":126,
"num_attention_heads":128,"num_key_value_heads":8,"vocab_size":128256,"max_position_embeddings":131072,"torch_dtype":"bfloat16"}`
	gptOSSShort = `{"architectures":["GptOssForCausalLM"],"model_type":"gpt_oss","hidden_size":2880,"intermediate_size":2880,"num_hidden_layers":36,"num_attention_heads":64,
"num_key_value_heads":8,"head_dim":64,"num_local_experts":128,"num_experts_per_tok":4,"sliding_window":128,"vocab_size":201088,"max_position_embeddings":131072,
"attention_bias":true,"quantization_config":{"quant_method":"mxfp4","modules_to_not_convert":["model.layers.*.self_attn","model.layers.*.mlp.router","model.embed_tokens","lm_head"]}}`
	deepseek = `{"architectures":["DeepseekV3ForCausalLM"],"model_type":"deepseek_v3","hidden_size":7168,"intermediate_size":18432,"moe_intermediate_size":2048,
"num_hidden_layers":61,"num_attention_heads":128,"num_key_value_heads":128,"q_lora_rank":1536,"kv_lora_rank":512,"qk_nope_head_dim":128,"qk_rope_head_dim":64,
"v_head_dim":128,"n_routed_experts":256,"n_shared_experts":1,"num_experts_per_tok":8,"first_k_dense_replace":3,"moe_layer_freq":1,"vocab_size":129280,"max_position_embeddings":163840,
"torch_dtype":"bfloat16","quantization_config":{"quant_method":"fp8","fmt":"e4m3","activation_scheme":"dynamic","weight_block_size":[128,128]}}`
)

func shape(t testing.TB, config, precision string) *Shape {
	t.Helper()
	m, err := model.Parse(model.Input{ID: "test/model", Config: []byte(config)})
	if err != nil {
		t.Fatal(err)
	}
	var p Precision
	if precision != "" {
		if p, err = ParsePrecision(precision); err != nil {
			t.Fatal(err)
		}
	}
	s, err := NewShape(m, p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func gpu(t testing.TB, id string) *sku.SKU {
	t.Helper()
	g, err := sku.Find(id)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// typical are efficiencies in the middle of the priors.
var typical = Coef{
	CWeights: math.Log(0.7), CExperts: math.Log(0.6), CCache: math.Log(0.6), CDecode: math.Log(0.5), CPrefill: math.Log(0.5), CAttn: math.Log(0.4),
	CLayer: math.Log(3e-5), CSync: math.Log(2e-5), CLink: math.Log(0.5), CSeq: math.Log(5e-6), CStep: math.Log(5e-4), CRequest: math.Log(1e-3), CBatch: math.Log(1000),
}

// What is known to fit, and not to, from the makers' own instructions.
func TestFitMemory(t *testing.T) {
	load := Workload{ISL: 1024, OSL: 1024, Concurrency: 16}
	for _, c := range []struct {
		config, precision, sku string
		gpus                   int // fewest; 0 means never
	}{
		{llama70B, "bf16", "h100", 2}, {llama70B, "fp8", "h200", 1}, {llama70B, "nvfp4", "b200", 1}, {llama70B, "bf16", "h200", 2}, {llama70B, "bf16", "rtx-4090", 8},
		{llama405B, "fp8", "h100", 8}, {llama405B, "bf16", "h100", 16}, {llama405B, "bf16", "h200", 8},
		{gptOSS, "", "h100", 1}, {gptOSS, "", "rtx-5090", 4}, {gptOSS, "", "gb10", 1},
		{deepseek, "", "h200", 8}, {deepseek, "", "h100", 16}, {llama405B, "bf16", "rtx-5090", 0}, {llama405B, "bf16", "gb200", 8}, {deepseek, "nvfp4", "b200", 4}, {deepseek, "", "b200", 4},
		{llama70B, "nvfp4", "v100", 0}, {llama70B, "fp8", "v100", 0},
	} {
		f := FitMemory(shape(t, c.config, c.precision), gpu(t, c.sku), load, 0)
		if f.Fits != (c.gpus > 0) || (f.Fits && f.Layout.GPUs != c.gpus) {
			t.Errorf("%.60s %s on %s: %+v, want %d GPUs", c.config, c.precision, c.sku, f, c.gpus)
		}
		if f.Fits == (f.Why != "") || (f.Fits && f.Batch < 1) {
			t.Errorf("%s: fits %v, batch %d, why %q", c.sku, f.Fits, f.Batch, f.Why)
		}
	}
}

func TestWhatCannotFit(t *testing.T) {
	s := shape(t, llama70B, "fp8")
	for why, f := range map[string]Fit{
		"cannot be split over 3": FitMemory(s, gpu(t, "h100"), Workload{ISL: 100, OSL: 100}, 3),
		"context of 131072":      FitMemory(s, gpu(t, "b200"), Workload{ISL: 131072, OSL: 1}, 0),
		"come in servers of 2":   FitMemory(s, gpu(t, "h100-nvl"), Workload{ISL: 100, OSL: 100}, 5),
		"weights of":             FitMemory(s, gpu(t, "rtx-4060"), Workload{ISL: 100, OSL: 100}, 0),
		"no kernel runs":         FitMemory(s, gpu(t, "v100"), Workload{ISL: 100, OSL: 100}, 0),
	} {
		if f.Fits || !strings.Contains(f.Why, why) {
			t.Errorf("want %q, got %v %q", why, f.Fits, f.Why)
		}
	}
}

func TestMathOn(t *testing.T) {
	for _, c := range []struct{ precision, sku, want string }{
		{"bf16", "h100", "w16a16"}, {"fp8", "h100", "w8a8"}, {"fp8", "a100", "w8a16"}, {"nvfp4", "b200", "w4a4"}, {"nvfp4", "h100", "w4a16"},
		{"nvfp4", "rtx-pro-6000", "w4a4"}, {"mxfp4", "h100", "w4a16"}, {"mxfp4/mxfp8/fp8", "b200", "w4a8"}, {"nvfp4", "v100", ""},
	} {
		if got := MathOn(shape(t, llama70B, c.precision), gpu(t, c.sku)); got != c.want {
			t.Errorf("%s on %s = %q, want %q", c.precision, c.sku, got, c.want)
		}
	}
}

// The bytes of the published checkpoints, within two per cent.
func TestShapeBytes(t *testing.T) {
	for _, c := range []struct {
		config, precision string
		gb                float64
	}{{llama70B, "bf16", 141.1}, {llama70B, "fp8", 72.7}, {gptOSS, "", 65.2}, {deepseek, "", 671 * 1.008}} {
		s := shape(t, c.config, c.precision)
		sum := s.Resident
		for _, g := range s.Groups {
			sum += g.Bytes
		}
		if r := sum / 1e9 / c.gb; r < 0.98 || r > 1.02 {
			t.Errorf("%s: %.1f GB, want %.1f", c.precision, sum/1e9, c.gb)
		}
	}
}

func run(t *testing.T, s *Shape, id string, l Layout, w Workload) Times {
	t.Helper()
	terms := NewTerms(s, gpu(t, id), l)
	return terms.Run(w, &typical)
}

func TestPhysicsOfAStep(t *testing.T) {
	s := shape(t, llama70B, "fp8")
	one := Layout{GPUs: 2, TP: 2}
	w := Workload{ISL: 1024, OSL: 1024, Concurrency: 1}
	a := run(t, s, "h100", one, w)
	// A step at batch 1 cannot be faster than reading the weights at full rate.
	if floor := 69.5e9 / 2 / 3.35e12; a.Decode < floor || a.Decode > 4*floor {
		t.Errorf("step of %v s, weights alone take %v s", a.Decode, floor)
	}
	last := a
	for _, c := range []int{4, 16, 64, 256} {
		w.Concurrency = c
		b := run(t, s, "h100", one, w)
		if b.Throughput <= last.Throughput || b.TPOT <= last.TPOT {
			t.Errorf("concurrency %d: %v tokens/s at %v s, before %v at %v", c, b.Throughput, b.TPOT, last.Throughput, last.TPOT)
		}
		last = b
	}
	w.Concurrency = 16
	base := run(t, s, "h100", one, w)
	if four := run(t, s, "h100", Layout{GPUs: 4, TP: 4}, w); four.Throughput <= base.Throughput || four.Throughput > 2*base.Throughput {
		t.Errorf("4 GPUs give %v, 2 give %v", four.Throughput, base.Throughput)
	}
	long := w
	long.ISL = 8192
	if b := run(t, s, "h100", one, long); b.TTFT < 6*base.TTFT || b.Throughput >= base.Throughput {
		t.Errorf("8 times the prompt: TTFT %v after %v", b.TTFT, base.TTFT)
	}
	if b := run(t, s, "h200", one, w); b.Throughput <= base.Throughput {
		t.Error("H200 is no faster than H100")
	}
}

// At batch 1 a mixture reads the experts of one token, at a large batch all.
func TestDistinctExperts(t *testing.T) {
	s := shape(t, deepseek, "")
	terms := NewTerms(s, gpu(t, "h200"), Layout{GPUs: 8, TP: 8})
	read := func(c int) float64 {
		return terms.Run(Workload{ISL: 10, OSL: 10, Concurrency: c}, &typical).Parts.Weights
	}
	dense := terms.Dense * math.Exp(-typical[CWeights])
	all := terms.Expert * math.Exp(-typical[CExperts])
	if got := (read(1) - dense) / all; math.Abs(got-8.0/256) > 1e-6 {
		t.Errorf("one token reads %v of the experts, want %v", got, 8.0/256)
	}
	want := 1 - math.Pow(1-8.0/256, 64)
	if got := (read(64) - dense) / all; math.Abs(got-want) > 1e-6 {
		t.Errorf("64 tokens read %v, want %v", got, want)
	}
}

// MLA's cache lies on every GPU of a tensor-parallel group; attention data
// parallelism gives each its own.
func TestReplicatedCache(t *testing.T) {
	s := shape(t, deepseek, "")
	g := gpu(t, "h200")
	tp := NewTerms(s, g, Layout{GPUs: 8, TP: 8})
	dp := NewTerms(s, g, Layout{GPUs: 8, TP: 1, AttnDP: true, Expert: true})
	if a, b := tp.MaxBatch(4096), dp.MaxBatch(4096); b < 4*a {
		t.Errorf("room for %v sequences with tensor, %v with data parallelism", a, b)
	}
	l := shape(t, llama70B, "fp8")
	eight, sixteen := NewTerms(l, g, Layout{GPUs: 8, TP: 8}), NewTerms(l, g, Layout{GPUs: 16, TP: 16})
	if a, b := eight.cacheElements(1000, true), sixteen.cacheElements(1000, true); a != b {
		t.Errorf("8 KV heads over 8 and 16 GPUs: %v and %v elements on each", a, b)
	}
	o := NewTerms(shape(t, gptOSS, ""), g, Layout{GPUs: 1, TP: 1})
	if a, b := o.cacheElements(128, true), o.cacheElements(12800, true); b > 51*a || b < 50*a {
		t.Errorf("half of the layers have a window of 128: %v and %v elements", a, b)
	}
}

func TestRateLimited(t *testing.T) {
	s := shape(t, llama70B, "fp8")
	terms := NewTerms(s, gpu(t, "h200"), Layout{GPUs: 2, TP: 2})
	full := terms.Run(Workload{ISL: 1024, OSL: 512}, &typical)
	for _, share := range []float64{0.1, 0.5, 0.9} {
		rate := share * full.Throughput / 512
		got := terms.Run(Workload{ISL: 1024, OSL: 512, Rate: rate}, &typical)
		if math.Abs(got.Throughput/(rate*512)-1) > 0.01 {
			t.Errorf("%v requests/s give %v tokens/s", rate, got.Throughput)
		}
	}
	if over := terms.Run(Workload{ISL: 1024, OSL: 512, Rate: 1e6}, &typical); over.Throughput > full.Throughput*1.001 {
		t.Errorf("beyond capacity: %v > %v", over.Throughput, full.Throughput)
	}
}

func TestRoomLimitsTheBatch(t *testing.T) {
	s := shape(t, llama70B, "fp8")
	terms := NewTerms(s, gpu(t, "h100"), Layout{GPUs: 1, TP: 1})
	got := terms.Run(Workload{ISL: 4096, OSL: 1024, Concurrency: 256}, &typical)
	if got.Batch >= 256 || got.TTFT < 1 {
		t.Errorf("batch %v, TTFT %v s: the queue is missing", got.Batch, got.TTFT)
	}
}

func TestParsePrecision(t *testing.T) {
	for in, want := range map[string]string{"bf16": "bf16/bf16/bf16", "FP8": "fp8/fp8/fp8", "nvfp4": "nvfp4/nvfp4/fp8", "mxfp4": "mxfp4/bf16/bf16", "nvfp4/bf16": "nvfp4/bf16/bf16", "mxfp4/mxfp8/fp8": "mxfp4/mxfp8/fp8"} {
		p, err := ParsePrecision(in)
		if err != nil || p.String() != want {
			t.Errorf("%q = %v, %v", in, p, err)
		}
	}
	for _, in := range []string{"", "fp7", "fp8/fp8/fp8/fp8", "//", "nvfp4/"} {
		var user *InputError
		if _, err := ParsePrecision(in); !errors.As(err, &user) || user.UserError() == "" {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestUnknownArchitectureIsSaid(t *testing.T) {
	s := shape(t, strings.Replace(llama70B, `"model_type":"llama"`, `"model_type":"never_seen"`, 1), "bf16")
	if len(s.Warnings) == 0 || !strings.Contains(fmt.Sprint(s.Warnings), "never_seen") {
		t.Errorf("warnings: %q", s.Warnings)
	}
	if _, err := NewShape(&model.Model{}, Precision{}); err == nil {
		t.Error("an empty model has a shape")
	}
}

func TestPlainShape(t *testing.T) {
	p, err := ParsePrecision("fp8")
	if err != nil {
		t.Fatal(err)
	}
	dense := PlainShape(Plain{"x", 32, 4096, 8, 128, 7.24e9, 7.11e9}, p)
	moe := PlainShape(Plain{"y", 48, 4096, 8, 128, 100e9, 10e9}, p)
	for s, want := range map[*Shape][2]float64{dense: {7.24e9, 7.11e9}, moe: {100e9, 10e9}} {
		var total, active float64
		for _, g := range s.Groups {
			total, active = total+g.Params, active+g.Active
		}
		if math.Abs(total/want[0]-1) > 0.03 || math.Abs(active/want[1]-1) > 0.05 {
			t.Errorf("%s: %v of %v parameters, want %v", s.Name, active, total, want)
		}
	}
	if moe.Experts == 0 || dense.Experts != 0 || len(moe.Warnings) < 2 {
		t.Errorf("experts %d and %d, warnings %q", moe.Experts, dense.Experts, moe.Warnings)
	}
}

func FuzzNewShape(f *testing.F) {
	for _, c := range []string{llama70B, gptOSS, deepseek, `{}`, `{"model_type":"llama","hidden_size":1,"num_hidden_layers":1,"num_attention_heads":1,"vocab_size":1,"intermediate_size":1}`} {
		f.Add([]byte(c), "nvfp4", 1, 1, 1)
	}
	f.Fuzz(func(t *testing.T, config []byte, precision string, isl, osl, gpus int) {
		m, err := model.Parse(model.Input{Config: config})
		if err != nil {
			return
		}
		p, err := ParsePrecision(precision)
		if err != nil {
			p = Precision{}
		}
		s, err := NewShape(m, p)
		if err != nil {
			return
		}
		w := Workload{ISL: isl & 0xfffff, OSL: osl & 0xfffff, Concurrency: 8}
		for _, id := range []string{"b200", "rtx-4060"} {
			fit := FitMemory(s, gpu(t, id), w, gpus&0xff)
			terms := NewTerms(s, gpu(t, id), fit.Layout)
			if got := terms.Run(w, &typical); math.IsNaN(got.Throughput) || got.Throughput < 0 {
				t.Fatalf("%+v", got)
			}
		}
	})
}

func BenchmarkRun(b *testing.B) {
	s := shape(b, deepseek, "nvfp4")
	g := gpu(b, "b200")
	b.ReportAllocs()
	for b.Loop() {
		terms := NewTerms(s, g, Layout{GPUs: 8, TP: 8})
		terms.Run(Workload{ISL: 1024, OSL: 1024, Concurrency: 64}, &typical)
	}
}
