// Package gpqa grades GPQA Diamond: 198 questions with four options by experts of
// biology, chemistry and physics (Idavidrein/gpqa, gated). The data set lists the
// right option first, so everything depends on how options are shuffled; here
// every order is fixed before the first request and can be computed again.
package gpqa

import (
	"fmt"
	"strings"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/choice"
	"github.com/repromill/repromill/suites/pytext"
)

// Suite is the suite's name.
const Suite = "gpqa-diamond"

// letters name the options.
const letters = "ABCD"

type rule struct {
	id      suites.Rule
	extract func(text string) (answer string, stage int)
	equal   func(answer, letter string) bool
}

// Graders returns the rules, the default first.
func Graders() []suites.Grader {
	return []suites.Grader{Boxed(), SimpleEvals(), LMEvalStrict()}
}

func same(answer, letter string) bool { return answer == letter }

// Boxed takes the last \boxed{}, else the last "Answer: X" of Artificial
// Analysis' pattern; see [choice.Boxed]. It goes with both prompts of NVIDIA's
// cards. Letters are compared as written. No answer scores 0.
//
// Source: NVIDIA-NeMo/Skills 8b18f39, nemo_skills/evaluation/evaluator/mcq.py.
func Boxed() suites.Grader {
	return &rule{suites.Rule{Suite: Suite, Name: "boxed", Version: "1", Stages: choice.BoxedStages,
		Doc:    `content of the last \boxed{}, or the last standalone letter in it; without a box the last "Answer: X"; else 0`,
		Source: "NVIDIA-NeMo/Skills@8b18f39:nemo_skills/evaluation/evaluator/mcq.py"}, choice.Boxed, same}
}

// SimpleEvals takes the first "Answer: X", in whatever case the word is; a letter
// in lower case is found and wrong, as it is upstream.
//
// Source: openai/simple-evals ee3b031, common.py (ANSWER_PATTERN_MULTICHOICE) and
// gpqa_eval.py.
func SimpleEvals() suites.Grader {
	return &rule{suites.Rule{Suite: Suite, Name: "simple-evals", Version: "1", Stages: []string{"answer_line"},
		Doc:    `first "Answer: X" with X from A to D; else 0`,
		Source: "openai/simple-evals@ee3b031:gpqa_eval.py"}, firstAnswer, same}
}

// LMEvalStrict takes what follows the first "The answer is " up to the last
// character but one of its line, and compares it without case and punctuation.
//
// Source: EleutherAI/lm-evaluation-harness v0.4.13,
// lm_eval/tasks/gpqa/cot_zeroshot/_gpqa_cot_zeroshot_yaml (strict-match).
func LMEvalStrict() suites.Grader {
	return &rule{suites.Rule{Suite: Suite, Name: "lm-eval-strict", Version: "1", Stages: []string{"answer_is"},
		Doc:    `the line after the first "The answer is ", without its last character, case and punctuation; else 0`,
		Source: "EleutherAI/lm-evaluation-harness@v0.4.13:lm_eval/tasks/gpqa/cot_zeroshot/_gpqa_cot_zeroshot_yaml"}, afterAnswerIs,
		func(answer, letter string) bool { return strings.EqualFold(bare(answer), letter) }}
}

// firstAnswer is re.search(r"(?i)Answer[ \t]*:[ \t]*\$?([A-D])\$?").
func firstAnswer(text string) (string, int) {
	for i := range len(text) {
		if text[i]|0x20 != 'a' {
			continue
		}
		end, ok := choice.FoldedAnswer(text, i)
		if !ok {
			continue
		}
		rest, ok := strings.CutPrefix(strings.TrimLeft(text[end:], " \t"), ":")
		if !ok {
			continue
		}
		rest = strings.TrimPrefix(strings.TrimLeft(rest, " \t"), "$")
		if rest != "" && rest[0]|0x20 >= 'a' && rest[0]|0x20 <= 'd' {
			return rest[:1], 1
		}
	}
	return "", 0
}

// afterAnswerIs is re.search(r"(?<=The answer is )(.*)(?=.)"), stripped.
func afterAnswerIs(text string) (string, int) {
	const lead = "The answer is "
	for {
		_, rest, ok := strings.Cut(text, lead)
		if !ok {
			return "", 0
		}
		line, _, _ := strings.Cut(rest, "\n")
		if runes := []rune(line); len(runes) > 0 {
			return pytext.Strip(string(runes[:len(runes)-1])), 1
		}
		text = rest
	}
}

// clip bounds what is kept of an answer that is no letter.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "")
	}
	return s
}

// bare takes off ASCII punctuation, as Python's string.punctuation has it.
func bare(s string) string {
	return strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f && !(r >= '0' && r <= '9') && !(r|0x20 >= 'a' && r|0x20 <= 'z') {
			return -1
		}
		return r
	}, s)
}

// Rule implements [suites.Grader].
func (r *rule) Rule() suites.Rule { return r.id }

// Check reports an item that cannot be graded.
func (r *rule) Check(item suites.Item) error {
	if len(item.Reference) != 1 || !strings.Contains(letters, item.Reference) {
		return fmt.Errorf("reference %q is not a letter from A to D", item.Reference)
	}
	return nil
}

// Grade implements [suites.Grader]. It needs the letter under which the right
// option was shown in that repeat.
func (r *rule) Grade(item suites.Item, text string) suites.Grade {
	g := suites.Grade{Rule: r.id.String(), Outcome: suites.NoAnswer}
	g.Extracted, g.Stage = r.extract(text)
	switch {
	case g.Stage == 0:
		if strings.TrimSpace(text) == "" {
			g.Outcome = suites.Empty
		}
	case r.equal(g.Extracted, item.Reference):
		g.Outcome, g.Score = suites.Correct, 1
	default:
		g.Outcome = suites.Wrong
	}
	g.Extracted = clip(g.Extracted)
	return g
}
