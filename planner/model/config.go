package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// MaxConfig bounds the size of a configuration file, in bytes.
const MaxConfig = 16 << 20

// Bounds of what a configuration may say. No model is near them; beyond them a
// file is damaged or hostile.
const (
	maxLayers = 4096
	maxSize   = 1 << 26 // widths, vocabulary
	maxDim    = 1 << 20 // heads, head sizes, ranks, kernels
	maxState  = 1 << 40
	maxParams = 1 << 50
)

// BadConfigError says that a configuration file cannot be used.
type BadConfigError struct {
	File string // config.json or hf_quant_config.json
	Why  string
}

func (e *BadConfigError) Error() string { return e.File + ": " + e.Why }

// UserError is what the user can do.
func (e *BadConfigError) UserError() string {
	return "check that the file is the model's own and complete; it has to be JSON as the transformers library writes it"
}

// count is a size in a configuration: an integer, also when written as 4096.0,
// and 0 for null.
type count int

// UnmarshalJSON implements [json.Unmarshaler].
func (c *count) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return fmt.Errorf("%.40s is not a number", b)
	}
	if f != math.Trunc(f) || math.Abs(f) > 1<<40 {
		return fmt.Errorf("%.40s is not a size", b)
	}
	*c = count(f)
	return nil
}

// raw is the union of the fields that the known families use for their text
// model. Where families differ in the name of a field all names stand here and
// [raw.settle] picks.
type raw struct {
	Architectures []string `json:"architectures"`
	ModelType     string   `json:"model_type"`
	DType         string   `json:"dtype"`
	TorchDType    string   `json:"torch_dtype"`
	TieEmbeddings *bool    `json:"tie_word_embeddings"`

	Layers       count `json:"num_hidden_layers"`
	LayersGPT    count `json:"n_layer"`
	Hidden       count `json:"hidden_size"`
	HiddenGPT    count `json:"n_embd"`
	Heads        count `json:"num_attention_heads"`
	KVHeads      count `json:"num_key_value_heads"`
	HeadDim      count `json:"head_dim"`
	AttnHeadDim  count `json:"attention_head_dim"`
	Intermediate count `json:"intermediate_size"`
	Vocab        count `json:"vocab_size"`
	Context      count `json:"max_position_embeddings"`

	AttentionBias bool  `json:"attention_bias"`
	QKVBias       *bool `json:"qkv_bias"`
	MLPBias       bool  `json:"mlp_bias"`
	UseQKNorm     bool  `json:"use_qk_norm"`
	OutputGate    bool  `json:"attn_output_gate"`

	LayerTypes       []string `json:"layer_types"`
	SlidingWindow    count    `json:"sliding_window"`
	UseSliding       *bool    `json:"use_sliding_window"`
	MaxWindowLayers  count    `json:"max_window_layers"`
	SlidingPattern   count    `json:"sliding_window_pattern"`
	FullInterval     count    `json:"full_attention_interval"`
	HybridPattern    string   `json:"hybrid_override_pattern"`
	LinearConvKernel count    `json:"linear_conv_kernel_dim"`
	LinearKeyDim     count    `json:"linear_key_head_dim"`
	LinearKeyHeads   count    `json:"linear_num_key_heads"`
	LinearValueHeads count    `json:"linear_num_value_heads"`
	LinearValueDim   count    `json:"linear_value_head_dim"`
	StateDType       string   `json:"mamba_ssm_dtype"`
	MambaHeads       count    `json:"mamba_num_heads"`
	MambaHeadDim     count    `json:"mamba_head_dim"`
	MambaGroups      count    `json:"n_groups"`
	MambaState       count    `json:"ssm_state_size"`
	MambaConv        count    `json:"conv_kernel"`
	MambaConvBias    *bool    `json:"use_conv_bias"`

	KVRank     count `json:"kv_lora_rank"`
	QRank      count `json:"q_lora_rank"`
	NopeDim    count `json:"qk_nope_head_dim"`
	RopeDim    count `json:"qk_rope_head_dim"`
	VDim       count `json:"v_head_dim"`
	IndexHeads count `json:"index_n_heads"`
	IndexDim   count `json:"index_head_dim"`
	IndexTopK  count `json:"index_topk"`

	Experts            count   `json:"num_experts"`
	LocalExperts       count   `json:"num_local_experts"`
	RoutedExperts      count   `json:"n_routed_experts"`
	ExpertsPerToken    count   `json:"num_experts_per_tok"`
	ExpertsPerTokenOSS count   `json:"experts_per_token"`
	MoEIntermediate    count   `json:"moe_intermediate_size"`
	SharedIntermediate count   `json:"shared_expert_intermediate_size"`
	MoEShared          count   `json:"moe_shared_expert_intermediate_size"`
	SharedExperts      count   `json:"n_shared_experts"`
	FirstDense         count   `json:"first_k_dense_replace"`
	MoEFreq            count   `json:"moe_layer_freq"`
	SparseStep         count   `json:"decoder_sparse_step"`
	MLPOnly            []count `json:"mlp_only_layers"`
	TopKMethod         string  `json:"topk_method"`
	RoutingBias        bool    `json:"use_routing_bias"`

	NextN     count `json:"num_nextn_predict_layers"`
	MTPLayers count `json:"mtp_num_hidden_layers"`
	MTPMods   count `json:"num_mtp_modules"`

	Vision *rawVision      `json:"vision_config"`
	Quant  json.RawMessage `json:"quantization_config"`
	// AutoMap names the Python files that a model brings with it.
	AutoMap json.RawMessage `json:"auto_map"`

	// Where multimodal models keep their text model.
	Text     json.RawMessage `json:"text_config"`
	LLM      json.RawMessage `json:"llm_config"`
	Language json.RawMessage `json:"language_config"`
}

// rawVision is a vision tower of the kind of Qwen's.
type rawVision struct {
	ModelType    string `json:"model_type"`
	Depth        count  `json:"depth"`
	Hidden       count  `json:"hidden_size"`
	Intermediate count  `json:"intermediate_size"`
	Channels     count  `json:"in_channels"`
	Patch        count  `json:"patch_size"`
	Temporal     count  `json:"temporal_patch_size"`
	Positions    count  `json:"num_position_embeddings"`
	Merge        count  `json:"spatial_merge_size"`
	Out          count  `json:"out_hidden_size"`
	Deepstack    []int  `json:"deepstack_visual_indexes"`
}

// readConfig decodes config.json. The nested text model's fields win over those
// beside it, which are often left-overs of defaults.
func readConfig(b []byte) (*raw, error) {
	if len(b) > MaxConfig {
		return nil, &BadConfigError{"config.json", fmt.Sprintf("it has %d bytes, more than %d", len(b), MaxConfig)}
	}
	b = plainJSON(b)
	var c raw
	if err := decodeObject(b, &c); err != nil {
		return nil, &BadConfigError{"config.json", err.Error()}
	}
	architectures, quant, vision := c.Architectures, c.Quant, c.Vision
	for _, text := range []json.RawMessage{c.Text, c.LLM, c.Language} {
		if len(text) == 0 || string(text) == "null" {
			continue
		}
		if err := decodeObject(text, &c); err != nil {
			return nil, &BadConfigError{"config.json", "text model: " + err.Error()}
		}
		break
	}
	if len(architectures) > 0 {
		c.Architectures = architectures
	}
	if len(quant) > 0 {
		c.Quant = quant
	}
	if vision != nil {
		c.Vision = vision
	}
	c.settle()
	return &c, c.check()
}

// settle merges fields that go by several names and fills in what the
// transformers library assumes when a field is absent.
func (c *raw) settle() {
	first := func(p *count, others ...count) {
		for _, o := range others {
			if *p == 0 {
				*p = o
			}
		}
	}
	first(&c.Layers, c.LayersGPT)
	first(&c.Hidden, c.HiddenGPT)
	first(&c.HeadDim, c.AttnHeadDim)
	if c.HeadDim == 0 && c.Heads > 0 {
		c.HeadDim = c.Hidden / c.Heads
	}
	first(&c.KVHeads, c.Heads)
	first(&c.Experts, c.LocalExperts, c.RoutedExperts)
	first(&c.ExpertsPerToken, c.ExpertsPerTokenOSS)
	first(&c.MoEIntermediate, c.Intermediate)
	first(&c.FullInterval, 4)
	if c.DType == "" {
		c.DType = c.TorchDType
	}
	if c.HybridPattern != "" {
		c.Layers = count(len(c.HybridPattern))
	}
	if c.UseSliding != nil && !*c.UseSliding {
		c.SlidingWindow = 0
	}
}

// check refuses sizes that no model has, so that nothing later overflows or
// loops for long.
func (c *raw) check() error {
	bad := func(format string, args ...any) error {
		return &BadConfigError{"config.json", fmt.Sprintf(format, args...)}
	}
	if c.Layers < 1 || c.Layers > maxLayers {
		return bad("num_hidden_layers is %d", c.Layers)
	}
	if c.Hidden < 1 || c.Vocab < 1 {
		return bad("hidden_size is %d and vocab_size %d; it does not describe a language model", c.Hidden, c.Vocab)
	}
	for name, v := range map[string]count{
		"hidden_size": c.Hidden, "vocab_size": c.Vocab, "intermediate_size": c.Intermediate,
		"sliding_window": c.SlidingWindow, "moe_intermediate_size": c.MoEIntermediate,
		"shared_expert_intermediate_size": c.SharedIntermediate, "moe_shared_expert_intermediate_size": c.MoEShared,
	} {
		if v < 0 || v > maxSize {
			return bad("%s is %d", name, v)
		}
	}
	for name, v := range map[string]count{
		"num_attention_heads": c.Heads, "num_key_value_heads": c.KVHeads, "head_dim": c.HeadDim,
		"num_experts": c.Experts, "num_experts_per_tok": c.ExpertsPerToken, "n_shared_experts": c.SharedExperts,
		"kv_lora_rank": c.KVRank, "q_lora_rank": c.QRank, "qk_nope_head_dim": c.NopeDim,
		"qk_rope_head_dim": c.RopeDim, "v_head_dim": c.VDim, "index_n_heads": c.IndexHeads,
		"index_head_dim": c.IndexDim, "linear_num_value_heads": c.LinearValueHeads,
		"linear_num_key_heads": c.LinearKeyHeads, "linear_key_head_dim": c.LinearKeyDim,
		"linear_value_head_dim": c.LinearValueDim, "linear_conv_kernel_dim": c.LinearConvKernel,
		"full_attention_interval": c.FullInterval, "sliding_window_pattern": c.SlidingPattern,
		"mamba_num_heads": c.MambaHeads, "mamba_head_dim": c.MambaHeadDim, "n_groups": c.MambaGroups,
		"ssm_state_size": c.MambaState, "conv_kernel": c.MambaConv, "moe_layer_freq": c.MoEFreq, "decoder_sparse_step": c.SparseStep,
	} {
		if v < 0 || v > maxDim {
			return bad("%s is %d", name, v)
		}
	}
	if err := c.Vision.check(bad); err != nil {
		return err
	}
	if c.Experts > 0 && c.ExpertsPerToken > c.Experts {
		return bad("num_experts_per_tok is %d of %d experts", c.ExpertsPerToken, c.Experts)
	}
	if c.NextN > 64 || c.MTPLayers > 64 || c.NextN < 0 || c.MTPLayers < 0 {
		return bad("it names %d layers of multi-token prediction", max(c.NextN, c.MTPLayers))
	}
	return nil
}

func (v *rawVision) check(bad func(format string, args ...any) error) error {
	if v == nil {
		return nil
	}
	if v.Depth < 0 || v.Depth > maxLayers {
		return bad("vision depth is %d", v.Depth)
	}
	for _, n := range []count{v.Hidden, v.Intermediate, v.Positions, v.Out} {
		if n < 0 || n > maxDim {
			return bad("a size of the vision tower is %d", n)
		}
	}
	for _, n := range []count{v.Channels, v.Patch, v.Temporal, v.Merge, count(len(v.Deepstack))} {
		if n < 0 || n > 1024 {
			return bad("a size of the vision tower is %d", n)
		}
	}
	return nil
}

// decodeObject reads one JSON object and nothing after it.
func decodeObject(b []byte, v any) error {
	b = bytes.TrimSpace(b)
	if len(b) == 0 || b[0] != '{' {
		return errors.New("it is not a JSON object")
	}
	if err := json.Unmarshal(b, v); err != nil {
		var typed *json.UnmarshalTypeError
		if errors.As(err, &typed) {
			return fmt.Errorf("%s is a %s", typed.Field, typed.Value)
		}
		return err
	}
	return nil
}

// plainJSON replaces the numbers that Python writes and JSON does not have,
// Infinity and NaN, by null. It returns b itself where there are none.
func plainJSON(b []byte) []byte {
	if !bytes.Contains(b, []byte("Infinity")) && !bytes.Contains(b, []byte("NaN")) {
		return b
	}
	out := make([]byte, 0, len(b))
	inString := false
	for i := 0; i < len(b); i++ {
		switch ch := b[i]; {
		case inString && ch == '\\' && i+1 < len(b):
			out = append(out, ch, b[i+1])
			i++
			continue
		case ch == '"':
			inString = !inString
		case !inString:
			skip := 0
			for _, word := range []string{"-Infinity", "Infinity", "NaN"} {
				if bytes.HasPrefix(b[i:], []byte(word)) {
					skip = len(word)
					break
				}
			}
			if skip > 0 {
				out = append(out, "null"...)
				i += skip - 1
				continue
			}
		}
		out = append(out, b[i])
	}
	return out
}
