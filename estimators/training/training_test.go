package training

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/repromill/repromill/estimators"
	"github.com/repromill/repromill/estimators/sku"
)

func gpu(t testing.TB, id string) *sku.SKU {
	t.Helper()
	g, err := sku.Find(id)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func near(a, b, rel float64) bool { return math.Abs(a-b) <= rel*math.Abs(b) }

func TestOperations(t *testing.T) {
	gpt2 := Job{Params: 124e6, Layers: 12, Hidden: 768, Context: 1024, Tokens: 1e9}
	with := func(change func(*Job)) Job { j := gpt2; change(&j); return j }
	attention := 4.0 * 12 * 768 * 1024 * 1e9
	for _, c := range []struct {
		name            string
		job             Job
		model, computed float64
	}{
		{"6ND and 12LdT", gpt2, 6*124e6*1e9 + 3*attention, 6*124e6*1e9 + 3*attention},
		{"full recompute is a third more", with(func(j *Job) { j.Recompute = "full" }), 6*124e6*1e9 + 3*attention, 4. / 3 * (6*124e6*1e9 + 3*attention)},
		{"frozen weights have no gradient", with(func(j *Job) { j.Method, j.Trainable = LoRA, 1e6 }), 4*124e6*1e9 + 3*attention + 6*1e6*1e9, 4*124e6*1e9 + 3*attention + 6*1e6*1e9},
		{"experts count as far as they are used", with(func(j *Job) { j.Active = 31e6 }), 6*31e6*1e9 + 3*attention, 6*31e6*1e9 + 3*attention},
		{"evaluation goes forward only", with(func(j *Job) { j.Method = Forward }), 2*124e6*1e9 + attention, 2*124e6*1e9 + attention},
		{"images by their own count", Job{ItemFLOPs: 8e9, Items: 1e6}, 24e15, 24e15},
		{"stated operations", Job{TotalFLOPs: 4e19}, 4e19, 4e19},
	} {
		got, err := c.job.Operations()
		if err != nil || !near(got.Model, c.model, 1e-9) || !near(got.Computed, c.computed, 1e-9) {
			t.Errorf("%s: %+v, %v; want %g and %g", c.name, got, err, c.model, c.computed)
		}
	}
}

func TestWhatIsNotKnownIsNotGuessed(t *testing.T) {
	for _, c := range []struct {
		job  Job
		want string
	}{
		{Job{}, "the size of the network and how much data"},
		{Job{Params: 1e9}, "how much data"},
		{Job{Tokens: 1e9}, "the size of the network"},
		{Job{ItemFLOPs: 1e9}, "how many items"},
	} {
		var missing *MissingError
		if _, err := c.job.Estimate(gpu(t, "a100"), 1); !errors.As(err, &missing) || !strings.Contains(missing.What, c.want) {
			t.Errorf("%+v: %v, want %q", c.job, err, c.want)
		}
	}
}

func TestMemory(t *testing.T) {
	seven := Job{Params: 7e9, Layers: 32, Hidden: 4096, Heads: 32, Vocab: 32000, Context: 2048, Recompute: "full"}
	m := seven.MemoryOn(gpu(t, "a100"), 8)
	if !near(m.Weights+m.Gradients+m.Optimizer, 16*7e9, 1e-9) || m.Fits {
		t.Errorf("16 bytes a parameter do not fit 80 GB: %+v", m)
	}
	for stage, bytes := range map[int]float64{1: 4*7e9 + 12*7e9/8, 2: 2*7e9 + 14*7e9/8, 3: 16 * 7e9 / 8} {
		j := seven
		j.ZeRO = stage
		if m := j.MemoryOn(gpu(t, "a100"), 8); !near(m.Weights+m.Gradients+m.Optimizer, bytes, 1e-9) {
			t.Errorf("ZeRO %d: %+v, want %g", stage, m, bytes)
		}
	}
	plain := seven
	plain.Recompute = ""
	// 2048·4096·32·(34 + 5·32·2048/4096) bytes and the logits.
	if want := 2048*4096*32*(34+80.) + 6*2048*32000; !near(plain.MemoryOn(gpu(t, "a100"), 1).Activations, want, 1e-9) {
		t.Errorf("activations %g, want %g", plain.MemoryOn(gpu(t, "a100"), 1).Activations, want)
	}
	q := Job{Params: 65e9, Method: QLoRA, Layers: 80, Hidden: 8192, Context: 528, Recompute: "full", Trainable: 0.8e9, Optimizer: "paged"}
	if m := q.MemoryOn(gpu(t, "a6000"), 1); !m.Fits || m.Total < 35e9 {
		t.Errorf("65 B parameters are tuned on 48 GB: %+v", m)
	}
	n, spread := seven.fewest(gpu(t, "a100"), 0)
	if n != 2 || spread.ZeRO != 3 {
		t.Errorf("7 B parameters fit %d × A100 80 GB with ZeRO %d", n, spread.ZeRO)
	}
	if m := (&Job{}).MemoryOn(gpu(t, "a100"), 1); m.Known || !m.Fits {
		t.Errorf("nothing is known of an unknown network: %+v", m)
	}
}

func TestStatedCostsOfAuthors(t *testing.T) {
	checks, err := Checks()
	if err != nil {
		t.Fatal(err)
	}
	inside := 0
	for _, c := range checks {
		t.Logf("%-36s %2d × %-9s stated %8.2f, estimated %8.2f (%.2f–%.2f), utilisation %4.1f %%, %v", c.Anchor, c.GPUs, c.SKU, c.Stated, c.P50, c.P10, c.P90, 100*c.Reach, c.Inside)
		if c.Inside {
			inside++
		} else if strings.HasPrefix(c.Anchor, "nanoGPT GPT-2") || strings.HasPrefix(c.Anchor, "DETR") {
			t.Errorf("%s lies outside", c.Anchor)
		}
	}
	if float64(inside) < 0.7*float64(len(checks)) {
		t.Errorf("%d of %d are inside an interval of 80 %%", inside, len(checks))
	}
}

func TestConvert(t *testing.T) {
	s := Stated{SKU: gpu(t, "v100"), GPUs: 8, Hours: 144, Precision: "fp16", Source: "README.md"}
	same := s.Convert(gpu(t, "v100"), 8)
	if same.GPUHours.P10 > 1152 || same.GPUHours.P90 < 1152 || !near(same.GPUHours.P50, 1152, 1e-9) || same.GPUHours.P90 > 1.3*1152 {
		t.Errorf("on the stated GPU: %+v", same.GPUHours)
	}
	fast := s.Convert(gpu(t, "h100"), 8)
	slow := s.Convert(gpu(t, "rtx-4060"), 8)
	for _, c := range []*Cost{fast, slow} {
		if !(c.GPUHours.P10 < c.GPUHours.P50 && c.GPUHours.P50 < c.GPUHours.P90) {
			t.Errorf("%s: %+v is no interval", c.SKU, c.GPUHours)
		}
	}
	if fast.GPUHours.P50 >= same.GPUHours.P50 || slow.GPUHours.P50 <= same.GPUHours.P50 {
		t.Errorf("fast %v, stated %v, slow %v", fast.GPUHours.P50, same.GPUHours.P50, slow.GPUHours.P50)
	}
	if one := s.Convert(gpu(t, "v100"), 1); one.Wall.P50 <= same.Wall.P50*6 || one.GPUHours.P50 >= same.GPUHours.P50 {
		t.Errorf("one GPU takes longer and wastes nothing on exchange: %+v", one)
	}
	if d := Disagree(fast, &Cost{Method: "operations", GPUHours: estimators.Exact(1e6)}); !strings.Contains(d, "disagree") {
		t.Errorf("Disagree = %q", d)
	}
	if d := Disagree(fast, fast); d != "" {
		t.Errorf("Disagree = %q", d)
	}
}

func TestUtilisation(t *testing.T) {
	j := Job{Params: 1e9, Tokens: 1e9, Class: Pretraining}
	a, h := Utilise(&j, gpu(t, "a100")).Share, Utilise(&j, gpu(t, "h100")).Share
	if h.P50 >= a.P50 || h.P90 != a.P90 {
		t.Errorf("A100 %+v, H100 %+v", a, h)
	}
	for _, g := range sku.Catalogue() {
		for _, p := range []string{"bf16", "fp16", "fp8", "tf32", "fp32"} {
			for _, c := range []Class{Pretraining, Finetuning, Vision, Diffusion, Small, Unknown} {
				for _, m := range []Method{Full, QLoRA} {
					u := Utilise(&Job{Precision: p, Class: c, Method: m}, g).Share
					if !(0 < u.P10 && u.P10 < u.P50 && u.P50 < u.P90 && u.P90 <= 0.75) {
						t.Errorf("%s %s %s %s: %+v", g.ID, p, c, m, u)
					}
				}
			}
		}
	}
}

func TestParseStated(t *testing.T) {
	for _, c := range []struct {
		text    string
		sku     string
		gpus    int
		counted bool
		hours   float64
	}{
		{"A single epoch takes 28 minutes, so 300 epoch training takes around 6 days on a single machine with 8 V100 cards.", "v100", 8, true, 144},
		{"Training time is ~42h in 64 V100 GPUs (800 epochs).", "v100", 64, true, 42},
		{"Training time is ~7h11m in 32 V100 GPUs.", "v100", 32, true, 7 + 11./60},
		{"This takes slightly over 4 days on a Tesla V100 GPU.", "v100", 1, true, 96},
		{"On one A100 GPU this training run takes about 3 minutes", "a100", 1, true, 0.05},
		{"you'll want at least an 8X A100 40GB node: this will run for about 4 days", "a100-40gb", 8, true, 96},
		{"GPS-deep ~60h to train on a single NVidia A100 GPU", "a100", 1, true, 60},
		{"Training takes 2.6 days with 16 GPUs", "", 0, false, 0},
		{"To reproduce GPT-2 (124M) you'll want at least an 8X A100 40GB node and run:", "", 0, false, 0},
		{"We use A100 GPUs.", "", 0, false, 0},
		{"The A100 has 80 GB of memory and the paper has 6 pages", "", 0, false, 0},
	} {
		s, counted, ok := ParseStated(c.text)
		if ok != (c.sku != "") {
			t.Errorf("%q: %+v %v", c.text, s, ok)
			continue
		}
		if ok && (s.SKU.ID != c.sku || s.GPUs != c.gpus || counted != c.counted || !near(s.Hours, c.hours, 1e-6)) {
			t.Errorf("%q: %d × %s for %g h", c.text, s.GPUs, s.SKU.ID, s.Hours)
		}
	}
}

func TestFind(t *testing.T) {
	for name, params := range map[string]float64{"gpt2-xl": 1.558e9, "openai-community/gpt2": 124e6, "facebook/opt-1.3b": 1.3e9, "huggyllama/llama-65b": 65e9,
		"vit_base_patch16": 86e6, "mae_vit_large_patch16": 304e6, "resnet50": 25.6e6, "bert-base-uncased": 110e6, "Qwen/Qwen3-0.6B": 0.6e9, "pythia-160m": 160e6, "deit_small": 22e6} {
		if n, ok := Find(name); !ok || !near(n.Params, params, 1e-9) || n.Source == "" {
			t.Errorf("%s: %+v %v", name, n, ok)
		}
	}
	for _, name := range []string{"", "model", "my-net", "net4", "checkpoints/best.pt"} {
		if n, ok := Find(name); ok {
			t.Errorf("%q is %+v", name, n)
		}
	}
	for name, items := range map[string]float64{"/data/coco": 118287, "data/cifar-10": 50000, "${IMAGENET_DIR}": 1281167, "imagenet": 1281167, "x": 0, "fashion_mnist": 60000} {
		if n, _, _ := Items(name); n != items {
			t.Errorf("%s has %g items, want %g", name, n, items)
		}
	}
}

func TestLoaderBound(t *testing.T) {
	if LoaderBound(5000, 8) == "" || LoaderBound(5000, 0) == "" || LoaderBound(100, 8) != "" || LoaderBound(math.Inf(1), 0) != "" {
		t.Error("8 cores decode hundreds of images a second, not thousands")
	}
}

func FuzzParseStated(f *testing.F) {
	f.Add("takes around 6 days on a single machine with 8 V100 cards")
	f.Add("~7h11m in 32 V100 GPUs")
	f.Add("99999999999999999999 days 8 x A100 takes 1e400 hours")
	f.Fuzz(func(t *testing.T, text string) {
		s, _, ok := ParseStated(text)
		if ok && (s.SKU == nil || s.GPUs < 1 || !(s.Hours > 0) || math.IsInf(s.Hours, 0)) {
			t.Errorf("%q: %+v", text, s)
		}
		if n, ok := Find(text); ok && !(n.Params > 0) {
			t.Errorf("%q: %+v", text, n)
		}
	})
}

func BenchmarkEstimate(b *testing.B) {
	j := Job{Params: 124e6, Layers: 12, Hidden: 768, Context: 1024, Tokens: 1e11, Class: Pretraining}
	g := gpu(b, "h100")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := j.Estimate(g, 8); err != nil {
			b.Fatal(err)
		}
	}
}
