// Package ruler makes and grades questions over long contexts of a chosen length,
// of the thirteen kinds of RULER: needles in a haystack, variable tracking, word
// counts, and questions over many documents.
//
// Nothing of the texts is stored: a question is a recipe of a few numbers from
// which the same bytes are made again whenever they are asked, and its hash. Sizes
// are found with the tokenizer of the served model and kept with the run, so that
// all arms see identical bytes.
//
// Source of kinds, templates and rules: Hsieh et al., "RULER: What's the Real
// Context Size of Your Long-Context Language Models?", arXiv 2404.06654, and
// NVIDIA/RULER c3f5e3b, scripts/synthetic.yaml and scripts/data/synthetic. What
// differs on purpose: keys, values and distractors of one question never repeat, so
// that every question has one answer; sizes are searched to the unit; sentences are
// split by a rule of our own; and beyond the words of the list, longer lists are
// made of compounds instead of another dictionary.
package ruler

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/repromill/repromill/suites"
)

// Suite is the suite's name.
const Suite = "ruler"

// kind is one of the thirteen tasks.
type kind struct {
	name  string
	hay   string // of needles: noise, essay or needle
	value string // what needles hold: numbers or uuids
	key   string // words or uuids
	keys, values,
	queries int
	reply int // tokens of the answer
	least int // smallest size that is tried
	needs source
	make  func(m *maker, k *kind, index, size int) made
}

// source is data that a kind is made of.
type source int

const (
	none source = iota
	essays
	squad
	hotpot
)

// kinds are in the order in which they are reported.
//
// Source: NVIDIA/RULER c3f5e3b, scripts/synthetic.yaml, and tokens_to_generate of
// scripts/data/synthetic/constants.py.
var kinds = []kind{
	{name: "niah_single_1", hay: "noise", key: "words", value: "numbers", keys: 1, values: 1, queries: 1, reply: 128, least: 10, make: (*maker).needles},
	{name: "niah_single_2", hay: "essay", key: "words", value: "numbers", keys: 1, values: 1, queries: 1, reply: 128, least: 200, needs: essays, make: (*maker).needles},
	{name: "niah_single_3", hay: "essay", key: "words", value: "uuids", keys: 1, values: 1, queries: 1, reply: 128, least: 200, needs: essays, make: (*maker).needles},
	{name: "niah_multikey_1", hay: "essay", key: "words", value: "numbers", keys: 4, values: 1, queries: 1, reply: 128, least: 200, needs: essays, make: (*maker).needles},
	{name: "niah_multikey_2", hay: "needle", key: "words", value: "numbers", keys: 1, values: 1, queries: 1, reply: 128, least: 10, make: (*maker).needles},
	{name: "niah_multikey_3", hay: "needle", key: "uuids", value: "uuids", keys: 1, values: 1, queries: 1, reply: 128, least: 5, make: (*maker).needles},
	{name: "niah_multivalue", hay: "essay", key: "words", value: "numbers", keys: 1, values: 4, queries: 1, reply: 128, least: 200, needs: essays, make: (*maker).needles},
	{name: "niah_multiquery", hay: "essay", key: "words", value: "numbers", keys: 4, values: 1, queries: 4, reply: 128, least: 200, needs: essays, make: (*maker).needles},
	{name: "vt", reply: 30, least: 6, make: (*maker).variables},
	{name: "cwe", reply: 120, least: 20, make: (*maker).common},
	{name: "fwe", reply: 50, least: 100, make: (*maker).frequent},
	{name: "qa_1", reply: 32, least: 2, needs: squad, make: (*maker).answers},
	{name: "qa_2", reply: 32, least: 10, needs: hotpot, make: (*maker).answers},
}

func kindOf(name string) *kind {
	for i := range kinds {
		if kinds[i].name == name {
			return &kinds[i]
		}
	}
	return nil
}

type rule struct {
	id  suites.Rule
	any func(item suites.Item) bool // one reference is enough
}

// stages say how much of the reference an answer holds.
var stages = []string{"all_found", "some_found", "none_found"}

// Graders returns the rules, the default first.
func Graders() []suites.Grader { return []suites.Grader{Official(), All(), Part()} }

// Official is [All], and [Part] for the questions over documents.
//
// Source: NVIDIA/RULER c3f5e3b, scripts/eval/synthetic/constants.py.
func Official() suites.Grader {
	return &rule{suites.Rule{Suite: Suite, Name: "official", Version: "1", Stages: stages,
		Doc:    "string-match-part for qa_1 and qa_2, string-match-all for the other kinds",
		Source: "NVIDIA/RULER@c3f5e3b:scripts/eval/synthetic/constants.py"}, func(it suites.Item) bool { return strings.HasPrefix(it.Category, "qa_") }}
}

// All scores the share of the references that the answer holds, whatever the case.
// lm-evaluation-harness 0.4.13 scores questions over documents so too, where the
// references are spellings of one answer.
func All() suites.Grader {
	return &rule{suites.Rule{Suite: Suite, Name: "string-match-all", Version: "1", Stages: stages,
		Doc:    "share of the references that stand in the answer, whatever the case",
		Source: "NVIDIA/RULER@c3f5e3b:scripts/eval/synthetic/constants.py (string_match_all)"}, func(suites.Item) bool { return false }}
}

// Part scores 1 if any reference stands in the answer.
func Part() suites.Grader {
	return &rule{suites.Rule{Suite: Suite, Name: "string-match-part", Version: "1", Stages: stages,
		Doc:    "1 if any reference stands in the answer, whatever the case; else 0",
		Source: "NVIDIA/RULER@c3f5e3b:scripts/eval/synthetic/constants.py (string_match_part)"}, func(suites.Item) bool { return true }}
}

// Rule implements [suites.Grader].
func (r *rule) Rule() suites.Rule { return r.id }

// references reads an item's references, a JSON array of strings; another text is
// one reference.
func references(it suites.Item) []string {
	var list []string
	if strings.HasPrefix(it.Reference, "[") && json.Unmarshal([]byte(it.Reference), &list) == nil {
		return list
	}
	return []string{it.Reference}
}

// Check reports an item that cannot be graded.
func (r *rule) Check(item suites.Item) error {
	list := references(item)
	if len(list) == 0 {
		return fmt.Errorf("reference %q holds nothing to look for", item.Reference)
	}
	for _, s := range list {
		if strings.TrimSpace(s) == "" {
			return fmt.Errorf("reference %q holds an empty one", item.Reference)
		}
	}
	return nil
}

// Grade implements [suites.Grader]. An answer that holds some of the references is
// wrong with a score above 0. One that holds none counts as weak: cut at the token
// limit it is truncated and not wrong.
func (r *rule) Grade(item suites.Item, text string) suites.Grade {
	g := suites.Grade{Rule: r.id.String()}
	if strings.TrimSpace(text) == "" {
		g.Outcome = suites.Empty
		return g
	}
	list, lower := references(item), strings.ToLower(text)
	var found []string
	for _, s := range list {
		if strings.Contains(lower, strings.ToLower(s)) {
			found = append(found, s)
		}
	}
	g.Extracted = strings.Join(found, ", ")
	switch {
	case len(found) == 0 || g.Extracted == "":
		g.Outcome, g.Stage, g.Weak = suites.Wrong, 3, true
	case len(found) == len(list) || r.any(item):
		g.Outcome, g.Score, g.Stage = suites.Correct, 1, 1
		if len(found) < len(list) {
			g.Stage = 2
		}
	default:
		g.Outcome, g.Score, g.Stage = suites.Wrong, float64(len(found))/float64(len(list)), 2
	}
	return g
}
