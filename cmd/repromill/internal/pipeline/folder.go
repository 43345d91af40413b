package pipeline

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"time"

	"github.com/repromill/repromill/planner/intake"
	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/planner/target"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/content"
)

// holds says what a folder of a model has.
const holds = "config.json, tokenizer.json and safetensors"

// checkpoint makes a model in a folder the candidate.
func (j *job) checkpoint(ctx context.Context) (string, error) {
	m, err := j.folder(ctx, j.target.Path)
	if err != nil {
		return "", err
	}
	j.target.Revision = m.Revision
	j.in.Model, j.candidate = &m.Model, m
	j.in.Warnings = append(j.in.Warnings, m.Warnings...)
	return m.ID + " @ " + m.Revision[:12], nil
}

// folder reads a model from a folder. Its revision is the name of what it holds,
// and the hashes of its files are facts.
func (j *job) folder(ctx context.Context, dir string) (*intake.Model, error) {
	m, err := intake.Folder(ctx, dir)
	if err != nil {
		return nil, err
	}
	now := j.Now
	if now == nil {
		now = time.Now
	}
	told := now()
	sum, files, err := content.Checkpoint(ctx, dir, content.Config{Progress: func(_, bytes int64) {
		if now().Sub(told) < 2*time.Second {
			return // each is an event of the run
		}
		told = now()
		j.emit(runner.StageResolve, runner.Progress, map[string]any{"done": bytes, "unit": "B", "message": "reading " + dir})
	}})
	if err != nil {
		return nil, fmt.Errorf("read model: %w", err)
	}
	m.Revision = sum.SHA256
	for _, f := range files {
		m.Facts = append(m.Facts, spec.Fact{Name: "sha256", Value: f.SHA256 + "  " + f.Name, Kind: spec.Measured,
			Evidence: []spec.Evidence{{File: f.Name, Quote: fmt.Sprintf("%d bytes", f.Bytes)}}})
	}
	return m, nil
}

// baseline reads what the target is compared with.
func (j *job) baseline(ctx context.Context, name string, t spec.Target) (*intake.Model, error) {
	switch {
	case t.Kind == target.HFModel:
		m, err := j.Intake.Model(ctx, t.ID, t.Revision)
		return m, outside(ctx, notInMirror(t.ID, err))
	case t.Kind != target.Local:
		return nil, &Error{Msg: fmt.Sprintf("--baseline %s is a %s, not a model", name, t.Kind), Fix: "name a model of the hub, as owner/name, or a folder that holds one, as ./name"}
	case !intake.IsCheckpoint(t.Path):
		return nil, &Error{Msg: fmt.Sprintf("--baseline %s holds no model", name), Fix: "name a folder with " + holds}
	case !filepath.IsAbs(t.Path):
		return nil, &Error{Msg: fmt.Sprintf("--baseline %s depends on where the program was started", name), Fix: "write the folder from / on"}
	}
	return j.folder(ctx, t.Path)
}

// noModel says why suites cannot be planned for the target.
func (j *job) noModel() error {
	t := j.target
	if t.Kind == target.Local {
		return &Error{Msg: fmt.Sprintf("suites are for models, and %s holds code: it has no config.json of a model with safetensors beside it", t.ID),
			Fix: "name a folder with " + holds + ", a model of the hub, or leave out --baseline and --suites"}
	}
	return &Error{Msg: fmt.Sprintf("%s is a %s, and suites are for models", t.ID, t.Kind),
		Fix: "name a model of the hub or a folder that holds one, or leave out --baseline and --suites"}
}

// mathOf is what the layers of a model in a folder are multiplied in, as its
// configuration asks for it; "" where that is not known.
func mathOf(m *intake.Model) string {
	parsed, err := model.Parse(model.Input{ID: path.Base(m.ID), Config: m.Config, HFQuant: m.Quant})
	if err != nil {
		return ""
	}
	out := ""
	for _, f := range parsed.Formats {
		switch {
		case f.Algo == "": // what is not quantised
		case out == "":
			out = f.Math
		case out != f.Math:
			return "mixed"
		}
	}
	switch out {
	case "":
		return string(parsed.DType)
	case "w8a8":
		return "fp8"
	}
	return out
}
