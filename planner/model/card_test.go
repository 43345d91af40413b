package model

import (
	"fmt"
	"strings"
	"testing"
)

func claimsText(c *Card) string {
	var b strings.Builder
	for _, x := range c.Claims {
		v := x.Word
		if v == "" {
			v = fmt.Sprintf("%g±%g", x.Value, x.Step)
		}
		fmt.Fprintf(&b, "%s %s %s\n", x.Kind, v, x.Source)
	}
	return b.String()
}

// TestReadCard holds the forms in which cards say things.
func TestReadCard(t *testing.T) {
	for text, want := range map[string]string{
		"---\nlicense: apache-2.0\nbase_model:\n- a/b\n- c/d\ntags:\n- x\n---\ntext": "licence apache-2.0 README.md:2\nbase_model a/b README.md:4\nbase_model c/d README.md:5\n",
		"---\nbase_model: \"a/b\"\nlicense: other\nlicense_name: special\n---":       "base_model a/b README.md:2\nlicence other README.md:3\n",
		"---\nlicense: mit\nno end": "licence mit README.md:2\n",
		"It shrinks.\nreducing the disk size and GPU memory requirements by approximately 3.5x.":            "memory_reduction 3.5±0.1 README.md:2\n",
		"which reduces disk and GPU memory by about **~2.5×** in all":                                       "memory_reduction 2.5±0.1 README.md:1\n",
		"The checkpoint is ~3.3x smaller than BF16":                                                         "memory_reduction 3.3±0.1 README.md:1\n",
		"reducing the disk size and GPU memory requirements by approximately 75%.":                          "size_share 0.75±0.01 README.md:1\n",
		"reduces the number of bits per parameter from 16 to 8, reducing the disk size by 50%":              "size_share 0.5±0.01 README.md:1\nbits_per_parameter 8±1 README.md:1\n",
		"It has 235B in total and 22B activated":                                                            "parameters 2.35e+11±1e+09 README.md:1\nactive_parameters 2.2e+10±1e+09 README.md:1\n",
		"- Number of Parameters: 8.2B\n- Activated parameters: 3.3B":                                        "parameters 8.2e+09±1e+08 README.md:1\nactive_parameters 3.3e+09±1e+08 README.md:2\n",
		"a model of 7 billion parameters":                                                                   "parameters 7e+09±1e+09 README.md:1\n",
		"Context length up to 131,072 tokens":                                                               "context 131072±1 README.md:1\n",
		"with a 128K context and more":                                                                      "context 131072±1024 README.md:1\n",
		"**Context Length:** 262,144 natively":                                                              "context 262144±1 README.md:1\n",
		"quantizing the weights and activations\nof it to FP4 data type":                                    "format FP4 README.md:1\n",
		"Only the weights and activations of the linear operators within transformer blocks are quantized.": "quantised_layers weights and activations README.md:1\n",
		"in this context 3 things matter":                                                                   "",
		"we reduced the learning rate by 2x when memory served":                                             "",
		"nothing to see": "",
		"":               "",
	} {
		if got := claimsText(ReadCard([]byte(text))); got != want {
			t.Errorf("%q:\n%swant\n%s", text, got, want)
		}
	}
	c := ReadCard([]byte("```bash\nVLLM_USE_FLASHINFER_MOE_FP4=1 vllm serve a/b \\\n  --kv-cache-dtype fp8\npip install vllm\n```\nvllm serve not/code"))
	if len(c.Commands) != 1 || c.Commands[0] != "VLLM_USE_FLASHINFER_MOE_FP4=1 vllm serve a/b --kv-cache-dtype fp8" {
		t.Errorf("%q", c.Commands)
	}
}

func TestNameSizes(t *testing.T) {
	for id, want := range map[string]string{
		"Qwen/Qwen3.5-397B-A17B-NVFP4": "parameters 3.97e+11±1e+09 name\nactive_parameters 1.7e+10±1e+09 name\n",
		"Qwen/Qwen3-0.6B":              "parameters 6e+08±1e+08 name\n",
		"mistralai/Mixtral-8x7B-v0.1":  "",
		"openai/gpt-oss-120b":          "parameters 1.2e+11±1e+09 name\n",
		"deepseek-ai/DeepSeek-R1":      "",
		"a/SmolLM-135M":                "parameters 1.35e+08±1e+06 name\n",
		"":                             "",
	} {
		if got := claimsText(&Card{Claims: NameClaims(id)}); got != want {
			t.Errorf("%s:\n%swant\n%s", id, got, want)
		}
	}
}

func FuzzReadCard(f *testing.F) {
	f.Add([]byte("---\nlicense: mit\n---\n# x\nreducing the disk size by approximately 3.5x. 27B parameters, 128K context.\n```\nvllm serve a/b --x\n```"))
	f.Add([]byte("---\n- \n---"))
	f.Add([]byte("```\n\\\n\\\n"))
	m, err := Parse(Input{ID: "a/Tiny-1B-NVFP4", Config: []byte(tiny + "}")})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := ReadCard(b)
		if len(c.Claims) > maxClaims || len(c.Commands) > 8 {
			t.Fatalf("%d claims, %d commands", len(c.Claims), len(c.Commands))
		}
		verdicts := map[string]bool{"aligned": true, "partially_aligned": true, "inconclusive": true, "not_attempted": true, "not_checkable": true}
		for _, r := range CheckClaims(c.Claims, &Known{Model: m}) {
			if !verdicts[r.Verdict] || r.Source == "" || len(r.Text) > 320 || r.Verdict != "aligned" && r.Reason == "" && r.Measured == "" {
				t.Fatalf("%+v", r)
			}
		}
		ServingAdvice(m, c, false)
	})
}

// TestCheckClaims checks the same words against different models.
func TestCheckClaims(t *testing.T) {
	quantised := func(extra string) *Known {
		m := parse(t, "a/Tiny-NVFP4", strings.TrimSuffix(known[0].config, "}")+`,"max_position_embeddings":131072`+extra+"}", "")
		return &Known{Model: m}
	}
	nvfp4 := quantised(`,"quantization_config":{"quant_method":"modelopt","quant_algo":"NVFP4","ignore":["lm_head"]}`)
	weightOnly := quantised(`,"quantization_config":{"quant_method":"modelopt","quant_algo":"W4A16_NVFP4"}`)
	plain, unknown := quantised(`,"architectures":[]`), quantised("")
	plain.Model.Warnings = nil
	plain.Model.share()
	oss := &Known{Model: parse(t, "a/oss", known[6].config, "")}
	for _, tc := range []struct {
		k       *Known
		c       Claim
		verdict string
		word    string
	}{
		{nvfp4, Claim{Kind: "parameters", Value: 8e9, Step: 1e9}, "aligned", "8.03 B"},
		{nvfp4, Claim{Kind: "parameters", Value: 4.9e9, Step: 1e8, Source: "hub: safetensors.total"}, "inconclusive", "two parameters"},
		{nvfp4, Claim{Kind: "parameters", Value: 7.5e9, Step: 1e8}, "aligned", "without its input embedding"},
		{nvfp4, Claim{Kind: "active_parameters", Value: 8e9, Step: 1e9}, "aligned", ""},
		{oss, Claim{Kind: "active_parameters", Value: 5.1e9, Step: 1e8}, "aligned", "leaves out the input embedding"},
		{oss, Claim{Kind: "active_parameters", Value: 3e9, Step: 1e8}, "inconclusive", "1.90 times"},
		{nvfp4, Claim{Kind: "memory_reduction", Value: 3.5, Step: 0.1}, "partially_aligned", "stay at 16 bits"},
		{nvfp4, Claim{Kind: "memory_reduction", Value: 2.6, Step: 0.1}, "aligned", "2.6"},
		{unknown, Claim{Kind: "memory_reduction", Value: 3.5, Step: 0.1}, "not_checkable", "not known"},
		{plain, Claim{Kind: "memory_reduction", Value: 3.5, Step: 0.1}, "inconclusive", "1.00x"},
		{nvfp4, Claim{Kind: "size_share", Value: 0.62, Step: 0.01}, "aligned", "saved"},
		{nvfp4, Claim{Kind: "size_share", Value: 0.38, Step: 0.01}, "partially_aligned", "share that is left"},
		{nvfp4, Claim{Kind: "size_share", Value: 0.9, Step: 0.01}, "partially_aligned", "another share"},
		{nvfp4, Claim{Kind: "bits_per_parameter", Value: 4, Step: 1}, "partially_aligned", "quantised modules only"},
		{weightOnly, Claim{Kind: "bits_per_parameter", Value: 5, Step: 1}, "aligned", "5.25"},
		{unknown, Claim{Kind: "bits_per_parameter", Value: 4, Step: 1}, "not_checkable", ""},
		{nvfp4, Claim{Kind: "context", Value: 128000, Step: 1000}, "aligned", "131072"},
		{nvfp4, Claim{Kind: "context", Value: 32768, Step: 1}, "partially_aligned", "allows more"},
		{nvfp4, Claim{Kind: "context", Value: 262144, Step: 1}, "inconclusive", ""},
		{nvfp4, Claim{Kind: "format", Word: "NVFP4", Text: "weights and activations"}, "aligned", "128 modules"},
		{nvfp4, Claim{Kind: "format", Word: "FP8"}, "inconclusive", "no module"},
		{weightOnly, Claim{Kind: "format", Word: "FP4", Text: "weights and activations"}, "partially_aligned", "weights only"},
		{weightOnly, Claim{Kind: "format", Word: "FP4", Text: "weights"}, "aligned", "weights only"},
		{plain, Claim{Kind: "format", Word: "FP8"}, "inconclusive", "no module is quantised"},
		{unknown, Claim{Kind: "format", Word: "NVFP4"}, "not_checkable", ""},
		{nvfp4, Claim{Kind: "quantised_layers"}, "aligned", "0 outside"},
		{weightOnly, Claim{Kind: "quantised_layers"}, "partially_aligned", "outside of the blocks"},
		{plain, Claim{Kind: "quantised_layers"}, "inconclusive", ""},
		{unknown, Claim{Kind: "quantised_layers"}, "not_checkable", ""},
		{nvfp4, Claim{Kind: "licence", Word: "mit"}, "not_checkable", ""},
		{&Known{Model: nvfp4.Model, Licence: "mit"}, Claim{Kind: "licence", Word: "MIT"}, "aligned", ""},
		{&Known{Model: nvfp4.Model, Licence: "mit"}, Claim{Kind: "licence", Word: "apache-2.0"}, "inconclusive", "differ"},
		{nvfp4, Claim{Kind: "base_model", Word: "a/b"}, "not_attempted", "--against a/b"},
		{&Known{Model: nvfp4.Model, Base: "a/c"}, Claim{Kind: "base_model", Word: "a/b"}, "not_attempted", "a/c"},
		{&Known{Model: nvfp4.Model, Base: "a/b"}, Claim{Kind: "base_model", Word: "a/b"}, "inconclusive", "far"},
		{&Known{Model: nvfp4.Model, Base: "a/b", BaseFits: true}, Claim{Kind: "base_model", Word: "a/b"}, "aligned", ""},
		{nvfp4, Claim{Kind: "colour"}, "not_checkable", ""},
	} {
		r := CheckClaims([]Claim{tc.c}, tc.k)[0]
		if r.Verdict != tc.verdict || !strings.Contains(r.Measured+" "+r.Reason, tc.word) {
			t.Errorf("%+v: %s, %q %q, want %s with %q", tc.c, r.Verdict, r.Measured, r.Reason, tc.verdict, tc.word)
		}
	}
}

func TestRecogniseLicence(t *testing.T) {
	for text, want := range map[string]string{
		"  Apache License\n Version 2.0": "apache-2.0", "MIT License\n": "mit", "LLAMA 3.1 COMMUNITY LICENSE AGREEMENT": "llama3.1",
		"All rights reserved": "", "": "",
	} {
		if got := RecogniseLicence([]byte(text)); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func BenchmarkReadCard(b *testing.B) {
	text := []byte(strings.Repeat("This optimization reduces the number of bits per parameter from 16 to 4, and more words that say nothing at all.\n\n", 400))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		ReadCard(text)
	}
}
