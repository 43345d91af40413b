// Package ifbench is IFBench: 300 prompts with instructions of 58 kinds that no
// model was trained on and that a program can verify (Pyatkin et al., arXiv
// 2507.02833). Two kinds cannot be reproduced; their prompts are left out.
package ifbench

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/data"
	"github.com/repromill/repromill/suites/instruct"
)

// Suite is the suite's name.
const Suite = "ifbench"

// commit is the revision of the data set that this suite was written for, of
// October 2025.
const commit = "2e8a48de45ff3bf41242f927254ca81b59ca3ae2"

const source = "allenai/IFBench@db69a6f:evaluation_lib.py"

// Verifiers returns the verifiers by identifier; two of the 58 cannot be made.
func Verifiers() instruct.Set { return verifiers() }

// Graders returns the four published ways to count; the first, which counts
// prompts loosely, is the one that is reported.
func Graders() []suites.Grader {
	return instruct.Rules(Suite, source, "1", Verifiers(), "loose", "strict", "loose-instructions", "strict-instructions")
}

// Definition registers the suite.
func Definition() suites.Definition {
	zero, one, p95 := 0.0, 1.0, 0.95
	var why []string
	for _, id := range slices.Sorted(maps.Keys(unsupported)) {
		why = append(why, fmt.Sprintf("%s (%s)", id, unsupported[id]))
	}
	return suites.Definition{
		Facts: suites.Facts{Suite: Suite, Questions: 285, Repeats: 8, Within: 0.09, DataSet: "allenai/IFBench_test", PromptTokens: 200, OutputTokens: 4000,
			Excluded: "15 of 300 prompts, whose instructions cannot be verified exactly: " + strings.Join(why, "; ")},
		Doc: "IFBench: 285 of its 300 prompts, with verifiable instructions of 56 kinds out of 58",
		Variants: []suites.Variant{
			{Name: "thinking", Rule: "loose", Doc: "the prompt as it is, with room to think and the sampling of NVIDIA's model cards",
				Source:   "NVIDIA-NeMo/Evaluator@ac66aff:packages/nemo-evaluator-launcher/examples/nemotron/slurm_nvidia_nemotron_3_nano_30b_a3b_nvfp4.yaml",
				Sampling: suites.Sampling{Temperature: &one, TopP: &p95, MaxTokens: 131072}},
			{Name: "greedy", Rule: "loose", Doc: "the prompt as it is, temperature 0, as the paper does",
				Source: "allenai/IFBench@db69a6f:README.md", Sampling: suites.Sampling{Temperature: &zero, MaxTokens: 4096}},
		},
		Graders: Graders(),
		Data:    []data.File{{Repo: "allenai/IFBench_test", Commit: commit, Path: "data/train-00000-of-00001.parquet"}},
		Open:    open,
	}
}

func open(ctx context.Context, env suites.Env) (suites.Suite, error) {
	rows, _, err := data.Read[instruct.Prompt](ctx, env.Hub, env.Files[0], instruct.Columns...)
	if err != nil {
		return nil, err
	}
	return &instruct.Prompts{List: rows, Rules: Graders(), Skip: skip}, nil
}

// skip reports a prompt with an instruction that cannot be verified.
func skip(p instruct.Prompt) bool {
	return slices.ContainsFunc(p.IDs, func(id string) bool { return unsupported[id] != "" })
}
