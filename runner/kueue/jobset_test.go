package kueue

import (
	"errors"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/spec"
)

func exampleServing() Serving {
	a := exampleAttempt()
	a.ReadOnly = append(a.ReadOnly, "/volume/models/deepseek")
	return Serving{
		Arm: spec.Arm{
			Name: "fp8", Model: "/volume/models/deepseek", Engine: "vllm", Image: "registry.example/vllm@sha256:1111", GPUs: 16, TP: 8, KVDtype: "fp8", SKU: "h200",
			Flags: []string{"--max-model-len", "32768"},
		},
		NodeGPUs: 8, Client: a, Topology: "cloud.example/block",
	}
}

// TestServingGolden: sixteen GPUs are two nodes, each layer over eight GPUs of
// one and the layers over both.
func TestServingGolden(t *testing.T) {
	objects, err := offline(nil).ServingManifests(exampleServing())
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
		"one node suffices":  {func(s *Serving) { s.Arm.GPUs = 8 }, "on one node"},
		"tensors over nodes": {func(s *Serving) { s.Arm.TP = 16 }, "tensor-parallel size that divides"},
		"uneven tensors":     {func(s *Serving) { s.Arm.TP = 3 }, "tensor-parallel size that divides"},
		"part of a node":     {func(s *Serving) { s.Arm.GPUs = 12 }, "whole nodes"},
		"another engine":     {func(s *Serving) { s.Arm.Engine = "sglang" }, "use vLLM"},
		"no image":           {func(s *Serving) { s.Arm.Image = "" }, "image with its digest"},
		"no amount":          {func(s *Serving) { s.Memory = "much" }, "64Gi"},
	} {
		t.Run(name, func(t *testing.T) {
			s := exampleServing()
			tc.edit(&s)
			_, err := offline(nil).ServingManifests(s)
			var user interface{ UserError() string }
			if !errors.As(err, &user) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v; want a user error with %q", err, tc.want)
			}
		})
	}
}
