package model

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// tensorsOf writes down the tensors of a checkpoint of the model, as ModelOpt,
// DeepSeek and gpt-oss lay them out. Offsets follow the sizes.
func tensorsOf(m *Model) []Tensor {
	var list []Tensor
	var at int64
	add := func(name, dtype string, shape ...int64) {
		n, ok := tensorBytes(dtype, shape)
		if !ok {
			panic(fmt.Sprint(name, dtype, shape))
		}
		list = append(list, Tensor{name, dtype, shape, at, at + int64(n)})
		at += int64(n)
	}
	for i := range m.Modules {
		mod := &m.Modules[i]
		s := m.Quant.Of(mod)
		out, in := int64(mod.Out), int64(mod.In)
		fused := mod.Copies > 1 && !strings.Contains(mod.Name, "*")
		if fused && s != nil && s.Weights == FormatMXFP4 {
			e := int64(mod.Copies)
			add(mod.Name+"_blocks", "U8", e, out, in/32, 16)
			add(mod.Name+"_scales", "U8", e, out, in/32)
			add(mod.Name+"_bias", "BF16", e, int64(mod.Bias))
			continue
		}
		for e := range max(1, mod.Copies) {
			name := strings.Replace(mod.Name, "*", strconv.Itoa(e), 1)
			if mod.Bias > 0 {
				add(name+".bias", "BF16", int64(mod.Bias))
			}
			switch {
			case s == nil && mod.In == 1:
				add(name+".weight", "BF16", out)
			case s == nil:
				add(name+".weight", "BF16", out, in)
			case s.Weights == FormatNVFP4:
				add(name+".weight", "U8", out, in/2)
				add(name+".weight_scale", "F8_E4M3", out, in/16)
				add(name+".weight_scale_2", "F32")
				add(name+".input_scale", "F32")
			case s.Weights == FormatFP8:
				add(name+".weight", "F8_E4M3", out, in)
				if s.Cols > 0 {
					add(name+".weight_scale_inv", "F32", int64(ceilDiv(mod.Out, s.Rows)), int64(ceilDiv(mod.In, s.Cols)))
				} else {
					add(name+".weight_scale", "F32")
				}
				if s.Static {
					add(name+".input_scale", "F32")
				}
			}
		}
	}
	return list
}

func TestCensusAgreesWithTheConfiguration(t *testing.T) {
	quant := func(config, q string) string {
		return strings.TrimSuffix(config, "}") + `,"quantization_config":` + q + "}"
	}
	for name, config := range map[string]string{
		"16 bits":   known[8].config,
		"FP8 block": quant(moe+"}", `{"quant_method":"fp8","weight_block_size":[128,128]}`),
		"NVFP4":     quant(tiny+"}", `{"quant_method":"modelopt","quant_algo":"NVFP4","ignore":["lm_head"]}`),
		"mixed":     quant(tiny+"}", `{"quant_method":"modelopt","quant_algo":"MIXED_PRECISION","quantized_layers":{"lm_head":{"quant_algo":"W4A16_NVFP4"},"model.layers.1.self_attn.q_proj":{"quant_algo":"FP8"}}}`),
		"MXFP4":     quant(known[6].config, `{"quant_method":"mxfp4"}`),
	} {
		t.Run(name, func(t *testing.T) {
			m := parse(t, "", config, "")
			c := TakeCensus(tensorsOf(m))
			if want := m.Params.Total + m.Params.MTP; c.Params != want {
				t.Errorf("%d parameters in the tensors, %d in the configuration", c.Params, want)
			}
			if c.Bytes != m.Bytes {
				t.Errorf("%d bytes of tensors, %d expected from the configuration", c.Bytes, m.Bytes)
			}
			if len(c.Problems) > 0 {
				t.Errorf("problems %+v", c.Problems[:min(5, len(c.Problems))])
			}
			for _, f := range m.Formats {
				at := slices.IndexFunc(c.Formats, func(g FormatShare) bool { return g.Weights == f.Weights })
				if at < 0 || f.scheme != nil && f.scheme.Cols == 0 && c.Formats[at].Bytes != f.Bytes {
					t.Errorf("%+v is not in %+v", f, c.Formats)
				}
			}
			if p := m.CheckTensors(c); len(p) > 0 {
				t.Errorf("problems %+v", p)
			}
		})
	}
}

func TestCensusOfLayouts(t *testing.T) {
	type T = Tensor
	tensor := func(name, dtype string, shape ...int64) T {
		n, _ := tensorBytes(dtype, shape)
		return T{name, dtype, shape, 0, int64(n)}
	}
	tests := []struct {
		name     string
		tensors  []T
		want     string // format, shape, block and marks of the one weight
		problems []string
	}{
		{"compressed-tensors NVFP4", []T{tensor("a.weight_packed", "U8", 64, 16), tensor("a.weight_scale", "F8_E4M3", 64, 2), tensor("a.weight_global_scale", "F32", 1), tensor("a.input_global_scale", "F32", 1)}, "nvfp4 [64 32] 1×16 inverse calibrated", nil},
		{"compressed-tensors MXFP4", []T{tensor("a.weight_packed", "U8", 64, 16), tensor("a.weight_scale", "U8", 64, 1)}, "mxfp4 [64 32] 1×32", nil},
		{"FP8 per channel", []T{tensor("a.weight", "F8_E4M3", 64, 32), tensor("a.weight_scale", "BF16", 64, 1)}, "fp8_e4m3 [64 32] 1×0", nil},
		{"FP8 of fused experts", []T{tensor("a.weight", "F8_E4M3", 8, 64, 32), tensor("a.weight_scale", "F32", 8)}, "fp8_e4m3 [8 64 32] 0×0", nil},
		{"FP8 block of 128 with ragged edges", []T{tensor("a.weight", "F8_E4M3", 300, 200), tensor("a.weight_scale_inv", "F32", 3, 2)}, "fp8_e4m3 [300 200] 128×128", nil},
		{"AWQ", []T{tensor("a.qweight", "I32", 16, 8), tensor("a.qzeros", "I32", 1, 8), tensor("a.scales", "F16", 1, 8)}, "int4 [128 8] 0×0", nil},
		{"no scale", []T{tensor("a.weight", "F8_E4M3", 64, 32)}, "fp8_e4m3 [64 32] 0×0", []string{"scale_missing"}},
		{"no global scale", []T{tensor("a.weight", "U8", 64, 16), tensor("a.weight_scale", "F8_E4M3", 64, 2)}, "nvfp4 [64 32] 1×16", []string{"global_scale_missing"}},
		{"transposed scales", []T{tensor("a.weight", "U8", 64, 16), tensor("a.weight_scale", "F8_E4M3", 2, 64), tensor("a.weight_scale_2", "F32")}, "nvfp4 [64 32] 1×16", []string{"scale_shape"}},
		{"block scales of no size", []T{tensor("a.weight", "F8_E4M3", 256, 256), tensor("a.weight_scale_inv", "F32", 2, 7)}, "fp8_e4m3 [256 256] 128×0", []string{"scale_shape"}},
		{"scales alone", []T{tensor("a.weight_scale", "F32"), tensor("b.weight", "BF16", 2, 2)}, "bf16 [2 2] 0×0", []string{"scale_without_weight"}},
		{"scale of a plain weight", []T{tensor("a.weight", "BF16", 2, 2), tensor("a.weight_scale", "F32")}, "bf16 [2 2] 0×0", []string{"scale_of_plain_weight"}},
		{"blocks of another size", []T{tensor("a_blocks", "U8", 2, 4, 8), tensor("a_scales", "U8", 2, 4)}, "mxfp4 [2 4 8] 1×32", []string{"weight_shape"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := TakeCensus(tt.tensors)
			if len(c.Stored) != 1 {
				t.Fatalf("%d weights", len(c.Stored))
			}
			s := c.Stored[0]
			got := fmt.Sprintf("%s %v %d×%d", s.Format, s.Shape, s.Rows, s.Cols)
			if s.Inverse {
				got += " inverse"
			}
			if s.Calibrated {
				got += " calibrated"
			}
			var problems []string
			for _, p := range c.Problems {
				problems = append(problems, p.Code)
			}
			if got != tt.want || !slices.Equal(problems, tt.problems) {
				t.Errorf("%s %v, want %s %v", got, problems, tt.want, tt.problems)
			}
			if s.Params != product(s.Shape) {
				t.Errorf("%d parameters of %v", s.Params, s.Shape)
			}
		})
	}
}

func TestTensorsThatDoNotFitTheConfiguration(t *testing.T) {
	m := parse(t, "", tiny+`,"quantization_config":{"quant_method":"modelopt","quant_algo":"NVFP4","ignore":["lm_head"]}}`, "")
	plain := parse(t, "", tiny+"}", "")
	codes := func(ps []Problem) (out []string) {
		for _, p := range ps {
			out = append(out, p.Code)
		}
		return out
	}
	if got := codes(m.CheckTensors(TakeCensus(tensorsOf(plain)))); !slices.Equal(got, []string{"format_differs"}) {
		t.Errorf("a checkpoint that was never quantised: %v", got)
	}
	tensors := tensorsOf(plain)
	if got := codes(plain.CheckTensors(TakeCensus(tensors[:len(tensors)/2]))); !slices.Equal(got, []string{"parameters_differ"}) {
		t.Errorf("half a checkpoint: %v", got)
	}
}

func TestIndex(t *testing.T) {
	ix, err := ReadIndex([]byte(`{"metadata":{"total_size":16},"weight_map":{"a":"m-1.safetensors","b":"m-1.safetensors","c":"m-2.safetensors","d":"m-2.safetensors"}}`))
	if err != nil || ix.TotalSize != 16 || !slices.Equal(ix.Files, []string{"m-1.safetensors", "m-2.safetensors"}) {
		t.Fatalf("%+v, %v", ix, err)
	}
	tensor := func(name string) Tensor { return Tensor{Name: name, DType: "F32", End: 4} }
	shard := func(file string, names ...string) Shard {
		h := &Header{}
		for _, n := range names {
			h.Tensors = append(h.Tensors, tensor(n))
		}
		return Shard{file, h}
	}
	tests := []struct {
		name   string
		shards []Shard
		want   []string
	}{
		{"as listed", []Shard{shard("m-1.safetensors", "a", "b"), shard("m-2.safetensors", "c", "d")}, nil},
		{"a shard missing", []Shard{shard("m-1.safetensors", "a", "b")}, []string{"shard_missing m-2.safetensors"}},
		{"a tensor missing", []Shard{shard("m-1.safetensors", "a"), shard("m-2.safetensors", "c", "d")}, []string{"tensor_missing b", "total_size metadata.total_size"}},
		{"a tensor in two shards", []Shard{shard("m-1.safetensors", "a", "b"), shard("m-2.safetensors", "c", "d", "a")}, []string{"tensor_twice a", "total_size metadata.total_size"}},
		{"a tensor elsewhere", []Shard{shard("m-1.safetensors", "b", "c"), shard("m-2.safetensors", "a", "d")}, []string{"tensor_moved c", "tensor_moved a"}},
		{"one too many", []Shard{shard("m-1.safetensors", "a", "b", "x"), shard("m-2.safetensors", "c", "d")}, []string{"tensor_unlisted x", "total_size metadata.total_size"}},
	}
	for _, tt := range tests {
		var got []string
		for _, p := range ix.Check(tt.shards) {
			got = append(got, p.Code+" "+p.Where)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	for _, bad := range []string{
		``, `[]`, `{}`, `{"weight_map":{}}`, `{"weight_map":{"a":1}}`, `{"weight_map":{"a":"pytorch_model.bin"}}`,
		`{"weight_map":{"a":"../x.safetensors"}}`, `{"weight_map":{"a":"/x.safetensors"}}`, `{"weight_map":{"a":".x.safetensors"}}`, `{"weight_map":{"a":"c:x.safetensors"}}`,
	} {
		if _, err := ReadIndex([]byte(bad)); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
	if ix, err := ReadIndex([]byte(`{"metadata":{"total_size":1e300},"weight_map":{"a":"a.safetensors"}}`)); err != nil || ix.TotalSize != 0 {
		t.Errorf("%+v, %v", ix, err)
	}
}

func BenchmarkTakeCensus(b *testing.B) {
	m, err := Parse(Input{Config: []byte(known[4].config)})
	if err != nil {
		b.Fatal(err)
	}
	tensors := tensorsOf(m)
	b.ReportMetric(float64(len(tensors)), "tensors")
	for b.Loop() {
		TakeCensus(tensors)
	}
}
