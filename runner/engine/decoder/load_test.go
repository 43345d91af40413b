package decoder

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/runner/engine/enginetest"
)

// config writes fields into the configuration of a checkpoint; nil takes one out.
func config(t *testing.T, dir string, fields map[string]any) {
	t.Helper()
	path := filepath.Join(dir, "config.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	for k, v := range fields {
		if c[k] = v; v == nil {
			delete(c, k)
		}
	}
	if b, err = json.Marshal(c); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestCheckpointsThatAreRefused has tensors that do not fit the configuration,
// and models that the engine does not compute. Each is refused with the reason
// and with what to do; none is computed wrongly.
func TestCheckpointsThatAreRefused(t *testing.T) {
	quant := func(algo string) map[string]any {
		return map[string]any{"quantization_config": map[string]any{"quant_method": "modelopt", "quant_algo": algo, "ignore": []string{"lm_head"}}}
	}
	for name, c := range map[string]struct {
		fields map[string]any
		want   string
	}{
		"a layer too many":        {map[string]any{"num_hidden_layers": 3}, "model.layers.2.input_layernorm.weight is missing"},
		"a layer too few":         {map[string]any{"num_hidden_layers": 1}, "tensors are not of a qwen3 of 1 layers"},
		"another width":           {map[string]any{"hidden_size": 128}, "has the shape"},
		"other heads":             {map[string]any{"num_attention_heads": 8}, "q_proj.weight has the shape"},
		"other groups":            {map[string]any{"num_key_value_heads": 4}, "k_proj.weight has the shape"},
		"heads that do not share": {map[string]any{"num_key_value_heads": 3}, "cannot share"},
		"another vocabulary":      {map[string]any{"vocab_size": 321}, "embed_tokens.weight has the shape"},
		"a head of its own":       {map[string]any{"tie_word_embeddings": false}, "lm_head.weight is missing"},
		"norms left over":         {map[string]any{"model_type": "llama"}, "are not of a llama"},
		"biases that lack":        {map[string]any{"model_type": "qwen2"}, "biases"},
		"an unknown family":       {map[string]any{"model_type": "gpt2"}, "model_type"},
		"experts":                 {map[string]any{"num_experts": 8, "num_experts_per_tok": 2}, "experts"},
		"another activation":      {map[string]any{"hidden_act": "gelu"}, "gelu"},
		"a sliding window":        {map[string]any{"model_type": "mistral", "sliding_window": 32}, "sliding window"},
		"a part rotated":          {map[string]any{"partial_rotary_factor": 0.5}, "partial_rotary_factor"},
		"other positions":         {map[string]any{"rope_scaling": map[string]any{"rope_type": "yarn", "factor": 4}}, "yarn"},
		"no positions":            {map[string]any{"max_position_embeddings": 0}, "max_position_embeddings"},
		"a negative theta":        {map[string]any{"rope_theta": -1}, "rope_theta"},
		"an odd epsilon":          {map[string]any{"rms_norm_eps": 5}, "rms_norm_eps"},
		"a format it has not":     {quant("NVFP4"), "no tensor is in that format"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := enginetest.Write(dir, "x", enginetest.Tiny, nil); err != nil {
				t.Fatal(err)
			}
			config(t, dir, c.fields)
			_, err := Load(t.Context(), model.Folder(dir), LoadConfig{})
			var user interface{ UserError() string }
			if err == nil || !strings.Contains(err.Error(), c.want) || !errors.As(err, &user) || user.UserError() == "" {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestModelsThatAreTooLarge(t *testing.T) {
	dir := t.TempDir()
	if err := enginetest.Write(dir, "x", enginetest.Tiny, nil); err != nil {
		t.Fatal(err)
	}
	var unsupported *UnsupportedError
	if _, err := Load(t.Context(), model.Folder(dir), LoadConfig{MaxBytes: 1000}); !errors.As(err, &unsupported) {
		t.Errorf("%v", err)
	}
}

// TestSteps that cannot be computed are refused before anything is.
func TestStepsThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	if err := enginetest.Write(dir, "x", enginetest.Tiny, nil); err != nil {
		t.Fatal(err)
	}
	m, err := Load(t.Context(), model.Folder(dir), LoadConfig{})
	if err != nil {
		t.Fatal(err)
	}
	r := m.NewRunner(1, 32)
	defer r.Close()
	c := NewCache(&m.Config, 64)
	var seq Sequence
	c.Grow(&seq, 64)
	for name, slot := range map[string]Slot{
		"a token too large": {Seq: &seq, Tokens: []int32{320}},
		"a negative token":  {Seq: &seq, Tokens: []int32{-1}},
		"too many tokens":   {Seq: &seq, Tokens: make([]int32, 33)},
		"no room":           {Seq: &Sequence{}, Tokens: []int32{1}},
	} {
		if _, err := r.Step(c, []Slot{slot}); err == nil {
			t.Errorf("%s: was computed", name)
		}
	}
	if l, err := r.Step(c, nil); err != nil || len(l) != 0 {
		t.Errorf("an empty step: %v %v", l, err)
	}
	if c.Grow(&Sequence{}, 1) {
		t.Error("a full cache had room")
	}
}

// FuzzConfig loads weights with any configuration: it is refused, or computes.
func FuzzConfig(f *testing.F) {
	for _, s := range []enginetest.Shape{enginetest.Tiny, enginetest.SmolLM135M, enginetest.Qwen3600M} {
		b, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"model_type":"llama","hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,"vocab_size":320,"intermediate_size":96,"max_position_embeddings":9,"rope_parameters":{"rope_type":"llama3","factor":1e300,"low_freq_factor":1,"high_freq_factor":2,"original_max_position_embeddings":1e300}}`))
	dir := f.TempDir()
	if err := enginetest.Write(dir, "x", enginetest.Tiny, nil); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, config []byte) {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644); err != nil {
			t.Fatal(err)
		}
		m, err := Load(t.Context(), model.Folder(dir), LoadConfig{})
		if err != nil {
			return
		}
		r := m.NewRunner(1, min(4, m.Config.Context))
		defer r.Close()
		c := NewCache(&m.Config, 4)
		var seq Sequence
		c.Grow(&seq, 1)
		if _, err := r.Step(c, []Slot{{Seq: &seq, Tokens: []int32{1}, Logits: 1}}); err != nil {
			t.Fatal(err)
		}
	})
}
