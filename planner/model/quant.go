package model

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Format is how the numbers of a tensor are stored.
type Format string

// The formats of weights, activations and caches.
const (
	FormatFP32    Format = "fp32"
	FormatBF16    Format = "bf16"
	FormatFP16    Format = "fp16"
	FormatFP8     Format = "fp8_e4m3"
	FormatNVFP4   Format = "nvfp4"
	FormatMXFP4   Format = "mxfp4"
	FormatMXFP8   Format = "mxfp8"
	FormatINT8    Format = "int8"
	FormatINT4    Format = "int4"
	FormatUnknown Format = "unknown"
)

// Scheme is how a group of linear modules is quantised.
type Scheme struct {
	Algo    string `json:"algo"` // as the metadata calls it
	Weights Format `json:"weights"`
	// Weights of a block of Rows × Cols share a scale: 0 × 0 is the whole
	// tensor, 1 × 0 a row (per channel), 1 × 16 a group of 16 in a row.
	Rows int `json:"rows,omitempty"`
	Cols int `json:"cols,omitempty"`
	// Activations are quantised to this format; empty means they are not, and
	// the kernel computes with 16 bits.
	Activations Format `json:"activations,omitempty"`
	// Static activations have a scale from calibration, stored with the weight;
	// the others get theirs while running.
	Static bool `json:"static,omitempty"`
}

// Math names what is multiplied with what: w4a4, w4a8, w4a16, w8a8, w8a16, w16a16
// or unknown.
func (s *Scheme) Math() string {
	switch {
	case s == nil:
		return "w16a16"
	case s.Weights == FormatUnknown || s.Activations == FormatUnknown:
		return "unknown"
	}
	return fmt.Sprintf("w%da%d", formatBits(s.Weights), formatBits(s.Activations))
}

func formatBits(f Format) int {
	switch f {
	case FormatNVFP4, FormatMXFP4, FormatINT4:
		return 4
	case FormatFP8, FormatMXFP8, FormatINT8:
		return 8
	case FormatFP32:
		return 32
	}
	return 16
}

// Bytes is the size of one weight of out × in with its scales. It is exact for
// the layouts of ModelOpt, compressed-tensors, DeepSeek and gpt-oss, but for the
// float type of 8-bit block scales, which is taken as float32.
func (s *Scheme) Bytes(out, in int64) int64 {
	n := out * in
	switch s.Weights {
	case FormatNVFP4:
		return n/2 + out*((in+BlockNVFP4-1)/BlockNVFP4) + 4 + 4 // global and input scale
	case FormatMXFP4:
		return n/2 + out*((in+BlockMXFP4-1)/BlockMXFP4)
	case FormatMXFP8:
		return n + out*((in+BlockMXFP4-1)/BlockMXFP4)
	case FormatINT4:
		group := int64(s.Cols)
		if group == 0 {
			group = in
		}
		return n/2 + 2*out*((in+group-1)/max(1, group))
	}
	scales := int64(1)
	switch {
	case s.Rows > 0 && s.Cols > 0:
		scales = ((out + int64(s.Rows) - 1) / int64(s.Rows)) * ((in + int64(s.Cols) - 1) / int64(s.Cols))
	case s.Rows == 1:
		scales = out
	}
	b := n + 4*scales
	if s.Static {
		b += 4
	}
	return b
}

// Quant is what the metadata of a checkpoint says about its formats.
type Quant struct {
	Method   string `json:"method"`             // modelopt|compressed-tensors|fp8|mxfp4|…
	Algo     string `json:"algo,omitempty"`     // of the whole, as stated: NVFP4, MIXED_PRECISION, …
	Producer string `json:"producer,omitempty"` // name and version of the tool
	Source   string `json:"source"`             // config.json or hf_quant_config.json
	KV       Format `json:"kv,omitempty"`       // of the KV cache, where stated

	all    *Scheme            // of linear modules without a rule of their own
	exact  map[string]*Scheme // by name
	rules  []rule             // by pattern
	ignore matcher
	// only limits the quantisation to some parts; nil means all linear modules.
	only func(m *Module) bool
}

type rule struct {
	match  matcher
	scheme *Scheme
}

// Of is the scheme of a module; nil when it is not quantised.
func (q *Quant) Of(m *Module) *Scheme {
	if q == nil {
		return nil
	}
	name := m.Name
	if m.Copies > 1 {
		// Lists name every expert; the first stands for all.
		name = strings.Replace(name, ".*.", ".0.", 1)
	}
	if s := q.exact[name]; s != nil {
		return s
	}
	if q.ignore.matches(name) {
		return nil
	}
	for _, r := range q.rules {
		if r.match.matches(name) {
			return r.scheme
		}
	}
	if !m.Linear || q.only != nil && !q.only(m) {
		return nil
	}
	return q.all
}

// rawQuant is the union of the shapes of quantisation metadata:
// quantization_config of ModelOpt, compressed-tensors, fp8, mxfp4, AWQ and GPTQ.
type rawQuant struct {
	Method   string `json:"quant_method"`
	Algo     string `json:"quant_algo"`
	Format   string `json:"format"`
	Producer struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	} `json:"producer"`
	Groups map[string]rawGroup `json:"config_groups"`
	Layers map[string]struct {
		Algo  string `json:"quant_algo"`
		Group count  `json:"group_size"`
	} `json:"quantized_layers"`
	Ignore        []string  `json:"ignore"`
	Exclude       []string  `json:"exclude_modules"`
	NotConvert    []string  `json:"modules_to_not_convert"`
	KVScheme      *rawArgs  `json:"kv_cache_scheme"`
	KVAlgo        string    `json:"kv_cache_quant_algo"`
	GroupSize     count     `json:"group_size"`
	Activation    string    `json:"activation_scheme"`
	Block         []count   `json:"weight_block_size"`
	Bits          count     `json:"bits"`
	Quantization  *rawQuant `json:"quantization"` // of hf_quant_config.json
	IgnoredLayers []string  `json:"ignored_layers"`
}

type rawGroup struct {
	Weights     *rawArgs `json:"weights"`
	Activations *rawArgs `json:"input_activations"`
	Targets     []string `json:"targets"`
	Format      string   `json:"format"`
}

// rawArgs is how one side of a product is quantised.
type rawArgs struct {
	Bits     count           `json:"num_bits"`
	Type     string          `json:"type"`
	Dynamic  json.RawMessage `json:"dynamic"` // false, true or "local"
	Group    count           `json:"group_size"`
	Strategy string          `json:"strategy"`
	Block    json.RawMessage `json:"block_structure"` // [128, 128] or "128x128"
}

// block is the block that shares a scale; 0, 0 where none is named.
func (a *rawArgs) block() (rows, cols int) {
	var list [2]count
	if json.Unmarshal(a.Block, &list) == nil {
		return int(list[0]), int(list[1])
	}
	var text string
	if json.Unmarshal(a.Block, &text) == nil {
		if n, _ := fmt.Sscanf(text, "%dx%d", &rows, &cols); n == 2 {
			return rows, cols
		}
	}
	return 0, 0
}

// readQuant understands one document of quantisation metadata.
func readQuant(b []byte, file string) (*Quant, error) {
	var r rawQuant
	if err := decodeObject(b, &r); err != nil {
		return nil, &BadConfigError{file, err.Error()}
	}
	producer := r.Producer
	if r.Quantization != nil {
		r = *r.Quantization
		r.Producer, r.Method = producer, "modelopt"
	}
	q := &Quant{
		Method: strings.ToLower(r.Method), Algo: strings.ToUpper(r.Algo), Source: file,
		Producer: strings.TrimSpace(producer.Name + " " + producer.Version),
		exact:    map[string]*Scheme{},
	}
	q.ignore = newMatcher(r.Ignore, r.Exclude, r.NotConvert, r.IgnoredLayers)
	q.KV = r.kv()
	var err error
	switch {
	case strings.HasPrefix(q.Method, "modelopt"):
		err = q.modelopt(&r)
	case q.Method == "compressed-tensors":
		q.groups(r.Groups)
	case q.Method == "fp8":
		q.fp8(&r)
	case q.Method == "mxfp4":
		q.all = &Scheme{Algo: "mxfp4", Weights: FormatMXFP4, Rows: 1, Cols: BlockMXFP4}
		q.only = func(m *Module) bool { return m.Part == Expert }
	case q.Method == "awq" || q.Method == "gptq" || q.Method == "auto-round":
		weights := FormatINT4
		if r.Bits == 8 {
			weights = FormatINT8
		}
		q.all = &Scheme{Algo: q.Method, Weights: weights, Rows: 1, Cols: int(max(0, r.GroupSize))}
		q.only = func(m *Module) bool { return m.Part != Head && m.Part != Vision }
	default:
		err = fmt.Errorf("quant_method %.40q is not known", r.Method)
		q.all = &Scheme{Algo: q.Method, Weights: FormatUnknown}
	}
	return q, err
}

func (r *rawQuant) kv() Format {
	switch s := r.KVScheme; {
	case strings.EqualFold(r.KVAlgo, "FP8"), s != nil && s.Bits == 8 && s.Type == "float":
		return FormatFP8
	case strings.EqualFold(r.KVAlgo, "NVFP4"), s != nil && s.Bits == 4 && s.Type == "float":
		return FormatNVFP4
	case s != nil && s.Bits == 8 && s.Type == "int", strings.EqualFold(r.KVAlgo, "INT8"):
		return FormatINT8
	}
	return ""
}

// modelopt reads the shapes of NVIDIA's Model Optimizer: one algorithm for all
// layers, config_groups, or an algorithm by layer.
func (q *Quant) modelopt(r *rawQuant) error {
	var unknown error
	for name, l := range r.Layers {
		s, err := algorithm(l.Algo, l.Group)
		unknown = firstError(unknown, err)
		q.exact[name] = s
	}
	switch {
	case len(r.Layers) > 0:
	case len(r.Groups) > 0:
		q.groups(r.Groups)
		for _, s := range q.schemes() {
			if len(r.Groups) == 1 && r.Algo != "" {
				s.Algo = strings.ToUpper(r.Algo)
			}
		}
	case r.Algo != "":
		q.all, unknown = algorithm(r.Algo, r.GroupSize)
	}
	return unknown
}

// schemes lists the distinct schemes.
func (q *Quant) schemes() []*Scheme {
	var out []*Scheme
	if q.all != nil {
		out = append(out, q.all)
	}
	for _, r := range q.rules {
		out = append(out, r.scheme)
	}
	for _, name := range slices.Sorted(maps.Keys(q.exact)) {
		if s := q.exact[name]; !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// algorithm is the scheme behind a name of Model Optimizer
// (modelopt/torch/export/convert_hf_config.py and vLLM's
// model_executor/layers/quantization/modelopt.py).
func algorithm(name string, group count) (*Scheme, error) {
	algo := strings.ToUpper(name)
	s := &Scheme{Algo: algo}
	switch algo {
	case "NVFP4", "NVFP4_AWQ", "NVFP4_SVD":
		*s = Scheme{Algo: algo, Weights: FormatNVFP4, Rows: 1, Cols: BlockNVFP4, Activations: FormatNVFP4, Static: true}
	case "W4A16_NVFP4":
		*s = Scheme{Algo: algo, Weights: FormatNVFP4, Rows: 1, Cols: BlockNVFP4}
	case "W4A8_NVFP4_FP8":
		*s = Scheme{Algo: algo, Weights: FormatNVFP4, Rows: 1, Cols: BlockNVFP4, Activations: FormatFP8, Static: true}
	case "FP8":
		*s = Scheme{Algo: algo, Weights: FormatFP8, Activations: FormatFP8, Static: true}
	case "FP8_PER_CHANNEL_PER_TOKEN":
		*s = Scheme{Algo: algo, Weights: FormatFP8, Rows: 1, Activations: FormatFP8}
	case "FP8_PB_WO":
		*s = Scheme{Algo: algo, Weights: FormatFP8, Rows: 128, Cols: 128}
	case "MXFP8":
		*s = Scheme{Algo: algo, Weights: FormatMXFP8, Rows: 1, Cols: BlockMXFP4, Activations: FormatMXFP8}
	case "W4A8_MXFP4_FP8":
		*s = Scheme{Algo: algo, Weights: FormatMXFP4, Rows: 1, Cols: BlockMXFP4, Activations: FormatFP8}
	case "W4A16_AWQ":
		*s = Scheme{Algo: algo, Weights: FormatINT4, Rows: 1, Cols: int(group)}
	case "W4A8_AWQ":
		*s = Scheme{Algo: algo, Weights: FormatINT4, Rows: 1, Cols: int(group), Activations: FormatFP8, Static: true}
	case "W8A8_SQ_PER_CHANNEL":
		*s = Scheme{Algo: algo, Weights: FormatINT8, Rows: 1, Activations: FormatINT8}
	case "W8A16":
		*s = Scheme{Algo: algo, Weights: FormatINT8, Rows: 1}
	default:
		s.Weights = FormatUnknown
		return s, fmt.Errorf("quant_algo %.40q is not known", name)
	}
	return s, nil
}

// groups reads config_groups, the shape of compressed-tensors that Model
// Optimizer writes too.
func (q *Quant) groups(groups map[string]rawGroup) {
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		g := groups[name]
		s := g.scheme()
		if s == nil {
			continue
		}
		var patterns []string
		for _, t := range g.Targets {
			switch {
			case t == "Linear":
				q.all = s
			case strings.HasPrefix(t, "re:") || strings.ContainsAny(t, "*?"):
				patterns = append(patterns, t)
			default:
				q.exact[t] = s
			}
		}
		if len(patterns) > 0 {
			q.rules = append(q.rules, rule{newMatcher(patterns), s})
		}
	}
}

func (g rawGroup) scheme() *Scheme {
	w := g.Weights
	if w == nil {
		return nil
	}
	s := &Scheme{Weights: w.format()}
	switch rows, cols := w.block(); {
	case rows > 0 && cols > 0:
		s.Rows, s.Cols = rows, cols
	case w.Group > 0:
		s.Rows, s.Cols = 1, int(w.Group)
	case w.Strategy == "channel":
		s.Rows = 1
	}
	if a := g.Activations; a != nil {
		s.Activations = a.format()
		// "local" is a static scale of the tensor with dynamic ones of the blocks.
		s.Static = string(a.Dynamic) != "true"
	}
	s.Algo = strings.ToUpper(string(s.Weights))
	if s.Activations == "" {
		s.Algo = fmt.Sprintf("W%dA16_%s", formatBits(s.Weights), s.Algo)
	}
	return s
}

func (a *rawArgs) format() Format {
	switch {
	case a.Bits == 4 && a.Type == "float" && a.Group == BlockMXFP4:
		return FormatMXFP4
	case a.Bits == 4 && a.Type == "float":
		return FormatNVFP4
	case a.Bits == 8 && a.Type == "float" && a.Group == BlockMXFP4:
		return FormatMXFP8
	case a.Bits == 8 && a.Type == "float":
		return FormatFP8
	case a.Bits == 4:
		return FormatINT4
	case a.Bits == 8:
		return FormatINT8
	}
	return FormatUnknown
}

// fp8 reads the plain 8-bit shape of DeepSeek, Qwen and MiniMax.
func (q *Quant) fp8(r *rawQuant) {
	s := &Scheme{Algo: "fp8", Weights: FormatFP8, Activations: FormatFP8, Static: strings.EqualFold(r.Activation, "static")}
	if len(r.Block) == 2 && r.Block[0] > 0 && r.Block[1] > 0 {
		s.Rows, s.Cols = int(r.Block[0]), int(r.Block[1])
	}
	q.all = s
	// Left alone by default, and so not in the lists.
	q.only = func(m *Module) bool { return m.Part != Head && m.Part != Vision }
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
