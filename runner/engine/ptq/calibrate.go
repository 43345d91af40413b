package ptq

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/repromill/repromill/runner/engine/decoder"
	"github.com/repromill/repromill/runner/engine/kernel"
	"github.com/repromill/repromill/runner/engine/token"
)

// builtin is prose, code, numbers and a conversation, written for this purpose.
//
//go:embed calibration.txt
var builtin string

// calibrate runs the model over a text and keeps the largest magnitude of the
// inputs of every group: the max calibration of Model Optimizer.
func (j *job) calibrate(ctx context.Context) error {
	m, err := decoder.Load(ctx, j.src, decoder.LoadConfig{ID: filepath.Base(j.cfg.Dir)})
	if err != nil {
		return err
	}
	samples, err := j.samples(m)
	if err != nil {
		return err
	}
	names := map[*kernel.Matrix]string{}
	for _, l := range m.Linears() {
		names[l.Matrix] = fused(l.Name)
	}
	longest := 0
	for _, s := range samples {
		longest = max(longest, len(s))
	}
	r := m.NewRunner(max(1, j.cfg.Threads), longest)
	defer r.Close()
	r.Observe = func(m *kernel.Matrix, x []float32) {
		g := names[m]
		j.state.Inputs[g] = max(j.state.Inputs[g], kernel.AMax(x))
	}
	cache := decoder.NewCache(&m.Config, longest)
	for i, s := range samples {
		if err := ctx.Err(); err != nil {
			return err
		}
		var seq decoder.Sequence
		if !cache.Grow(&seq, len(s)) {
			return fmt.Errorf("calibrate: the cache holds no %d tokens", len(s))
		}
		if _, err := r.Step(cache, []decoder.Slot{{Seq: &seq, Tokens: s}}); err != nil {
			return fmt.Errorf("calibrate: %w", err)
		}
		cache.Release(&seq)
		j.state.Tokens += len(s)
		j.say(int64(i+1), int64(len(samples)), "samples", "calibrated")
	}
	for g, v := range j.state.Inputs {
		if _, ok := largest([]float32{v}); !ok {
			return &Error{fmt.Sprintf("inputs of %s are not finite", g), "the model overflows on the calibration text; check it with `repromill inspect DIR --weights`"}
		}
	}
	j.result.Calibrated = j.state.Tokens
	return nil
}

// samples cuts the text into pieces. A model without a tokenizer is run over
// random tokens, and that is said.
func (j *job) samples(m *decoder.Model) ([][]int32, error) {
	size := min(cmp.Or(j.cfg.SampleTokens, 512), m.Config.Context)
	most := cmp.Or(j.cfg.MaxSamples, 64)
	var ids []int32
	b, err := os.ReadFile(filepath.Join(j.cfg.Dir, "tokenizer.json"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		j.result.Random = true
		r := rand.New(rand.NewPCG(1, uint64(m.Config.Vocab)))
		for range 4 * size {
			ids = append(ids, int32(r.IntN(m.Config.Vocab)))
		}
	case err != nil:
		return nil, fmt.Errorf("read tokenizer.json: %w", err)
	default:
		t, err := token.Load(b)
		if err != nil {
			return nil, err
		}
		if t.Size() > m.Config.Vocab {
			return nil, &Error{fmt.Sprintf("the tokenizer has %d tokens and the model %d", t.Size(), m.Config.Vocab), "take tokenizer.json and the weights of the same model"}
		}
		if ids, err = t.Encode(cmp.Or(j.cfg.Text, builtin), true); err != nil {
			return nil, &Error{err.Error(), "give another text with --calibration"}
		}
	}
	if len(ids) == 0 {
		return nil, &Error{"the calibration text is empty", "give another text with --calibration"}
	}
	var out [][]int32
	for len(ids) > 0 && len(out) < most {
		n := min(size, len(ids))
		out = append(out, ids[:n])
		ids = ids[n:]
	}
	return out, nil
}
