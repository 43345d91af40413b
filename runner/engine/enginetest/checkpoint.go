// Package enginetest makes small checkpoints whose weights are a function of
// their names, for tests and benchmarks. The same function, in Python, made the
// logits that the engine is held to.
package enginetest

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/repromill/repromill/planner/model"
)

// Shape is the structure of a model, as in config.json.
type Shape struct {
	Type         string  `json:"model_type"`
	Hidden       int     `json:"hidden_size"`
	Intermediate int     `json:"intermediate_size"`
	Layers       int     `json:"num_hidden_layers"`
	Heads        int     `json:"num_attention_heads"`
	KVHeads      int     `json:"num_key_value_heads"`
	HeadDim      int     `json:"head_dim,omitempty"`
	Vocab        int     `json:"vocab_size"`
	Context      int     `json:"max_position_embeddings"`
	Eps          float64 `json:"rms_norm_eps"`
	Tied         bool    `json:"tie_word_embeddings"`
	Theta        float64 `json:"rope_theta"`
	EOS          int     `json:"eos_token_id"`
	DType        string  `json:"torch_dtype"`
}

// Structures of small public models, from their config.json on the hub.
var (
	SmolLM135M = Shape{Type: "llama", Hidden: 576, Intermediate: 1536, Layers: 30, Heads: 9, KVHeads: 3, Vocab: 49152, Context: 8192, Eps: 1e-5, Tied: true, Theta: 100000, DType: "bfloat16"}
	Qwen3600M  = Shape{Type: "qwen3", Hidden: 1024, Intermediate: 3072, Layers: 28, Heads: 16, KVHeads: 8, HeadDim: 128, Vocab: 151936, Context: 40960, Eps: 1e-6, Tied: true, Theta: 1e6, DType: "bfloat16"}
)

// Tiny is a model of 100,000 parameters.
var Tiny = Shape{Type: "qwen3", Hidden: 64, Intermediate: 96, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 32, Vocab: 320, Context: 256, Eps: 1e-6, Tied: true, Theta: 10000, EOS: 0, DType: "bfloat16"}

// Tensor is one tensor of a checkpoint.
type Tensor struct {
	Name  string
	Shape []int
}

// Tensors lists the tensors of a structure, in the order of its file.
func (s *Shape) Tensors() []Tensor {
	dim := s.HeadDim
	if dim == 0 {
		dim = s.Hidden / s.Heads
	}
	out := []Tensor{{"model.embed_tokens.weight", []int{s.Vocab, s.Hidden}}}
	for i := range s.Layers {
		at := fmt.Sprintf("model.layers.%d.", i)
		add := func(name string, shape ...int) { out = append(out, Tensor{at + name, shape}) }
		add("input_layernorm.weight", s.Hidden)
		add("self_attn.q_proj.weight", s.Heads*dim, s.Hidden)
		add("self_attn.k_proj.weight", s.KVHeads*dim, s.Hidden)
		add("self_attn.v_proj.weight", s.KVHeads*dim, s.Hidden)
		add("self_attn.o_proj.weight", s.Hidden, s.Heads*dim)
		switch s.Type {
		case "qwen2":
			add("self_attn.q_proj.bias", s.Heads*dim)
			add("self_attn.k_proj.bias", s.KVHeads*dim)
			add("self_attn.v_proj.bias", s.KVHeads*dim)
		case "qwen3":
			add("self_attn.q_norm.weight", dim)
			add("self_attn.k_norm.weight", dim)
		}
		add("post_attention_layernorm.weight", s.Hidden)
		add("mlp.gate_proj.weight", s.Intermediate, s.Hidden)
		add("mlp.up_proj.weight", s.Intermediate, s.Hidden)
		add("mlp.down_proj.weight", s.Hidden, s.Intermediate)
	}
	out = append(out, Tensor{"model.norm.weight", []int{s.Hidden}})
	if !s.Tied {
		out = append(out, Tensor{"lm_head.weight", []int{s.Vocab, s.Hidden}})
	}
	return out
}

// Values are those of a tensor: sums of four uniform ones, by SplitMix64 (Steele,
// Lea, Flood, OOPSLA 2014) from the FNV-1a hash of its name.
func Values(model, name string, shape []int, each func(v float32)) {
	h := uint64(0xCBF29CE484222325)
	for _, c := range []byte(model + "/" + name) {
		h = (h ^ uint64(c)) * 0x100000001B3
	}
	spread, middle := 0.3, 0.0
	n := 1
	for _, d := range shape {
		n *= d
	}
	switch {
	case strings.Contains(name, "norm"):
		spread, middle = 0.5, 1
	case len(shape) > 1:
		spread = 3.4 / math.Sqrt(float64(shape[len(shape)-1]))
	}
	for range n {
		h += 0x9E3779B97F4A7C15
		z := h
		z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		z ^= z >> 31
		unit := float64(z&0xFFFF+z>>16&0xFFFF+z>>32&0xFFFF+z>>48) / (1 << 18)
		each(float32((unit-0.5)*2*spread + middle))
	}
}

// Write writes a checkpoint in BF16 into a folder: model.safetensors, and
// config.json unless config is given.
func Write(dir, name string, s Shape, config []byte) error {
	if config == nil {
		var err error
		if config, err = json.MarshalIndent(s, "", "  "); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644); err != nil {
		return err
	}
	type entry struct {
		DType   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	header, at := map[string]entry{}, 0
	tensors := s.Tensors()
	for _, t := range tensors {
		n := 2
		for _, d := range t.Shape {
			n *= d
		}
		header[t.Name] = entry{"BF16", t.Shape, [2]int{at, at + n}}
		at += n
	}
	h, err := json.Marshal(header)
	if err != nil {
		return err
	}
	for len(h)%8 != 0 {
		h = append(h, ' ')
	}
	f, err := os.Create(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		return err
	}
	defer f.Close()
	out := bufio.NewWriterSize(f, 1<<20)
	_, _ = out.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(h)))) // the writer keeps its first error
	_, _ = out.Write(h)
	for _, t := range tensors {
		Values(name, t.Name, t.Shape, func(v float32) {
			c := model.EncodeBF16(v)
			_ = out.WriteByte(byte(c))
			_ = out.WriteByte(byte(c >> 8))
		})
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return f.Close()
}
