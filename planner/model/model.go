package model

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Input is what Parse reads. Only Config is required.
type Input struct {
	ID      string // hub id or name of the folder; it only says what the name claims
	Config  []byte // config.json
	HFQuant []byte // hf_quant_config.json; nil where the checkpoint has none
}

// Model is what a configuration says, with the counts that follow from it.
type Model struct {
	ID           string `json:"id,omitempty"`
	Architecture string `json:"architecture,omitempty"`
	Type         string `json:"type"` // model_type of the text model
	DType        Format `json:"dtype"`
	Layers       int    `json:"layers"`
	Hidden       int    `json:"hidden"`
	Vocab        int    `json:"vocab"`
	Context      int    `json:"context,omitempty"` // max_position_embeddings
	Heads        int    `json:"heads,omitempty"`
	KVHeads      int    `json:"kv_heads,omitempty"`
	HeadDim      int    `json:"head_dim,omitempty"`
	Experts      int    `json:"experts,omitempty"`       // routed ones per layer
	ExpertsUsed  int    `json:"experts_used,omitempty"`  // of those, by one token
	Window       int    `json:"window,omitempty"`        // of sliding layers, in tokens
	MTPLayers    int    `json:"mtp_layers,omitempty"`    // counted ones
	VisionLayers int    `json:"vision_layers,omitempty"` // counted ones

	Params  Params        `json:"params"`
	Cache   Cache         `json:"cache"`
	Quant   *Quant        `json:"quant,omitempty"`
	Formats []FormatShare `json:"formats,omitempty"`
	// Bytes is the size of the weights with their scales; 0 where the format is
	// not known.
	Bytes  int64  `json:"bytes,omitempty"`
	Claims string `json:"name_claims,omitempty"` // the format that the name claims
	// RemoteCode says that the model brings Python code of its own (auto_map).
	RemoteCode bool      `json:"remote_code,omitempty"`
	Warnings   []Warning `json:"warnings,omitempty"`

	// Modules are all weights, text model first.
	Modules []Module `json:"-"`
}

// FormatShare is how much of a model is in one format.
type FormatShare struct {
	Weights Format `json:"weights"`
	Algo    string `json:"algo,omitempty"` // of quantised modules
	Math    string `json:"math"`           // what the metadata asks for; hardware may do less
	Modules int64  `json:"modules"`        // experts counted one by one
	Params  int64  `json:"params"`
	Bytes   int64  `json:"bytes"`
	Parts   []Part `json:"parts"`

	scheme *Scheme
}

// Warning is something that a reader of the facts should know.
type Warning struct {
	Code    string `json:"code"` // snake_case, stable
	Message string `json:"message"`
}

// Parse reads a model's configuration. Its error is a [*BadConfigError].
func Parse(in Input) (*Model, error) {
	c, err := readConfig(in.Config)
	if err != nil {
		return nil, err
	}
	m := &Model{
		ID: in.ID, Type: c.ModelType, DType: dtypeFormat(c.DType),
		Layers: int(c.Layers), Hidden: int(c.Hidden), Vocab: int(c.Vocab), Context: int(c.Context),
		Heads: int(c.Heads), KVHeads: int(c.KVHeads), HeadDim: int(c.HeadDim),
		Experts: int(c.Experts), ExpertsUsed: int(c.ExpertsPerToken), Claims: nameClaim(in.ID),
		RemoteCode: len(c.AutoMap) > 2 && string(c.AutoMap) != "null",
	}
	if len(c.Architectures) > 0 {
		m.Architecture = c.Architectures[0]
	}
	if err := m.build(c); err != nil {
		return nil, err
	}
	if err := m.quantise(c, in.HFQuant); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Model) warn(code, message string) {
	m.Warnings = append(m.Warnings, Warning{code, message})
}

// build lists the modules and counts them.
func (m *Model) build(c *raw) error {
	f, known := families[c.ModelType]
	if !known {
		f = llama
		m.warn("unknown_architecture", fmt.Sprintf("model_type %.60q is not known; it was counted as a Llama-like decoder, so every number of parameters and bytes is a guess", c.ModelType))
	}
	if f.builder == "nemotron_h" && c.HybridPattern == "" {
		return &BadConfigError{"config.json", "hybrid_override_pattern is missing"}
	}
	b := &builder{c: c, f: f, warn: m.warn, modules: make([]Module, 0, 16*int(c.Layers)+512)}
	b.text()
	b.vision()
	b.mtp()
	if b.total > maxParams {
		return &BadConfigError{"config.json", "it describes a model of more than 10^15 parameters"}
	}
	m.Modules, m.Cache = b.modules, b.cache
	m.Params = countParams(b.modules)
	for _, g := range b.cache.KV {
		m.Window = max(m.Window, g.Window)
	}
	if m.Params.MTP > 0 {
		m.MTPLayers = int(max(c.NextN, c.MTPLayers))
	}
	if m.Params.Vision > 0 {
		m.VisionLayers = int(c.Vision.Depth)
	}
	return nil
}

// quantise finds the format of every module.
func (m *Model) quantise(c *raw, hfQuant []byte) error {
	if m.DType == FormatUnknown {
		m.DType = FormatBF16
		m.warn("dtype_assumed", "the configuration names no dtype; 16 bits were taken for what is not quantised")
	}
	var err error
	quant := bytes.TrimSpace(c.Quant)
	switch {
	case len(quant) > 0 && string(quant) != "null":
		m.Quant, err = readQuant(quant, "config.json")
	case len(hfQuant) > 0:
		if len(hfQuant) > MaxConfig {
			return &BadConfigError{"hf_quant_config.json", fmt.Sprintf("it has more than %d bytes", MaxConfig)}
		}
		m.Quant, err = readQuant(plainJSON(hfQuant), "hf_quant_config.json")
	}
	if m.Quant == nil && err != nil {
		return err
	}
	if err != nil {
		m.warn("unknown_format", err.Error())
	}
	if m.Quant == nil && quantisedName(m.Claims) {
		m.warn("format_unknown", "format unknown from config alone; the name claims "+m.Claims)
		return nil
	}
	m.share()
	if f := Format(strings.ToLower(m.Claims)); m.Quant != nil && (f == FormatNVFP4 || f == FormatMXFP4) {
		m.checkClaim(f)
	}
	return nil
}

// share sums the modules by format.
func (m *Model) share() {
	type key struct {
		weights Format
		algo    string
		math    string
	}
	index := map[key]int{}
	known := true
	for i := range m.Modules {
		mod := &m.Modules[i]
		s := m.Quant.Of(mod)
		k := key{m.DType, "", s.Math()}
		if s != nil {
			k = key{s.Weights, s.Algo, s.Math()}
		}
		at, ok := index[k]
		if !ok {
			at = len(m.Formats)
			index[k] = at
			m.Formats = append(m.Formats, FormatShare{Weights: k.weights, Algo: k.algo, Math: k.math, scheme: s})
		}
		f := &m.Formats[at]
		f.Modules += mod.copies()
		f.Params += mod.Params()
		f.Bytes += moduleBytes(mod, s, m.DType)
		if !slices.Contains(f.Parts, mod.Part) {
			f.Parts = append(f.Parts, mod.Part)
		}
		known = known && k.weights != FormatUnknown
	}
	slices.SortStableFunc(m.Formats, func(a, b FormatShare) int { return cmp.Compare(b.Params, a.Params) })
	if known {
		for _, f := range m.Formats {
			m.Bytes += f.Bytes
		}
	}
}

// moduleBytes is the size of a module's weights, scales and biases.
func moduleBytes(m *Module, s *Scheme, dtype Format) int64 {
	if s == nil {
		return m.Params() * int64(formatBits(dtype)) / 8
	}
	if s.Weights == FormatUnknown {
		return 0
	}
	return m.copies() * (s.Bytes(int64(m.Out), int64(m.In)) + 2*int64(m.Bias))
}

// checkClaim compares the name with the metadata.
func (m *Model) checkClaim(claimed Format) {
	var quantised, as int64
	for _, f := range m.Formats {
		if f.scheme == nil {
			continue
		}
		quantised += f.Params
		if f.Weights == claimed {
			as += f.Params
			if f.Math != "w4a4" {
				m.warn("weight_only", fmt.Sprintf("weights only: in %d of %d modules in %s activations stay at 16 bits (%s), so no GPU multiplies them in 4 bits", f.Modules, m.modulesIn(claimed), claimed, f.Algo))
			}
		}
	}
	switch {
	case as == 0:
		m.warn("claim_not_met", fmt.Sprintf("the name claims %s and no module is in that format", claimed))
	case as < quantised:
		m.warn("mixed_formats", fmt.Sprintf("the name claims %s; it is the format of %.0f %% of the quantised parameters and %.0f %% of all", claimed, 100*float64(as)/float64(quantised), 100*float64(as)/float64(m.Params.Total+m.Params.MTP)))
	}
}

func (m *Model) modulesIn(f Format) (n int64) {
	for _, s := range m.Formats {
		if s.Weights == f {
			n += s.Modules
		}
	}
	return n
}

func dtypeFormat(name string) Format {
	switch strings.TrimPrefix(name, "torch.") {
	case "bfloat16":
		return FormatBF16
	case "float16":
		return FormatFP16
	case "float32":
		return FormatFP32
	}
	return FormatUnknown
}

var claimRE = regexp.MustCompile(`(?i)(?:^|[-_./ ])(NVFP4|MXFP4|MXFP8|FP8|FP4|INT8|INT4|AWQ|GPTQ|W4A16|W8A8|W8A16|W4A4|BF16|FP16)(?:$|[-_./ ])`)

// nameClaim is the format that a name ends in or names between separators; of
// several the last.
func nameClaim(id string) string {
	claim := ""
	for id != "" {
		at := claimRE.FindStringSubmatchIndex(id)
		if at == nil {
			break
		}
		claim = strings.ToUpper(id[at[2]:at[3]])
		id = id[at[3]:]
	}
	return claim
}

func quantisedName(claim string) bool { return claim != "" && claim != "BF16" && claim != "FP16" }

// MarshalJSON writes the activations that a scheme leaves alone as "none".
func (s *Scheme) MarshalJSON() ([]byte, error) {
	type plain Scheme
	p := plain(*s)
	if p.Activations == "" {
		p.Activations = "none"
	}
	return json.Marshal(p)
}
