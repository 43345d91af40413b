// Package aalcr asks AA-LCR: 100 questions, each over a set of documents of about
// 100,000 tokens (ArtificialAnalysis/AA-LCR), whose answers another model judges.
//
// The order of the documents and every byte of them matter, and harnesses have got
// them wrong: the data set states how many tokens each prompt has, and a prompt
// with another number is refused before anything is asked.
package aalcr

import (
	"encoding/json"
	"strings"

	"github.com/repromill/repromill/suites"
)

// Suite is the suite's name.
const Suite = "aa-lcr"

// verdicts are the stages of the rules: how the judge said it.
var verdicts = []string{"verdict", "word_in_text"}

// rule grades by what a judge replied.
type rule struct {
	id   suites.Rule
	read func(reply string) (word string, stage int)
}

// Graders returns the rules, the default first.
func Graders() []suites.Grader { return []suites.Grader{V11(), V10()} }

// V11 reads a verdict out of a JSON object, as version 1.1 of the data set asks
// its judge for one, also where the object stands in a fence or in other text.
//
// Source: the data set's card at 9a77ef5, "Scoring Approach".
func V11() suites.Grader {
	return &rule{suites.Rule{Suite: Suite, Name: "v1.1", Version: "1", Stages: verdicts,
		Doc:    `the judge's JSON object with a verdict CORRECT or INCORRECT; else a reply that is one of these words; else not judged`,
		Source: "hf:ArtificialAnalysis/AA-LCR@9a77ef5:README.md"}, readJSON}
}

// V10 takes a reply as right if it begins with CORRECT, whatever the case.
//
// Source: NVIDIA-NeMo/Skills 8b18f39, nemo_skills/evaluation/metrics/
// aalcr_metrics.py (is_aalcr_correct), for the prompt of the data set's card at
// bdae010.
func V10() suites.Grader {
	return &rule{suites.Rule{Suite: Suite, Name: "v1.0", Version: "1", Stages: verdicts[:1],
		Doc:    "right if the judge's reply begins with CORRECT, else wrong",
		Source: "NVIDIA-NeMo/Skills@8b18f39:nemo_skills/evaluation/metrics/aalcr_metrics.py"}, readWord}
}

// word returns CORRECT or INCORRECT if that is what a text is, else "".
func word(s string) string {
	switch s = strings.ToUpper(strings.Trim(s, " \t\r\n.!*\"'`")); s {
	case "CORRECT", "INCORRECT":
		return s
	}
	return ""
}

// readWord is upstream's: whatever does not begin with CORRECT is INCORRECT. Only a
// reply without text is none.
func readWord(reply string) (string, int) {
	s := strings.ToUpper(strings.TrimSpace(reply))
	switch {
	case s == "":
		return "", 0
	case strings.HasPrefix(s, "CORRECT"):
		return "CORRECT", 1
	}
	return "INCORRECT", 1
}

// maxReply is how much of a judge's reply is looked at, from its end.
const maxReply = 64 << 10

// readJSON takes the last object with a verdict.
func readJSON(reply string) (string, int) {
	if n := len(reply); n > maxReply {
		reply = reply[n-maxReply:]
	}
	for tries, end := 0, len(reply); tries < 16; tries++ {
		i := strings.LastIndexByte(reply[:end], '{')
		if i < 0 {
			break
		}
		var v struct {
			Verdict string `json:"verdict"`
		}
		if json.NewDecoder(strings.NewReader(reply[i:])).Decode(&v) == nil {
			if w := word(v.Verdict); w != "" {
				return w, 1
			}
		}
		end = i
	}
	if w := word(reply); w != "" {
		return w, 2
	}
	return "", 0
}

// Rule implements [suites.Grader].
func (r *rule) Rule() suites.Rule { return r.id }

// Grade implements [suites.Grader] without a judge: nothing can be said of a text.
// Stored verdicts are graded by [Data.GradeJudged].
func (r *rule) Grade(_ suites.Item, text string) suites.Grade {
	g := suites.Grade{Rule: r.id.String(), Outcome: suites.NoAnswer}
	if strings.TrimSpace(text) == "" {
		g.Outcome = suites.Empty
	}
	return g
}

// judged grades an answer by the judge's reply. A reply without a verdict leaves
// the answer unjudged, which is an error of the request and not the model's.
func (r *rule) judged(text, reply string) suites.Grade {
	g := r.Grade(suites.Item{}, text)
	if g.Outcome == suites.Empty {
		return g
	}
	switch g.Extracted, g.Stage = r.read(reply); {
	case g.Stage == 0:
		g.Outcome = suites.Error
	case g.Extracted == "CORRECT":
		g.Outcome, g.Score = suites.Correct, 1
	default:
		g.Outcome = suites.Wrong
	}
	return g
}
