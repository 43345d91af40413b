package kueue

import (
	"bytes"
	"encoding/json"
	"fmt"

	"sigs.k8s.io/yaml"

	"github.com/repromill/repromill/runner"
)

// Manifest is the Job of an attempt, as it would be submitted.
func (e *Executor) Manifest(a runner.Attempt) (any, error) {
	a = e.filled(a)
	return e.render(e.folder(a.Key), a)
}

// ServingManifests are the JobSet of a serving over several nodes, and before it
// the NetworkPolicy that it needs.
func (e *Executor) ServingManifests(s Serving) ([]any, error) {
	set, err := e.jobSet(s)
	if err != nil {
		return nil, err
	}
	return []any{inside(set), set}, nil
}

// YAML writes objects as kubectl takes them: a document each.
func YAML(objects ...any) ([]byte, error) {
	var out bytes.Buffer
	for i, o := range objects {
		b, err := yaml.Marshal(o)
		if err != nil {
			return nil, fmt.Errorf("encode manifest: %w", err)
		}
		if i > 0 {
			out.WriteString("---\n")
		}
		out.Write(b)
	}
	return out.Bytes(), nil
}

// JSON writes objects as kubectl takes them: a List.
func JSON(objects ...any) ([]byte, error) {
	if objects == nil {
		objects = []any{}
	}
	b, err := json.MarshalIndent(map[string]any{"apiVersion": "v1", "kind": "List", "items": objects}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return append(b, '\n'), nil
}
