package calibrate

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/repromill/repromill/estimators/serving"
	"github.com/repromill/repromill/estimators/sku"
)

const header = "model,total_params_b,active_params_b,layers,hidden,kv_heads,head_dim,precision(weights/act/kv),sku,num_gpus,tp,isl,osl,concurrency_or_scenario,output_tokens_per_s_total,framework,source_repo\n"

// noise is a fixed draw, roughly normal, for a key.
func noise(key string, sd float64) float64 {
	sum := 0.0
	for i := range 4 {
		h := fnv.New64a()
		fmt.Fprint(h, key, i)
		sum += float64(h.Sum64()>>11)/(1<<53) - 0.5
	}
	return sum * sd * math.Sqrt(3)
}

// madeUp are measurements of a world whose models and GPUs each have quirks, as
// the shipped calibration sees it otherwise.
func madeUp(t testing.TB) []Row {
	t.Helper()
	c, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	models := []string{
		"small,8.03,7.5,32,4096,8,128", "middle,32.76,31.98,64,5120,8,128", "large,70.55,69.5,80,8192,8,128", "mixture,235.09,21.57,94,4096,4,128",
	}
	var b strings.Builder
	b.WriteString(header)
	for _, m := range models {
		for _, g := range []string{"H100-SXM-80GB", "H200-SXM-141GB", "B200-SXM-180GB"} {
			for _, fw := range []string{"vllm-1", "trtllm-2"} {
				for _, load := range []string{"1024,1024,closed_loop_4", "1024,1024,closed_loop_64", "8192,1024,closed_loop_16", "2048,128,offline_max", "128,2048,closed_loop_128"} {
					for _, f := range []string{"fp8/fp8/fp8", "nvfp4/nvfp4/fp8"} {
						if f[0] == 'n' && g[0] != 'B' {
							continue
						}
						fmt.Fprintf(&b, "%s,%s,%s,4,4,%s,1,%s,made/up\n", m, f, g, load, fw)
					}
				}
			}
		}
	}
	rows, err := ReadRows(strings.NewReader(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	ps, err := resolve(rows, &Configs{})
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range ps {
		e := c.Estimate(Query{Shape: p.shape, SKU: p.sku, Layout: p.layout, Load: p.load, Framework: p.row.Framework})
		quirk := noise(p.row.Model, 0.1) + noise(p.row.SKU, 0.05) + noise(p.row.Model+p.row.SKU+p.row.Precision+p.row.Framework, 0.08) + noise(fmt.Sprint(i), 0.05)
		rows[i].Throughput = e.Throughput.P50 * math.Exp(quirk)
	}
	return rows
}

func TestBacktestOfAKnownWorld(t *testing.T) {
	rows := madeUp(t)
	for _, kind := range []string{"sku", "model"} {
		r, err := Backtest(rows, &Configs{}, kind)
		if err != nil {
			t.Fatal(err)
		}
		// The quirks alone are worth 10 to 15 %, and few groups tell of the rest.
		if r.N != len(rows) || r.Median > 25 || r.P90 > 55 || r.Coverage < 55 {
			t.Errorf("%s: %+v", kind, r.Score)
		}
		if len(r.Folds) != map[string]int{"sku": 3, "model": 4}[kind] || len(r.Engines) != 2 || len(r.Precisions) != 2 {
			t.Errorf("%s: %d folds, %d engines", kind, len(r.Folds), len(r.Engines))
		}
		if r.NVFP4 == nil || r.NVFP4.Pairs != 40 {
			t.Errorf("%s: NVFP4 %+v", kind, r.NVFP4)
		}
	}
}

// Nothing of what is left out reaches its prediction.
func TestNothingLeaksIntoAFold(t *testing.T) {
	for _, kind := range []string{"sku", "model"} {
		rows := madeUp(t)
		before, err := Backtest(rows, &Configs{}, kind)
		if err != nil {
			t.Fatal(err)
		}
		held := map[string]func(*Row) bool{
			"sku":   func(r *Row) bool { return strings.HasPrefix(r.SKU, "B200") },
			"model": func(r *Row) bool { return r.Model == "mixture" },
		}[kind]
		for i := range rows {
			if held(&rows[i]) {
				rows[i].Throughput *= 10
			}
		}
		after, err := Backtest(rows, &Configs{}, kind)
		if err != nil {
			t.Fatal(err)
		}
		same, other := 0, 0
		for i := range rows {
			a, b := before.Predictions[i], after.Predictions[i]
			equal := a.P10 == b.P10 && a.P50 == b.P50 && a.P90 == b.P90
			switch {
			case held(&rows[i]) && !equal:
				t.Fatalf("%s: row %d was predicted as %v, and as %v after its target changed", kind, i, a.P50, b.P50)
			case held(&rows[i]):
				same++
			case !equal:
				other++
			}
		}
		if same == 0 || other == 0 {
			t.Errorf("%s: %d held-out predictions stayed, %d others moved", kind, same, other)
		}
	}
}

// Rows of the same model on another GPU and of other models on the same GPU
// correct a prediction.
func TestNearRowsCorrect(t *testing.T) {
	rows := madeUp(t)
	for i := range rows {
		if rows[i].Model == "large" {
			rows[i].Throughput *= 1.4
		}
	}
	r, err := Backtest(rows, &Configs{}, "sku")
	if err != nil {
		t.Fatal(err)
	}
	plain, err := Backtest(madeUp(t), &Configs{}, "sku")
	if err != nil {
		t.Fatal(err)
	}
	var moved []float64
	for i := range rows {
		if rows[i].Model == "large" {
			moved = append(moved, r.Predictions[i].P50/plain.Predictions[i].P50)
		}
	}
	if m := quantile(moved, 0.5); m < 1.2 || m > 1.45 {
		t.Errorf("a model that is 1.4 times as fast on other GPUs is predicted %.2f times as fast on a new one", m)
	}
}

func TestWriteAndRead(t *testing.T) {
	rows := madeUp(t)
	c, err := Fit(rows, &Configs{})
	if err != nil {
		t.Fatal(err)
	}
	var a, b bytes.Buffer
	if err := c.Write(&a); err != nil {
		t.Fatal(err)
	}
	again, err := Read(bytes.NewReader(a.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Write(&b); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("a calibration changes when it is read and written")
	}
	x, err := c.Check(rows, &Configs{})
	if err != nil {
		t.Fatal(err)
	}
	y, err := again.Check(rows, &Configs{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		if math.Abs(x.Predictions[i].P50/y.Predictions[i].P50-1) > 1e-3 {
			t.Fatalf("row %d: %v before, %v after", i, x.Predictions[i].P50, y.Predictions[i].P50)
		}
	}
	// Fitted to these very rows: noise of 5 % is what is left.
	if x.Median > 6 || len(x.Notes) == 0 {
		t.Errorf("in-sample: %+v, notes %q", x.Score, x.Notes)
	}
}

// Ratios between GPUs as published for TensorRT-LLM (NVIDIA/TensorRT-LLM
// docs/source/performance): most of these GPUs are in no row of the shipped
// calibration.
func TestRatiosBetweenGPUs(t *testing.T) {
	c, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	p, err := serving.ParsePrecision("fp8")
	if err != nil {
		t.Fatal(err)
	}
	s := serving.PlainShape(serving.Plain{Name: "new", Layers: 40, Hidden: 5120, KVHeads: 8, HeadDim: 128, Total: 14e9, Active: 13.4e9}, p)
	speed := func(id string) float64 {
		g, err := sku.Find(id)
		if err != nil {
			t.Fatal(err)
		}
		e := c.Estimate(Query{s, g, serving.Layout{GPUs: 1, TP: 1}, serving.Workload{ISL: 1000, OSL: 1000}, "trtllm"})
		return e.Throughput.P50
	}
	for _, r := range []struct {
		a, b   string
		lo, hi float64
	}{{"gh200", "h100", 1.0, 1.25}, {"l40s", "h100", 0.17, 0.32}, {"rtx-pro-6000", "b200", 0.2, 0.35}, {"gb200", "b200", 1.0, 1.12}, {"h200", "h100", 1.1, 1.4}, {"b200", "h200", 1.3, 2.2}} {
		if got := speed(r.a) / speed(r.b); got < r.lo || got > r.hi {
			t.Errorf("%s/%s = %.2f, want %.2f to %.2f", r.a, r.b, got, r.lo, r.hi)
		}
	}
}

func TestConfidenceFollowsSupport(t *testing.T) {
	c, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	p, _ := serving.ParsePrecision("fp8")
	known := serving.PlainShape(serving.Plain{Name: "a", Layers: 80, Hidden: 8192, KVHeads: 8, HeadDim: 128, Total: 70.55e9, Active: 69.5e9}, p)
	known.Warnings = nil
	unknown := serving.PlainShape(serving.Plain{Name: "b", Layers: 48, Hidden: 6144, KVHeads: 8, HeadDim: 128, Total: 30e9, Active: 29e9}, p)
	unknown.Warnings = nil
	width := func(s *serving.Shape, id, confidence, says string) float64 {
		g, err := sku.Find(id)
		if err != nil {
			t.Fatal(err)
		}
		e := c.Estimate(Query{s, g, serving.Layout{GPUs: 4, TP: 4}, serving.Workload{ISL: 1000, OSL: 1000, Concurrency: 32}, "vllm-?"})
		if e.Confidence != confidence || !strings.Contains(e.SupportedBy, says) {
			t.Errorf("%s on %s: %s, %q", s.Name, id, e.Confidence, e.SupportedBy)
		}
		return e.Throughput.P90 / e.Throughput.P10
	}
	cell := width(known, "h100", "high", "of the same model, GPU, format and engine")
	model := width(known, "b300", "medium", "of the same model")
	none := width(unknown, "b300", "low", "neither the model nor the GPU")
	width(unknown, "h100", "medium", "on the same GPU in the same format")
	width(known, "l40s", "low", "of the same model")
	if !(cell < model && model < none) {
		t.Errorf("intervals span factors of %.2f, %.2f, %.2f", cell, model, none)
	}
}

func TestOffers(t *testing.T) {
	c, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	p, _ := serving.ParsePrecision("nvfp4")
	s := serving.PlainShape(serving.Plain{Name: "a", Layers: 80, Hidden: 8192, KVHeads: 8, HeadDim: 128, Total: 70.55e9, Active: 69.5e9}, p)
	p.Weights, p.Activations = "fp8_e4m3", "fp8_e4m3"
	s.Alternative = serving.PlainShape(serving.Plain{Name: "a", Layers: 80, Hidden: 8192, KVHeads: 8, HeadDim: 128, Total: 70.55e9, Active: 69.5e9}, p)
	price := func(id string) (sku.Price, bool) { return sku.DefaultPrice(id, sku.OnDemand) }
	offers := c.Offers(Ask{Shape: s, Load: serving.Workload{ISL: 1024, OSL: 1024, Concurrency: 64}, Requests: 10000, Framework: "vllm", Price: price}, sku.Catalogue())
	cheap, fast := 0, 0
	for _, o := range offers {
		if !o.Fit.Fits {
			if o.Throughput != nil || o.Fit.Why == "" {
				t.Errorf("%s does not fit, yet %+v", o.SKU, o)
			}
			continue
		}
		for name, i := range map[string][3]float64{"hours": {o.GPUHours.P10, o.GPUHours.P50, o.GPUHours.P90}, "tokens": {o.Throughput.P10, o.Throughput.P50, o.Throughput.P90}} {
			if !(i[0] > 0 && i[0] < i[1] && i[1] < i[2]) {
				t.Errorf("%s %s: %v", o.SKU, name, i)
			}
		}
		if o.GPUHours.P50 <= o.BusyHours.P50 {
			t.Errorf("%s: reserved %v, busy %v", o.SKU, o.GPUHours.P50, o.BusyHours.P50)
		}
		if o.Cheapest {
			cheap++
		}
		if o.Fastest {
			fast++
		}
		if o.SKU == "b200" && (o.NVFP4OverFP8 == nil || o.NVFP4OverFP8.P50 < 0.95 || o.NVFP4OverFP8.P50 > 1.5) {
			t.Errorf("NVFP4 over FP8: %+v", o.NVFP4OverFP8)
		}
	}
	if cheap != 1 || fast != 1 {
		t.Errorf("%d cheapest, %d fastest", cheap, fast)
	}
}

func TestRowMistakes(t *testing.T) {
	good := "x,8,7.5,32,4096,8,128,fp8/fp8/fp8,h100,1,1,100,100,closed_loop_8,1000,vllm,r\n"
	for name, c := range map[string]struct{ csv, want string }{
		"empty":        {"", "EOF"},
		"no rows":      {header, "there are none"},
		"no column":    {strings.Replace(header, "isl,", "", 1) + good, `"isl" is missing`},
		"not a number": {header + strings.Replace(good, ",1000,", ",fast,", 1), "line 2: output_tokens_per_s_total"},
		"NaN":          {header + strings.Replace(good, ",1000,", ",NaN,", 1), "output_tokens_per_s_total"},
		"zero":         {header + strings.Replace(good, ",1000,", ",0,", 1), "output_tokens_per_s_total"},
		"scenario":     {header + strings.Replace(good, "closed_loop_8", "sometimes", 1), "concurrency_or_scenario"},
		"no model":     {header + strings.Replace(good, "x,", ",", 1), "model is empty"},
		"half a GPU":   {header + strings.Replace(good, "h100,1,", "h100,1.5,", 1), "not a whole number"},
		"open quote":   {header + `"x` + good, "line"},
	} {
		_, err := ReadRows(strings.NewReader(c.csv))
		var user *FileError
		if !errors.As(err, &user) || !strings.Contains(err.Error(), c.want) || user.UserError() == "" {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for name, c := range map[string]struct{ csv, want string }{
		"GPU":       {header + strings.Replace(good, "h100", "h999", 1), "line 2: unknown GPU"},
		"precision": {header + strings.Replace(good, "fp8/fp8/fp8", "fp9", 1), "line 2: unknown number format"},
		"size":      {header + strings.Replace(good, "32,4096,8,128", ",,,", 1), "line 2: no configuration"},
	} {
		rows, err := ReadRows(strings.NewReader(c.csv))
		if err != nil {
			t.Fatal(name, err)
		}
		_, err = Fit(rows, &Configs{})
		var user interface{ UserError() string }
		if !errors.As(err, &user) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	rows, err := ReadRows(strings.NewReader(header + good))
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"sku", "model", "moon"} {
		var user *LeaveOutError
		if _, err := Backtest(rows, &Configs{}, kind); !errors.As(err, &user) {
			t.Errorf("one row, --leave-out %s: %v", kind, err)
		}
	}
	// A single row still gives a calibration, with wide intervals.
	c, err := Fit(rows, &Configs{})
	if err != nil || c.Spread[knownNone+"/dense"].P90 < 0.5 {
		t.Errorf("one row: %v, %+v", err, c)
	}
}

func TestConfigsAreFoundByStructureAndByName(t *testing.T) {
	const llama = `{"model_type":"llama","hidden_size":4096,"intermediate_size":14336,"num_hidden_layers":32,"num_attention_heads":32,"num_key_value_heads":8,"vocab_size":128256,"torch_dtype":"bfloat16"%s}`
	dir := fstest.MapFS{
		"meta--Some-8B.config.json": {Data: fmt.Appendf(nil, llama, "")},
		"nv--Some-8B-FP8.json":      {Data: fmt.Appendf(nil, llama, `,"quantization_config":{"quant_method":"fp8","activation_scheme":"dynamic","weight_block_size":[128,128]}`)},
	}
	c, err := ReadConfigs(dir)
	if err != nil {
		t.Fatal(err)
	}
	fp8, _ := serving.ParsePrecision("fp8")
	bf16, _ := serving.ParsePrecision("bf16")
	for _, x := range []struct {
		row  Row
		p    serving.Precision
		want string
	}{
		{Row{Model: "anything", Layers: 32, Hidden: 4096, TotalB: 8.03}, fp8, "nv/Some-8B-FP8"},
		{Row{Model: "Some 8B", Layers: 32, Hidden: 4096, TotalB: 8.03}, bf16, "meta/Some-8B"},
		{Row{Model: "some 8B"}, bf16, "meta/Some-8B"},
		{Row{Model: "Mistral 7B", Layers: 32, Hidden: 4096, TotalB: 7.24}, fp8, ""},
		{Row{Model: "other"}, fp8, ""},
	} {
		got := ""
		if m := c.find(&x.row, x.p); m != nil {
			got = m.ID
		}
		if got != x.want {
			t.Errorf("%+v: %q, want %q", x.row.Model, got, x.want)
		}
	}
	if _, err := ReadConfigs(fstest.MapFS{"a.json": {Data: []byte("{")}}); err == nil {
		t.Error("a broken configuration was read")
	}
}

func TestEngine(t *testing.T) {
	for in, want := range map[string]string{"vllm-0.12.0": "vllm", "SGLang-0.5": "sglang", "trtllm-0.17-engine": "trtllm-engine", "TensorRT-LLM 1.2": "trtllm", "": "other", "lmdeploy": "other"} {
		if got := Engine(in); got != want {
			t.Errorf("Engine(%q) = %q", in, got)
		}
	}
}

func TestSolve(t *testing.T) {
	a := []float64{4, 0, 0, 2, 5, 0, 1, 3, 6} // lower triangle
	b := []float64{4*1 + 2*2 + 1*3, 2*1 + 5*2 + 3*3, 1*1 + 3*2 + 6*3}
	if !solve(a, b, 3) || math.Abs(b[0]-1)+math.Abs(b[1]-2)+math.Abs(b[2]-3) > 1e-12 {
		t.Errorf("solve = %v", b)
	}
	if solve([]float64{1, 0, 2, 1}, []float64{1, 1}, 2) {
		t.Error("an indefinite matrix was solved")
	}
}

func TestReadRefuses(t *testing.T) {
	for name, s := range map[string]string{
		"empty": "", "not JSON": "{", "version": `{"version":"serving-9"}`, "no spread": `{"version":"serving-1"}`,
		"absurd": strings.Replace(string(shippedJSON), `"P10"`, `"p10"`, 1)[:200],
	} {
		var user *CalibrationError
		if _, err := Read(strings.NewReader(s)); !errors.As(err, &user) {
			t.Errorf("%s: %v", name, err)
		}
	}
	bad := strings.Replace(string(shippedJSON), `"attn":`, `"nonsense":`, 1)
	if _, err := Read(strings.NewReader(bad)); err == nil {
		t.Error("an unknown parameter was read")
	}
}

func FuzzReadRows(f *testing.F) {
	f.Add(header + "x,8,7.5,32,4096,8,128,fp8/fp8/fp8,h100,1,1,100,100,closed_loop_8,1000,vllm,r\n")
	f.Add("model,precision,sku,num_gpus,isl,osl,concurrency_or_scenario,output_tokens_per_s_total\nx,nvfp4,b200,8,1,1,offline_max,1e3\n")
	f.Add("\ufeff" + header)
	f.Add("a,\"b\n")
	f.Fuzz(func(t *testing.T, s string) {
		rows, err := ReadRows(strings.NewReader(s))
		if (err == nil) != (len(rows) > 0) {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		ps, err := resolve(rows, &Configs{})
		if err != nil {
			return
		}
		d := newDesign()
		theta := make([]float64, len(d.list))
		for i, p := range d.list {
			theta[i] = p.mean
		}
		for _, p := range ps {
			p.feats = d.features(p)
			k := coef(p.feats, theta)
			if v := p.logPred(&k); math.IsNaN(v) {
				t.Fatalf("%+v: %v", p.row, v)
			}
		}
	})
}

func FuzzRead(f *testing.F) {
	f.Add(shippedJSON)
	f.Add([]byte(`{"version":"serving-1","spread":{"cell":{"p10":-1e9}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := Read(bytes.NewReader(b)); (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
	})
}

func BenchmarkEstimate(b *testing.B) {
	c, err := Shipped()
	if err != nil {
		b.Fatal(err)
	}
	p, _ := serving.ParsePrecision("nvfp4")
	s := serving.PlainShape(serving.Plain{Name: "a", Layers: 80, Hidden: 8192, KVHeads: 8, HeadDim: 128, Total: 70.55e9, Active: 69.5e9}, p)
	g, err := sku.Find("b200")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		c.Estimate(Query{s, g, serving.Layout{GPUs: 8, TP: 8}, serving.Workload{ISL: 1024, OSL: 1024, Concurrency: 64}, "vllm-0.19.0"})
	}
}

// BenchmarkFit fits 160 rows with all their folds; the shipped calibration has
// 2,411.
func BenchmarkFit(b *testing.B) {
	rows := madeUp(b)
	for b.Loop() {
		if _, err := Fit(rows, &Configs{}); err != nil {
			b.Fatal(err)
		}
	}
}
