package suites

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/repromill/repromill/suites/data"
)

// Need is something that a suite needs beside the endpoints of its arms.
type Need string

// The needs.
const (
	Judge     Need = "a judge model"
	Sandbox   Need = "a sandbox for generated code"
	User      Need = "a user-simulator model"
	Images    Need = "a multimodal endpoint"
	Tokenizer Need = "the served model's tokenizer (/tokenize)"
)

// Facts is what is known about a suite before anything is asked.
type Facts struct {
	Suite     string  `json:"suite"`
	Questions int     `json:"questions"`
	Repeats   int     `json:"repeats"` // per question, as published comparisons do
	Within    float64 `json:"within"`  // assumed mean variance p(1-p) of one answer around its question's own rate
	DataSet   string  `json:"dataset"` // on the hub, or where it comes from
	Needs     []Need  `json:"needs,omitempty"`
	// Excluded says which questions of the data set are left out, and why.
	Excluded string `json:"excluded,omitempty"`
	// Tokens are assumed means per answer, for budgets and estimates.
	PromptTokens int `json:"prompt_tokens,omitzero"`
	OutputTokens int `json:"output_tokens,omitzero"`
}

// Sampling is how answers are drawn. What is not set is left to the server.
type Sampling struct {
	Temperature *float64       `json:"temperature,omitempty"`
	TopP        *float64       `json:"top_p,omitempty"`
	TopK        *int           `json:"top_k,omitempty"`
	MaxTokens   int            `json:"max_tokens,omitempty"`
	Extra       map[string]any `json:"extra,omitempty"` // further fields of the request, such as chat_template_kwargs
}

// Variant is one published way to put a suite's questions.
type Variant struct {
	Name     string   `json:"name"`
	Doc      string   `json:"doc"`
	Source   string   `json:"source"`
	Rule     string   `json:"rule"` // of the suite's graders
	Sampling Sampling `json:"sampling"`
	// Where they differ from the suite's facts, else 0.
	Questions    int `json:"questions,omitzero"`
	PromptTokens int `json:"prompt_tokens,omitzero"`
}

// Definition is a suite as it is registered: known without data, and opened when
// it is to be run.
type Definition struct {
	Facts
	Doc      string
	Variants []Variant   // the first is the default
	Graders  []Grader    // the first is the default; at least one unless Later is set
	Data     []data.File // what Open reads, at the commit that the suite was written for

	// Open reads the data and returns the suite. Nil only where Later is set.
	Open func(ctx context.Context, env Env) (Suite, error)
	// Named is set where the suite is proposed only when it is asked for by name:
	// it says nothing about a model of ordinary size.
	Named bool
	// Later says why no version of this program runs the suite yet.
	Later string
}

// Env is what a suite is opened with.
type Env struct {
	Hub     *data.Hub
	Variant string
	// Files are those of Definition.Data as the plan pins them, in their order.
	Files []data.File
	// Count returns how many tokens the served model makes of a text; nil where no
	// endpoint says so. Only suites with the need [Tokenizer] use it.
	Count func(ctx context.Context, text string) (int, error)
	// Limit returns the smallest context that an arm is served with, prompt and
	// answer together, 0 if none says; nil as Count.
	Limit func(ctx context.Context) (int, error)
	// Dir is a folder of the run, kept over a resume, for what a suite makes once
	// and must not make otherwise the next time.
	Dir  string
	Seed uint64
}

// Variant returns a variant by name, the first if the name is empty. The error is
// an [*UnknownError].
func (d Definition) Variant(name string) (Variant, error) {
	var known []string
	for _, v := range d.Variants {
		if name == "" || v.Name == name {
			return v, nil
		}
		known = append(known, v.Name)
	}
	return Variant{}, &UnknownError{"variant of " + d.Suite, name, known}
}

// Lacks returns what keeps the suite from being run where only have is at hand;
// nil if nothing does.
func (d Definition) Lacks(have ...Need) []string {
	var out []string
	for _, n := range d.Needs {
		if !slices.Contains(have, n) {
			out = append(out, "it needs "+string(n))
		}
	}
	if d.Later != "" {
		out = append(out, d.Later)
	}
	return out
}

// Catalog is the suites that a program knows, in the order in which it shows them.
type Catalog []Definition

// Find returns a suite's definition. The error is an [*UnknownError].
func (c Catalog) Find(suite string) (Definition, error) {
	var known []string
	for _, d := range c {
		if d.Suite == suite {
			return d, nil
		}
		known = append(known, d.Suite)
	}
	return Definition{}, &UnknownError{"suite", suite, known}
}

// Graders returns the registry of all rules.
func (c Catalog) Graders() (Registry, error) {
	var all []Grader
	seen := map[string]bool{}
	for _, d := range c {
		for _, g := range d.Graders {
			// Suites over several years of one examination share their rules.
			if key := g.Rule().Suite + "\x00" + g.Rule().String(); !seen[key] {
				seen[key] = true
				all = append(all, g)
			}
		}
	}
	return NewRegistry(all...)
}

// ToolAnswer is the text of an answer to a prompt with tools, as it is stored and
// graded: one line of JSON.
type ToolAnswer struct {
	Content string     `json:"content"`
	Calls   []ToolCall `json:"tool_calls"`
}

// ToolCall is one call as the model made it. Arguments is what it wrote, which
// need not be JSON.
type ToolCall struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// Text returns the stored form.
func (a ToolAnswer) Text() string {
	if a.Calls == nil {
		a.Calls = []ToolCall{}
	}
	b, err := json.Marshal(a)
	if err != nil { // strings always marshal
		panic(fmt.Sprintf("marshal tool answer: %v", err))
	}
	return string(b)
}

// ParseToolAnswer reads what [ToolAnswer.Text] wrote.
func ParseToolAnswer(text string) (ToolAnswer, error) {
	var a ToolAnswer
	dec := json.NewDecoder(strings.NewReader(text))
	if err := dec.Decode(&a); err != nil {
		return a, fmt.Errorf("read tool answer: %w", err)
	}
	return a, nil
}
