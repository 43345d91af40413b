// Package ifeval is IFEval: 541 prompts with 834 instructions of 25 kinds that a
// program can verify (Zhou et al., arXiv 2311.07911).
package ifeval

import (
	"context"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/data"
	"github.com/repromill/repromill/suites/instruct"
)

// Suite is the suite's name.
const Suite = "ifeval"

// commit is the revision of the data set that this suite was written for.
//
// Source: UKGovernmentBEIS/inspect_evals v0.26.0,
// src/inspect_evals/ifeval/ifeval.py (IFEVAL_DATASET_REVISION).
const commit = "966cd89545d6b6acfd7638bc708b98261ca58e84"

const source = "EleutherAI/lm-evaluation-harness@4e7e0d4:lm_eval/tasks/ifeval"

// Verifiers returns the 25 verifiers by identifier.
func Verifiers() instruct.Set { return verifiers() }

// Graders returns the four published ways to count; the first, which counts
// prompts strictly, is the default.
func Graders() []suites.Grader {
	return instruct.Rules(Suite, source, "1", Verifiers(), "strict", "loose", "strict-instructions", "loose-instructions")
}

// Definition registers the suite.
func Definition() suites.Definition {
	zero, one, p95 := 0.0, 1.0, 0.95
	return suites.Definition{
		Facts: suites.Facts{Suite: Suite, Questions: 541, Repeats: 1, Within: 0.05, DataSet: "google/IFEval", PromptTokens: 60, OutputTokens: 1200},
		Doc:   "IFEval: 541 prompts with 834 verifiable instructions of 25 kinds",
		Variants: []suites.Variant{
			{Name: "greedy", Rule: "strict", Doc: "the prompt as it is, temperature 0, as it was published",
				Source: source + "/ifeval.yaml", Sampling: suites.Sampling{Temperature: &zero, MaxTokens: 1280}},
			{Name: "thinking", Rule: "strict", Doc: "the prompt as it is, with room to think and the sampling of NVIDIA's model cards",
				Source:   "NVIDIA-NeMo/Skills@8b18f39:nemo_skills/dataset/ifeval/__init__.py",
				Sampling: suites.Sampling{Temperature: &one, TopP: &p95, MaxTokens: 131072}},
		},
		Graders: Graders(),
		Data:    []data.File{{Repo: "google/IFEval", Commit: commit, Path: "ifeval_input_data.jsonl"}},
		Open:    open,
	}
}

func open(ctx context.Context, env suites.Env) (suites.Suite, error) {
	rows, _, err := data.Read[instruct.Prompt](ctx, env.Hub, env.Files[0], instruct.Columns...)
	if err != nil {
		return nil, err
	}
	return &instruct.Prompts{List: rows, Rules: Graders()}, nil
}
