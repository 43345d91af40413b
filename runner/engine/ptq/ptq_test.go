package ptq

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/runner/engine/decoder"
	"github.com/repromill/repromill/runner/engine/enginetest"
)

// quantise writes a quantised checkpoint and loads it.
func quantise(t *testing.T, dir string, f Format, cfg decoder.LoadConfig) (*decoder.Model, *Result) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	r, err := Quantize(t.Context(), Config{Dir: dir, Out: out, Format: f})
	if err != nil {
		t.Fatal(err)
	}
	m, err := decoder.Load(t.Context(), model.Folder(out), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m, r
}

func logits(t *testing.T, m *decoder.Model, tokens []int32) [][]float32 {
	t.Helper()
	r := m.NewRunner(1, m.Config.Context)
	defer r.Close()
	c := decoder.NewCache(&m.Config, len(tokens))
	var seq decoder.Sequence
	c.Grow(&seq, len(tokens))
	out, err := r.Step(c, []decoder.Slot{{Seq: &seq, Tokens: tokens, Logits: len(tokens)}})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestGoldenLogitsOfFormats holds the arithmetic of the formats to a second
// implementation in PyTorch, which rounds weights and inputs by its own tables
// and its own E4M3. Everything else is in float32 on both sides.
//
// With weights alone the values are the same, and the logits differ by the order
// of sums. Where inputs are rounded, one that lies next to the middle of two
// values may fall to either side; so the difference is measured by what rounding
// does at all, as far as it lies from float32.
func TestGoldenLogitsOfFormats(t *testing.T) {
	g := enginetest.ReadGolden(t)
	for name, want := range g.Models {
		dir := g.Checkpoint(t, name)
		for _, c := range []struct {
			format Format
			want   [][]float32
			math   string
		}{{NVFP4, want.NVFP4, "w4a16"}, {W4A4, want.W4A4, "w4a4"}, {FP8, want.FP8, "w8a8"}} {
			t.Run(fmt.Sprintf("%s/%s", name, c.format), func(t *testing.T) {
				m, _ := quantise(t, dir, c.format, decoder.LoadConfig{Float32: true})
				if m.Math() != c.math {
					t.Fatalf("computes %s, want %s", m.Math(), c.math)
				}
				if c.format.calibrated() {
					for _, l := range m.Linears() {
						l.Matrix.InputScale = want.InputScales[string(c.format)][l.Name]
					}
				}
				got := g.Pick(logits(t, m, g.Tokens))
				most, rms := enginetest.Distance(got, c.want)
				_, yard := enginetest.Distance(c.want, want.Float32)
				t.Logf("off by %.3g at most, %.3g in the mean; rounding does %.3g", most, rms, yard)
				if c.format == NVFP4 && most > 2e-5 || rms > 0.02*yard {
					t.Errorf("off by %.3g at most, %.3g in the mean; rounding does %.3g", most, rms, yard)
				}
			})
		}
	}
}

// TestCheckpointsAreSound compares what is written with what it was made of, as
// `inspect --against` does, and reads its metadata.
func TestCheckpointsAreSound(t *testing.T) {
	g := enginetest.ReadGolden(t)
	dir := g.Checkpoint(t, "qwen3")
	for _, f := range Formats {
		out := filepath.Join(t.TempDir(), "out")
		r, err := Quantize(t.Context(), Config{Dir: dir, Out: out, Format: f, Version: "1"})
		if err != nil {
			t.Fatal(err)
		}
		if r.Quantised != 14 || r.Calibrated == 0 && f.calibrated() {
			t.Errorf("%s: %+v", f, r)
		}
		got, err := model.ReadCheckpoint(t.Context(), model.Folder(out), model.CheckpointConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Problems) > 0 || got.Model.Quant.Method != "modelopt" || got.Model.Quant.Algo != f.Algo() || len(got.Model.Warnings) > 0 {
			t.Errorf("%s: problems %v, quantisation %+v, warnings %v", f, got.Problems, got.Model.Quant, got.Model.Warnings)
		}
		if r.BytesOut != got.Census.Bytes {
			t.Errorf("%s: %d bytes were said and %d written", f, r.BytesOut, got.Census.Bytes)
		}
		base, err := model.ReadCheckpoint(t.Context(), model.Folder(dir), model.CheckpointConfig{})
		if err != nil {
			t.Fatal(err)
		}
		bases := map[string]*model.Stored{}
		for i := range base.Census.Stored {
			bases[base.Census.Stored[i].Name] = &base.Census.Stored[i]
		}
		for i := range got.Census.Stored {
			s := &got.Census.Stored[i]
			l, err := model.Against(t.Context(), open(t, dir, bases[s.Name]), open(t, out, s))
			if err != nil {
				t.Fatal(err)
			}
			if l.Verdict != "ok" || l.Error.Relative > 1.02*l.Error.Rounding || linear.MatchString(s.Name) == (s.Format == model.FormatBF16) {
				t.Errorf("%s: %s as %s is %s, with the error %+v: %v", f, s.Name, s.Format, l.Verdict, l.Error, l.Reasons)
			}
			if linear.MatchString(s.Name) && s.Calibrated != f.calibrated() {
				t.Errorf("%s: %s has an input scale: %v", f, s.Name, s.Calibrated)
			}
		}
		if b, err := os.ReadFile(filepath.Join(out, "hf_quant_config.json")); err != nil || !strings.Contains(string(b), f.Algo()) || !strings.Contains(string(b), "kv_cache_quant_algo") {
			t.Errorf("%s: hf_quant_config.json: %s %v", f, b, err)
		}
	}
}

func open(t *testing.T, dir string, s *model.Stored) *model.Weight {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	w, err := model.OpenWeight(s, func(*model.Tensor) io.ReaderAt { return f })
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestWeightsThatAreFusedShareScales: vLLM multiplies q, k and v as one matrix.
func TestWeightsThatAreFusedShareScales(t *testing.T) {
	g := enginetest.ReadGolden(t)
	for _, f := range []Format{W4A4, FP8} {
		m, _ := quantise(t, g.Checkpoint(t, "llama"), f, decoder.LoadConfig{})
		l := m.Linears()
		for _, same := range [][]int{{0, 1, 2}, {4, 5}} {
			for _, i := range same[1:] {
				a, b := l[same[0]].Matrix, l[i].Matrix
				if a.Scale != b.Scale || a.InputScale != b.InputScale || a.InputScale == 0 {
					t.Errorf("%s: %s has the scales %g and %g, %s %g and %g", f, l[same[0]].Name, a.Scale, a.InputScale, l[i].Name, b.Scale, b.InputScale)
				}
			}
		}
	}
}

// TestKilledAtEveryStep ends the work at each kind of durable step, the first
// time it comes, and takes it up again: the result is the same, and is never seen
// before it is whole.
func TestKilledAtEveryStep(t *testing.T) {
	g := enginetest.ReadGolden(t)
	dir := g.Checkpoint(t, "qwen2")
	want := filepath.Join(t.TempDir(), "want")
	var steps []string
	cfg := Config{Dir: dir, Out: want, Format: W4A4, SampleTokens: 8, MaxSamples: 1, Hook: func(p string) {
		if !slices.Contains(steps, p) {
			steps = append(steps, p)
		}
	}}
	if _, err := Quantize(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	type killed struct{}
	for _, at := range steps {
		out := filepath.Join(t.TempDir(), "out")
		c := cfg
		c.Out = out
		c.Hook = func(p string) {
			if p == at {
				panic(killed{})
			}
		}
		func() {
			defer func() {
				if p := recover(); p != nil && p != any(killed{}) {
					panic(p)
				}
			}()
			_, _ = Quantize(t.Context(), c)
		}()
		if _, err := os.Stat(out); err != nil {
			c.Hook = nil
			if _, err := Quantize(t.Context(), c); err != nil {
				t.Fatalf("%s: %v", at, err)
			}
		}
		if _, err := os.Stat(out + ".partial"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the working folder is left", at)
		}
		for _, name := range []string{"model.safetensors", "config.json", "hf_quant_config.json"} {
			a, errA := os.ReadFile(filepath.Join(want, name))
			b, errB := os.ReadFile(filepath.Join(out, name))
			if errA != nil || errB != nil || string(a) != string(b) {
				t.Errorf("%s: %s differs (%v, %v)", at, name, errA, errB)
			}
		}
	}
}

// TestOtherWorkIsNotTakenUp is killed with one format and goes on with another.
func TestOtherWorkIsNotTakenUp(t *testing.T) {
	g := enginetest.ReadGolden(t)
	dir, out := g.Checkpoint(t, "llama"), filepath.Join(t.TempDir(), "out")
	func() {
		defer func() { _ = recover() }()
		_, _ = Quantize(t.Context(), Config{Dir: dir, Out: out, Format: FP8, Hook: func(p string) {
			if p == "ptq:shard-dirsync:after" {
				panic("killed")
			}
		}})
	}()
	if _, err := os.Stat(filepath.Join(out+".partial", "model.safetensors")); err != nil {
		t.Fatalf("nothing was left to take up: %v", err)
	}
	if r, err := Quantize(t.Context(), Config{Dir: dir, Out: out, Format: NVFP4}); err != nil || r.Resumed != 0 {
		t.Fatalf("%+v %v", r, err)
	}
	m, err := decoder.Load(t.Context(), model.Folder(out), decoder.LoadConfig{})
	if err != nil || m.Math() != "w4a16" {
		t.Fatalf("%v", err)
	}
}

func TestCheckpointsThatAreRefused(t *testing.T) {
	g := enginetest.ReadGolden(t)
	dir := g.Checkpoint(t, "llama")
	out := filepath.Join(t.TempDir(), "fp8")
	if _, err := Quantize(t.Context(), Config{Dir: dir, Out: out, Format: FP8}); err != nil {
		t.Fatal(err)
	}
	odd := t.TempDir()
	shape := enginetest.Tiny
	shape.Intermediate = 40
	if err := enginetest.Write(odd, "odd", shape, nil); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Config{
		"a format that is none":     {Dir: dir, Out: out + "2", Format: "int3"},
		"a folder that is there":    {Dir: dir, Out: out, Format: FP8},
		"what is quantised already": {Dir: out, Out: out + "2", Format: FP8},
		"an empty folder":           {Dir: t.TempDir(), Out: out + "2", Format: FP8},
		"rows without blocks":       {Dir: odd, Out: out + "2", Format: NVFP4},
	} {
		_, err := Quantize(t.Context(), c)
		var user interface{ UserError() string }
		if !errors.As(err, &user) || user.UserError() == "" {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(c.Out + ".partial"); err == nil {
			t.Errorf("%s: a working folder is left", name)
		}
	}
	if r, err := Quantize(t.Context(), Config{Dir: odd, Out: out + "3", Format: FP8}); err != nil {
		t.Errorf("rows without blocks to FP8: %+v %v", r, err)
	}
}

// TestShards quantises a checkpoint of two files, whose fused weights lie apart.
func TestShards(t *testing.T) {
	g := enginetest.ReadGolden(t)
	whole, dir := g.Checkpoint(t, "llama"), t.TempDir()
	splitCheckpoint(t, whole, dir)
	one, _ := quantise(t, whole, NVFP4, decoder.LoadConfig{})
	two, r := quantise(t, dir, NVFP4, decoder.LoadConfig{})
	if most, _ := enginetest.Distance(logits(t, one, g.Tokens), logits(t, two, g.Tokens)); most != 0 {
		t.Errorf("two files give logits that are off by %g", most)
	}
	if r.Quantised != 14 {
		t.Errorf("%+v", r)
	}
}

// splitCheckpoint deals the tensors of a checkpoint out to two files.
func splitCheckpoint(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(from, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := model.Folder(from).Open(t.Context(), "model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	h, err := model.ReadHeader(f, f.Size(), model.HeaderConfig{})
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	index := map[string]string{}
	for part := range 2 {
		name := fmt.Sprintf("model-%05d-of-00002.safetensors", part+1)
		header, data := map[string]any{}, []byte(nil)
		for i, x := range h.Tensors {
			if i%2 != part {
				continue
			}
			index[x.Name] = name
			header[x.Name] = map[string]any{"dtype": x.DType, "shape": x.Shape, "data_offsets": []int{len(data), len(data) + int(x.Bytes())}}
			data = append(data, b[x.Begin:x.End]...)
		}
		head, err := json.Marshal(header)
		if err != nil {
			t.Fatal(err)
		}
		n := len(head)
		file := append([]byte{byte(n), byte(n >> 8), byte(n >> 16), 0, 0, 0, 0, 0}, head...)
		if err := os.WriteFile(filepath.Join(to, name), append(file, data...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	config, err := os.ReadFile(filepath.Join(from, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := json.Marshal(map[string]any{"metadata": map[string]any{}, "weight_map": index})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"config.json": config, "model.safetensors.index.json": list} {
		if err := os.WriteFile(filepath.Join(to, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
