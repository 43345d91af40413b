package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

func settings(a *Arm) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s:", a.Engine, a.Version, a.Model)
	for _, k := range slices.Sorted(maps.Keys(a.Settings)) {
		fmt.Fprintf(&b, " %s=%s", k, a.Settings[k])
	}
	return b.String()
}

func TestParseArm(t *testing.T) {
	for command, want := range map[string]string{
		"vllm serve a/b --port 8000 --kv-cache-dtype fp8":                                                               "vllm  a/b: kv_cache_dtype=fp8 port=8000",
		"vllm serve --model=a/b -tp 4 --no-enable-prefix-caching":                                                       "vllm  a/b: enable_prefix_caching=false tensor_parallel_size=4",
		"vllm serve local-model --max_model_len=4096":                                                                   "vllm  local-model: max_model_len=4096",
		"VLLM_USE_FLASHINFER_MOE_FP4=1 vllm serve a/b --enforce-eager":                                                  "vllm  a/b: enforce_eager=true env:VLLM_USE_FLASHINFER_MOE_FP4=1",
		"python3 -m sglang.launch_server --model-path a/b --disable-radix-cache --context-length 8192 --tp 2":           "sglang  a/b: enable_prefix_caching=false max_model_len=8192 tensor_parallel_size=2",
		"docker run --gpus all -p 8000:8000 -e HF_TOKEN=x --ipc=host vllm/vllm-openai:v0.11.0 --model a/b --dtype auto": "vllm 0.11.0 a/b: dtype=auto env:HF_TOKEN=x",
		"--kv-cache-dtype fp8 --some-new-flag 7 --switch":                                                               "  : kv_cache_dtype=fp8 some_new_flag=7 switch=true",
		"vllm serve a/b --speculative-config '{\"method\": \"mtp\"}' \\\n --no-new-thing":                               "vllm  a/b: new_thing=false speculative_config={\"method\": \"mtp\"}",
		"trtllm-serve a/b --max_batch_size 8":                                                                           "trtllm  a/b: max_num_seqs=8",
		"vllm serve a/b --enable-prefix-caching=false --enable-chunked-prefill=true":                                    "vllm  a/b: enable_chunked_prefill=true enable_prefix_caching=false",
	} {
		a, err := ParseArm("x", command)
		if err != nil {
			t.Errorf("%s: %v", command, err)
		} else if got := settings(a); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", command, got, want)
		}
	}
	for _, bad := range []string{"", "  ", "vllm serve 'a", strings.Repeat("x", 70000), "hello"} {
		if _, err := ParseArm("x", bad); err == nil {
			t.Errorf("%.20q: no error", bad)
		}
	}
}

func TestCompareArms(t *testing.T) {
	arms := func(commands ...string) (out []*Arm) {
		for i, c := range commands {
			a, err := ParseArm(fmt.Sprint("arm", i), c)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, a)
		}
		return out
	}
	for _, tc := range []struct {
		arms   []*Arm
		unfair string
		other  string // setting=class
	}{
		{arms("vllm serve a/x-FP8 --port 1", "vllm serve a/x-NVFP4 --port 2 --quantization modelopt"), "", "model=subject port=harmless quantization=subject engine=same"},
		{arms("vllm serve a/x", "vllm serve a/y --kv-cache-dtype fp8"), "kv_cache_dtype", ""},
		{arms("vllm serve a/x --kv-cache-dtype fp8 --kv-new 1", "vllm serve a/y --kv-cache-dtype fp8"), "", "kv_cache_dtype=same kv_new=unknown"},
		{arms("vllm serve a/x", "vllm serve a/y", "sglang serve a/z --max-running-requests 3"), "engine max_num_seqs", ""},
		{arms("vllm/vllm-openai:v0.10.0 --model a/x", "vllm/vllm-openai:v0.11.0 --model a/y"), "engine_version", ""},
		{arms("vllm serve a/x --reasoning-parser qwen3 --max-model-len 100", "vllm serve a/y --no-enable-prefix-caching --tp 2"), "enable_prefix_caching max_model_len reasoning_parser tensor_parallel_size", ""},
		{arms("VLLM_FLASHINFER_MOE_BACKEND=latency vllm serve a/x", "VLLM_LOGGING_LEVEL=DEBUG vllm serve a/y"), "env:VLLM_FLASHINFER_MOE_BACKEND", "env:VLLM_LOGGING_LEVEL=unknown"},
	} {
		d := CompareArms(tc.arms)
		var unfair []string
		class := map[string]string{}
		for _, r := range d.Rows {
			class[r.Setting] = r.Class
			if len(r.Values) != len(tc.arms) {
				t.Errorf("%+v", r)
			}
			if r.Class == "unfair" {
				unfair = append(unfair, r.Setting)
				if r.Why == "" || r.Moves == "" {
					t.Errorf("%+v does not say why", r)
				}
			}
		}
		if got := strings.Join(unfair, " "); got != tc.unfair || d.Fair != (tc.unfair == "") {
			t.Errorf("unfair: %q, want %q", got, tc.unfair)
		}
		for _, want := range strings.Fields(tc.other) {
			k, v, _ := strings.Cut(want, "=")
			if class[k] != v {
				t.Errorf("%s is %q, want %q", k, class[k], v)
			}
		}
	}
}

func FuzzParseArm(f *testing.F) {
	f.Add("A=b vllm serve a/b --x=1 --no-y -tp 2 'q \" q' \\\n --z")
	f.Add("docker run -e A=b --gpus all vllm/vllm-openai:v0.1.2 --model x/y")
	f.Fuzz(func(t *testing.T, command string) {
		a, err := ParseArm("x", command)
		if err != nil {
			return
		}
		if d := CompareArms([]*Arm{a, a}); !d.Fair {
			t.Fatalf("an arm is unfair to itself: %+v", d)
		}
	})
}

func TestServingAdvice(t *testing.T) {
	m := parse(t, "a/b", strings.TrimSuffix(known[8].config, "}")+`,"auto_map":{"AutoConfig":"x.Y"},"quantization_config":{"quant_method":"modelopt","quant_algo":"NVFP4","kv_cache_scheme":{"num_bits":8,"type":"float"}}}`, "")
	card := &Card{Commands: []string{"vllm serve a/b --reasoning-parser qwen3 --port 8000 --enable-auto-tool-choice", "vllm serve 'broken"}}
	var flags []string
	for _, a := range ServingAdvice(m, card, m.RemoteCode) {
		flags = append(flags, a.Flag)
	}
	if got, want := strings.Join(flags, "; "), `--quantization modelopt; --kv-cache-dtype fp8; --trust-remote-code; --speculative-config '{"method":"mtp","num_speculative_tokens":1}'; --reasoning-parser qwen3; --enable-auto-tool-choice`; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// TestSameFlagsAndAnotherCache has arms with the same flags whose checkpoints
// make engines serve them differently.
func TestSameFlagsAndAnotherCache(t *testing.T) {
	arm := func(name, kv, generation string) *Arm {
		config := strings.TrimSuffix(known[0].config, "}") + `,"max_position_embeddings":4096,"quantization_config":{"quant_method":"modelopt","quant_algo":"FP8"` + kv + `}}`
		a, err := ParseArm(name, "vllm serve a/"+name+" --kv-cache-dtype auto")
		if err != nil {
			t.Fatal(err)
		}
		a.Defaults = CheckpointDefaults(parse(t, "a/b", config, ""), []byte(generation))
		return a
	}
	const scheme = `,"kv_cache_scheme":{"num_bits":8,"type":"float"}`
	unfair := func(arms ...*Arm) (out []string) {
		for _, r := range CompareArms(arms).Rows {
			if r.Class == "unfair" {
				out = append(out, r.Setting+" "+strings.Join(r.Values, "|"))
			}
		}
		return out
	}
	plain, calibrated := arm("plain", "", `{"temperature":0.6}`), arm("calibrated", scheme, `{"temperature":0.6,"eos_token_id":3}`)
	if got := fmt.Sprint(unfair(plain, calibrated)); got != "[kv_cache_dtype auto|fp8 (checkpoint)]" {
		t.Error(got)
	}
	plain.Settings["kv_cache_dtype"] = "fp8_e4m3"
	if got := unfair(plain, calibrated); len(got) != 0 {
		t.Error(got)
	}
	hot := arm("hot", scheme, `{"temperature":1,"top_p":0.95}`)
	if got := fmt.Sprint(unfair(calibrated, hot)); got != "[generation_config temperature=0.6 (checkpoint)|temperature=1,top_p=0.95 (checkpoint)]" {
		t.Error(got)
	}
}
