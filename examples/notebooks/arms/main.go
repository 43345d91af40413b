// Command arms serves two models that are not there, so that the data of the
// notebooks can be made on any machine: they speak the protocol of a model server
// and are right on a stated share of the synthetic suite's questions. Their
// version ends in +simulated, by which everything measured on them is marked so.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/endpoint/endpointtest"
	"github.com/repromill/repromill/suites/synthetic"
)

func main() {
	dir := flag.String("dir", "", "write DIR/mirror, an offline mirror with both models, and DIR/<format>.url, the servers' addresses")
	fp8 := flag.Float64("fp8", 0.82, "share of questions on which the FP8 model is right")
	nvfp4 := flag.Float64("nvfp4", 0.80, "share of questions on which the NVFP4 model is right")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *dir, map[string]float64{"FP8": *fp8, "NVFP4": *nvfp4}); err != nil {
		fmt.Fprintln(os.Stderr, "arms:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, right map[string]float64) error {
	answers, err := key(ctx)
	if err != nil {
		return err
	}
	for format, share := range right {
		if err := writeModel(filepath.Join(dir, "mirror"), format); err != nil {
			return err
		}
		s := endpointtest.New(endpointtest.Config{
			Model: "example/tiny-" + format, Version: "0.14.0+simulated", Started: time.Now(), MaxLen: 8192,
			Answer: func(a endpointtest.Asked) endpointtest.Reply { return answer(answers, a.Prompt, format, share) },
		})
		defer s.Close()
		name := filepath.Join(dir, strings.ToLower(format)+".url")
		if err := os.WriteFile(name+".tmp", []byte(s.URL), 0o644); err != nil {
			return err
		}
		if err := os.Rename(name+".tmp", name); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// key is the right letter of every question by its prompt.
func key(ctx context.Context) (map[string]string, error) {
	suite, err := synthetic.Choice().Open(ctx, suites.Env{})
	if err != nil {
		return nil, err
	}
	items, err := suite.Items(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, it := range items {
		p, err := suite.Prompt(it, 0)
		if err != nil {
			return nil, err
		}
		out[p.Messages[0].Content] = it.Reference
	}
	return out, nil
}

// answer is right on a share of the questions. Most of its draw is common to both
// formats, as most questions are easy or hard for a model in any format.
func answer(answers map[string]string, prompt, format string, right float64) endpointtest.Reply {
	letter, ok := answers[prompt]
	if !ok {
		return endpointtest.Reply{Text: "What?"}
	}
	u := draw(prompt)
	if draw(prompt, "own") < 0.12 {
		u = draw(prompt, format)
	}
	if u >= right {
		letter = string("ABCDEFGHIJ"[(strings.Index("ABCDEFGHIJ", letter)+1)%10])
	}
	return endpointtest.Reply{Text: fmt.Sprintf("It follows that \\boxed{%s}", letter), Delay: time.Duration(4+8*draw(prompt, "time")) * time.Millisecond}
}

// draw is a number in [0, 1) that follows from texts.
func draw(parts ...any) float64 {
	h := fnv.New64a()
	fmt.Fprint(h, parts...)
	return float64(h.Sum64()%1_000_003) / 1_000_003
}

// writeModel puts what the hub says of a model into the mirror.
func writeModel(mirror, format string) error {
	sha := strings.Repeat(map[string]string{"NVFP4": "a", "FP8": "b"}[format], 40)
	name := "example/tiny-" + format
	card, err := json.Marshal(map[string]any{"id": name, "sha": sha, "pipeline_tag": "text-generation",
		"siblings": []any{map[string]any{"rfilename": "config.json"}, map[string]any{"rfilename": "model.safetensors"}}})
	if err != nil {
		return err
	}
	config := fmt.Sprintf(`{"architectures":["LlamaForCausalLM"],"model_type":"llama","torch_dtype":"bfloat16","quantization_config":{"quant_method":"modelopt","quant_algo":%q}}`, format)
	for path, body := range map[string][]byte{"api/models/" + name: card, name + "/resolve/" + sha + "/config.json": []byte(config)} {
		file := filepath.Join(mirror, "huggingface.co", filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, body, 0o644); err != nil {
			return err
		}
	}
	return nil
}
