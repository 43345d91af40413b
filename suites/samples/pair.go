package samples

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/compare"
)

// Set is the scored samples of one arm, by question.
type Set struct {
	Name      string // for messages: a file's name
	Arm       string
	Outcomes  map[suites.Outcome]int
	Failed    int  // rows without an answer: they have no score
	chosen    bool // the arm was named
	questions map[string]*scored
	rules     map[string]bool
	repeats   map[string]bool // item and repeat seen
}

// scored is one question's samples.
type scored struct {
	scores   []float64
	item     suites.Item
	prompt   map[int]string // by repeat
	position *int64
}

// NewSet returns an empty set. Samples of other arms than arm are left out;
// with "" the file must have one arm only.
func NewSet(name, arm string) *Set {
	return &Set{Name: name, Arm: arm, chosen: arm != "", Outcomes: map[suites.Outcome]int{}, questions: map[string]*scored{}, rules: map[string]bool{}, repeats: map[string]bool{}}
}

func (s *Set) refuse(row int, fix, format string, args ...any) error {
	return &InputError{row, fmt.Sprintf(format, args...), fix}
}

// Add takes one sample. Errors are [*InputError].
func (s *Set) Add(x Sample) error {
	if s.chosen && x.Arm != s.Arm {
		return nil
	}
	if !s.chosen {
		if len(s.repeats) == 0 {
			s.Arm = x.Arm
		} else if x.Arm != s.Arm {
			return s.refuse(x.Row, "name the two arms: --arms BASELINE,CANDIDATE", "there is more than one arm in the file: %q and %q", s.Arm, x.Arm)
		}
	}
	key := fmt.Sprintf("%s\x00%d", x.Item.ID, x.Repeat)
	if s.repeats[key] {
		return s.refuse(x.Row, "number repeated answers with a field repeat, from 0", "question %s, repeat %d is there twice", x.Item.ID, x.Repeat)
	}
	s.repeats[key] = true
	if x.Outcome != "" {
		s.Outcomes[x.Outcome]++
	}
	if x.Outcome == suites.Error {
		s.Failed++
		return nil
	}
	score := 0.0
	switch {
	case x.Score != nil:
		score = *x.Score
	case x.Outcome == suites.Correct:
		score = 1
	case x.Outcome == "":
		return s.refuse(x.Row, "grade the file first: repromill grade --suite … --in FILE --json", "no score and no outcome")
	}
	if !(score >= 0 && score <= 1) {
		return s.refuse(x.Row, "scores are fractions from 0 to 1", "the score is %v", score)
	}
	if x.Rule != "" {
		s.rules[x.Rule] = true
	}
	q := s.questions[x.Item.ID]
	if q == nil {
		q = &scored{item: x.Item, prompt: map[int]string{}, position: x.Position}
		s.questions[x.Item.ID] = q
	}
	q.scores = append(q.scores, score)
	q.prompt[x.Repeat] = x.PromptSHA
	return nil
}

// Len returns how many questions have a score.
func (s *Set) Len() int { return len(s.questions) }

// Scores returns the scores of every question's repeats, by id.
func (s *Set) Scores() map[string][]float64 {
	out := make(map[string][]float64, len(s.questions))
	for id, q := range s.questions {
		out[id] = q.scores
	}
	return out
}

// Paired is two arms on the same questions.
type Paired struct {
	Pairs    []compare.Pair
	Category map[string]string // by question
	Order    string            // where the order of Pairs comes from
	Warnings []string
}

// Pair matches questions by id and puts them in the order in which they were
// asked, if the samples say so, else in a random order that depends on the seed
// and the ids alone. It refuses what is no comparison: other rules, other gold
// answers, other prompts. Errors are [*InputError].
func Pair(base, cand *Set, seed uint64) (Paired, error) {
	p := Paired{Category: map[string]string{}}
	if a, b := ruleOf(base), ruleOf(cand); a != "" && b != "" && a != b {
		return p, &InputError{0, fmt.Sprintf("%s is graded under %s, %s under %s", base.Name, a, cand.Name, b), "grade both under one rule: repromill grade --rule RULE"}
	}
	asked := true
	uneven := 0
	position := map[string]int64{}
	for id, b := range base.questions {
		c := cand.questions[id]
		if c == nil {
			continue
		}
		if err := b.same(c, id); err != nil {
			return p, err
		}
		if len(b.scores) != len(c.scores) {
			uneven++
		}
		if b.position == nil {
			asked = false
		} else {
			position[id] = *b.position
		}
		p.Pairs = append(p.Pairs, compare.Pair{ID: id, Cluster: b.item.Cluster, Base: suites.Mean([][]float64{b.scores}), Cand: suites.Mean([][]float64{c.scores})})
		p.Category[id] = b.item.Category
	}
	if len(p.Pairs) == 0 {
		return p, &InputError{0, fmt.Sprintf("%s and %s have no question in common", base.Name, cand.Name), "give answers to the same questions, with the same item_id"}
	}
	slices.SortFunc(p.Pairs, func(a, b compare.Pair) int { return strings.Compare(a.ID, b.ID) })
	if asked {
		p.Order = "as asked"
		slices.SortStableFunc(p.Pairs, func(a, b compare.Pair) int { return cmp.Compare(position[a.ID], position[b.ID]) })
	} else {
		p.Order = fmt.Sprintf("permuted with seed %d", seed)
		rng := rand.New(rand.NewPCG(seed, 0x9a1b))
		rng.Shuffle(len(p.Pairs), func(i, j int) { p.Pairs[i], p.Pairs[j] = p.Pairs[j], p.Pairs[i] })
	}
	p.warn(base, cand, uneven)
	return p, nil
}

func (p *Paired) warn(base, cand *Set, uneven int) {
	add := func(format string, args ...any) { p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...)) }
	for _, s := range []*Set{base, cand} {
		if n := s.Len() - len(p.Pairs); n > 0 {
			add("%d questions of %s have no counterpart and are left out", n, s.Name)
		}
		if s.Failed > 0 {
			add("%d requests of %s failed and have no score", s.Failed, s.Name)
		}
	}
	if uneven > 0 {
		add("%d questions have more repeats in one arm than in the other", uneven)
	}
	for _, o := range []suites.Outcome{suites.Truncated, suites.Empty, suites.Refused, suites.NoAnswer} {
		a, b := base.Outcomes[o], cand.Outcomes[o]
		// Twice the standard error of a difference of counts.
		if d := float64(b - a); d*d > 4*float64(a+b) {
			add("outcome %s: %d in the baseline, %d in the candidate: part of the difference may not be knowledge", o, a, b)
		}
	}
}

// ruleOf names the rules of a set.
func ruleOf(s *Set) string { return strings.Join(slices.Sorted(maps.Keys(s.rules)), ", ") }

// same reports how two arms' versions of a question differ, if they do.
func (q *scored) same(c *scored, id string) error {
	if a, b := q.item.Reference, c.item.Reference; a != "" && b != "" && a != b {
		return &InputError{0, fmt.Sprintf("question %s has the right answer %q in one file and %q in the other", id, a, b), "compare runs over the same revision of the data set"}
	}
	for repeat, a := range q.prompt {
		if b := c.prompt[repeat]; a != "" && b != "" && a != b {
			return &InputError{0, fmt.Sprintf("question %s was asked with another prompt in the second file", id), "compare runs that sent the same prompts"}
		}
	}
	return nil
}
