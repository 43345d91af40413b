// Package mmlupro grades MMLU-Pro: 12,032 questions with up to ten options
// (TIGER-Lab/MMLU-Pro). The published rules for taking the letter out of an
// answer disagree by up to 24 points on the same text, so each of them is a
// named, versioned grader here and none is "the" score.
package mmlupro

import (
	"fmt"
	"strings"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/choice"
)

// Suite is the suite's name.
const Suite = "mmlu-pro"

var (
	chain   = []string{"answer_is", "answer_colon", "standalone_letter"}
	weakest = 3 // the stage of chain that takes any letter
)

// rule is a grader: an extraction and what an answer without a letter scores.
type rule struct {
	id      suites.Rule
	extract func(text string) (letter string, stage int)
	weak    int  // stage that is a fallback, 0 if none
	draw    bool // the protocol draws an option at random when it finds nothing
}

// Graders returns the rules, the default first.
func Graders() []suites.Grader {
	return []suites.Grader{Official(), OfficialAPI(), LastMatch(), LMEval(), Boxed()}
}

// Official is the published chain: the first "answer is (X)", else the last
// "Answer: X" of the first line that has one, else the last letter that stands
// alone. Without a letter the protocol draws one of the options at random; the
// score is that draw's expected value, 1 over the number of options.
//
// Source: TIGER-AI-Lab/MMLU-Pro f418b11, evaluate_from_local.py, extract_answer.
func Official() suites.Grader {
	return &rule{suites.Rule{Suite: Suite, Name: "official", Version: "1", Stages: chain,
		Doc:    `first "answer is (X)", else the last "Answer: X" of the first line with one, else the last standalone letter, else 1/n_options`,
		Source: "TIGER-AI-Lab/MMLU-Pro@f418b11:evaluate_from_local.py"}, firstMatch, weakest, true}
}

// OfficialAPI is [Official] after every ** has been removed from the text.
//
// Source: TIGER-AI-Lab/MMLU-Pro f418b11, evaluate_from_api.py, single_request.
func OfficialAPI() suites.Grader {
	return &rule{suites.Rule{Suite: Suite, Name: "official-api", Version: "1", Stages: chain,
		Doc:    "the official chain on the text without **",
		Source: "TIGER-AI-Lab/MMLU-Pro@f418b11:evaluate_from_api.py"},
		func(text string) (string, int) { return firstMatch(strings.ReplaceAll(text, "**", "")) }, weakest, true}
}

// LastMatch is the chain with the last match at every stage.
//
// Source: TIGER-AI-Lab/MMLU-Pro f418b11, evaluate_from_apiX.py, extract_answer.
func LastMatch() suites.Grader {
	return &rule{suites.Rule{Suite: Suite, Name: "last-match", Version: "1", Stages: chain,
		Doc:    `last "answer is (X)", else the last "Answer: X", else the last standalone letter, else 1/n_options`,
		Source: "TIGER-AI-Lab/MMLU-Pro@f418b11:evaluate_from_apiX.py"}, lastMatch, weakest, true}
}

// LMEval takes the first "answer is (X)" and nothing else; no letter scores 0.
//
// Source: EleutherAI/lm-evaluation-harness 4e7e0d4,
// lm_eval/tasks/mmlu_pro/_default_template_yaml (custom-extract, take_first).
func LMEval() suites.Grader {
	return &rule{suites.Rule{Suite: Suite, Name: "lm-eval", Version: "1", Stages: chain[:1],
		Doc:    `first "answer is (X)", else 0`,
		Source: "EleutherAI/lm-evaluation-harness@4e7e0d4:lm_eval/tasks/mmlu_pro/_default_template_yaml"},
		func(text string) (string, int) { return choice.Staged(firstAnswerIs(text), 1) }, 0, false}
}

// Boxed takes the content of the last \boxed{}: as it is if it is one
// character, else the last letter A to J that stands alone in it, else the
// content itself, which is wrong. Only without a balanced box does the last
// "Answer: X" count. Letters are compared as written, so a lower-case one is
// wrong, as it is upstream. No answer scores 0.
//
// Source: NVIDIA-NeMo/Skills 8b18f39, nemo_skills/evaluation/evaluator/mcq.py
// and math_grader.py, extract_answer.
func Boxed() suites.Grader {
	return &rule{suites.Rule{Suite: Suite, Name: "boxed", Version: "1",
		Stages: choice.BoxedStages,
		Doc:    `content of the last \boxed{}, or the last standalone letter in it; without a box the last "Answer: X"; else 0`,
		Source: "NVIDIA-NeMo/Skills@8b18f39:nemo_skills/evaluation/evaluator/mcq.py"}, choice.Boxed, 0, false}
}

// Rule implements [suites.Grader].
func (r *rule) Rule() suites.Rule { return r.id }

// Check reports an item that cannot be graded.
func (r *rule) Check(item suites.Item) error {
	if len(item.Reference) != 1 || choice.LetterAt(item.Reference, 0) == "" {
		return fmt.Errorf("reference %q is not a letter from A to J", item.Reference)
	}
	if n := item.OptionCount(); n < 0 || n > 10 {
		return fmt.Errorf("the number of options is %d, want at most 10", n)
	}
	return nil
}

// Grade implements [suites.Grader]. It needs the item's reference letter and,
// for the rules that draw, its number of options; ten if that is not known.
func (r *rule) Grade(item suites.Item, text string) suites.Grade {
	g := suites.Grade{Rule: r.id.String(), Outcome: suites.NoAnswer}
	g.Extracted, g.Stage = r.extract(text)
	g.Weak = g.Stage != 0 && g.Stage == r.weak
	switch {
	case g.Stage == 0:
		if strings.TrimSpace(text) == "" {
			g.Outcome = suites.Empty
		}
		if r.draw {
			n := item.OptionCount()
			if n == 0 {
				n = 10
			}
			g.Score = 1 / float64(n)
		}
	case g.Extracted == item.Reference:
		g.Outcome, g.Score = suites.Correct, 1
	default:
		g.Outcome = suites.Wrong
	}
	return g
}
