//go:build e2e

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/repromill/repromill/suites/compare"
)

// TestThirdPartyServer drives the server of the transformers package, which this
// project did not write, with the accuracy harness and with the load generator.
// Its model is made on the spot and has random weights.
func TestThirdPartyServer(t *testing.T) {
	python := os.Getenv("REPROMILL_TEST_TRANSFORMERS")
	if python == "" {
		t.Skip("needs a Python with torch, transformers, accelerate, fastapi and uvicorn: set REPROMILL_TEST_TRANSFORMERS to it")
	}
	dir := t.TempDir()
	model := filepath.Join(dir, "tiny")
	if out, err := exec.Command(python, "../../examples/third-party/tiny_model.py", model).CombinedOutput(); err != nil {
		t.Skipf("%s cannot make the model: %v: %s", python, err, out)
	}
	b := newBench(t, buildOnce(t))
	mirror := filepath.Join(dir, "mirror")
	if err := modelMirror(mirror, 40); err != nil {
		t.Fatal(err)
	}
	serve := python + " -m transformers.cli.transformers serve " + model + " --host 127.0.0.1 --port {port} --device cpu"

	out := b.output("load", "--server", serve, "--model", model, "--concurrency", "2", "--isl", "200", "--osl", "8", "--requests", "8", "--warmup", "1", "--no-self-check")
	for _, want := range []string{"transformers", "served by us: ready after", "the server refuses requests with ignore_eos and min_tokens", "8/8"} {
		if !strings.Contains(out, want) {
			t.Errorf("load does not say %q:\n%s", want, out)
		}
	}
	out = b.output("--mirror", mirror, "run", "org/tiny-NVFP4", "--suites", "mmlu-pro:five-shot", "--questions", "4", "--max-tokens", "8", "--yes", "--server", serve)
	for _, want := range []string{"nvfp4", "over 4 answers: "} {
		if !strings.Contains(out, want) {
			t.Errorf("run does not say %q:\n%s", want, out)
		}
	}
}

// TestThirdPartyArithmetic asks the same questions of two models, BF16 and NVFP4
// by weights alone, once of the embedded engine and once of the transformers
// package, which computes with the values that the NVFP4 weights stand for. What
// the format costs must come out alike: each difference within the other's
// interval, and so each model's score.
func TestThirdPartyArithmetic(t *testing.T) {
	python := os.Getenv("REPROMILL_TEST_TRANSFORMERS")
	if python == "" {
		t.Skip("needs a Python with torch, transformers, accelerate, fastapi and uvicorn: set REPROMILL_TEST_TRANSFORMERS to it")
	}
	weights, err := filepath.Abs("../../examples/models/tiny/weights")
	if dir := os.Getenv("REPROMILL_TEST_MODEL"); dir != "" {
		weights = dir
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(weights); err != nil {
		t.Skipf("needs a trained model: %v; set REPROMILL_TEST_MODEL to a folder", err)
	}
	b := newBench(t, buildOnce(t))
	packed, values := filepath.Join(b.dir, "nvfp4"), filepath.Join(b.dir, "values")
	b.output("quantize", weights, "--format", "nvfp4", "-o", packed)
	b.output("quantize", packed, "--format", "bf16", "-o", values)
	differ := func(candidate string, more ...string) compare.Result {
		out := b.output(append([]string{"run", candidate, "--baseline", weights, "--suites", "synthetic-choice", "--questions", "200", "--method", "tost",
			"--margin", "5pt", "--yes", "--json"}, more...)...)
		var o struct {
			Suites []struct {
				Result struct {
					Comparisons []struct {
						Result compare.Result `json:"result"`
					} `json:"comparisons"`
				} `json:"result"`
			} `json:"suites"`
		}
		if err := json.Unmarshal([]byte(out), &o); err != nil || len(o.Suites) != 1 || len(o.Suites[0].Result.Comparisons) != 1 {
			t.Fatalf("%v: %s", err, out)
		}
		r := o.Suites[0].Result.Comparisons[0].Result
		t.Logf("%s: BF16 %.2f %%, NVFP4 %.2f %%, difference %+.2f points (%.0f %% interval %+.2f to %+.2f), %d and %d questions differ",
			filepath.Base(candidate), 100*r.Base, 100*r.Cand, 100*r.Diff, 100*r.Level, 100*r.Lo, 100*r.Hi, r.BaseOnly, r.CandOnly)
		return r
	}
	ours := differ(packed)
	// More threads than one only wait for each other in a model of this size.
	theirs := differ(values, "--server", "OMP_NUM_THREADS=1 "+python+" -m transformers.cli.transformers serve {model} --host 127.0.0.1 --port {port} --device cpu")
	if ours.Diff < theirs.Lo || ours.Diff > theirs.Hi || theirs.Diff < ours.Lo || theirs.Diff > ours.Hi {
		t.Errorf("the engine finds a difference of %+.2f points, transformers one of %+.2f: neither may lie outside the other's interval", 100*ours.Diff, 100*theirs.Diff)
	}
	// The same 200 questions and greedy answers: what remains is the order of sums.
	const most = 0.05
	if d := ours.Base - theirs.Base; d < -most || d > most {
		t.Errorf("BF16 scores %.2f %% here and %.2f %% there", 100*ours.Base, 100*theirs.Base)
	}
	if d := ours.Cand - theirs.Cand; d < -most || d > most {
		t.Errorf("NVFP4 scores %.2f %% here and %.2f %% there", 100*ours.Cand, 100*theirs.Cand)
	}
}
