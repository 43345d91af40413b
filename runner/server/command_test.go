package server

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/spec"
)

func TestCompose(t *testing.T) {
	at := place{"127.0.0.1", 8123}
	for _, c := range []struct {
		how  string
		arm  spec.Arm
		want string // as a person would type it
		gpus int
		env  string
	}{
		{how: "vllm", arm: spec.Arm{Name: "fp8", Model: "Qwen/Qwen3-FP8", Revision: "abc"}, gpus: 1,
			want: "vllm serve Qwen/Qwen3-FP8 --host 127.0.0.1 --port 8123 --revision abc"},
		{how: "vllm", arm: spec.Arm{Name: "fp8", Model: "m/x", TP: 4, KVDtype: "fp8"}, gpus: 4,
			want: "vllm serve m/x --host 127.0.0.1 --port 8123 --tensor-parallel-size 4 --kv-cache-dtype fp8"},
		{how: "vllm", arm: spec.Arm{Name: "fp8", Model: "m/x", TP: 4, KVDtype: "fp8", Flags: []string{"-tp", "2", "--kv-cache-dtype=auto", "--port", "9", "--data-parallel-size", "2"}}, gpus: 4,
			want: "vllm serve m/x --host 127.0.0.1 --port 8123 -tp 2 --kv-cache-dtype=auto --data-parallel-size 2"},
		{how: "vllm", arm: spec.Arm{Name: "fp8", Model: "m/x", Flags: []string{"VLLM_USE_DEEP_GEMM=1", "/v/bin/vllm", "serve", "m/x", "--port=1", "-tp", "2", "--speculative-config", `{"method":"mtp"}`}}, gpus: 2, env: "VLLM_USE_DEEP_GEMM=1",
			want: `/v/bin/vllm serve m/x -tp 2 --speculative-config '{"method":"mtp"}' --host 127.0.0.1 --port 8123`},
		{how: "sglang", arm: spec.Arm{Name: "fp8", Model: "m/x", TP: 2, Revision: "r"}, gpus: 2,
			want: "python3 -m sglang.launch_server --model-path m/x --host 127.0.0.1 --port 8123 --revision r --tp-size 2 --enable-metrics"},
		{how: "python server.py --port {port} -m {model}@{revision} '{name} x'", arm: spec.Arm{Name: "a", Model: "m/x", Revision: "r"},
			want: "python server.py --port 8123 -m m/x@r 'a x'"},
		{how: "A=1 vllm serve {model} --port {port} -tp {tp} {flags}", arm: spec.Arm{Name: "a", Model: "m/x", TP: 2, Flags: []string{"--max-model-len", "4096"}}, gpus: 2, env: "A=1",
			want: "vllm serve m/x --port 8123 -tp 2 --max-model-len 4096"},
		{how: "repromill", arm: spec.Arm{Name: "a", Model: "/models/tiny", Revision: "abc", Flags: []string{"--weight-only", "--port=1"}},
			want: "repromill engine serve /models/tiny --host 127.0.0.1 --port 8123 --weight-only"},
		{how: "repromill", arm: spec.Arm{Name: "a", Model: "/models/tiny", Flags: []string{"vllm", "serve", "/models/tiny"}},
			want: "repromill engine serve /models/tiny --host 127.0.0.1 --port 8123"},
		{how: "docker:vllm/vllm-openai:v0.11.0", arm: spec.Arm{Name: "a", Model: "m/x"}, gpus: 1,
			want: "docker run vllm/vllm-openai:v0.11.0 --model m/x --host 127.0.0.1 --port 8123"},
		{how: "docker:lmsysorg/sglang:v0.5.5", arm: spec.Arm{Name: "a", Model: "m/x"}, gpus: 1,
			want: "docker run lmsysorg/sglang:v0.5.5 python3 -m sglang.launch_server --model-path m/x --host 127.0.0.1 --port 8123 --enable-metrics"},
	} {
		got, err := compose(c.how, c.arm, at)
		if err != nil {
			t.Errorf("%s: %v", c.how, err)
			continue
		}
		text := shown(got)
		for k, v := range got.env {
			if k+"="+v != c.env {
				t.Errorf("%s: environment %s=%s", c.how, k, v)
			}
			text = strings.TrimPrefix(text, k+"="+v+" ")
		}
		if text != c.want || got.gpus != c.gpus {
			t.Errorf("%s: got\n%s with %d GPUs, want\n%s with %d", c.how, text, got.gpus, c.want, c.gpus)
		}
	}
}

func TestComposeRefuses(t *testing.T) {
	for how, want := range map[string]string{
		"":                             "--server a=vllm",
		"python server.py":             "{port}",
		"python 'server.py {port}":     "close it",
		"serve {port} {weights}":       "{flags}",
		"docker:":                      "docker:vllm",
		"docker:ghcr.io/some/server:1": "--serve 'a=COMMAND",
		"A=1":                          "{port}",
	} {
		_, err := compose(how, spec.Arm{Name: "a", Model: "m/x"}, place{"127.0.0.1", 1})
		var user *UserError
		if !errors.As(err, &user) || !strings.Contains(user.UserError(), want) {
			t.Errorf("%q: %v", how, err)
		}
	}
	_, err := compose("vllm", spec.Arm{Name: "a", Model: "m/x", Flags: []string{"docker", "run", "vllm/vllm-openai"}}, place{"h", 1})
	if err == nil || !strings.Contains(err.Error(), "leaves its server running") {
		t.Errorf("docker run: %v", err)
	}
}

func TestShownHidesSecrets(t *testing.T) {
	c, err := compose("HF_TOKEN=hf_x serve --api-key sk-1 --port {port} --auth-token=tt", spec.Arm{Name: "a"}, place{"h", 1})
	if err != nil {
		t.Fatal(err)
	}
	if s := shown(c); strings.Contains(s, "hf_x") || strings.Contains(s, "sk-1") || strings.Contains(s, "tt") {
		t.Error(s)
	}
}

func TestEnviron(t *testing.T) {
	got := environ([]string{"A=1", "B=2"}, map[string]string{"B": "3"}, nil, map[string]string{"C": "4"})
	if !slices.Equal(got, []string{"A=1", "B=3", "C=4"}) {
		t.Error(got)
	}
}

func FuzzCompose(f *testing.F) {
	f.Add("vllm", "-tp 2 --port 3")
	f.Add("A=1 x {port} {model} '{flags}' {flags}", "--a b")
	f.Add("docker:vllm/vllm-openai", "--model x")
	f.Fuzz(func(t *testing.T, how, flags string) {
		c, err := compose(how, spec.Arm{Name: "a", Model: "m/x", Flags: strings.Fields(flags)}, place{"127.0.0.1", 8123})
		if err == nil && c.image == "" && (len(c.argv) == 0 || c.gpus < 0) {
			t.Fatalf("%q: %+v", how, c)
		}
	})
}

// An embedded engine whose answers are timed gives way to whoever times them;
// other engines are not told anything that they do not know.
func TestTimed(t *testing.T) {
	arm := spec.Arm{Name: "a", Model: t.TempDir()}
	for how, want := range map[string]bool{Own: true, VLLM: false} {
		h := &Host{cfg: Config{How: func(spec.Arm) string { return how }}}
		for _, timed := range []bool{false, true} {
			c, err := h.compose(arm, place{"127.0.0.1", 8123}, timed)
			if err != nil {
				t.Fatal(err)
			}
			if got := slices.Contains(c.argv, "--yield"); got != (want && timed) {
				t.Errorf("%s, timed %v: %q", how, timed, c.argv)
			}
		}
	}
}
