package mmlupro

import (
	"context"
	"fmt"
	"strings"

	"github.com/repromill/repromill/suites"
)

// Question is a row of the data set TIGER-Lab/MMLU-Pro.
type Question struct {
	QuestionID int64    `json:"question_id"`
	Question   string   `json:"question"`
	Options    []string `json:"options"` // filled up with "N/A" in the data set
	Answer     string   `json:"answer"`
	CoT        string   `json:"cot_content"` // worked solution, in the validation split
	Category   string   `json:"category"`
}

// Style is how questions are put.
type Style string

// The styles. A score means little without its style.
const (
	// FiveShot is the official chain-of-thought prompt for the completions
	// endpoint, with five worked examples of the same category.
	//
	// Source: TIGER-AI-Lab/MMLU-Pro f418b11, evaluate_from_local.py
	// (generate_cot_prompt) and cot_prompt_lib/initial_prompt.txt.
	FiveShot Style = "five-shot"
	// BoxedChat is the zero-shot chat prompt of NVIDIA's model cards.
	//
	// Source: NVIDIA-NeMo/Skills 8b18f39, prompt/config/eval/aai/
	// mcq-10choices-boxed.yaml and dataset/utils.py (get_mcq_fields), which keeps
	// the options "N/A".
	BoxedChat Style = "boxed"
)

// letters name the options.
const letters = "ABCDEFGHIJ"

// Data is a suite over questions at hand. It does no I/O: questions come from
// the hub at a pinned commit, by whoever runs the suite.
type Data struct {
	Style     Style
	Questions []Question // of the test split
	Shots     []Question // of the validation split; [FiveShot] needs five of each category
	// Fits reports whether a prompt leaves room for the answer. While it does not,
	// the last example is dropped, as the protocol does. nil: every prompt fits.
	Fits func(prompt string) bool
}

var _ suites.Suite = (*Data)(nil)

// Items implements [suites.Suite]. An error names the question that cannot be
// asked.
func (d *Data) Items(context.Context) ([]suites.Item, error) {
	if d.Style != FiveShot && d.Style != BoxedChat {
		return nil, fmt.Errorf("list items: there is no style %q", d.Style)
	}
	items := make([]suites.Item, 0, len(d.Questions))
	check := Official().(suites.Checker)
	for _, q := range d.Questions {
		it := suites.Item{ID: fmt.Sprint(q.QuestionID), Question: q.Question, Options: d.options(q), Reference: q.Answer, Category: q.Category}
		if len(it.Options) < 2 {
			return nil, fmt.Errorf("list items: question %s has %d options", it.ID, len(it.Options))
		}
		if err := check.Check(it); err != nil {
			return nil, fmt.Errorf("list items: question %s: %w", it.ID, err)
		}
		if strings.Index(letters, it.Reference) >= len(it.Options) {
			return nil, fmt.Errorf("list items: question %s has the right answer %s, but %d options", it.ID, it.Reference, len(it.Options))
		}
		items = append(items, it)
	}
	return items, nil
}

// options are those shown. The official harness drops "N/A", by which later
// letters shift.
func (d *Data) options(q Question) []string {
	if d.Style == BoxedChat {
		return q.Options
	}
	var out []string
	for _, o := range q.Options {
		if o != "N/A" {
			out = append(out, o)
		}
	}
	return out
}

// Grader implements [suites.Suite]: the rule that goes with the style.
func (d *Data) Grader() suites.Grader {
	if d.Style == BoxedChat {
		return Boxed()
	}
	return Official()
}

// Prompt implements [suites.Suite]. Repeats are asked alike.
func (d *Data) Prompt(it suites.Item, _ int) (suites.Prompt, error) {
	switch d.Style {
	case FiveShot:
		return d.fiveShot(it)
	case BoxedChat:
		var b strings.Builder
		b.WriteString("Answer the following multiple choice question. The last line of your response should be in the following format: " +
			`'Answer: \boxed{A/B/C/D/E/F/G/H/I/J}' (e.g. 'Answer: \boxed{A}').` + "\n\n" + strings.Trim(it.Question, "\n") + "\n")
		for i, o := range it.Options {
			fmt.Fprintf(&b, "\n%c) %s", letters[i], o)
		}
		return suites.Prompt{Messages: []suites.Message{{Role: "user", Content: b.String()}}}, nil
	}
	return suites.Prompt{}, fmt.Errorf("prompt: there is no style %q", d.Style)
}

func (d *Data) fiveShot(it suites.Item) (suites.Prompt, error) {
	const want = 5
	var shots []Question
	for _, s := range d.Shots {
		if s.Category == it.Category && len(shots) < want {
			shots = append(shots, s)
		}
	}
	if len(shots) < want {
		return suites.Prompt{}, fmt.Errorf("prompt for question %s: %d examples of category %q, want %d", it.ID, len(shots), it.Category, want)
	}
	for n := want; ; n-- {
		var b strings.Builder
		fmt.Fprintf(&b, "The following are multiple choice questions (with answers) about %s. Think step by step and then finish your answer with "+
			"\"the answer is (X)\" where X is the correct letter choice.\n\n\n\n", it.Category)
		for _, s := range shots[:n] {
			writeQuestion(&b, s.Question, d.options(s))
			b.WriteString(strings.ReplaceAll(s.CoT, "A: Let's think step by step.", "Answer: Let's think step by step.") + "\n\n")
		}
		writeQuestion(&b, it.Question, it.Options)
		b.WriteString("Answer: Let's think step by step.")
		if n == 0 || d.Fits == nil || d.Fits(b.String()) {
			return suites.Prompt{Text: b.String(), Stop: []string{"Question:"}}, nil
		}
	}
}

func writeQuestion(b *strings.Builder, question string, options []string) {
	b.WriteString("Question:\n" + question + "\nOptions:\n")
	for i, o := range options {
		fmt.Fprintf(b, "%c. %s\n", letters[i], o)
	}
}
