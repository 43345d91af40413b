//go:build e2e

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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
