// Package serving says how a language model runs on GPUs: whether it fits, on
// how many GPUs, with which batch, and how fast it reads and writes tokens.
//
// The time of a step is a sum of physical parts, each at the rate of the
// catalogue times its own efficiency: weights and cache read from memory,
// arithmetic of weights and of attention, communication, and a fixed time per
// layer and per sequence. The efficiencies come from outside, as a [Coef]; the
// package holds physics only.
package serving

import (
	"fmt"
	"strings"

	"github.com/repromill/repromill/planner/model"
)

// Precision is the format that a model is served in. Empty parts mean what the
// checkpoint says.
type Precision struct {
	Weights     model.Format `json:"weights,omitempty"`
	Activations model.Format `json:"activations,omitempty"`
	KV          model.Format `json:"kv,omitempty"`
}

// String is the form of [ParsePrecision].
func (p Precision) String() string {
	return short(p.Weights) + "/" + short(p.Activations) + "/" + short(p.KV)
}

func short(f model.Format) string {
	switch f {
	case model.FormatFP8:
		return "fp8"
	case "":
		return "?"
	}
	return string(f)
}

// ParsePrecision reads "nvfp4", or "nvfp4/nvfp4/fp8": weights, activations and
// cache. A part that is missing follows from the others: activations are those
// that the weights' format is made for, the cache has 8 bits beside quantised
// activations and 16 otherwise.
func ParsePrecision(s string) (Precision, error) {
	parts := strings.Split(strings.ToLower(strings.TrimSpace(s)), "/")
	if len(parts) > 3 {
		return Precision{}, &InputError{fmt.Sprintf("precision %.40q has more than three parts", s), precisionFix}
	}
	var f [3]model.Format
	for i, p := range parts {
		got, ok := formatNames[strings.TrimSpace(p)]
		if !ok {
			return Precision{}, &InputError{fmt.Sprintf("unknown number format %.20q in precision %.40q", p, s), precisionFix}
		}
		f[i] = got
	}
	p := Precision{f[0], f[1], f[2]}
	if p.Activations == "" {
		p.Activations = p.Weights
		if p.Weights == model.FormatMXFP4 || p.Weights == model.FormatINT4 {
			p.Activations = model.FormatBF16
		}
	}
	if p.KV == "" {
		p.KV = model.FormatBF16
		if bits(p.Activations) < 16 {
			p.KV = model.FormatFP8
		}
	}
	return p, nil
}

const precisionFix = "write bf16, fp8, nvfp4, mxfp4, int8 or int4, or weights/activations/cache such as nvfp4/nvfp4/fp8"

var formatNames = map[string]model.Format{
	"bf16": model.FormatBF16, "fp16": model.FormatFP16, "fp8": model.FormatFP8, "fp8_e4m3": model.FormatFP8, "nvfp4": model.FormatNVFP4,
	"fp4": model.FormatNVFP4, "mxfp4": model.FormatMXFP4, "mxfp8": model.FormatMXFP8, "int8": model.FormatINT8, "int4": model.FormatINT4, "fp32": model.FormatFP32,
}

// bits is the width of an element without its scales.
func bits(f model.Format) float64 {
	switch f {
	case model.FormatFP32:
		return 32
	case model.FormatFP8, model.FormatMXFP8, model.FormatINT8:
		return 8
	case model.FormatNVFP4, model.FormatMXFP4, model.FormatINT4:
		return 4
	}
	return 16
}

// weightBytes is the size of a parameter with its share of the scales.
func weightBytes(f model.Format) float64 {
	switch f {
	case model.FormatNVFP4:
		return 0.5625 // an 8-bit scale for 16
	case model.FormatMXFP4:
		return 0.53125 // an 8-bit scale for 32
	case model.FormatINT4:
		return 0.516 // a 16-bit scale for 128
	case model.FormatMXFP8:
		return 1.03125
	}
	return bits(f) / 8
}

// InputError is a request that cannot be answered, with the fix.
type InputError struct{ Problem, Fix string }

func (e *InputError) Error() string { return e.Problem }

// UserError is what the user can do.
func (e *InputError) UserError() string { return e.Fix }

// Group is a part of the weights in one format.
type Group struct {
	Expert    bool // read as far as tokens choose it
	Attention bool // replicated where attention runs data-parallel
	Params    float64
	Active    float64 // parameters that one token multiplies with
	Bytes     float64
	Weights   model.Format
	Acts      model.Format
}

// Shape is what the time and memory models need to know of a checkpoint.
type Shape struct {
	Name    string
	Layers  int
	Hidden  int
	Heads   int
	KVHeads int
	Vocab   int
	Context int // 0 is unknown
	Experts int
	Used    int
	MoE     float64 // share of layers with experts
	MLA     bool
	Linear  float64 // share of layers with a fixed state instead of a growing cache

	Groups   []Group
	Resident float64 // bytes that lie in memory and are not read in a step
	KVBytes  float64 // of an element of the cache
	State    float64 // bytes of a sequence whatever its length
	Cache    model.Cache
	// PairPrefill and PairDecode are the operations of one layer for one query
	// token and one token of context. MLA decodes in its compressed space.
	PairPrefill float64
	PairDecode  float64

	Total float64 // parameters
	Precision
	Warnings []string // what had to be assumed
	// Alternative is the same model in the format to compare with, NVFP4 beside
	// FP8; nil where the caller gave none.
	Alternative *Shape
}

// NewShape reads what a configuration describes, served in a precision. Where
// the checkpoint's own metadata state the format asked for, they say which
// modules have it; otherwise the makers' habits do: linear modules except the
// head, and in mixtures of experts with 4 bits the experts alone.
func NewShape(m *model.Model, p Precision) (*Shape, error) {
	if m == nil || m.Layers <= 0 || m.Hidden <= 0 || len(m.Modules) == 0 {
		return nil, &InputError{"the configuration describes no language model", "estimates are for models whose config.json names layers and sizes"}
	}
	s := &Shape{
		Name: m.ID, Layers: m.Layers, Hidden: m.Hidden, Heads: m.Heads, KVHeads: m.KVHeads, Vocab: m.Vocab, Context: m.Context,
		Experts: m.Experts, Used: m.ExpertsUsed, Cache: m.Cache, Total: float64(m.Params.Total),
	}
	for _, w := range m.Warnings {
		if w.Code == "unknown_architecture" || w.Code == "dtype_assumed" || w.Code == "format_unknown" || w.Code == "unknown_format" {
			s.Warnings = append(s.Warnings, w.Message)
		}
	}
	native := s.setPrecision(m, p)
	s.addGroups(m, native)
	s.attention(m)
	s.KVBytes = bits(s.KV) / 8
	s.State = float64(m.Cache.StateBytes(2))
	return s, nil
}

// setPrecision fills the precision and reports whether the checkpoint's own
// formats are used.
func (s *Shape) setPrecision(m *model.Model, p Precision) (native bool) {
	lead := model.FormatBF16 // the format of most quantised parameters
	var acts model.Format
	var most int64
	for _, f := range m.Formats {
		if f.Algo != "" && f.Params > most && f.Weights != model.FormatUnknown {
			most, lead = f.Params, f.Weights
			acts = mathActs(f.Math, f.Weights)
		}
	}
	if most == 0 {
		acts = model.FormatBF16
		if claim := formatNames[strings.ToLower(m.Claims)]; p.Weights == "" && claim != "" && bits(claim) < 16 {
			lead, acts = claim, claim
			s.Warnings = append(s.Warnings, fmt.Sprintf("the checkpoint's metadata were not given; its name claims %s, which was taken for its linear modules", m.Claims))
			p.Weights = claim
		}
	}
	native = p.Weights == "" || (p.Weights == lead && most > 0) || (bits(p.Weights) == 16 && most == 0)
	s.Precision = p
	if p.Weights == "" {
		s.Weights = lead
	}
	if p.Activations == "" {
		s.Activations = acts
		if !native {
			s.Activations = s.Weights
		}
	}
	if p.KV == "" {
		s.KV = model.FormatBF16
		if m.Quant != nil && m.Quant.KV != "" {
			s.KV = m.Quant.KV
		}
	}
	return native
}

// mathActs is the format of the activations in "w4a8".
func mathActs(math string, weights model.Format) model.Format {
	switch {
	case strings.HasSuffix(math, "a16"):
		return model.FormatBF16
	case strings.HasSuffix(math, "a8") && bits(weights) == 4:
		return model.FormatFP8
	}
	return weights
}

// addGroups sums the modules of the text model.
func (s *Shape) addGroups(m *model.Model, native bool) {
	head := false
	moeLayers := map[int]bool{}
	for i := range m.Modules {
		head = head || m.Modules[i].Part == model.Head
		if m.Modules[i].Part == model.Expert {
			moeLayers[m.Modules[i].Layer] = true
		}
	}
	s.MoE = float64(len(moeLayers)) / float64(s.Layers)
	index := map[Group]int{}
	for i := range m.Modules {
		mod := &m.Modules[i]
		weights, acts, bytes := s.format(m, mod, native)
		if mod.Part == model.Vision || mod.Part == model.MTP || (mod.Part == model.Embedding && head) {
			if mod.Part != model.MTP {
				s.Resident += bytes
			}
			continue
		}
		key := Group{Expert: mod.Part == model.Expert, Weights: weights, Acts: acts}
		key.Attention = mod.Part == model.Attention || mod.Part == model.LinearAttn || mod.Part == model.Mamba
		at, ok := index[key]
		if !ok {
			at = len(s.Groups)
			index[key] = at
			s.Groups = append(s.Groups, key)
		}
		g := &s.Groups[at]
		n := float64(mod.Params())
		g.Params += n
		g.Bytes += bytes
		if copies := max(1, mod.Copies); mod.Active > 0 {
			n *= float64(mod.Active) / float64(copies)
		}
		g.Active += n
	}
}

// format is what a module is stored in and computed with.
func (s *Shape) format(m *model.Model, mod *model.Module, native bool) (weights, acts model.Format, bytes float64) {
	n := float64(mod.Params())
	if native {
		if sc := m.Quant.Of(mod); sc != nil && sc.Weights != model.FormatUnknown {
			copies := int64(max(1, mod.Copies))
			acts = sc.Activations
			if acts == "" {
				acts = model.FormatBF16
			}
			// Engines compute MXFP4 with what the request says.
			if s.Activations != "" && sc.Weights == s.Weights {
				acts = s.Activations
			}
			return sc.Weights, acts, float64(sc.Bytes(int64(mod.Out), int64(mod.In)) * copies)
		}
		return model.FormatBF16, model.FormatBF16, 2 * n
	}
	quantised := mod.Linear && mod.Part != model.Head && mod.Part != model.Vision
	if bits(s.Weights) == 4 && m.Experts > 0 {
		quantised = quantised && (mod.Part == model.Expert || mod.Part == model.SharedExpert || mod.Part == model.MLP)
	}
	if !quantised || bits(s.Weights) >= 16 {
		return model.FormatBF16, model.FormatBF16, 2 * n
	}
	return s.Weights, s.Activations, weightBytes(s.Weights) * n
}

// attention counts the operations of attention, and which kinds there are.
func (s *Shape) attention(m *model.Model) {
	states := 0
	for _, g := range m.Cache.States {
		states += g.Layers
	}
	s.Linear = min(1, float64(states)/float64(s.Layers))
	qk, v := float64(m.HeadDim), float64(m.HeadDim)
	latent := 0.0
	for _, g := range m.Cache.KV {
		if g.Kind == "mla" {
			s.MLA, latent = true, float64(g.Elements)
		}
	}
	if s.MLA && m.Heads > 0 {
		for i := range m.Modules {
			mod := &m.Modules[i]
			switch {
			case mod.Part != model.Attention:
			case strings.HasSuffix(mod.Name, "q_b_proj"), strings.HasSuffix(mod.Name, "q_proj"):
				qk = float64(mod.Out) / float64(m.Heads)
			case strings.HasSuffix(mod.Name, "o_proj"):
				v = float64(mod.In) / float64(m.Heads)
			}
		}
	}
	s.PairPrefill = 2 * float64(m.Heads) * (qk + v)
	s.PairDecode = s.PairPrefill
	if s.MLA {
		s.PairDecode = 2 * float64(m.Heads) * 1.89 * latent // keys 576 of 576, values 512 of 576
	}
}

// Plain describes a decoder by its size alone.
type Plain struct {
	Name                             string
	Layers, Hidden, KVHeads, HeadDim int
	Total, Active                    float64 // parameters; Active 0 means all
}

// PlainShape is the shape of a decoder whose configuration is not at hand:
// dense unless fewer parameters are active, with a vocabulary of 128,000.
func PlainShape(d Plain, p Precision) *Shape {
	const vocab = 128_000
	embed := min(float64(vocab)*float64(d.Hidden), d.Total/4)
	if gap := d.Total - d.Active; d.Active >= 0.7*d.Total && gap > 0 && gap < embed {
		embed = gap // active parameters leave the input embedding out
	}
	s := &Shape{
		Name: d.Name, Layers: d.Layers, Hidden: d.Hidden, Heads: max(1, d.Hidden/max(1, d.HeadDim)), KVHeads: d.KVHeads, Vocab: vocab, Total: d.Total, Precision: p,
		Cache:    model.Cache{KV: []model.KVGroup{{Kind: "gqa", Layers: d.Layers, Elements: 2 * d.KVHeads * d.HeadDim, Heads: d.KVHeads}}},
		KVBytes:  bits(p.KV) / 8,
		Resident: 2 * embed,
		Warnings: []string{"no configuration was given: a plain decoder of the stated size was assumed"},
	}
	s.PairPrefill = 4 * float64(d.Hidden)
	s.PairDecode = s.PairPrefill
	body := d.Total - 2*embed
	attn := min(body/2, float64(d.Layers)*float64(d.Hidden)*(2*float64(d.Hidden)+2*float64(d.KVHeads*d.HeadDim)))
	add := func(g Group) {
		g.Bytes = g.Params * weightBytes(g.Weights)
		s.Groups = append(s.Groups, g)
	}
	add(Group{Params: embed, Active: embed, Weights: model.FormatBF16, Acts: model.FormatBF16})
	add(Group{Attention: true, Params: attn, Active: attn, Weights: p.Weights, Acts: p.Activations})
	rest := Group{Params: body - attn, Active: body - attn, Weights: p.Weights, Acts: p.Activations}
	if d.Active > 0 && d.Active < 0.7*d.Total {
		rest.Expert, rest.Active = true, max(d.Active-embed-attn, body/100)
		s.Experts, s.MoE = 128, 1
		s.Used = max(1, int(128*rest.Active/rest.Params))
		s.Warnings = append(s.Warnings, "128 experts a layer were assumed")
	}
	add(rest)
	return s
}
