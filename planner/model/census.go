package model

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Census is what the tensors of a checkpoint are, by their names, types and
// shapes alone.
type Census struct {
	Params   int64         `json:"params"` // weights, packed ones counted one by one; scales are none
	Bytes    int64         `json:"bytes"`  // of all tensors
	Formats  []FormatShare `json:"formats"`
	Stored   []Stored      `json:"-"` // by name
	Problems []Problem     `json:"problems,omitempty"`
}

// Stored is one weight as it lies in a checkpoint.
type Stored struct {
	Name   string  `json:"name"` // of the module or parameter, without ".weight"
	Format Format  `json:"format"`
	Shape  []int64 `json:"shape"` // of the values, unpacked
	Params int64   `json:"params"`
	Bytes  int64   `json:"bytes"` // with scales
	// Rows and Cols of the block that shares a scale, as in [Scheme].
	Rows int `json:"rows,omitempty"`
	Cols int `json:"cols,omitempty"`
	// Inverse says that the global scale divides (compressed-tensors).
	Inverse bool `json:"inverse,omitempty"`
	// Calibrated says that a scale for the activations is stored. ModelOpt
	// stores one also where activations are not quantised.
	Calibrated bool `json:"calibrated,omitempty"`

	Weight, Scale, Global *Tensor `json:"-"`
}

// The names under which exporters store what belongs to a weight.
var (
	weightNames = []string{".weight_packed", ".weight", "_blocks", ".qweight"}
	scaleNames  = []string{".weight_scale", ".weight_scale_inv", "_scales", ".scales"}
	globalNames = []string{".weight_scale_2", ".weight_global_scale"}
	inputNames  = []string{".input_scale", ".input_global_scale"}
	extraNames  = []string{".qzeros", ".g_idx", ".k_scale", ".v_scale", ".k_proj.output_scale", ".v_proj.output_scale", ".pre_quant_scale", ".weight_shape"}
)

// group is what belongs to one name.
type group struct {
	weight, scale, global, input *Tensor
	weightName                   string
	extra                        int64 // bytes
}

// TakeCensus sorts the tensors of a checkpoint, of all its files together, into
// weights with their scales.
func TakeCensus(tensors []Tensor) *Census {
	c := &Census{}
	groups := map[string]*group{}
	of := func(base string) *group {
		g := groups[base]
		if g == nil {
			g = &group{}
			groups[base] = g
		}
		return g
	}
	for i := range tensors {
		t := &tensors[i]
		c.Bytes += t.Bytes()
		if base, ok := cutAny(t.Name, extraNames); ok {
			of(base).extra += t.Bytes()
		} else if base, ok := cutAny(t.Name, globalNames); ok {
			of(base).global = t
		} else if base, ok := cutAny(t.Name, inputNames); ok {
			of(base).input = t
		} else if base, ok := cutAny(t.Name, scaleNames); ok {
			of(base).scale = t
		} else if base, ok := cutAny(t.Name, weightNames); ok {
			g := of(base)
			g.weight, g.weightName = t, strings.TrimPrefix(t.Name, base)
		} else {
			of(t.Name).weight = t
		}
	}
	for name, g := range groups {
		c.store(name, g)
	}
	slices.SortFunc(c.Stored, func(a, b Stored) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(c.Problems, func(a, b Problem) int { return cmp.Or(cmp.Compare(a.Where, b.Where), cmp.Compare(a.Code, b.Code)) })
	c.share()
	return c
}

func cutAny(name string, suffixes []string) (string, bool) {
	for _, s := range suffixes {
		if base, ok := strings.CutSuffix(name, s); ok {
			return base, true
		}
	}
	return name, false
}

func (c *Census) problem(code, where, format string, args ...any) {
	c.Problems = append(c.Problems, Problem{code, where, fmt.Sprintf(format, args...)})
}

// store decides what one group is.
func (c *Census) store(name string, g *group) {
	w := g.weight
	if w == nil {
		if g.scale != nil || g.global != nil || g.input != nil {
			c.problem("scale_without_weight", name, "scales are stored and no weight")
		}
		return
	}
	s := Stored{Name: name, Shape: w.Shape, Weight: w, Scale: g.scale, Global: g.global, Calibrated: g.input != nil, Bytes: w.Bytes() + g.extra}
	for _, t := range []*Tensor{g.scale, g.global, g.input} {
		if t != nil {
			s.Bytes += t.Bytes()
		}
	}
	switch {
	case w.DType == "I32" && g.weightName == ".qweight", w.DType == "I32" && g.weightName == ".weight_packed":
		s.Format = FormatINT4
		s.Shape = packed(w.Shape, 8)
		if g.weightName == ".qweight" && len(w.Shape) == 2 {
			s.Shape = []int64{w.Shape[0] * 8, w.Shape[1]} // packed along the input
		}
	case g.weightName == "_blocks" && w.DType == "U8":
		c.mxBlocks(&s, g)
	case w.DType == "U8" && g.scale != nil:
		c.fourBits(&s, g)
	case w.DType == "F8_E4M3":
		c.eightBits(&s, g)
	case w.DType == "I8" && g.scale != nil:
		s.Format = FormatINT8
	default:
		s.Format = plainFormat(w.DType)
		if g.scale != nil && g.weightName != "" {
			c.problem("scale_of_plain_weight", name, "a scale is stored beside a weight of type %s", w.DType)
		}
	}
	s.Params = product(s.Shape)
	c.Stored = append(c.Stored, s)
}

// fourBits is NVFP4 or MXFP4 with two values in a byte along the last axis.
func (c *Census) fourBits(s *Stored, g *group) {
	s.Shape = packed(g.weight.Shape, 2)
	s.Format, s.Rows, s.Cols = FormatNVFP4, 1, BlockNVFP4
	if g.scale.DType == "U8" || g.scale.DType == "F8_E8M0" {
		s.Format, s.Cols = FormatMXFP4, BlockMXFP4
	}
	s.Inverse = g.global != nil && strings.HasSuffix(g.global.Name, ".weight_global_scale")
	if s.Format == FormatNVFP4 && g.global == nil {
		c.problem("global_scale_missing", s.Name, "an NVFP4 weight without its global scale")
	}
	if g.global != nil && g.global.Elements() != 1 && (len(s.Shape) < 3 || g.global.Elements() != s.Shape[0]) {
		c.problem("scale_shape", g.global.Name, "a global scale of shape %v", g.global.Shape)
	}
	want := slices.Clone(s.Shape)
	if n := len(want); n > 0 {
		want[n-1] = (want[n-1] + int64(s.Cols) - 1) / int64(s.Cols)
	}
	c.scaleShape(g, want)
}

// mxBlocks is gpt-oss's layout of MXFP4: […, blocks, 16 bytes] and […, blocks].
func (c *Census) mxBlocks(s *Stored, g *group) {
	s.Format, s.Rows, s.Cols = FormatMXFP4, 1, BlockMXFP4
	n := len(g.weight.Shape)
	if n < 3 || g.weight.Shape[n-1] != BlockMXFP4/2 {
		c.problem("weight_shape", g.weight.Name, "blocks of shape %v, which are not of 16 bytes", g.weight.Shape)
		return
	}
	s.Shape = append(slices.Clone(g.weight.Shape[:n-2]), g.weight.Shape[n-2]*BlockMXFP4)
	if g.scale == nil {
		c.problem("scale_missing", s.Name, "an MXFP4 weight without scales")
		return
	}
	c.scaleShape(g, g.weight.Shape[:n-1])
}

// eightBits is FP8 with one scale, one per row, or one per block.
func (c *Census) eightBits(s *Stored, g *group) {
	s.Format = FormatFP8
	if g.scale == nil {
		c.problem("scale_missing", s.Name, "an FP8 weight without a scale")
		return
	}
	n, scale := len(s.Shape), g.scale.Elements()
	if g.scale.DType == "U8" || g.scale.DType == "F8_E8M0" {
		s.Format, s.Rows, s.Cols = FormatMXFP8, 1, BlockMXFP4
		want := slices.Clone(s.Shape)
		if n > 0 {
			want[n-1] = (want[n-1] + BlockMXFP4 - 1) / BlockMXFP4
		}
		c.scaleShape(g, want)
		return
	}
	switch {
	case scale == 1 || n == 3 && scale == s.Shape[0]: // per tensor, also one per expert
	case n >= 2 && scale == product(s.Shape[:n-1]):
		s.Rows = 1
	case n >= 2 && len(g.scale.Shape) == n:
		s.Rows, s.Cols = block(s.Shape[n-2], g.scale.Shape[n-2]), block(s.Shape[n-1], g.scale.Shape[n-1])
		if s.Rows == 0 || s.Cols == 0 {
			c.problem("scale_shape", g.scale.Name, "scales of shape %v for a weight of %v", g.scale.Shape, s.Shape)
		}
	default:
		c.problem("scale_shape", g.scale.Name, "scales of shape %v for a weight of %v", g.scale.Shape, s.Shape)
	}
}

// block is the power of two that divides n values into k blocks; 0 when there is
// none.
func block(n, k int64) int {
	for b := int64(16); b <= 1024; b *= 2 {
		if (n+b-1)/b == k {
			// 128 is what everybody uses; a small matrix fits several sizes.
			if b < 128 && (n+127)/128 == k {
				b = 128
			}
			return int(b)
		}
	}
	return 0
}

func (c *Census) scaleShape(g *group, want []int64) {
	if !slices.Equal(g.scale.Shape, want) {
		c.problem("scale_shape", g.scale.Name, "scales of shape %v, want %v", g.scale.Shape, want)
	}
}

// share sums the weights by format.
func (c *Census) share() {
	index := map[Format]int{}
	for i := range c.Stored {
		s := &c.Stored[i]
		at, ok := index[s.Format]
		if !ok {
			at = len(c.Formats)
			index[s.Format] = at
			c.Formats = append(c.Formats, FormatShare{Weights: s.Format})
		}
		f := &c.Formats[at]
		f.Modules++
		f.Params += s.Params
		f.Bytes += s.Bytes
		c.Params += s.Params
	}
	slices.SortStableFunc(c.Formats, func(a, b FormatShare) int { return cmp.Compare(b.Params, a.Params) })
}

// packed is a shape with n values in each element of the last axis.
func packed(shape []int64, n int64) []int64 {
	out := slices.Clone(shape)
	if len(out) > 0 {
		out[len(out)-1] *= n
	}
	return out
}

func product(shape []int64) int64 {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	return n
}

func plainFormat(dtype string) Format {
	switch dtype {
	case "BF16":
		return FormatBF16
	case "F16":
		return FormatFP16
	case "F32":
		return FormatFP32
	case "F8_E5M2":
		return "fp8_e5m2"
	case "I8":
		return FormatINT8
	}
	return FormatUnknown
}

// CheckTensors compares what the configuration describes with what the
// checkpoint holds: the number of parameters, which may differ by what the
// configuration does not name, and the formats.
func (m *Model) CheckTensors(c *Census) []Problem {
	var problems []Problem
	want := m.Params.Total + m.Params.MTP
	if d := c.Params - want; d > want/100 || -d > want/100 {
		problems = append(problems, Problem{"parameters_differ", "config.json", fmt.Sprintf("it describes %d parameters, the tensors hold %d", want, c.Params)})
	}
	if m.Quant == nil {
		return problems
	}
	stored := map[Format]bool{}
	for _, f := range c.Formats {
		stored[f.Weights] = true
	}
	for _, f := range m.Formats {
		if f.scheme != nil && f.Params > 0 && !stored[f.Weights] {
			problems = append(problems, Problem{"format_differs", m.Quant.Source, fmt.Sprintf("it states %s for %d modules, and no tensor is in that format", f.Weights, f.Modules)})
		}
	}
	return problems
}
