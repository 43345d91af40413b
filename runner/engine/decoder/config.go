// Package decoder computes a decoder-only transformer of the kind of Llama and
// Qwen on the CPU: RMSNorm, rotary positions, grouped-query attention, SwiGLU,
// biases of the projections (Qwen2), norms of queries and keys (Qwen3), a tied or
// an own head. Weights are BF16, float32, FP8 or NVFP4; inputs of quantised
// weights are rounded to FP8 or NVFP4 where the checkpoint asks for it.
//
// Values are rounded to BF16 at the points where vLLM and transformers have
// them in BF16, and summed in float32, so that a BF16 checkpoint gives what it
// gives there, but for the order of sums.
package decoder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"

	"github.com/repromill/repromill/planner/model"
)

// Config is the part of config.json that the computation needs.
type Config struct {
	Type         string // model_type
	Layers       int
	Hidden       int
	Intermediate int
	Heads        int
	KVHeads      int
	HeadDim      int
	Vocab        int
	Context      int // max_position_embeddings
	Eps          float32
	Tied         bool
	Theta        float64
	Rope         Rope
	EOS          []int32 // of config.json and generation_config.json
	DType        model.Format
}

// Rope says how the frequencies of the rotary positions are changed.
type Rope struct {
	Type     string  `json:"rope_type"` // default, linear or llama3
	OldType  string  `json:"type"`
	Theta    float64 `json:"rope_theta"`
	Factor   float64 `json:"factor"`
	Low      float64 `json:"low_freq_factor"`
	High     float64 `json:"high_freq_factor"`
	Original float64 `json:"original_max_position_embeddings"`
}

// UnsupportedError says why the engine does not compute a model.
type UnsupportedError struct{ Why string }

func (e *UnsupportedError) Error() string { return "the engine cannot run this model: " + e.Why }

// UserError is what the user can do.
func (e *UnsupportedError) UserError() string {
	return "the engine is for small Llama- and Qwen-like decoders in BF16, FP8 (one scale per tensor or row) and NVFP4; serve others with vLLM or SGLang"
}

func unsupported(format string, args ...any) error {
	return &UnsupportedError{fmt.Sprintf(format, args...)}
}

// MismatchError says where tensors do not fit the configuration.
type MismatchError struct{ Why string }

func (e *MismatchError) Error() string {
	return "the checkpoint does not fit its config.json: " + e.Why
}

// UserError is what the user can do.
func (e *MismatchError) UserError() string {
	return "take config.json and the safetensors files of the same revision of the same model; `repromill inspect DIR` lists what does not fit"
}

func mismatch(format string, args ...any) error {
	return &MismatchError{fmt.Sprintf(format, args...)}
}

// families are the values of model_type that are computed. Qwen2 has biases of
// its queries, keys and values whatever the configuration says; Qwen3 has norms.
var families = map[string]struct{ qkvBias, qkNorm bool }{
	"llama": {}, "mistral": {}, "qwen2": {qkvBias: true}, "qwen3": {qkNorm: true},
}

type extraConfig struct {
	HiddenAct     string          `json:"hidden_act"`
	Intermediate  float64         `json:"intermediate_size"`
	Eps           *float64        `json:"rms_norm_eps"`
	Tied          bool            `json:"tie_word_embeddings"`
	Theta         float64         `json:"rope_theta"`
	Scaling       *Rope           `json:"rope_scaling"`
	Parameters    *Rope           `json:"rope_parameters"`
	PartialRotary *float64        `json:"partial_rotary_factor"`
	EOS           json.RawMessage `json:"eos_token_id"`
	UseSliding    *bool           `json:"use_sliding_window"`
}

// Bounds of what the engine is for.
const (
	maxHidden = 1 << 15
	maxVocab  = 1 << 20
)

// ParseConfig reads config.json, whose general part m has been read from, and
// generation_config.json, which may be nil.
func ParseConfig(m *model.Model, config, generation []byte) (*Config, error) {
	var x extraConfig
	if err := json.Unmarshal(config, &x); err != nil {
		return nil, &model.BadConfigError{File: "config.json", Why: err.Error()}
	}
	if _, ok := families[m.Type]; !ok {
		return nil, unsupported("model_type is %.60q; known are llama, mistral, qwen2 and qwen3", m.Type)
	}
	c := &Config{
		Type: m.Type, Layers: m.Layers, Hidden: m.Hidden, Heads: m.Heads, KVHeads: m.KVHeads, HeadDim: m.HeadDim,
		Vocab: m.Vocab, Context: m.Context, Tied: x.Tied, DType: m.DType, Intermediate: int(x.Intermediate), Eps: 1e-6,
	}
	if x.Eps != nil {
		c.Eps = float32(*x.Eps)
	}
	if err := c.rope(&x); err != nil {
		return nil, err
	}
	if err := c.check(m, &x); err != nil {
		return nil, err
	}
	c.EOS = tokenIDs(x.EOS)
	var g struct {
		EOS json.RawMessage `json:"eos_token_id"`
	}
	if json.Unmarshal(generation, &g) == nil {
		c.EOS = append(c.EOS, tokenIDs(g.EOS)...)
	}
	slices.Sort(c.EOS)
	c.EOS = slices.Compact(c.EOS)
	return c, nil
}

// rope takes the frequencies from the fields of either version of transformers.
func (c *Config) rope(x *extraConfig) error {
	c.Theta = x.Theta
	for _, r := range []*Rope{x.Scaling, x.Parameters} {
		if r != nil {
			c.Rope = *r
		}
	}
	if c.Rope.Theta > 0 {
		c.Theta = c.Rope.Theta
	}
	if c.Theta == 0 {
		c.Theta = 10000 // the default of transformers
	}
	if c.Rope.Type == "" {
		c.Rope.Type = c.Rope.OldType
	}
	switch c.Rope.Type {
	case "", "default":
		c.Rope.Type = "default"
	case "linear":
		if c.Rope.Factor < 1 || c.Rope.Factor > 1e6 {
			return &model.BadConfigError{File: "config.json", Why: fmt.Sprintf("the factor of its linear positions is %g", c.Rope.Factor)}
		}
	case "llama3":
		r := c.Rope
		if r.Factor < 1 || r.Factor > 1e6 || r.Low <= 0 || r.High <= r.Low || r.Original < 1 {
			return &model.BadConfigError{File: "config.json", Why: "the numbers of its llama3 positions make no sense"}
		}
	default:
		return unsupported("its positions are of type %.40q; known are default, linear and llama3", c.Rope.Type)
	}
	if c.Theta < 1 || math.IsInf(c.Theta, 0) {
		return &model.BadConfigError{File: "config.json", Why: fmt.Sprintf("rope_theta is %g", c.Theta)}
	}
	return nil
}

func (c *Config) check(m *model.Model, x *extraConfig) error {
	switch {
	case m.Experts > 0:
		return unsupported("it has %d experts", m.Experts)
	case x.HiddenAct != "" && x.HiddenAct != "silu" && x.HiddenAct != "swish":
		return unsupported("its activation is %.40q, not silu", x.HiddenAct)
	case x.PartialRotary != nil && *x.PartialRotary != 1:
		return unsupported("only a part of each head is rotated (partial_rotary_factor %g)", *x.PartialRotary)
	case m.Window > 0 && m.Window < m.Context && (x.UseSliding == nil || *x.UseSliding):
		return unsupported("it attends to a sliding window of %d tokens", m.Window)
	}
	bad := func(format string, args ...any) error {
		return &model.BadConfigError{File: "config.json", Why: fmt.Sprintf(format, args...)}
	}
	switch {
	case c.Heads < 1 || c.KVHeads < 1 || c.Heads%c.KVHeads != 0:
		return bad("%d heads cannot share %d heads of keys", c.Heads, c.KVHeads)
	case c.HeadDim < 2 || c.HeadDim%2 != 0:
		return bad("head_dim is %d", c.HeadDim)
	case c.Intermediate < 1 || c.Intermediate > 1<<20:
		return bad("intermediate_size is %d", c.Intermediate)
	case c.Context < 1:
		return bad("max_position_embeddings is %d", c.Context)
	case !(c.Eps >= 0 && c.Eps < 1):
		return bad("rms_norm_eps is %g", c.Eps)
	case c.Hidden > maxHidden || c.Vocab > maxVocab || c.Heads*c.HeadDim > maxHidden || c.Layers > 512:
		return unsupported("it is too large: %d layers of width %d, %d words", c.Layers, c.Hidden, c.Vocab)
	}
	return nil
}

// tokenIDs reads a token id or a list of them; whatever else gives none.
func tokenIDs(b json.RawMessage) []int32 {
	var one int32
	if json.Unmarshal(b, &one) == nil && len(b) > 0 && string(b) != "null" {
		return []int32{one}
	}
	var many []int32
	if json.Unmarshal(b, &many) == nil {
		return many
	}
	return nil
}

// frequencies are the angles that one position more turns each pair of a head
// by (huggingface/transformers src/transformers/modeling_rope_utils.py).
func (c *Config) frequencies() []float64 {
	out := make([]float64, c.HeadDim/2)
	for i := range out {
		f := 1 / math.Pow(c.Theta, float64(2*i)/float64(c.HeadDim))
		switch c.Rope.Type {
		case "linear":
			f /= c.Rope.Factor
		case "llama3":
			f = c.Rope.llama3(f)
		}
		out[i] = f
	}
	return out
}

func (r *Rope) llama3(f float64) float64 {
	wave := 2 * math.Pi / f
	switch {
	case wave < r.Original/r.High:
		return f
	case wave > r.Original/r.Low:
		return f / r.Factor
	}
	smooth := (r.Original/wave - r.Low) / (r.High - r.Low)
	return (1-smooth)*f/r.Factor + smooth*f
}

// ReadSmall reads a file of a checkpoint whole; nil where it is not there. One of
// more than so many bytes is a [*model.BadConfigError].
func ReadSmall(ctx context.Context, src model.Source, name string, most int64) ([]byte, error) {
	f, err := src.Open(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	defer f.Close()
	if f.Size() > most {
		return nil, &model.BadConfigError{File: name, Why: fmt.Sprintf("it has %d bytes, more than %d", f.Size(), most)}
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}
