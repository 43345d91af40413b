package kueue

import (
	"errors"
	"strings"
	"testing"

	"github.com/repromill/repromill/runner"
)

func exampleServing() Serving {
	a := exampleAttempt()
	a.ReadOnly = append(a.ReadOnly, "/volume/models/deepseek")
	return Serving{
		Server: runner.Sidecar{Arm: "fp8", Engine: "vllm", Image: "registry.example/vllm@sha256:1111", GPUs: 16, Env: map[string]string{"VLLM_USE_V1": "1"},
			Argv: []string{"vllm", "serve", "/volume/models/deepseek", "--host", "0.0.0.0", "--port", "8003", "-tp", "8", "--pipeline-parallel-size=2", "--kv-cache-dtype", "fp8", "--max-model-len", "32768"}},
		TP: 8, NodeGPUs: 8, Client: a, Topology: "cloud.example/block",
	}
}

// TestServingGolden: sixteen GPUs are two nodes, each layer over eight GPUs of
// one and the layers over both.
func TestServingGolden(t *testing.T) {
	objects, err := offline(suiteConfig).ServingManifests(exampleServing())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "jobset-two-nodes.yaml", asYAML(t, objects...))
}

func TestServingRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		edit func(*Serving)
		want string
	}{
		"one node suffices":  {func(s *Serving) { s.Server.GPUs = 8 }, "on one node"},
		"tensors over nodes": {func(s *Serving) { s.TP = 16 }, "tensor-parallel size that divides"},
		"uneven tensors":     {func(s *Serving) { s.TP = 3 }, "tensor-parallel size that divides"},
		"part of a node":     {func(s *Serving) { s.Server.GPUs = 12 }, "whole nodes"},
		"another engine":     {func(s *Serving) { s.Server.Engine = "sglang" }, "use vLLM"},
		"replicas":           {func(s *Serving) { s.Server.Argv = append(s.Server.Argv, "--data-parallel-size", "2") }, "leave out"},
		"no image":           {func(s *Serving) { s.Server.Image, s.Server.Engine = "", "vllm" }, "cluster.vllm_image"},
		"no amount":          {func(s *Serving) { s.Memory = "much" }, "64Gi"},
	} {
		t.Run(name, func(t *testing.T) {
			s := exampleServing()
			tc.edit(&s)
			e := offline(suiteConfig)
			e.cfg.Images = nil
			_, err := e.ServingManifests(s)
			var user interface{ UserError() string }
			if !errors.As(err, &user) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v; want a user error with %q", err, tc.want)
			}
		})
	}
}
