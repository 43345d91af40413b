package mmlupro

import (
	"context"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/data"
)

// commit is the revision of the data set that this suite was written for.
//
// Source: UKGovernmentBEIS/inspect_evals v0.23.0,
// src/inspect_evals/mmlu_pro/mmlu_pro.py (MMLU_PRO_DATASET_REVISION).
const commit = "527feea0afed1de15a8c115abf7be4c912123315"

// Definition registers the suite.
func Definition() suites.Definition {
	zero, one, p95 := 0.0, 1.0, 0.95
	file := func(split string) data.File {
		return data.File{Repo: "TIGER-Lab/MMLU-Pro", Commit: commit, Path: "data/" + split + "-00000-of-00001.parquet"}
	}
	return suites.Definition{
		Facts: suites.Facts{Suite: Suite, Questions: 12032, Repeats: 1, Within: 0.05, DataSet: "TIGER-Lab/MMLU-Pro", PromptTokens: 300, OutputTokens: 1500},
		Doc:   "MMLU-Pro: 12,032 questions in 14 subjects with up to ten options",
		Variants: []suites.Variant{
			{Name: string(BoxedChat), Rule: "boxed", Doc: "zero-shot chat, answer in a box, as NVIDIA's model cards do",
				Source:   "NVIDIA-NeMo/Skills@8b18f39:prompt/config/eval/aai/mcq-10choices-boxed.yaml",
				Sampling: suites.Sampling{Temperature: &one, TopP: &p95, MaxTokens: 131072}},
			{Name: string(FiveShot), Rule: "official", Doc: "the official five worked examples of the same subject, completions endpoint",
				Source:   "TIGER-AI-Lab/MMLU-Pro@f418b11:evaluate_from_local.py",
				Sampling: suites.Sampling{Temperature: &zero, MaxTokens: 2048}},
		},
		Graders: Graders(),
		Data:    []data.File{file("test"), file("validation")},
		Open:    open,
	}
}

// columns that a row must have.
var columns = []string{"question_id", "question", "options", "answer", "cot_content", "category"}

func open(ctx context.Context, env suites.Env) (suites.Suite, error) {
	d := &Data{Style: Style(env.Variant)}
	var err error
	if d.Questions, _, err = data.Read[Question](ctx, env.Hub, env.Files[0], columns...); err != nil {
		return nil, err
	}
	if d.Style == FiveShot {
		if d.Shots, _, err = data.Read[Question](ctx, env.Hub, env.Files[1], columns...); err != nil {
			return nil, err
		}
	}
	return d, nil
}
