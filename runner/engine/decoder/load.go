package decoder

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/runner/engine/kernel"
)

// LoadConfig says how to read a checkpoint. The zero value is ready.
type LoadConfig struct {
	ID string // what the name of the model claims
	// WeightOnly leaves inputs of NVFP4 weights as they are, whatever the
	// checkpoint asks for, as GPUs without FP4 arithmetic do (W4A16).
	WeightOnly bool
	// Float32 computes without rounding to BF16 in between.
	Float32 bool
	// MaxBytes bounds the weights, 0 means 16 GiB.
	MaxBytes int64
}

// Model is a loaded model. It is only read while it computes.
type Model struct {
	Config  Config
	Facts   *model.Model
	Float32 bool
	Bytes   int64 // of all weights that one token reads

	embed, head *kernel.Matrix
	norm        []float32
	layers      []layer
}

// layer is one block of the decoder.
type layer struct {
	attnNorm, mlpNorm, qNorm, kNorm []float32
	q, k, v, o, gate, up, down      *kernel.Matrix
}

// Linear is a matrix of a layer by its name in the checkpoint.
type Linear struct {
	Name   string // model.layers.0.self_attn.q_proj
	Matrix *kernel.Matrix
}

// Load reads a checkpoint. Errors: [*UnsupportedError], [*MismatchError],
// [*model.BadConfigError] and those of the source.
func Load(ctx context.Context, src model.Source, cfg LoadConfig) (*Model, error) {
	ck, err := model.ReadCheckpoint(ctx, src, model.CheckpointConfig{ID: cfg.ID})
	if err != nil {
		return nil, fmt.Errorf("read checkpoint: %w", err)
	}
	config, err := ReadSmall(ctx, src, "config.json", model.MaxConfig)
	if err != nil {
		return nil, err
	}
	generation, err := ReadSmall(ctx, src, "generation_config.json", model.MaxConfig)
	if err != nil {
		return nil, err
	}
	c, err := ParseConfig(ck.Model, config, generation)
	if err != nil {
		return nil, err
	}
	l := &loader{ctx: ctx, src: src, cfg: cfg, ck: ck, stored: map[string]*model.Stored{}, inputs: map[string]*model.Tensor{}, files: map[string]model.File{}, modules: map[string]*model.Module{}}
	defer l.close()
	if err := l.index(); err != nil {
		return nil, err
	}
	m := &Model{Config: *c, Facts: ck.Model, Float32: cfg.Float32 || c.DType == model.FormatFP32}
	if err := l.model(m); err != nil {
		return nil, err
	}
	return m, nil
}

// loader reads the weights of one checkpoint.
type loader struct {
	ctx     context.Context
	src     model.Source
	cfg     LoadConfig
	ck      *model.Checkpoint
	stored  map[string]*model.Stored
	inputs  map[string]*model.Tensor // scales of inputs
	files   map[string]model.File
	fileOf  map[string]string // by tensor
	modules map[string]*model.Module
	used    map[string]bool
}

func (l *loader) close() {
	for _, f := range l.files {
		_ = f.Close() // only read from
	}
}

// index finds what is stored, and refuses what is not whole.
func (l *loader) index() error {
	for _, p := range l.ck.Problems {
		switch p.Code {
		case "parameters_differ": // said better tensor by tensor
		default:
			return mismatch("%s: %s", p.Where, p.Message)
		}
	}
	most := cmp.Or(l.cfg.MaxBytes, 16<<30)
	if l.ck.Census.Bytes > most {
		return unsupported("its weights have %d MiB, more than %d", l.ck.Census.Bytes>>20, most>>20)
	}
	l.fileOf, l.used = map[string]string{}, map[string]bool{}
	for i := range l.ck.Census.Stored {
		s := &l.ck.Census.Stored[i]
		l.stored[s.Name] = s
	}
	for i := range l.ck.Model.Modules {
		m := &l.ck.Model.Modules[i]
		l.modules[m.Name] = m
	}
	for _, shard := range l.ck.Shards {
		for i := range shard.Header.Tensors {
			t := &shard.Header.Tensors[i]
			l.fileOf[t.Name] = shard.File
			if base, ok := strings.CutSuffix(t.Name, ".input_scale"); ok {
				l.inputs[base] = t
			} else if base, ok := strings.CutSuffix(t.Name, ".input_global_scale"); ok {
				l.inputs[base] = t
			}
		}
	}
	return nil
}

func (l *loader) model(m *Model) error {
	c := &m.Config
	var err error
	take := func(dst **kernel.Matrix, name string, rows, cols int) {
		if err == nil {
			*dst, err = l.matrix(name, rows, cols)
		}
	}
	vector := func(dst *[]float32, name string, n int) {
		if err == nil {
			*dst, err = l.vector(name, n)
		}
	}
	take(&m.embed, "model.embed_tokens", c.Vocab, c.Hidden)
	m.layers = make([]layer, c.Layers)
	attn, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	for i := range m.layers {
		y, at := &m.layers[i], fmt.Sprintf("model.layers.%d.", i)
		vector(&y.attnNorm, at+"input_layernorm", c.Hidden)
		vector(&y.mlpNorm, at+"post_attention_layernorm", c.Hidden)
		take(&y.q, at+"self_attn.q_proj", attn, c.Hidden)
		take(&y.k, at+"self_attn.k_proj", kv, c.Hidden)
		take(&y.v, at+"self_attn.v_proj", kv, c.Hidden)
		take(&y.o, at+"self_attn.o_proj", c.Hidden, attn)
		take(&y.gate, at+"mlp.gate_proj", c.Intermediate, c.Hidden)
		take(&y.up, at+"mlp.up_proj", c.Intermediate, c.Hidden)
		take(&y.down, at+"mlp.down_proj", c.Hidden, c.Intermediate)
		if families[c.Type].qkNorm {
			vector(&y.qNorm, at+"self_attn.q_norm", c.HeadDim)
			vector(&y.kNorm, at+"self_attn.k_norm", c.HeadDim)
		}
		if err == nil && families[c.Type].qkvBias && (y.q.Bias == nil || y.k.Bias == nil || y.v.Bias == nil) {
			err = mismatch("%sself_attn has no biases, which %s has", at, c.Type)
		}
		if err != nil {
			return err
		}
		shareInputs(y.q, y.k, y.v)
		shareInputs(y.gate, y.up)
	}
	vector(&m.norm, "model.norm", c.Hidden)
	switch _, own := l.stored["lm_head"]; {
	case c.Tied:
		m.head = m.embed
		l.used["lm_head"] = true // left by some exporters; transformers ties all the same
	case own:
		take(&m.head, "lm_head", c.Vocab, c.Hidden)
	default:
		return mismatch("lm_head.weight is missing, and tie_word_embeddings is not set")
	}
	if err != nil {
		return err
	}
	for _, x := range m.Linears() {
		m.Bytes += x.Matrix.Bytes()
	}
	m.Bytes += m.head.Bytes()
	return l.rest()
}

// rest refuses weights that the computation would silently leave out.
func (l *loader) rest() error {
	var left []string
	for name := range l.stored {
		if !l.used[name] && !strings.HasSuffix(name, "rotary_emb.inv_freq") {
			left = append(left, name)
		}
	}
	if len(left) == 0 {
		return nil
	}
	slices.Sort(left)
	return mismatch("%d tensors are not of a %s of %d layers, the first is %.100q", len(left), l.ck.Model.Type, l.ck.Model.Layers, left[0])
}

// shareInputs gives matrices that read the same input the same scale for it: the
// largest, as vLLM does when it fuses them.
func shareInputs(ms ...*kernel.Matrix) {
	var most float32
	for _, m := range ms {
		if m.InputScale == 0 {
			return
		}
		most = max(most, m.InputScale)
	}
	for _, m := range ms {
		m.InputScale = most
	}
}

// Linears lists the matrices of the layers, in the order of the computation.
func (m *Model) Linears() []Linear {
	var out []Linear
	for i := range m.layers {
		y, at := &m.layers[i], fmt.Sprintf("model.layers.%d.", i)
		out = append(out, Linear{at + "self_attn.q_proj", y.q}, Linear{at + "self_attn.k_proj", y.k}, Linear{at + "self_attn.v_proj", y.v},
			Linear{at + "self_attn.o_proj", y.o}, Linear{at + "mlp.gate_proj", y.gate}, Linear{at + "mlp.up_proj", y.up}, Linear{at + "mlp.down_proj", y.down})
	}
	return out
}

// find is a stored weight of a shape.
func (l *loader) find(name string, shape ...int64) (*model.Stored, error) {
	s := l.stored[name]
	if s == nil {
		return nil, mismatch("%s.weight is missing", name)
	}
	if !slices.Equal(s.Shape, shape) {
		return nil, mismatch("%s.weight has the shape %v, want %v", name, s.Shape, shape)
	}
	l.used[name] = true
	return s, nil
}

func (l *loader) file(tensor string) (model.File, error) {
	name := l.fileOf[tensor]
	if f := l.files[name]; f != nil {
		return f, nil
	}
	f, err := l.src.Open(l.ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	l.files[name] = f
	return f, nil
}

// bytes reads a tensor as it is stored.
func (l *loader) bytes(t *model.Tensor) ([]byte, error) {
	if err := l.ctx.Err(); err != nil {
		return nil, err
	}
	f, err := l.file(t.Name)
	if err != nil {
		return nil, err
	}
	b := make([]byte, t.Bytes())
	if _, err := io.ReadFull(io.NewSectionReader(f, t.Begin, t.Bytes()), b); err != nil {
		return nil, fmt.Errorf("read tensor %s: %w", t.Name, err)
	}
	return b, nil
}

// floats reads a small tensor of floats.
func (l *loader) floats(t *model.Tensor) ([]float32, error) {
	b, err := l.bytes(t)
	if err != nil {
		return nil, err
	}
	out := make([]float32, t.Elements())
	switch t.DType {
	case "F32":
		kernel.Decode(out, model.FormatFP32, b, nil)
	case "BF16":
		kernel.Decode(out, model.FormatBF16, b, nil)
	case "F16":
		w, err := model.OpenWeight(&model.Stored{Name: t.Name, Format: model.FormatFP16, Shape: []int64{1, t.Elements()}, Weight: &model.Tensor{Name: t.Name, End: t.Bytes()}},
			func(*model.Tensor) io.ReaderAt { return bytes.NewReader(b) })
		if err != nil {
			return nil, err
		}
		if err := w.ReadRows(out, 0, 1); err != nil {
			return nil, err
		}
	default:
		return nil, mismatch("%s is of type %s, want floats", t.Name, t.DType)
	}
	for i, v := range out {
		if v != v || math.IsInf(float64(v), 0) {
			return nil, mismatch("value %d of %s is %g", i, t.Name, v)
		}
	}
	return out, nil
}

func (l *loader) vector(name string, n int) ([]float32, error) {
	s, err := l.find(name, int64(n))
	if err != nil {
		return nil, err
	}
	return l.floats(s.Weight)
}

// scale reads a tensor of one float.
func (l *loader) scale(t *model.Tensor) (float32, error) {
	if t.Elements() != 1 {
		return 0, mismatch("%s has %d values, want one", t.Name, t.Elements())
	}
	v, err := l.floats(t)
	if err != nil {
		return 0, err
	}
	if v[0] <= 0 {
		return 0, mismatch("%s is %g, and a scale is positive", t.Name, v[0])
	}
	return v[0], nil
}

// matrix reads a weight with what belongs to it.
func (l *loader) matrix(name string, rows, cols int) (*kernel.Matrix, error) {
	s, err := l.find(name, int64(rows), int64(cols))
	if err != nil {
		return nil, err
	}
	m := &kernel.Matrix{Rows: rows, Cols: cols, Format: s.Format}
	switch s.Format {
	case model.FormatFP16:
		m.Format = model.FormatFP32
		v, err := l.floats(s.Weight)
		if err != nil {
			return nil, err
		}
		m.Data = make([]byte, 0, 4*len(v))
		for _, x := range v {
			m.Data = binary.LittleEndian.AppendUint32(m.Data, math.Float32bits(x))
		}
	case model.FormatBF16, model.FormatFP32, model.FormatFP8, model.FormatNVFP4:
		if m.Data, err = l.bytes(s.Weight); err != nil {
			return nil, err
		}
	default:
		return nil, unsupported("%s is stored as %s", name, s.Format)
	}
	if err := l.scales(m, s); err != nil {
		return nil, err
	}
	if b := l.stored[name+".bias"]; b != nil {
		if m.Bias, err = l.vector(name+".bias", rows); err != nil {
			return nil, err
		}
	}
	if err := m.Check(); err != nil {
		return nil, mismatch("%s: %v", name, err)
	}
	return m, nil
}

// scales reads the scales of a quantised weight and how its inputs are rounded.
func (l *loader) scales(m *kernel.Matrix, s *model.Stored) error {
	var err error
	switch s.Format {
	case model.FormatFP8:
		if slices.ContainsFunc(m.Data, func(c byte) bool { return c&0x7F == model.NaNE4M3 }) {
			return mismatch("%s.weight holds values that are not a number", s.Name)
		}
		switch {
		case s.Scale == nil:
			return mismatch("%s.weight_scale is missing", s.Name)
		case s.Rows == 0 && s.Cols == 0:
			m.Scale, err = l.scale(s.Scale)
		case s.Rows == 1 && s.Cols == 0:
			m.RowScales, err = l.floats(s.Scale)
		default:
			return unsupported("%s has an FP8 scale for blocks of %d×%d", s.Name, s.Rows, s.Cols)
		}
	case model.FormatNVFP4:
		if m.Scales, err = l.bytes(s.Scale); err != nil {
			return err
		}
		if slices.ContainsFunc(m.Scales, func(c byte) bool { return c&0x7F == model.NaNE4M3 }) {
			return mismatch("%s.weight_scale holds values that are not a number", s.Name)
		}
		m.Scale, err = l.scale(s.Global)
		if s.Inverse {
			m.Scale = 1 / m.Scale
		}
	default:
		if module := l.modules[s.Name]; module != nil && l.ck.Model.Quant.Of(module) != nil {
			return mismatch("%s is stored as %s, and the quantisation metadata says %s", s.Name, s.Format, l.ck.Model.Quant.Of(module).Weights)
		}
		return nil
	}
	if err != nil {
		return err
	}
	return l.activations(m, s)
}

// activations says how the inputs of a quantised weight are rounded.
func (l *loader) activations(m *kernel.Matrix, s *model.Stored) error {
	module := l.modules[s.Name]
	if module == nil {
		return nil
	}
	scheme := l.ck.Model.Quant.Of(module)
	if scheme == nil {
		return mismatch("%s is stored as %s, and the quantisation metadata leaves it alone", s.Name, s.Format)
	}
	if scheme.Weights != s.Format {
		return mismatch("%s is stored as %s, and the quantisation metadata says %s", s.Name, s.Format, scheme.Weights)
	}
	if scheme.Activations == "" || l.cfg.WeightOnly && s.Format == model.FormatNVFP4 {
		return nil
	}
	m.Activations = scheme.Activations
	if !scheme.Static {
		return nil
	}
	t := l.inputs[s.Name]
	if t == nil {
		return mismatch("%s.input_scale is missing, and the quantisation metadata asks for calibrated inputs", s.Name)
	}
	v, err := l.scale(t)
	if strings.HasSuffix(t.Name, ".input_global_scale") {
		v = 1 / v
	}
	m.InputScale = v
	return err
}
