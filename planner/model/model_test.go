package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// known are shapes of public models, written down from their published
// configurations, with counts published by their makers or summed over the
// tensors of their checkpoints.
var known = []struct {
	name           string
	config         string
	text           int64 // exact
	vision, mtp    int64
	active         float64 // in 10^9, as the maker or the name states it
	perToken       int64   // KV elements
	stateRecurrent int
}{
	{
		name:   "Llama-3.1-8B",
		config: `{"model_type":"llama","hidden_size":4096,"intermediate_size":14336,"num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":8,"vocab_size":128256,"tie_word_embeddings":false,"torch_dtype":"bfloat16"}`,
		text:   8_030_261_248, active: 8.03, perToken: 65536,
	},
	{
		name:   "Qwen3-0.6B, tied, head size of its own",
		config: `{"model_type":"qwen3","hidden_size":1024,"intermediate_size":3072,"num_attention_heads":16,"num_hidden_layers":28,"num_key_value_heads":8,"head_dim":128,"vocab_size":151936,"tie_word_embeddings":true,"torch_dtype":"bfloat16","max_window_layers":28,"use_sliding_window":false,"sliding_window":null}`,
		text:   596_049_920, active: 0.596, perToken: 57344,
	},
	{
		name:   "Qwen2-0.5B, biases on q, k and v only",
		config: `{"model_type":"qwen2","hidden_size":896,"intermediate_size":4864,"num_attention_heads":14,"num_hidden_layers":24,"num_key_value_heads":2,"vocab_size":151936,"tie_word_embeddings":true,"torch_dtype":"bfloat16"}`,
		text:   494_032_768, active: 0.494, perToken: 6144,
	},
	{
		name:   "Mixtral-8x7B",
		config: `{"model_type":"mixtral","hidden_size":4096,"intermediate_size":14336,"num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":8,"num_local_experts":8,"num_experts_per_tok":2,"vocab_size":32000,"tie_word_embeddings":false,"torch_dtype":"bfloat16","sliding_window":null}`,
		text:   46_702_792_704, active: 12.88, perToken: 65536,
	},
	{
		name:   "Qwen3-235B-A22B",
		config: `{"model_type":"qwen3_moe","hidden_size":4096,"intermediate_size":12288,"moe_intermediate_size":1536,"num_attention_heads":64,"num_hidden_layers":94,"num_key_value_heads":4,"head_dim":128,"num_experts":128,"num_experts_per_tok":8,"decoder_sparse_step":1,"mlp_only_layers":[],"vocab_size":151936,"tie_word_embeddings":false,"torch_dtype":"bfloat16"}`,
		text:   235_093_634_560, active: 22.19, perToken: 96256,
	},
	{
		name:   "DeepSeek-V3, MLA and a layer of MTP",
		config: `{"model_type":"deepseek_v3","hidden_size":7168,"intermediate_size":18432,"moe_intermediate_size":2048,"num_attention_heads":128,"num_hidden_layers":61,"num_key_value_heads":128,"first_k_dense_replace":3,"moe_layer_freq":1,"n_routed_experts":256,"n_shared_experts":1,"num_experts_per_tok":8,"topk_method":"noaux_tc","kv_lora_rank":512,"q_lora_rank":1536,"qk_nope_head_dim":128,"qk_rope_head_dim":64,"v_head_dim":128,"num_nextn_predict_layers":1,"vocab_size":129280,"tie_word_embeddings":false,"torch_dtype":"bfloat16"}`,
		text:   671_026_419_200, mtp: 13_463_426_304, active: 37.55, perToken: 61 * 576,
	},
	{
		name:   "gpt-oss-120b, half of the layers slide",
		config: `{"model_type":"gpt_oss","hidden_size":2880,"intermediate_size":2880,"num_attention_heads":64,"num_hidden_layers":36,"num_key_value_heads":8,"head_dim":64,"num_local_experts":128,"num_experts_per_tok":4,"attention_bias":true,"sliding_window":128,"layer_types":[` + strings.TrimSuffix(strings.Repeat(`"sliding_attention","full_attention",`, 18), ",") + `],"vocab_size":201088,"tie_word_embeddings":false}`,
		text:   116_829_156_672, active: 5.71, perToken: 36864,
	},
	{
		name:   "MiniMax-M2, norms over all heads",
		config: `{"model_type":"minimax_m2","hidden_size":3072,"intermediate_size":1536,"num_attention_heads":48,"num_hidden_layers":62,"num_key_value_heads":8,"head_dim":128,"num_local_experts":256,"num_experts_per_tok":8,"use_qk_norm":true,"use_routing_bias":true,"vocab_size":200064,"tie_word_embeddings":false,"dtype":"bfloat16"}`,
		text:   228_689_764_864, active: 11.03, perToken: 126976,
	},
	{
		name:   "Qwen3.5-27B, three of four layers are linear attention",
		config: `{"model_type":"qwen3_5","tie_word_embeddings":false,"text_config":{"model_type":"qwen3_5_text","dtype":"bfloat16","attn_output_gate":true,"full_attention_interval":4,"head_dim":256,"hidden_size":5120,"intermediate_size":17408,"linear_conv_kernel_dim":4,"linear_key_head_dim":128,"linear_num_key_heads":16,"linear_num_value_heads":48,"linear_value_head_dim":128,"mamba_ssm_dtype":"float32","mtp_num_hidden_layers":1,"num_attention_heads":24,"num_hidden_layers":64,"num_key_value_heads":4,"vocab_size":248320},"vision_config":{"model_type":"qwen3_5","depth":27,"hidden_size":1152,"in_channels":3,"intermediate_size":4304,"num_position_embeddings":2304,"out_hidden_size":5120,"patch_size":16,"spatial_merge_size":2,"temporal_patch_size":2,"deepstack_visual_indexes":[]}}`,
		text:   26_895_998_464, vision: 460_730_096, mtp: 424_699_392, active: 26.9, perToken: 16 * 2048, stateRecurrent: 48 * 128 * 128,
	},
	{
		name:   "Qwen3-Next-80B-A3B, gates that the configuration does not name",
		config: `{"model_type":"qwen3_next","hidden_size":2048,"intermediate_size":5120,"moe_intermediate_size":512,"shared_expert_intermediate_size":512,"num_attention_heads":16,"num_key_value_heads":2,"head_dim":256,"num_hidden_layers":48,"full_attention_interval":4,"linear_conv_kernel_dim":4,"linear_key_head_dim":128,"linear_num_key_heads":16,"linear_num_value_heads":32,"linear_value_head_dim":128,"num_experts":512,"num_experts_per_tok":10,"decoder_sparse_step":1,"vocab_size":151936,"tie_word_embeddings":false,"torch_dtype":"bfloat16"}`,
		text:   79_674_391_296, active: 3.87, perToken: 12 * 1024, stateRecurrent: 32 * 128 * 128,
	},
	{
		name:   "Nemotron-H-8B, Mamba-2 with numbers that JSON does not have",
		config: `{"model_type":"nemotron_h","hidden_size":4096,"intermediate_size":21504,"num_attention_heads":32,"num_key_value_heads":8,"attention_head_dim":128,"num_hidden_layers":52,"hybrid_override_pattern":"M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-","mamba_num_heads":128,"mamba_head_dim":64,"n_groups":8,"ssm_state_size":128,"conv_kernel":4,"use_conv_bias":true,"time_step_limit":[0.0,Infinity],"vocab_size":131072,"tie_word_embeddings":false,"torch_dtype":"bfloat16"}`,
		text:   8_100_852_736, active: 8.1, perToken: 4 * 2048, stateRecurrent: 128 * 64 * 128,
	},
}

func parse(t *testing.T, id, config, hfQuant string) *Model {
	t.Helper()
	m, err := Parse(Input{ID: id, Config: []byte(config), HFQuant: []byte(hfQuant)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestKnownModels(t *testing.T) {
	for _, k := range known {
		t.Run(k.name, func(t *testing.T) {
			m := parse(t, "", k.config, "")
			p := m.Params
			if p.Text != k.text || p.Vision != k.vision || p.MTP != k.mtp || p.Total != k.text+k.vision {
				t.Errorf("parameters %+v, want text %d, vision %d, MTP %d", p, k.text, k.vision, k.mtp)
			}
			if got := float64(p.Active) / 1e9; math.Abs(got-k.active) > 0.01*k.active {
				t.Errorf("active %.3f, want %.3f", got, k.active)
			}
			if got := m.Cache.PerToken(); got != k.perToken {
				t.Errorf("%d KV elements per token, want %d", got, k.perToken)
			}
			var recurrent int
			for _, s := range m.Cache.States {
				recurrent = s.Recurrent
			}
			if recurrent != k.stateRecurrent {
				t.Errorf("state of %d elements, want %d", recurrent, k.stateRecurrent)
			}
			if m.Bytes != 2*(p.Total+p.MTP) {
				t.Errorf("%d bytes for %d parameters of 16 bits", m.Bytes, p.Total+p.MTP)
			}
			for _, w := range m.Warnings {
				if w.Code != "dtype_assumed" {
					t.Errorf("warning %s: %s", w.Code, w.Message)
				}
			}
		})
	}
}

func TestVisionTowerHasItsTensors(t *testing.T) {
	m := parse(t, "", known[8].config, "")
	n := 0
	for _, mod := range m.Modules {
		if mod.Part != Vision {
			continue
		}
		n++
		if mod.Bias > 0 {
			n++
		}
	}
	if n != 333 { // as in the published checkpoint
		t.Errorf("%d tensors", n)
	}
}

func TestCache(t *testing.T) {
	oss := parse(t, "", known[6].config, "").Cache
	// 18 layers keep 128 tokens, 18 keep all; 1,024 elements each.
	if got, want := oss.At(10_000, 1), int64(18*1024*(128+10_000)); got != want {
		t.Errorf("sliding: %d elements, want %d", got, want)
	}
	if got, want := oss.At(10_000, 8), int64(18*128*(128+10_000)); got != want {
		t.Errorf("sliding over 8 GPUs: %d, want %d", got, want)
	}
	if got, want := oss.At(10_000, 16), oss.At(10_000, 8); got != want {
		t.Errorf("heads are replicated beyond 8 GPUs: %d, want %d", got, want)
	}
	mla := parse(t, "", known[5].config, "").Cache
	if one, eight := mla.At(1000, 1), mla.At(1000, 8); one != eight || one != 1000*61*576 {
		t.Errorf("MLA is replicated: %d and %d", one, eight)
	}
	hybrid := parse(t, "", known[8].config, "").Cache
	if got, want := hybrid.StateBytes(2), int64(48*(4*48*128*128+2*3*10240)); got != want {
		t.Errorf("state of %d bytes, want %d", got, want)
	}
}

// tiny is a Llama-like model of two layers.
const tiny = `{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":256,"intermediate_size":512,"num_attention_heads":4,"num_hidden_layers":2,"num_key_value_heads":2,"vocab_size":1000,"tie_word_embeddings":false,"torch_dtype":"bfloat16","max_position_embeddings":4096`

// moe is a mixture with a shared expert.
const moe = `{"model_type":"deepseek_v3","hidden_size":256,"intermediate_size":512,"moe_intermediate_size":128,"num_attention_heads":4,"num_hidden_layers":3,"first_k_dense_replace":1,"n_routed_experts":8,"n_shared_experts":1,"num_experts_per_tok":2,"kv_lora_rank":64,"q_lora_rank":96,"qk_nope_head_dim":32,"qk_rope_head_dim":16,"v_head_dim":32,"vocab_size":1000,"tie_word_embeddings":false,"torch_dtype":"bfloat16"`

func TestFormats(t *testing.T) {
	tests := []struct {
		name, config, hfQuant string
		want                  []string // format, algorithm, math and modules, by falling size
		kv                    Format
	}{
		{
			name:   "fp8 in blocks leaves head, router and embeddings alone",
			config: moe + `,"quantization_config":{"quant_method":"fp8","fmt":"e4m3","activation_scheme":"dynamic","weight_block_size":[128,128]}}`,
			// 3 layers × 5 of MLA, 3 dense, 2 × 3 × 8 experts, 2 × 3 shared
			want: []string{"fp8_e4m3 fp8 w8a8 72", "bf16  w16a16 17"},
		},
		{
			name:   "a part of a path is not the beginning of another",
			config: moe + `,"quantization_config":{"quant_method":"fp8","activation_scheme":"dynamic","modules_to_not_convert":["gate","o_proj","model.layers.1"]}}`,
			// without the three o_proj, and without the rest of layer 1 (4 + 24 + 3)
			want: []string{"bf16  w16a16 51", "fp8_e4m3 fp8 w8a8 38"},
		},
		{
			name:    "ModelOpt's own file",
			config:  tiny + `}`,
			hfQuant: `{"producer":{"name":"modelopt","version":"0.29.0"},"quantization":{"quant_algo":"NVFP4","kv_cache_quant_algo":"FP8","group_size":16,"exclude_modules":["lm_head","model.layers.0.self_attn*"]}}`,
			want:    []string{"nvfp4 NVFP4 w4a4 10", "bf16  w16a16 11"},
			kv:      FormatFP8,
		},
		{
			name:   "ModelOpt inside config.json",
			config: tiny + `,"quantization_config":{"quant_method":"modelopt","quant_algo":"NVFP4","kv_cache_scheme":{"dynamic":false,"num_bits":8,"type":"float"},"config_groups":{"group_0":{"input_activations":{"dynamic":false,"num_bits":4,"type":"float","group_size":16},"weights":{"dynamic":false,"num_bits":4,"type":"float","group_size":16},"targets":["Linear"]}},"ignore":["lm_head","*.self_attn.*"]}}`,
			want:   []string{"bf16  w16a16 15", "nvfp4 NVFP4 w4a4 6"},
			kv:     FormatFP8,
		},
		{
			name:   "mixed precision by layer",
			config: tiny + `,"quantization_config":{"quant_method":"modelopt","quant_algo":"MIXED_PRECISION","quantized_layers":{"lm_head":{"quant_algo":"W4A16_NVFP4","group_size":16},"model.layers.0.mlp.down_proj":{"quant_algo":"W4A16_NVFP4","group_size":16},"model.layers.1.self_attn.q_proj":{"quant_algo":"FP8"}},"ignore":["mtp*"]}}`,
			want:   []string{"bf16  w16a16 18", "nvfp4 W4A16_NVFP4 w4a16 2", "fp8_e4m3 FP8 w8a8 1"},
		},
		{
			name:   "compressed-tensors, weights only",
			config: tiny + `,"quantization_config":{"quant_method":"compressed-tensors","format":"nvfp4-pack-quantized","config_groups":{"group_0":{"weights":{"num_bits":4,"type":"float","group_size":16,"strategy":"tensor_group","dynamic":false},"input_activations":null,"targets":["Linear"]}},"ignore":["lm_head"]}}`,
			want:   []string{"nvfp4 W4A16_NVFP4 w4a16 14", "bf16  w16a16 7"},
		},
		{
			name:   "compressed-tensors, two groups by expression",
			config: tiny + `,"quantization_config":{"quant_method":"compressed-tensors","config_groups":{"a":{"weights":{"num_bits":8,"type":"float","strategy":"channel"},"input_activations":{"num_bits":8,"type":"float","dynamic":true,"strategy":"token"},"targets":["re:.*self_attn.*"]},"b":{"weights":{"num_bits":4,"type":"int","group_size":128},"targets":["re:.*mlp\\.(gate|up)_proj"]}},"ignore":["re:.*layers\\.1.*"]}}`,
			want:   []string{"bf16  w16a16 15", "int4 W4A16_INT4 w4a16 2", "fp8_e4m3 FP8_E4M3 w8a8 4"},
		},
		{
			name:   "MXFP4 is the experts only",
			config: strings.Replace(moe, "deepseek_v3", "glm4_moe", 1) + `,"kv_lora_rank":0,"head_dim":64,"quantization_config":{"quant_method":"mxfp4","modules_to_not_convert":["lm_head"]}}`,
			want:   []string{"bf16  w16a16 32", "mxfp4 mxfp4 w4a16 48"},
		},
		{
			name:   "an algorithm that nobody knows",
			config: tiny + `,"quantization_config":{"quant_method":"modelopt","quant_algo":"NVFP3","ignore":["lm_head"]}}`,
			want:   []string{"unknown NVFP3 unknown 14", "bf16  w16a16 7"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := parse(t, "", tt.config, tt.hfQuant)
			var got []string
			var bytes, params int64
			for _, f := range m.Formats {
				got = append(got, fmt.Sprintf("%s %s %s %d", f.Weights, f.Algo, f.Math, f.Modules))
				bytes, params = bytes+f.Bytes, params+f.Params
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("formats\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
			if params != m.Params.Total || m.Bytes != 0 && bytes != m.Bytes {
				t.Errorf("%d parameters and %d bytes by format, %d and %d in all", params, bytes, m.Params.Total, m.Bytes)
			}
			if m.Quant.KV != tt.kv {
				t.Errorf("KV cache %q, want %q", m.Quant.KV, tt.kv)
			}
		})
	}
}

func TestBytesOfSchemes(t *testing.T) {
	tests := []struct {
		algo string
		want int64 // of 256 × 512
	}{
		{"NVFP4", 256*256 + 256*32 + 8},
		{"W4A16_NVFP4", 256*256 + 256*32 + 8},
		{"FP8", 256*512 + 8},
		{"FP8_PER_CHANNEL_PER_TOKEN", 256*512 + 4*256},
		{"FP8_PB_WO", 256*512 + 4*2*4},
		{"MXFP8", 256*512 + 256*16},
		{"W4A8_MXFP4_FP8", 256*256 + 256*16},
		{"W4A16_AWQ", 256*256 + 2*256*4},
	}
	for _, tt := range tests {
		s, err := algorithm(tt.algo, 128)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Bytes(256, 512); got != tt.want {
			t.Errorf("%s: %d bytes, want %d", tt.algo, got, tt.want)
		}
	}
}

func TestWarnings(t *testing.T) {
	weightOnly := `,"quantization_config":{"quant_method":"modelopt","quant_algo":"MIXED_PRECISION","quantized_layers":{"lm_head":{"quant_algo":"W4A16_NVFP4"},"model.layers.0.mlp.down_proj":{"quant_algo":"FP8"}}}}`
	tests := []struct {
		id, config string
		codes      []string
		bytes      bool // whether the size is known
	}{
		{"a/Tiny-NVFP4", tiny + `}`, []string{"format_unknown"}, false},
		{"a/Tiny-FP8", tiny + `}`, []string{"format_unknown"}, false},
		{"a/Tiny-BF16", tiny + `}`, nil, true},
		{"a/Tiny", tiny + `}`, nil, true},
		{"a/Tiny-NVFP4", tiny + weightOnly, []string{"weight_only", "mixed_formats"}, true},
		{"a/Tiny-MXFP4", tiny + weightOnly, []string{"claim_not_met"}, true},
		{"a/Tiny", strings.Replace(tiny, `"llama"`, `"brandnew"`, 1) + `}`, []string{"unknown_architecture"}, true},
		{"a/Tiny", tiny + `,"quantization_config":{"quant_method":"secret"}}`, []string{"unknown_format"}, false},
		{"a/Tiny", tiny + `,"num_nextn_predict_layers":1}`, []string{"mtp_not_counted"}, true},
		{"a/Tiny", tiny + `,"vision_config":{"model_type":"new_tower","depth":3}}`, []string{"vision_not_counted"}, true},
	}
	for _, tt := range tests {
		m := parse(t, tt.id, tt.config, "")
		var codes []string
		for _, w := range m.Warnings {
			codes = append(codes, w.Code)
		}
		if !slices.Equal(codes, tt.codes) || (m.Bytes > 0) != tt.bytes {
			t.Errorf("%s %.90s…: %v and %d bytes, want %v", tt.id, tt.config[len(tiny):], codes, m.Bytes, tt.codes)
		}
	}
	m := parse(t, "nvidia/Some-27B-NVFP4", tiny+`}`, "")
	if got := m.Warnings[0].Message; got != "format unknown from config alone; the name claims NVFP4" {
		t.Errorf("message %q", got)
	}
}

func TestNameClaims(t *testing.T) {
	for id, want := range map[string]string{
		"nvidia/Qwen3.6-27B-NVFP4": "NVFP4", "Qwen/Qwen3-32B-FP8": "FP8", "a/B-FP8-NVFP4": "NVFP4", "a/b_awq": "AWQ",
		"meta-llama/Llama-3.1-8B": "", "a/FP8x": "", "a/model-bf16": "BF16", "": "", "nvfp4": "NVFP4",
	} {
		if got := nameClaim(id); got != want {
			t.Errorf("%q claims %q, want %q", id, got, want)
		}
	}
}

func TestMatcher(t *testing.T) {
	m := newMatcher([]string{"lm_head", "gate", "model.layers.0.self_attn*", "model.layers.1", "mlp.router", "*.shared_expert.*", "re:.*visual.*", "model.layers.0.self_attn.q*", ""})
	for name, want := range map[string]bool{
		"lm_head":                          true,
		"model.lm_head":                    true,
		"model.layers.5.mlp.gate":          true,
		"model.layers.5.mlp.gate_proj":     false,
		"model.layers.0.self_attn.q_proj":  true,
		"model.layers.0.self_attn":         true,
		"model.layers.00.self_attn.q":      false,
		"model.layers.1.mlp.up_proj":       true,
		"model.layers.10.mlp.up_proj":      false,
		"model.layers.10.mlp.router":       true,
		"a.mlp.shared_expert.up_proj":      true,
		"a.mlp.shared_expert_gate":         false,
		"model.visual.blocks.0.attn.qkv":   true,
		"model.layers.2.self_attn.q_proj":  false,
		"model.layers.2.mlp.shared_expert": false,
	} {
		if got := m.matches(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	for _, g := range []struct {
		pattern, name string
		want          bool
	}{
		{"model.layers.*.self_attn", "model.layers.12.self_attn.q_proj", true},
		{"model.layers.*.self_attn", "model.layers.12.self_attn", true},
		{"model.layers.*.self_attn", "model.layers.12.self_attn_norm", false},
		{"a?c*d", "abcxxd", true}, {"a?c*d", "abcxxdx", false}, {"*", "", true}, {"**a", "bba", true}, {"?", "", false},
	} {
		if got := glob(g.pattern, g.name); got != g.want {
			t.Errorf("glob %s %s: %v", g.pattern, g.name, got)
		}
	}
}

func TestBadConfigs(t *testing.T) {
	huge := strings.Repeat("9", 30)
	for name, config := range map[string]string{
		"empty":             "",
		"not an object":     "[1]",
		"null":              "null",
		"cut off":           tiny,
		"trailing data":     tiny + "}{}",
		"no layers":         `{"model_type":"llama","hidden_size":8,"vocab_size":8}`,
		"no language model": `{"model_type":"clip","num_hidden_layers":3}`,
		"negative layers":   strings.Replace(tiny, `"num_hidden_layers":2`, `"num_hidden_layers":-2`, 1) + "}",
		"million layers":    strings.Replace(tiny, `"num_hidden_layers":2`, `"num_hidden_layers":1000000`, 1) + "}",
		"huge number":       strings.Replace(tiny, `"hidden_size":256`, `"hidden_size":`+huge, 1) + "}",
		"half a head":       strings.Replace(tiny, `"num_attention_heads":4`, `"num_attention_heads":4.5`, 1) + "}",
		"text for a size":   strings.Replace(tiny, `256`, `"256"`, 1) + "}",
		"too many experts":  tiny + `,"num_local_experts":2,"num_experts_per_tok":3}`,
		"beyond any model":  strings.NewReplacer(`"hidden_size":256`, `"hidden_size":67108864`, `"vocab_size":1000`, `"vocab_size":67108864`).Replace(tiny) + "}",
		"absurd state":      tiny + `,"linear_num_value_heads":1048576,"linear_key_head_dim":1048576,"linear_value_head_dim":1048576,"full_attention_interval":4,"num_hidden_layers":4}`,
		"absurd vision":     tiny + `,"vision_config":{"model_type":"qwen3_5","depth":1,"patch_size":100000}}`,
		"no pattern":        `{"model_type":"nemotron_h","num_hidden_layers":2,"hidden_size":8,"vocab_size":8}`,
		"text is a list":    `{"text_config":[1],"num_hidden_layers":2,"hidden_size":8,"vocab_size":8}`,
		"quant is a list":   tiny + `,"quantization_config":[]}`,
		"quant is mistyped": tiny + `,"quantization_config":{"quant_method":3}}`,
	} {
		m, err := Parse(Input{Config: []byte(config)})
		var bad *BadConfigError
		if !errors.As(err, &bad) || bad.UserError() == "" {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
	if _, err := Parse(Input{Config: []byte(tiny + "}"), HFQuant: []byte("{")}); err == nil {
		t.Error("a broken hf_quant_config.json: no error")
	}
	if m := parse(t, "", strings.Replace(tiny, "256", "256.0", 1)+`,"eos_token_id":[1,2],"x":-Infinity,"y":"NaN \" Infinity"}`, ""); m.Hidden != 256 {
		t.Errorf("hidden %d", m.Hidden)
	}
}

func FuzzParse(f *testing.F) {
	for _, k := range known {
		f.Add([]byte(k.config), []byte(nil))
	}
	f.Add([]byte(moe+`,"quantization_config":{"quant_method":"compressed-tensors","config_groups":{"a":{"weights":{"num_bits":8,"type":"float","block_structure":"128x128"},"targets":["re:(","*","Linear"]}}}}`), []byte(nil))
	f.Add([]byte(tiny+`,"sliding_window":16,"sliding_window_pattern":6}`), []byte(`{"quantization":{"quant_algo":"W4A16_AWQ","group_size":0}}`))
	f.Fuzz(func(t *testing.T, config, quant []byte) {
		m, err := Parse(Input{ID: "a/b-NVFP4", Config: config, HFQuant: quant})
		if err != nil {
			return
		}
		p := m.Params
		if p.Text <= 0 || p.Vision < 0 || p.MTP < 0 || p.Active <= 0 || p.Active > p.Text || p.Compute > p.Active || p.Compute < 0 || m.Bytes < 0 {
			t.Errorf("counts %+v, %d bytes", p, m.Bytes)
		}
		if n := m.Cache.At(1000, 8); n < 0 || m.Cache.StateBytes(2) < 0 {
			t.Errorf("cache %+v", m.Cache)
		}
		if _, err := json.Marshal(m); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for _, i := range []int{0, 4, 8} {
		b.Run(known[i].name, func(b *testing.B) {
			config := []byte(known[i].config)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(Input{Config: config}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
