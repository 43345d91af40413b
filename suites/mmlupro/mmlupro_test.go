package mmlupro_test

import (
	"strings"
	"testing"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/mmlupro"
	"github.com/repromill/repromill/suites/suitetest"
)

var item = suites.Item{ID: "1", Reference: "B", NOptions: 4}

func TestOfficial(t *testing.T) {
	suitetest.Grader(t, mmlupro.Official(), []suitetest.Case{
		{Name: "first of two statements", Item: item, Text: "so the answer is (B). No, the answer is (C).", Want: suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 1, Extracted: "B"}},
		{Name: "letter beyond the options", Item: item, Text: "The answer is J", Want: suites.Grade{Outcome: suites.Wrong, Stage: 1, Extracted: "J"}},
		{Name: "lower-case letter", Item: item, Text: "the answer is (b)", Want: suites.Grade{Outcome: suites.NoAnswer, Score: .25}},
		{Name: "CRLF before the letter", Item: item, Text: "Answer:\r\n B", Want: suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 2, Extracted: "B"}},
		{Name: "last of the first line", Item: item, Text: "x answer: C Answer: B\nanswer: D", Want: suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 2, Extracted: "B"}},
		{Name: "pronoun", Item: item, Text: "B or not, I think", Want: suites.Grade{Outcome: suites.Wrong, Stage: 3, Extracted: "I", Weak: true}},
		{Name: "accented neighbour is a word", Item: item, Text: "B éB", Want: suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 3, Extracted: "B", Weak: true}},
		{Name: "combining mark is none", Item: item, Text: "C B\u0301", Want: suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 3, Extracted: "B", Weak: true}},
		{Name: "nothing", Item: item, Text: "no idea", Want: suites.Grade{Outcome: suites.NoAnswer, Score: .25}},
		{Name: "blank", Item: item, Text: " \n", Want: suites.Grade{Outcome: suites.Empty, Score: .25}},
		{Name: "options not known", Item: suites.Item{Reference: "B"}, Text: "no idea", Want: suites.Grade{Outcome: suites.NoAnswer, Score: .1}},
	})
}

func TestOfficialAPI(t *testing.T) {
	suitetest.Grader(t, mmlupro.OfficialAPI(), []suitetest.Case{
		{Name: "bold", Item: item, Text: "The answer is **(B)**", Want: suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 1, Extracted: "B"}},
	})
}

func TestLastMatch(t *testing.T) {
	suitetest.Grader(t, mmlupro.LastMatch(), []suitetest.Case{
		{Name: "last of two statements", Item: item, Text: "the answer is (A), rather the answer is B", Want: suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 1, Extracted: "B"}},
		{Name: "last line", Item: item, Text: "answer: C\nAnswer: B", Want: suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 2, Extracted: "B"}},
		{Name: "matches do not overlap", Item: item, Text: "answer:\nAnswer: B", Want: suites.Grade{Outcome: suites.Wrong, Stage: 2, Extracted: "A"}},
	})
}

func TestLMEval(t *testing.T) {
	suitetest.Grader(t, mmlupro.LMEval(), []suitetest.Case{
		{Name: "statement", Item: item, Text: "answer is (B", Want: suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 1, Extracted: "B"}},
		{Name: "no fallback, no draw", Item: item, Text: "Answer: B", Want: suites.Grade{Outcome: suites.NoAnswer}},
	})
}

func TestBoxed(t *testing.T) {
	suitetest.Grader(t, mmlupro.Boxed(), []suitetest.Case{
		{Name: "last box", Item: item, Text: `\boxed{A} \boxed{B}`, Want: suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 1, Extracted: "B"}},
		{Name: "letter inside", Item: item, Text: `\boxed{\text{(B)}}`, Want: suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 2, Extracted: "B"}},
		{Name: "number inside", Item: item, Text: `Answer: B, \boxed{42}`, Want: suites.Grade{Outcome: suites.Wrong, Stage: 4, Extracted: "42"}},
		{Name: "unclosed last box", Item: item, Text: `\boxed{A} Answer: B \boxed{C`, Want: suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 3, Extracted: "B"}},
		{Name: "bold answer line", Item: item, Text: "**Answer:** B", Want: suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 3, Extracted: "B"}},
		{Name: "a word is no letter", Item: item, Text: "Answer: Because", Want: suites.Grade{Outcome: suites.NoAnswer}},
		{Name: "empty box", Item: item, Text: `Answer: B \boxed{}`, Want: suites.Grade{Outcome: suites.NoAnswer}},
	})
}

func FuzzGraders(f *testing.F) {
	for _, s := range []string{"the answer is (B)", "Answer:\r\nB", `\boxed{\text{C}}`, "**Answer**: _D_", "answer:\nAnswer: B", "é B\u0301 AnSwer\u2028:I", "\\boxed{\xff}", "aNſwer: ı"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, g := range mmlupro.Graders() {
			suitetest.Sound(t, g, item, text)
		}
		first, last := mmlupro.Official().Grade(item, text), mmlupro.LastMatch().Grade(item, text)
		if first.Stage != last.Stage {
			t.Errorf("first match found stage %d, last match %d", first.Stage, last.Stage)
		}
		if lm := mmlupro.LMEval().Grade(item, text); (lm.Stage == 1) != (first.Stage == 1) {
			t.Errorf("lm-eval and the chain disagree on stage 1")
		}
	})
}

// BenchmarkGrade grades one ordinary answer of 1,900 characters that states its
// letter at the end.
func BenchmarkGrade(b *testing.B) {
	text := strings.Repeat("Let us look at the options one by one; A has no unit. ", 35) + "The answer is (B)."
	for _, g := range mmlupro.Graders() {
		b.Run(g.Rule().Name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				g.Grade(item, text)
			}
		})
	}
}

// BenchmarkRunaway grades 160,000 characters on which the published patterns
// take quadratic time.
func BenchmarkRunaway(b *testing.B) {
	for name, unit := range map[string]string{"letters": "A B ", "answers": "answer: ", "lines": "Answer:\n", "spaces": " ", "boxes": `\boxed{`} {
		text := strings.Repeat(unit, 160_000/len(unit))
		for _, g := range mmlupro.Graders() {
			b.Run(name+"/"+g.Rule().Name, func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					g.Grade(item, text)
				}
			})
		}
	}
}
