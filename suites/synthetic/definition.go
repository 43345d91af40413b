package synthetic

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/aime"
	"github.com/repromill/repromill/suites/mmlupro"
)

// TestSeed makes the questions of the suites. Models that are trained on this
// package's questions take other seeds and leave these out.
const TestSeed = 20261122

// Sizes of the suites.
const (
	choiceQuestions = 6000
	lookupQuestions = 1000
)

const source = "this package: questions and the right answers are made by a seeded program"

// Choice registers the multiple-choice suite, graded as MMLU-Pro is on model cards.
func Choice() suites.Definition {
	zero := 0.0
	return suites.Definition{
		Facts: suites.Facts{Suite: "synthetic-choice", Questions: choiceQuestions, Repeats: 1, Within: 0.05, DataSet: "made, seed " + strconv.Itoa(TestSeed), PromptTokens: 110, OutputTokens: 25},
		Named: true,
		Doc:   "6,000 made questions of ten kinds with ten options each, for models of a laptop's size",
		Variants: []suites.Variant{{Name: "boxed", Rule: "boxed", Doc: "zero-shot chat, the letter in a box", Source: source,
			Sampling: suites.Sampling{Temperature: &zero, MaxTokens: 96}}},
		Graders: []suites.Grader{mmlupro.Boxed()},
		Open:    func(context.Context, suites.Env) (suites.Suite, error) { return choices{}, nil },
	}
}

// Lookup registers the long-context suite: one of many pairs has to be found
// again.
func Lookup() suites.Definition {
	zero := 0.0
	return suites.Definition{
		Facts: suites.Facts{Suite: "synthetic-lookup", Questions: lookupQuestions, Repeats: 1, Within: 0.05, DataSet: "made, seed " + strconv.Itoa(TestSeed), PromptTokens: 500, OutputTokens: 15},
		Named: true,
		Doc:   "1,000 made look-ups of one pair among 10 to 120, for models of a laptop's size",
		Variants: []suites.Variant{{Name: "boxed", Rule: "boxed", Doc: "the number that belongs to a name, in a box", Source: source,
			Sampling: suites.Sampling{Temperature: &zero, MaxTokens: 64}}},
		Graders: []suites.Grader{aime.Boxed()},
		Open:    func(context.Context, suites.Env) (suites.Suite, error) { return lookups{}, nil },
	}
}

type choices struct{}

// Items implements [suites.Suite]. The category is the question's kind.
func (choices) Items(context.Context) ([]suites.Item, error) {
	var out []suites.Item
	for _, q := range Questions(TestSeed, choiceQuestions) {
		out = append(out, suites.Item{ID: strconv.FormatInt(q.QuestionID, 10), Question: q.Question, Options: q.Options, Reference: q.Answer, Category: q.Category})
	}
	return out, nil
}

// Prompt implements [suites.Suite].
func (choices) Prompt(it suites.Item, _ int) (suites.Prompt, error) {
	return suites.Prompt{Messages: []suites.Message{{Role: "user", Content: ChoicePrompt(it.Question, it.Options)}}}, nil
}

// ChoicePrompt is how a multiple-choice question is put. The letter stands after
// its option: a small model finds what followed a number much sooner than what
// came before it.
func ChoicePrompt(question string, options []string) string {
	var b strings.Builder
	b.WriteString(question + "\n")
	for i, o := range options {
		fmt.Fprintf(&b, "\n- %s (%c)", o, 'A'+i)
	}
	b.WriteString("\n\nEnd with 'Answer: \\boxed{LETTER}'.")
	return b.String()
}

// Grader implements [suites.Suite].
func (choices) Grader() suites.Grader { return mmlupro.Boxed() }

// Pairs is one look-up: a list of names and numbers, and the name asked for.
type Pairs struct {
	Names   []string
	Numbers []int // 10 to 99
	At      int   // index of the pair asked for
}

// consonants and vowels of which names are made: 126 of one syllable, so that a
// small model's vocabulary has a token for each.
const consonants, vowels = "bcdfghjklmnpqrstvwxyz", "aeiouy"

// Names is how many names there are.
const Names = len(consonants) * len(vowels)

// Name returns name i of [Names].
func Name(i int) string {
	return string([]byte{consonants[i/len(vowels)], vowels[i%len(vowels)]})
}

// MakePairs returns look-up i of a seed: 10 to 120 pairs of different names of one
// syllable.
func MakePairs(seed uint64, i int) Pairs {
	r := rand.New(rand.NewPCG(seed, 1<<40|uint64(i)))
	var p Pairs
	for _, at := range r.Perm(Names)[:10+r.IntN(111)] {
		p.Names = append(p.Names, Name(at))
		p.Numbers = append(p.Numbers, 10+r.IntN(90))
	}
	p.At = r.IntN(len(p.Names))
	return p
}

// Question is what is asked.
func (p Pairs) Question() string {
	var b strings.Builder
	for i, name := range p.Names {
		fmt.Fprintf(&b, "- %s %d\n", name, p.Numbers[i])
	}
	b.WriteString("\nWhich number belongs to " + p.Names[p.At] + `? End with 'Answer: \boxed{NUMBER}'.`)
	return b.String()
}

// Answer is the worked answer.
func (p Pairs) Answer() string {
	return fmt.Sprintf("It is %s %d\nAnswer: \\boxed{%d}", p.Names[p.At], p.Numbers[p.At], p.Numbers[p.At])
}

type lookups struct{}

// Items implements [suites.Suite]. The category is how long the list is.
func (lookups) Items(context.Context) ([]suites.Item, error) {
	out := make([]suites.Item, lookupQuestions)
	for i := range out {
		p := MakePairs(TestSeed, i)
		category := "to 40 pairs"
		switch n := len(p.Names); {
		case n > 80:
			category = "81 to 120 pairs"
		case n > 40:
			category = "41 to 80 pairs"
		}
		out[i] = suites.Item{ID: strconv.Itoa(i), Question: p.Question(), Reference: strconv.Itoa(p.Numbers[p.At]), Category: category}
	}
	return out, nil
}

// Prompt implements [suites.Suite].
func (lookups) Prompt(it suites.Item, _ int) (suites.Prompt, error) {
	return suites.Prompt{Messages: []suites.Message{{Role: "user", Content: it.Question}}}, nil
}

// Grader implements [suites.Suite].
func (lookups) Grader() suites.Grader { return aime.Boxed() }
