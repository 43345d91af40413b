package aalcr

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/repromill/repromill/suites"
)

func sha(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// Items implements [suites.Suite]. The documents are not in them, but their hashes
// are.
func (d *Data) Items(context.Context) ([]suites.Item, error) { return d.items, nil }

// Prompt implements [suites.Suite]. Repeats are asked alike.
func (d *Data) Prompt(it suites.Item, _ int) (suites.Prompt, error) {
	var a asked
	if err := json.Unmarshal([]byte(it.Data), &a); err != nil {
		return suites.Prompt{}, fmt.Errorf("prompt for question %s: %w", it.ID, err)
	}
	return suites.Prompt{Messages: []suites.Message{{Role: "user", Content: strings.Join(d.parts(it.Question, a.Documents), "")}}}, nil
}

// Grader implements [suites.Suite].
func (d *Data) Grader() suites.Grader { return d.rule() }

func (d *Data) rule() *rule {
	if d.old {
		return V10().(*rule)
	}
	return V11().(*rule)
}

// instructions are what the judge of version 1.1 is told first.
const instructions = `Decide whether the CANDIDATE ANSWER is correct or incorrect against the OFFICIAL ANSWER.
Note the following points when assessing correctness:

- Numbers should still match when they are the same value written differently, e.g., a
  percentage, a count of percentage points, and the equivalent decimal fraction are the same
  value: 0.675, "67.5%" and "67.5 percentage points" all match. So do different scales
  (thousand, million, bn) and different notations (thousands separators, currency symbols,
  LaTeX markup, and numbers written as words).
- Where the question asks for a particular format (e.g., a percentage, a number of decimal
  places, a unit, a rounding, or an ordering) the CANDIDATE ANSWER must meet it. If the
  question asks for no particular format, accept any equivalent form.
- In cases where the question asks for an ordered list, a title, honorific or article added
  to an entry in the CANDIDATE ANSWER can change where that entry sorts. Accept the ordering
  if it is correct either with those additions or without them.
- Grade the value the CANDIDATE ANSWER finally commits to, and it must commit to one. Values
  reached while working, and alternatives it considers and sets aside, do not count. If it
  offers several values without selecting one, it is incorrect even if one of them is right.
  Hedging is fine as long as one clearly definitive answer is given.`

// JudgePrompt implements [suites.Judged].
//
// Sources: the data set's card at 9a77ef5 and at bdae010, "Scoring Approach"; the
// line break of the latter as in NVIDIA-NeMo/Skills 8b18f39,
// nemo_skills/prompt/config/judge/aalcr.yaml.
func (d *Data) JudgePrompt(it suites.Item, text string) (suites.Prompt, bool) {
	if strings.TrimSpace(text) == "" {
		return suites.Prompt{}, false
	}
	if d.old {
		return suites.Prompt{Messages: []suites.Message{{Role: "user", Content: "Assess whether the following CANDIDATE ANSWER is CORRECT or INCORRECT. " +
			"For the CANDIDATE ANSWER to be correct, it must be consistent with the OFFICIAL ANSWER.\n\nThe question, for reference only: " + it.Question +
			"\nThe OFFICIAL ANSWER: " + it.Reference + "\nCANDIDATE ANSWER TO ASSESS: " + text + "\n\nReply only with CORRECT or INCORRECT."}}}, true
	}
	return suites.Prompt{Messages: []suites.Message{{Role: "system", Content: instructions}, {Role: "user", Content: "Assess whether the following CANDIDATE ANSWER is CORRECT or INCORRECT.\n" +
		"For the CANDIDATE ANSWER to be correct, it must be consistent with the OFFICIAL ANSWER.\n\nThe question, for reference only: START QUESTION " + it.Question +
		"\n\nEND QUESTION\n\nThe OFFICIAL ANSWER: " + it.Reference + "\n\nEND OFFICIAL ANSWER\n\nBEGIN CANDIDATE ANSWER TO ASSESS\n\n" + text +
		"\n\nEND CANDIDATE ANSWER TO ASSESS\n\nReply as JSON, with a verdict of CORRECT or INCORRECT."}}}, true
}

// GradeJudged implements [suites.Judged].
func (d *Data) GradeJudged(_ suites.Item, text, reply string) suites.Grade {
	return d.rule().judged(text, reply)
}
