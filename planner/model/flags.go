package model

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Arm is how one arm of a comparison is served. The names of settings are those
// of vLLM's flags with underscores (kv_cache_dtype, max_model_len,
// tensor_parallel_size, enable_prefix_caching, reasoning_parser, …), whatever the
// engine calls them; a flag that is not known keeps its own, and a variable of
// the environment is env:NAME.
type Arm struct {
	Name     string            `json:"name"`
	Engine   string            `json:"engine,omitempty"`  // vllm, sglang, trtllm
	Version  string            `json:"version,omitempty"` // of the engine, where the command or image says so
	Model    string            `json:"model,omitempty"`
	Settings map[string]string `json:"settings,omitempty"`
	// Defaults are what the checkpoint sets where no flag does; see
	// [CheckpointDefaults].
	Defaults map[string]string `json:"defaults,omitempty"`
}

// Parallel is over how many GPUs each layer is split, and how many GPUs the arm takes
// in all: those times the stages of its pipeline and its replicas. Both are 0 where
// the command states none of these.
func (a *Arm) Parallel() (tensor, gpus int) {
	stated := false
	number := func(name string) int {
		v, err := strconv.Atoi(a.Settings[name])
		if err != nil || v < 1 || v > 1024 {
			return 1
		}
		stated = true
		return v
	}
	tensor = number("tensor_parallel_size")
	gpus = tensor * number("pipeline_parallel_size") * number("data_parallel_size")
	if !stated {
		return 0, 0
	}
	return tensor, gpus
}

// BadCommandError is a serving command that is not understood.
type BadCommandError struct{ Command, Why string }

func (e *BadCommandError) Error() string {
	return fmt.Sprintf("serving command %.80q: %s", e.Command, e.Why)
}

// UserError is what the user can do.
func (e *BadCommandError) UserError() string {
	return "write it as for a shell: 'vllm serve org/model --kv-cache-dtype fp8', or only the flags"
}

// setting is a flag of an engine under its canonical name.
type setting struct {
	name    string
	value   string // of a flag that takes none
	listing bool   // the flag takes a value
}

// canonical maps the flags of vLLM (vllm/engine/arg_utils.py), SGLang
// (python/sglang/srt/server_args.py) and trtllm-serve to one name each.
var canonical = func() map[string]setting {
	m := map[string]setting{}
	value := func(name string, flags ...string) {
		for _, f := range append(flags, "--"+strings.ReplaceAll(name, "_", "-")) {
			m[f] = setting{name: name, listing: true}
		}
	}
	on := func(name string, flags ...string) {
		for _, f := range flags {
			m[f] = setting{name: name, value: "true"}
		}
	}
	value("model", "--model-path")
	value("tensor_parallel_size", "-tp", "--tp", "--tp-size", "--tp_size")
	value("pipeline_parallel_size", "-pp", "--pp-size", "--pp_size")
	value("data_parallel_size", "-dp", "--dp", "--dp-size")
	value("expert_parallel_size", "--ep", "--ep-size", "--ep_size")
	value("kv_cache_dtype")
	value("max_model_len", "--context-length", "--max_seq_len")
	value("max_num_seqs", "--max-running-requests", "--max_batch_size")
	value("max_num_batched_tokens", "--chunked-prefill-size", "--max_num_tokens")
	value("gpu_memory_utilization", "--mem-fraction-static", "--kv_cache_free_gpu_memory_fraction")
	value("quantization", "-q")
	value("dtype")
	value("revision")
	value("tokenizer", "--tokenizer-path")
	value("chat_template")
	value("generation_config")
	value("override_generation_config")
	value("reasoning_parser", "--reasoning_parser")
	value("tool_call_parser")
	value("speculative_config", "--speculative-algorithm")
	value("attention_backend")
	value("moe_backend", "--moe-runner-backend")
	value("mamba_ssm_cache_dtype", "--mamba-ssm-dtype")
	value("scheduling_policy", "--schedule-policy")
	value("block_size", "--page-size")
	value("compilation_config", "-O")
	value("seed", "--random-seed")
	value("port")
	value("host")
	value("served_model_name")
	value("api_key")
	value("load_format")
	value("rope_scaling", "--hf-overrides", "--json-model-override-args")
	on("enable_prefix_caching", "--enable-prefix-caching")
	m["--disable-radix-cache"] = setting{name: "enable_prefix_caching", value: "false"}
	on("enable_chunked_prefill", "--enable-chunked-prefill")
	on("enable_expert_parallel", "--enable-expert-parallel")
	on("enforce_eager", "--enforce-eager", "--disable-cuda-graph")
	on("trust_remote_code", "--trust-remote-code", "--trust_remote_code")
	on("enable_auto_tool_choice", "--enable-auto-tool-choice")
	on("language_model_only", "--language-model-only")
	on("async_scheduling", "--async-scheduling")
	return m
}()

var (
	assignRE = regexp.MustCompile(`^[A-Z][A-Z0-9_]*=`)
	imageRE  = regexp.MustCompile(`(vllm/vllm-openai|lmsysorg/sglang|tensorrt-llm/release|vllm|sglang)[:=]+v?(\d+(?:\.\d+)+[\w.-]*)`)
)

// ParseArm reads a serving command of vLLM, SGLang or trtllm-serve, with
// leading assignments of the environment, inside of `docker run` or not, or
// only flags. Nothing is expanded. Its error is a [*BadCommandError].
func ParseArm(name, command string) (*Arm, error) {
	a := &Arm{Name: name, Settings: map[string]string{}}
	bad := func(why string) (*Arm, error) { return nil, &BadCommandError{command, why} }
	if len(command) > 64<<10 {
		return bad("it is longer than 64 KiB")
	}
	words, ok := Words(command)
	if !ok {
		return bad("a quote is not closed")
	}
	if len(words) == 0 {
		return bad("it is empty")
	}
	a.engine(words)
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case assignRE.MatchString(w):
			k, v, _ := strings.Cut(w, "=")
			a.Settings["env:"+k] = v
		case (w == "-e" || w == "--env") && i+1 < len(words) && assignRE.MatchString(words[i+1]):
			// the assignment is the next word
		case strings.HasPrefix(w, "-") && len(w) > 1:
			i += a.flag(w, words[i+1:])
		case a.Model == "" && (strings.Contains(w, "/") || i > 0 && words[i-1] == "serve") && !imageRE.MatchString(w) && !strings.Contains(w, "python"):
			a.Model = w
		}
	}
	if m := a.Settings["model"]; m != "" {
		a.Model = m
		delete(a.Settings, "model")
	}
	if len(a.Settings) == 0 && a.Model == "" {
		return bad("it names neither a model nor a flag")
	}
	return a, nil
}

// engine finds out what serves.
func (a *Arm) engine(words []string) {
	for _, w := range words {
		for _, e := range []struct{ word, engine string }{{"vllm", "vllm"}, {"sglang", "sglang"}, {"trtllm", "trtllm"}, {"tensorrt-llm", "trtllm"}} {
			if a.Engine == "" && strings.Contains(w, e.word) && !strings.HasPrefix(w, "-") && !assignRE.MatchString(w) {
				a.Engine = e.engine
			}
		}
		if m := imageRE.FindStringSubmatch(w); m != nil && a.Version == "" && !strings.HasPrefix(w, "-") {
			a.Version = m[2]
		}
	}
}

// dockerFlags are those of docker run that take a value and say nothing about
// serving.
var dockerFlags = []string{"--gpus", "--ipc", "--shm-size", "-v", "--volume", "-p", "--publish", "--name", "--runtime", "--network", "-e", "--env", "-m", "--entrypoint"}

// flag reads one flag, and returns how many further words belong to it.
func (a *Arm) flag(w string, rest []string) int {
	name, value, joined := strings.Cut(w, "=")
	if slices.Contains(dockerFlags, name) {
		return btoi(!joined && len(rest) > 0 && !assignRE.MatchString(rest[0]))
	}
	used := 0
	s, known := canonical[name]
	if !known && strings.HasPrefix(name, "--") {
		// vLLM takes underscores too.
		s, known = canonical[strings.ReplaceAll(name, "_", "-")]
	}
	if !known {
		if off, ok := strings.CutPrefix(name, "--no-"); ok {
			if s, known = canonical["--"+off]; known {
				s.value = map[string]string{"true": "false", "false": "true"}[s.value]
			} else {
				s = setting{name: strings.ReplaceAll(off, "-", "_"), value: "false"}
			}
		} else {
			s = setting{name: strings.ReplaceAll(strings.TrimLeft(name, "-"), "-", "_"), listing: true}
		}
	}
	switch {
	case joined && !s.listing:
		s.value = map[bool]string{true: s.value, false: "false"}[!strings.EqualFold(value, "false")]
	case joined:
		s.value = value
	case s.listing && len(rest) > 0 && !strings.HasPrefix(rest[0], "-"):
		s.value, used = rest[0], 1
	case s.listing:
		s.value = "true"
	}
	if s.name != "" && len(a.Settings) < 512 {
		a.Settings[s.name] = s.value
	}
	return used
}

// Words splits a command as a shell does, without expanding anything;
// false when a quote is not closed.
func Words(s string) (words []string, ok bool) {
	var b strings.Builder
	in, quote := false, byte(0)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quote != 0 && c == quote:
			quote = 0
		case quote == '\'':
			b.WriteByte(c)
		case c == '\\' && i+1 < len(s):
			if i++; s[i] != '\n' {
				b.WriteByte(s[i])
				in = true
			}
		case quote != 0:
			b.WriteByte(c)
		case c == '"' || c == '\'':
			quote, in = c, true
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			if in {
				words = append(words, b.String())
				b.Reset()
				in = false
			}
		default:
			b.WriteByte(c)
			in = true
		}
	}
	if in {
		words = append(words, b.String())
	}
	return words, quote == 0
}

// FlagRow is one setting side by side.
type FlagRow struct {
	Setting string   `json:"setting"`
	Values  []string `json:"values"` // per arm; "" where the arm leaves it to the engine
	// Class is same, subject (what is compared), harmless, unfair, or unknown: a
	// difference whose effect is not known.
	Class string `json:"class"`
	// Moves is what an unfair difference changes: accuracy, speed or both.
	Moves string `json:"moves,omitempty"`
	Why   string `json:"why,omitempty"`
}

// FlagDiff is how the arms of a comparison are served, side by side.
type FlagDiff struct {
	Arms []string  `json:"arms"`
	Rows []FlagRow `json:"rows"` // unfair ones first
	Fair bool      `json:"fair"` // no row is unfair
}

// effect is what a difference of a setting does to a comparison.
type effect struct{ class, moves, why string }

// effects are the settings whose effect is known; see also
// NVIDIA-NeMo/Evaluator and vLLM's own documentation of its flags.
var effects = map[string]effect{
	"model":               {"subject", "", ""},
	"quantization":        {"subject", "", ""},
	"revision":            {"subject", "", ""},
	"port":                {"harmless", "", ""},
	"host":                {"harmless", "", ""},
	"served_model_name":   {"harmless", "", ""},
	"api_key":             {"harmless", "", ""},
	"load_format":         {"harmless", "", ""},
	"trust_remote_code":   {"harmless", "", ""},
	"language_model_only": {"unfair", "speed", "a vision tower that is not loaded leaves its memory to the cache"},
	"engine":              {"unfair", "both", "another engine has other kernels and another sampler"},
	"engine_version":      {"unfair", "both", "versions choose other kernels, W4A16 instead of W4A4 among them"},
	"kv_cache_dtype":      {"unfair", "both", "the cache's format changes the scores and how many sequences fit"},
	"enable_prefix_caching": {
		"unfair", "speed", "shared prefixes are computed once in one arm and every time in the other",
	},
	"max_model_len":          {"unfair", "both", "answers are cut at different lengths, and the room for sequences differs"},
	"max_num_seqs":           {"unfair", "speed", "another batch size"},
	"max_num_batched_tokens": {"unfair", "speed", "prefill is cut into other pieces"},
	"gpu_memory_utilization": {"unfair", "speed", "another amount of cache"},
	"tensor_parallel_size":   {"unfair", "speed", "another number of GPUs; compare per GPU or keep it equal"},
	"pipeline_parallel_size": {"unfair", "speed", "another number of GPUs; compare per GPU or keep it equal"},
	"data_parallel_size":     {"unfair", "speed", "another number of GPUs; compare per GPU or keep it equal"},
	"expert_parallel_size":   {"unfair", "speed", "experts are divided otherwise"},
	"enable_expert_parallel": {"unfair", "speed", "experts are divided otherwise"},
	"enable_chunked_prefill": {"unfair", "speed", "another schedule"},
	"scheduling_policy":      {"unfair", "speed", "another schedule"},
	"async_scheduling":       {"unfair", "speed", "another schedule"},
	"enforce_eager":          {"unfair", "speed", "one arm runs without CUDA graphs"},
	"compilation_config":     {"unfair", "speed", "other compiled graphs"},
	"block_size":             {"unfair", "speed", "another page size of the cache"},
	"speculative_config":     {"unfair", "speed", "one arm drafts tokens ahead"},
	"attention_backend":      {"unfair", "both", "another attention kernel"},
	"moe_backend":            {"unfair", "both", "another kernel for experts, which may compute in another format"},
	"mamba_ssm_cache_dtype":  {"unfair", "both", "the state's format changes the scores and its size"},
	"dtype":                  {"unfair", "both", "activations and what is not quantised are in another format"},
	"rope_scaling":           {"unfair", "accuracy", "positions are scaled otherwise"},
	"reasoning_parser":       {"unfair", "accuracy", "reasoning is cut from the answer in one arm and graded in the other"},
	"tool_call_parser":       {"unfair", "accuracy", "calls are recognised in one arm only"},
	"enable_auto_tool_choice": {
		"unfair", "accuracy", "calls are recognised in one arm only",
	},
	"chat_template":              {"unfair", "accuracy", "the model reads another prompt"},
	"tokenizer":                  {"unfair", "accuracy", "the model reads another prompt"},
	"generation_config":          {"unfair", "accuracy", "other sampling defaults"},
	"override_generation_config": {"unfair", "accuracy", "other sampling defaults"},
	"seed":                       {"unfair", "accuracy", "other random choices; pair the seeds"},
}

// CompareArms puts the settings of any number of arms side by side and names
// what makes a comparison of them unfair. A setting that one arm leaves to the
// engine and another sets is a difference, as defaults move with versions and
// models.
func CompareArms(arms []*Arm) FlagDiff {
	d := FlagDiff{Fair: true}
	names := map[string]bool{"model": true}
	for _, a := range arms {
		d.Arms = append(d.Arms, a.Name)
		for k := range a.Settings {
			names[k] = true
		}
		for k := range a.Defaults {
			names[k] = true
		}
		names["engine"] = names["engine"] || a.Engine != ""
		names["engine_version"] = names["engine_version"] || a.Version != ""
	}
	order := []string{"unfair", "unknown", "subject", "harmless", "same"}
	for _, n := range slices.Sorted(maps.Keys(names)) {
		row := FlagRow{Setting: n, Class: "same"}
		for _, a := range arms {
			row.Values = append(row.Values, a.value(n))
		}
		if slices.ContainsFunc(row.Values, func(v string) bool { return effective(n, v) != effective(n, row.Values[0]) }) {
			row.classify()
		}
		if row.Class == "same" && row.Values[0] == "" {
			continue
		}
		d.Fair = d.Fair && row.Class != "unfair"
		d.Rows = append(d.Rows, row)
	}
	slices.SortStableFunc(d.Rows, func(a, b FlagRow) int {
		return slices.Index(order, a.Class) - slices.Index(order, b.Class)
	})
	return d
}

func (a *Arm) value(name string) string {
	switch name {
	case "model":
		return a.Model
	case "engine":
		return a.Engine
	case "engine_version":
		return a.Version
	}
	v := a.Settings[name]
	if v == "" || v == "auto" {
		if d := a.Defaults[name]; d != "" {
			return d + fromCheckpoint
		}
	}
	return v
}

// fromCheckpoint marks a value that no flag sets.
const fromCheckpoint = " (checkpoint)"

// effective is a value as the engine takes it.
func effective(name, value string) string {
	value = strings.TrimSuffix(value, fromCheckpoint)
	switch {
	case name == "kv_cache_dtype" && value == "fp8_e4m3":
		return "fp8"
	case value == "auto":
		return ""
	}
	return value
}

// CheckpointDefaults are the settings that engines take from a checkpoint where
// no flag is given: the cache's format, the length, and the sampling defaults
// of generation_config.json, which may be nil. So two arms with the same flags
// may still be served differently.
func CheckpointDefaults(m *Model, generation []byte) map[string]string {
	d := map[string]string{}
	if m.Quant != nil && m.Quant.KV == FormatFP8 {
		d["kv_cache_dtype"] = "fp8"
	} else if m.Quant != nil && m.Quant.KV != "" {
		d["kv_cache_dtype"] = string(m.Quant.KV)
	}
	if m.Context > 0 {
		d["max_model_len"] = fmt.Sprint(m.Context)
	}
	var g map[string]any
	if json.Unmarshal(generation, &g) == nil {
		var parts []string
		for _, k := range []string{"temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens"} {
			if v, ok := g[k]; ok {
				parts = append(parts, fmt.Sprintf("%s=%v", k, v))
			}
		}
		d["generation_config"] = strings.Join(parts, ",")
	}
	return d
}

func (r *FlagRow) classify() {
	if e, ok := effects[r.Setting]; ok {
		r.Class, r.Moves, r.Why = e.class, e.moves, e.why
		return
	}
	r.Class = "unknown"
	if rest, ok := strings.CutPrefix(r.Setting, "env:"); ok && (strings.HasPrefix(rest, "VLLM_") || strings.HasPrefix(rest, "SGLANG_") || strings.HasPrefix(rest, "SGL_")) {
		if strings.Contains(rest, "FLASHINFER") || strings.Contains(rest, "BACKEND") || strings.Contains(rest, "MOE") || strings.Contains(rest, "GEMM") {
			r.Class, r.Moves, r.Why = "unfair", "both", "it chooses a kernel"
		}
	}
}

// Advice is a serving flag that a model needs, and why.
type Advice struct {
	Flag   string `json:"flag"`
	Why    string `json:"why"`
	Source string `json:"source"`
}

// ServingAdvice lists the vLLM flags that a model's files call for and those
// that its card's own command adds.
func ServingAdvice(m *Model, card *Card, remoteCode bool) []Advice {
	var out []Advice
	if q := m.Quant; q != nil {
		switch {
		case strings.HasPrefix(q.Method, "modelopt"):
			out = append(out, Advice{"--quantization modelopt", "the format of Model Optimizer; newer engines find it by themselves", q.Source})
		}
		if q.KV == FormatFP8 {
			out = append(out, Advice{"--kv-cache-dtype fp8", "the checkpoint is calibrated for a cache in 8 bits; set it on every arm of a comparison", q.Source})
		}
	}
	if remoteCode {
		out = append(out, Advice{"--trust-remote-code", "config.json brings Python code of its own (auto_map)", "config.json"})
	}
	if m.MTPLayers > 0 {
		out = append(out, Advice{`--speculative-config '{"method":"mtp","num_speculative_tokens":1}'`, "optional: the checkpoint carries layers of multi-token prediction", "config.json"})
	}
	if card == nil {
		return out
	}
	for _, c := range card.Commands {
		a, err := ParseArm("card", c)
		if err != nil {
			continue
		}
		for _, k := range []string{"reasoning_parser", "tool_call_parser", "max_model_len", "tensor_parallel_size", "enable_auto_tool_choice", "moe_backend", "attention_backend"} {
			v := a.Settings[k]
			flag := strings.TrimSuffix("--"+strings.ReplaceAll(k, "_", "-")+" "+v, " true")
			if v != "" && !slices.ContainsFunc(out, func(x Advice) bool { return x.Flag == flag }) {
				out = append(out, Advice{flag, "the card's own command has it", "README.md"})
			}
		}
	}
	return out
}
