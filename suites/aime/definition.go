package aime

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/data"
)

// The data sets, at the revisions that the suite was written for.
//
// Sources: UKGovernmentBEIS/inspect_evals v0.23.0,
// src/inspect_evals/aime2024/aime2024.py and aime2025/aime2025.py.
var files = map[int]data.File{
	2024: {Repo: "Maxwell-Jia/AIME_2024", Commit: "8d88b2876a82a080e2f172cc9b25d0d9d2cb4792", Path: "aime_2024_problems.parquet"},
	2025: {Repo: "math-ai/aime25", Commit: "563bb8404243c5f09de6ec262f2db674fe5bce9b", Path: "test.jsonl"},
}

// instructions are the prompts by variant, with %s for the problem.
//
// Sources: NVIDIA-NeMo/Skills 8b18f39, prompt/config/generic/math.yaml and
// prompt/config/eval/aai/math.yaml; eth-sri/matharena e927660,
// configs/competitions/aime/aime_2025.yaml.
var instructions = map[string]string{
	"boxed":     "Solve the following math problem. Make sure to put the answer (and only answer) inside \\boxed{}.\n\n%s",
	"aa":        "Solve the following math problem step by step. Put your answer inside \\boxed{}.\n\n%s\n\nRemember to put your answer inside \\boxed{}.",
	"matharena": "Put your final answer within \\boxed{}.\nThe answer is an integer between 0 and 999 inclusive.\n\n%s",
}

// Definition registers the examination of a year, 2024 or 2025.
func Definition(year int) suites.Definition {
	one, p95 := 1.0, 0.95
	sampling := suites.Sampling{Temperature: &one, TopP: &p95, MaxTokens: 131072}
	f := files[year]
	return suites.Definition{
		Facts: suites.Facts{Suite: fmt.Sprintf("%s-%d", Suite, year), Questions: 30, Repeats: 64, Within: 0.05, DataSet: f.Repo, PromptTokens: 200, OutputTokens: 16000},
		Doc:   fmt.Sprintf("AIME %d: 30 problems with an integer as their answer; avg@k, maj@k and pass@k", year),
		Variants: []suites.Variant{
			{Name: "boxed", Rule: "boxed", Doc: "the prompt of NVIDIA's model cards", Source: "NVIDIA-NeMo/Skills@8b18f39:prompt/config/generic/math.yaml", Sampling: sampling},
			{Name: "aa", Rule: "boxed", Doc: "the prompt of Artificial Analysis", Source: "NVIDIA-NeMo/Skills@8b18f39:prompt/config/eval/aai/math.yaml", Sampling: sampling},
			{Name: "matharena", Rule: "boxed-or-last", Doc: "the prompt and rule of MathArena", Source: "eth-sri/matharena@e927660:configs/competitions/aime/aime_2025.yaml", Sampling: sampling},
		},
		Graders: Graders(),
		Data:    []data.File{f},
		Open:    func(ctx context.Context, env suites.Env) (suites.Suite, error) { return open(ctx, env, year) },
	}
}

// Data is the problems of one year.
type Data struct {
	Variant  string
	Problems []suites.Item
}

// text is a JSON string or number.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, (*string)(t))
	}
	*t = text(b)
	return nil
}

func open(ctx context.Context, env suites.Env, year int) (suites.Suite, error) {
	d := &Data{Variant: env.Variant}
	if instructions[d.Variant] == "" {
		return nil, fmt.Errorf("open aime: there is no variant %q", d.Variant)
	}
	type row struct {
		ID      text `json:"id"`
		Problem text `json:"problem"`
		Answer  text `json:"answer"`
	}
	columns := []string{"id", "problem", "answer"}
	if year == 2024 { // encoding/json does not mind the case of names, Parquet does
		columns = []string{"ID", "Problem", "Answer"}
	}
	rows, _, err := data.Read[row](ctx, env.Hub, env.Files[0], columns...)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		d.Problems = append(d.Problems, suites.Item{ID: string(r.ID), Question: strings.TrimSpace(string(r.Problem)), Reference: string(r.Answer)})
	}
	return d, nil
}

// Items implements [suites.Suite].
func (d *Data) Items(context.Context) ([]suites.Item, error) {
	check := Boxed().(suites.Checker)
	for _, it := range d.Problems {
		if err := check.Check(it); err != nil {
			return nil, fmt.Errorf("list items: problem %s: %w", it.ID, err)
		}
	}
	return d.Problems, nil
}

// Prompt implements [suites.Suite]. Repeats are asked alike.
func (d *Data) Prompt(it suites.Item, _ int) (suites.Prompt, error) {
	return suites.Prompt{Messages: []suites.Message{{Role: "user", Content: fmt.Sprintf(instructions[d.Variant], it.Question)}}}, nil
}

// Grader implements [suites.Suite].
func (d *Data) Grader() suites.Grader {
	if d.Variant == "matharena" {
		return BoxedOrLast()
	}
	return Boxed()
}
