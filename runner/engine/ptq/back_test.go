package ptq

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/runner/engine/decoder"
	"github.com/repromill/repromill/runner/engine/enginetest"
)

// TestValuesOfWhatIsQuantised writes the values of each format in BF16: they are
// those that the format stands for, rounded once, and the engine computes with
// them what it computes with weights alone in the format.
func TestValuesOfWhatIsQuantised(t *testing.T) {
	g := enginetest.ReadGolden(t)
	dir := g.Checkpoint(t, "qwen3")
	for _, f := range Formats {
		packed, back := filepath.Join(t.TempDir(), "packed"), filepath.Join(t.TempDir(), "back")
		if _, err := Quantize(t.Context(), Config{Dir: dir, Out: packed, Format: f}); err != nil {
			t.Fatal(err)
		}
		r, err := Quantize(t.Context(), Config{Dir: packed, Out: back, Format: BF16})
		if err != nil {
			t.Fatal(err)
		}
		if r.Quantised != 14 || r.Kept != 10 || r.Bits != 16 || r.Calibrated != 0 {
			t.Errorf("%s: %+v", f, r)
		}
		got, want := stored(t, back), stored(t, packed)
		if got.Model.Quant != nil || len(got.Problems) > 0 || got.Census.Bytes != r.BytesOut || len(got.Census.Stored) != len(want.Census.Stored) {
			t.Errorf("%s: quantisation %+v, problems %v, %d bytes of %d", f, got.Model.Quant, got.Problems, got.Census.Bytes, r.BytesOut)
		}
		if _, err := os.Stat(filepath.Join(back, "hf_quant_config.json")); err == nil {
			t.Errorf("%s: hf_quant_config.json is still there", f)
		}
		for i := range want.Census.Stored {
			s := &want.Census.Stored[i]
			a, b := open(t, packed, s), open(t, back, &got.Census.Stored[i])
			x, y := make([]float32, a.Rows*a.Cols), make([]float32, b.Rows*b.Cols)
			if err := errors.Join(a.ReadRows(x, 0, a.Rows), b.ReadRows(y, 0, b.Rows)); err != nil || got.Census.Stored[i].Name != s.Name {
				t.Fatal(s.Name, got.Census.Stored[i].Name, err)
			}
			for k := range x {
				if model.DecodeBF16(model.EncodeBF16(x[k])) != y[k] {
					t.Fatalf("%s: %s: value %d is %g, was %g", f, s.Name, k, y[k], x[k])
				}
			}
		}
		if f != NVFP4 {
			continue
		}
		load := func(dir string) [][]float32 {
			m, err := decoder.Load(t.Context(), model.Folder(dir), decoder.LoadConfig{Float32: true})
			if err != nil {
				t.Fatal(err)
			}
			return logits(t, m, g.Tokens)
		}
		// What BF16 takes of the values is far less than what NVFP4 took.
		in4 := load(packed)
		_, off := enginetest.Distance(load(back), in4)
		if _, yard := enginetest.Distance(in4, load(dir)); off > 0.1*yard {
			t.Errorf("logits are off by %g in the mean; rounding to NVFP4 does %g", off, yard)
		}
	}
}

func stored(t *testing.T, dir string) *model.Checkpoint {
	t.Helper()
	ck, err := model.ReadCheckpoint(t.Context(), model.Folder(dir), model.CheckpointConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return ck
}

func TestValuesOfWhatIsNotQuantised(t *testing.T) {
	dir := enginetest.Folder(t, enginetest.Tiny)
	_, err := Quantize(t.Context(), Config{Dir: dir, Out: filepath.Join(t.TempDir(), "out"), Format: BF16})
	var user *Error
	if !errors.As(err, &user) || user.UserError() == "" {
		t.Errorf("%v", err)
	}
}
