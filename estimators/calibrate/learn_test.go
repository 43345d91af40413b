package calibrate

import (
	"bytes"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/repromill/repromill/estimators/serving"
	"github.com/repromill/repromill/estimators/sku"
	"github.com/repromill/repromill/planner/model"
)

// siteModel is of no structure that the shipped calibration knows.
const siteModel = `{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":6144,"intermediate_size":16384,"num_hidden_layers":52,
"num_attention_heads":48,"num_key_value_heads":8,"vocab_size":64000,"max_position_embeddings":65536,"torch_dtype":"bfloat16"}`

// site is a place whose GPUs answer at a share of what is expected, with noise.
func site(t testing.TB, share float64) (c *Calibration, configs *Configs, rows []Row, shape *serving.Shape, g *sku.SKU) {
	t.Helper()
	c, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.Parse(model.Input{ID: "lab/site-21b", Config: []byte(siteModel)})
	if err != nil {
		t.Fatal(err)
	}
	configs = &Configs{}
	configs.Add(m)
	p, err := serving.ParsePrecision("fp8")
	if err != nil {
		t.Fatal(err)
	}
	if shape, err = serving.NewShape(m, p); err != nil {
		t.Fatal(err)
	}
	if g, err = sku.Find("h100-nvl"); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, isl := range []int{512, 1024, 4096} {
		for _, conc := range []int{1, 4, 16, 64, 128} {
			w := serving.Workload{ISL: isl, OSL: 512, Concurrency: conc}
			e := c.Estimate(Query{shape, g, serving.Layout{GPUs: 1, TP: 1}, w, "vllm-0.19.0"})
			rows = append(rows, Row{Source: "run r1", Model: "lab/site-21b", Family: "lab/site-21b", Precision: p.String(), SKU: "h100-nvl", GPUs: 1, TP: 1, ISL: isl, OSL: 512, Concurrency: conc,
				Throughput: e.Throughput.P50 * share * math.Exp(0.05*rng.NormFloat64()), Framework: "vllm-0.19.0"})
		}
	}
	return c, configs, rows, shape, g
}

// scoreSite is the median error on rows and the median width of their intervals,
// as P90/P10, and how many lie inside.
func scoreSite(c *Calibration, shape *serving.Shape, g *sku.SKU, rows []Row) (ape, width, inside float64) {
	var errs, widths []float64
	for _, r := range rows {
		e := c.Estimate(Query{shape, g, serving.Layout{GPUs: 1, TP: 1}, serving.Workload{ISL: r.ISL, OSL: r.OSL, Concurrency: r.Concurrency}, r.Framework})
		errs = append(errs, math.Abs(e.Throughput.P50/r.Throughput-1))
		widths = append(widths, e.Throughput.P90/e.Throughput.P10)
		if e.Throughput.P10 <= r.Throughput && r.Throughput <= e.Throughput.P90 {
			inside++
		}
	}
	return quantile(errs, 0.5), quantile(widths, 0.5), inside / float64(len(rows))
}

func TestLearnFromASite(t *testing.T) {
	c, configs, rows, shape, g := site(t, 0.6)
	var seen, kept []Row
	for i, r := range rows {
		if i%3 == 0 {
			seen = append(seen, r)
		} else {
			kept = append(kept, r)
		}
	}
	after, err := c.Learn(seen, configs)
	if err != nil {
		t.Fatal(err)
	}
	ape0, width0, in0 := scoreSite(c, shape, g, kept)
	ape1, width1, in1 := scoreSite(after, shape, g, kept)
	t.Logf("%d rows of a site at 0.6 of what is expected: error %.1f %% to %.1f %%, P90/P10 %.2f to %.2f, inside %.0f %% to %.0f %%", len(seen), 100*ape0, 100*ape1, width0, width1, 100*in0, 100*in1)
	if ape1 > 0.5*ape0 || ape1 > 0.15 || width1 > 0.9*width0 || in1 < 0.7 {
		t.Error("own rows do not improve estimates of what they are of")
	}
	e := after.Estimate(Query{shape, g, serving.Layout{GPUs: 1, TP: 1}, serving.Workload{ISL: 512, OSL: 512, Concurrency: 8}, "vllm-0.19.0"})
	if e.Confidence != "high" || !strings.Contains(e.SupportedBy, "5 rows of the same model, GPU, format and engine") {
		t.Errorf("%s: %s", e.Confidence, e.SupportedBy)
	}
	// Another model on the site's GPU is drawn less, and other GPUs hardly.
	other, err := sku.Find("b200")
	if err != nil {
		t.Fatal(err)
	}
	q := Query{shape, other, serving.Layout{GPUs: 1, TP: 1}, serving.Workload{ISL: 512, OSL: 512, Concurrency: 8}, "sglang"}
	if r := after.Estimate(q).Throughput.P50 / c.Estimate(q).Throughput.P50; r < 0.6 || r > 1.1 {
		t.Errorf("the same model on another GPU moved by %.2f", r)
	}
	// What was learnt can be written, read and learnt further.
	var b bytes.Buffer
	if err := after.Write(&b); err != nil {
		t.Fatal(err)
	}
	back, err := Read(&b)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := scoreOne(after, shape, g), scoreOne(back, shape, g); math.Abs(a/b-1) > 1e-3 {
		t.Errorf("%g before writing, %g after", a, b)
	}
	again, err := back.Learn(kept, configs)
	if err != nil {
		t.Fatal(err)
	}
	if ape, _, _ := scoreSite(again, shape, g, rows); ape > 0.08 {
		t.Errorf("with all rows the error is %.1f %%", 100*ape)
	}
}

func scoreOne(c *Calibration, shape *serving.Shape, g *sku.SKU) float64 {
	return c.Estimate(Query{shape, g, serving.Layout{GPUs: 1, TP: 1}, serving.Workload{ISL: 700, OSL: 300, Concurrency: 24}, "vllm-0.19.0"}).Throughput.P50
}

func TestLearnRefuses(t *testing.T) {
	c, configs, rows, _, _ := site(t, 1)
	if _, err := c.Learn(nil, configs); err == nil {
		t.Error("nothing is learnt from nothing")
	}
	rows[0].SKU = "moon"
	if _, err := c.Learn(rows, configs); err == nil {
		t.Error("no such GPU")
	}
}

func TestLengthRow(t *testing.T) {
	var l LengthRow
	for _, x := range []float64{100, 200, 300, 400} {
		l.Add(10, x)
	}
	if l.N != 4 || l.In != 10 || l.Out != 250 || math.Abs(l.Error()-math.Sqrt(50000./3/4)) > 1e-9 {
		t.Errorf("%+v, %g", l, l.Error())
	}
}

func BenchmarkLearn(b *testing.B) {
	c, configs, rows, _, _ := site(b, 0.6)
	for b.Loop() {
		if _, err := c.Learn(rows, configs); err != nil {
			b.Fatal(err)
		}
	}
}

func TestSplits(t *testing.T) {
	c, _, _, shape, _ := site(t, 1)
	g, err := sku.Find("h100")
	if err != nil {
		t.Fatal(err)
	}
	list := c.Splits(Ask{Shape: shape, Load: serving.Workload{ISL: 1024, OSL: 1024, Concurrency: 64}, Framework: "vllm"}, g, 16)
	best := 0
	for _, s := range list {
		if s.Best {
			best++
		}
		if !(s.Throughput.P10 < s.Throughput.P50 && s.LinkShare >= 0 && s.LinkShare < 1) {
			t.Errorf("%+v", s)
		}
		if s.Layout.Nodes > 1 && s.Confidence != "low" {
			t.Errorf("no layout over servers was measured: %+v", s)
		}
	}
	if best != 1 || len(list) < 4 {
		t.Errorf("%d layouts, %d best", len(list), best)
	}
}

// BenchmarkTable is the table of all GPUs, all layouts of up to 16 of them, and
// a hundred models.
func BenchmarkTable(b *testing.B) {
	c, _, _, _, _ := site(b, 1)
	var shapes []*serving.Shape
	for i := range 100 {
		moe := 0.0
		total := 2e9 * math.Pow(1.06, float64(i))
		if i%3 == 0 {
			moe = total / 8
		}
		p, err := serving.ParsePrecision([]string{"bf16", "fp8", "nvfp4"}[i%3])
		if err != nil {
			b.Fatal(err)
		}
		shapes = append(shapes, serving.PlainShape(serving.Plain{Name: "m", Layers: 24 + i/2, Hidden: 2048 + 128*(i/4), KVHeads: 8, HeadDim: 128, Total: total, Active: moe}, p))
	}
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n = 0
		for _, s := range shapes {
			for _, g := range sku.Catalogue() {
				n += len(c.Splits(Ask{Shape: s, Load: serving.Workload{ISL: 1024, OSL: 1024, Concurrency: 64}, Framework: "vllm"}, g, 16))
			}
		}
	}
	b.ReportMetric(float64(n), "estimates")
}
