package model

// Where the shapes come from: the modelling files of huggingface/transformers
// (src/transformers/models/<type>/modeling_<type>.py) and, for types that live
// in the model's own repository, the file named in its auto_map.

// normKind is the normalisation of queries and keys.
type normKind int

const (
	noQKNorm  normKind = iota
	headNorm           // one weight per element of a head
	layerNorm          // one weight per element of all heads
)

// family is how a model type departs from a Llama-like decoder.
type family struct {
	prefix     string // of the text model's tensors
	qkNorm     normKind
	qkNormFlag bool // only with use_qk_norm
	qkvBias    bool // whatever the configuration says
	plainOut   bool // the attention's output has no bias, whatever the configuration says
	gated      bool // the attention's output is gated, whatever the configuration says
	layerNorms int  // norms per layer, beside those of the attention

	moe       string    // the name of a layer's mixture
	experts   [3]string // gate, up, down
	shared    string    // the name of the shared expert
	sharedOut bool      // the shared expert has a gate of one output
	builder   string    // gpt_oss|gdn_split|gdn_fused|nemotron_h|phi3, or a plain decoder
	tied      bool      // tie_word_embeddings when the configuration does not say
}

var (
	swiglu = [3]string{"gate_proj", "up_proj", "down_proj"}
	w123   = [3]string{"w1", "w3", "w2"}
	llama  = family{prefix: "model.", layerNorms: 2, moe: "mlp", experts: swiglu}
)

func with(f family, change func(*family)) family {
	change(&f)
	return f
}

// families knows the model types whose shapes were read. Any other type is
// counted as a Llama-like decoder, with a warning.
var families = map[string]family{
	"llama":   llama,
	"mistral": llama,
	"qwen2":   with(llama, func(f *family) { f.qkvBias, f.plainOut = true, true }),
	"qwen3":   with(llama, func(f *family) { f.qkNorm = headNorm }),
	"qwen2_moe": with(llama, func(f *family) {
		f.qkvBias, f.plainOut, f.shared, f.sharedOut = true, true, "shared_expert", true
	}),
	"qwen3_moe":  with(llama, func(f *family) { f.qkNorm = headNorm }),
	"mixtral":    with(llama, func(f *family) { f.moe, f.experts = "block_sparse_moe", w123 }),
	"minimax_m2": with(llama, func(f *family) { f.moe, f.experts, f.qkNorm, f.qkNormFlag = "block_sparse_moe", w123, layerNorm, true }),
	"phi3":       with(llama, func(f *family) { f.builder = "phi3" }),

	"deepseek_v2":  deepseek,
	"deepseek_v3":  deepseek,
	"deepseek_v32": deepseek,
	"kimi_k2":      deepseek,
	"glm_moe_dsa":  deepseek,
	"glm4_moe": with(llama, func(f *family) {
		f.shared, f.plainOut, f.qkNorm, f.qkNormFlag = "shared_experts", true, headNorm, true
	}),

	"gpt_oss": with(llama, func(f *family) { f.builder = "gpt_oss" }),

	"qwen3_next":       with(qwenHybrid, func(f *family) { f.prefix, f.builder = "model.", "gdn_fused" }),
	"qwen3_5":          qwenHybrid,
	"qwen3_5_text":     qwenHybrid,
	"qwen3_5_moe":      qwenHybrid,
	"qwen3_5_moe_text": qwenHybrid,

	"nemotron_h": {prefix: "backbone.", builder: "nemotron_h"},

	"gemma2":      with(llama, func(f *family) { f.layerNorms, f.tied = 4, true }),
	"gemma3":      gemma3,
	"gemma3_text": with(gemma3, func(f *family) { f.prefix = "model." }),
}

var (
	deepseek = with(llama, func(f *family) {
		f.shared = "shared_experts"
	})
	qwenHybrid = with(llama, func(f *family) {
		f.prefix, f.qkNorm, f.builder = "model.language_model.", headNorm, "gdn_split"
		f.shared, f.sharedOut, f.gated = "shared_expert", true, true
	})
	gemma3 = with(llama, func(f *family) {
		f.prefix, f.layerNorms, f.tied, f.qkNorm = "language_model.model.", 4, true, headNorm
	})
)
