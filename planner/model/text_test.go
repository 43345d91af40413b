package model

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestWriteText(t *testing.T) {
	mixed := strings.TrimSuffix(known[8].config, "}") + `,"architectures":["Qwen3_5ForConditionalGeneration"],"max_position_embeddings":262144,"quantization_config":{"quant_method":"modelopt","quant_algo":"MIXED_PRECISION","producer":{"name":"modelopt","version":"0.45.0"},"kv_cache_scheme":{"dynamic":false,"num_bits":8,"type":"float"},"quantized_layers":{"lm_head":{"quant_algo":"W4A16_NVFP4","group_size":16},"model.language_model.layers.3.self_attn.o_proj":{"quant_algo":"FP8"}},"ignore":["mtp*"]}}`
	for name, in := range map[string]Input{
		"hybrid": {ID: "some/Hybrid-27B-NVFP4", Config: []byte(mixed)},
		"mla":    {Config: []byte(strings.TrimSuffix(known[5].config, "}") + `,"max_position_embeddings":163840,"quantization_config":{"quant_method":"fp8","weight_block_size":[128,128]}}`)},
		"claim":  {ID: "a/Tiny-NVFP4", Config: []byte(tiny + "}")},
		"oss":    {ID: "some/oss", Config: []byte(strings.TrimSuffix(known[6].config, "}") + `,"max_position_embeddings":131072,"quantization_config":{"quant_method":"mxfp4"}}`)},
	} {
		m, err := Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		known := &Known{Model: m}
		if err := known.WriteText(&b, []GPU{{"h100", 90}, {"b200", 100}, {"rtx-pro-6000", 120}}); err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", name+".txt")
		if *update {
			if err := os.WriteFile(golden, []byte(b.String()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if b.String() != string(want) {
			t.Errorf("%s:\n%s\nwant\n%s", name, b.String(), want)
		}
	}
}
