package decoder

import (
	"testing"

	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/runner/engine/enginetest"
)

// logits computes those of all tokens of a sequence, in steps of so many tokens.
func logits(t testing.TB, m *Model, tokens []int32, step, threads int) [][]float32 {
	t.Helper()
	r := m.NewRunner(threads, m.Config.Context)
	defer r.Close()
	c := NewCache(&m.Config, 128)
	var seq Sequence
	if !c.Grow(&seq, len(tokens)) {
		t.Fatal("the cache is too small")
	}
	var out [][]float32
	for len(tokens) > 0 {
		n := min(step, len(tokens))
		l, err := r.Step(c, []Slot{{Seq: &seq, Tokens: tokens[:n], Logits: n}})
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range l {
			out = append(out, append([]float32(nil), row...))
		}
		tokens = tokens[n:]
	}
	return out
}

// TestGoldenLogits holds the logits to those of transformers. The logits are of
// size 1.
//
// In float32 both differ by the order of sums: some hundred additions with an
// error of 2^-24 each, through a dozen layers of products, and by the six digits
// that golden.json keeps, stay below 2e-5.
//
// In BF16 every value is rounded to 2^-9 of its size at some thirty points on
// the way, and another order of a sum tips some of them to the other neighbour.
// The yardstick is how far two implementations of attention in transformers
// itself, which round at the same points but one, lie from each other: a little
// nearer to either than that, and nearer than either is to float32.
func TestGoldenLogits(t *testing.T) {
	g := enginetest.ReadGolden(t)
	for name, want := range g.Models {
		t.Run(name, func(t *testing.T) {
			dir := g.Checkpoint(t, name)
			m, err := Load(t.Context(), model.Folder(dir), LoadConfig{Float32: true})
			if err != nil {
				t.Fatal(err)
			}
			exact := g.Pick(logits(t, m, g.Tokens, len(g.Tokens), 1))
			if most, rms := enginetest.Distance(exact, want.Float32); most > 2e-5 {
				t.Errorf("float32: off by %.3g at most, %.3g in the mean", most, rms)
			}
			if m, err = Load(t.Context(), model.Folder(dir), LoadConfig{}); err != nil {
				t.Fatal(err)
			}
			got := g.Pick(logits(t, m, g.Tokens, len(g.Tokens), 1))
			_, yard := enginetest.Distance(want.BFloat16, want.Eager)
			most, rms := enginetest.Distance(got, want.BFloat16)
			_, bf16 := enginetest.Distance(want.BFloat16, want.Float32)
			t.Logf("bf16: off by %.2g in the mean, %.2g at most; transformers' own differ by %.2g, BF16 lies %.2g from float32", rms, most, yard, bf16)
			if rms > 0.9*yard || rms > bf16 || most > 0.0625 {
				t.Errorf("bf16: off by %.2g in the mean, %.2g at most; transformers' own differ by %.2g, BF16 lies %.2g from float32", rms, most, yard, bf16)
			}
		})
	}
}

// TestStepsDoNotChangeLogits computes a sequence at once, in chunks, token by
// token, and on two threads: the bits are the same.
func TestStepsDoNotChangeLogits(t *testing.T) {
	g := enginetest.ReadGolden(t)
	m, err := Load(t.Context(), model.Folder(g.Checkpoint(t, "qwen3")), LoadConfig{})
	if err != nil {
		t.Fatal(err)
	}
	want := logits(t, m, g.Tokens, len(g.Tokens), 1)
	for _, step := range []int{1, 3, 17} {
		for _, threads := range []int{1, 2} {
			if most, _ := enginetest.Distance(logits(t, m, g.Tokens, step, threads), want); most != 0 {
				t.Errorf("steps of %d on %d threads: off by %g", step, threads, most)
			}
		}
	}
}

// TestSequencesDoNotChangeEachOther computes sequences of different lengths
// together, among them one whose blocks lie apart, and each alone.
func TestSequencesDoNotChangeEachOther(t *testing.T) {
	g := enginetest.ReadGolden(t)
	m, err := Load(t.Context(), model.Folder(g.Checkpoint(t, "llama")), LoadConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for _, threads := range []int{1, 2, 3} {
		r := m.NewRunner(threads, m.Config.Context)
		c := NewCache(&m.Config, 256)
		var filler Sequence
		c.Grow(&filler, 40)
		seqs := make([]Sequence, 4)
		for i := range seqs {
			c.Grow(&seqs[i], 1)
		}
		c.Release(&filler)
		var slots []Slot
		for i := range seqs {
			n := 5 + 9*i
			if !c.Grow(&seqs[i], n) {
				t.Fatal("the cache is too small")
			}
			slots = append(slots, Slot{Seq: &seqs[i], Tokens: g.Tokens[:n], Logits: 1})
		}
		out, err := r.Step(c, slots)
		if err != nil {
			t.Fatal(err)
		}
		for i := range seqs {
			alone := logits(t, m, slots[i].Tokens, 64, 1)
			if most, _ := enginetest.Distance(out[i:i+1], alone[len(alone)-1:]); most != 0 {
				t.Errorf("%d threads, sequence %d: off by %g", threads, i, most)
			}
			c.Release(&seqs[i])
		}
		if all, free := c.Blocks(); all != free {
			t.Errorf("%d of %d blocks are free", free, all)
		}
		r.Close()
	}
}
