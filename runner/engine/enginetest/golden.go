package enginetest

import (
	_ "embed"
	"encoding/json"
	"math"
	"testing"
)

//go:embed golden.json
var goldenJSON []byte

// Golden is what transformers computed; golden.py made it.
type Golden struct {
	Tokens    []int32                `json:"tokens"`
	Positions []int                  `json:"positions"` // whose logits are kept
	Models    map[string]GoldenModel `json:"models"`
}

// GoldenModel are the logits of one model at the positions, in several ways of
// computing them.
type GoldenModel struct {
	Config   json.RawMessage `json:"config"`
	Float32  [][]float32     `json:"float32"`
	BFloat16 [][]float32     `json:"bfloat16"`
	Eager    [][]float32     `json:"bfloat16_eager"` // with another implementation of attention
	FP8      [][]float32     `json:"fp8"`
	NVFP4    [][]float32     `json:"nvfp4"`
	W4A4     [][]float32     `json:"nvfp4-w4a4"`
	// InputScales are those of the inputs by format and matrix.
	InputScales map[string]map[string]float32 `json:"input_scales"`
}

// ReadGolden reads the logits.
func ReadGolden(t testing.TB) *Golden {
	t.Helper()
	var g Golden
	if err := json.Unmarshal(goldenJSON, &g); err != nil {
		t.Fatal(err)
	}
	return &g
}

// Checkpoint writes the model of a name into a folder.
func (g *Golden) Checkpoint(t testing.TB, name string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	var s Shape
	if err := json.Unmarshal(g.Models[name].Config, &s); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, name, s, g.Models[name].Config); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Pick takes the positions that are kept from the logits of all tokens.
func (g *Golden) Pick(all [][]float32) (out [][]float32) {
	for _, p := range g.Positions {
		out = append(out, all[p])
	}
	return out
}

// Distance is the largest and the root mean square difference.
func Distance(a, b [][]float32) (most, rms float64) {
	n := 0
	for i := range a {
		for j := range a[i] {
			d := math.Abs(float64(a[i][j]) - float64(b[i][j]))
			most, rms, n = max(most, d), rms+d*d, n+1
		}
	}
	return most, math.Sqrt(rms / float64(n))
}
