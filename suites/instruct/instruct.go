// Package instruct grades answers to prompts with instructions that a program can
// verify, such as "use no commas": strictly on the answer as it is, or loosely on
// variants of it, by prompt or by instruction. What can be verified is said by the
// suites ifeval and ifbench.
package instruct

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/pytext"
)

// Verifier reports whether a text follows an instruction. It takes time linear in
// the text.
type Verifier func(text string) bool

// Maker makes a verifier of an instruction's arguments.
type Maker func(a Args) (Verifier, error)

// Set is the instructions that a suite knows, by identifier.
type Set map[string]Maker

// Checks is what an answer is graded by, as data sets have it. Its JSON is the
// reference of an item, so that stored answers can be graded again without the
// data set.
type Checks struct {
	IDs  []string `json:"instruction_id_list"`
	Args []Args   `json:"kwargs"`
}

// Args are an instruction's arguments. Those that are null or absent are the same.
type Args map[string]json.RawMessage

// Reference returns the checks as an item's reference. Null arguments are left
// out: data sets fill rows up with them.
func (c Checks) Reference() string {
	out := Checks{IDs: c.IDs}
	for _, a := range c.Args {
		kept := Args{}
		for k, v := range a {
			if string(v) != "null" {
				kept[k] = v
			}
		}
		out.Args = append(out.Args, kept)
	}
	b, err := json.Marshal(out)
	if err != nil { // raw JSON that was parsed before
		panic(fmt.Sprintf("marshal checks: %v", err))
	}
	return string(b)
}

// Verifiers makes the verifiers of a reference.
func (s Set) Verifiers(reference string) ([]Verifier, error) {
	var c Checks
	if err := json.Unmarshal([]byte(reference), &c); err != nil {
		return nil, fmt.Errorf("the reference is no JSON with instruction_id_list and kwargs: %w", err)
	}
	if len(c.IDs) == 0 || len(c.IDs) != len(c.Args) {
		return nil, fmt.Errorf("the reference has %d instructions and arguments of %d", len(c.IDs), len(c.Args))
	}
	out := make([]Verifier, len(c.IDs))
	for i, id := range c.IDs {
		mk := s[id]
		if mk == nil {
			return nil, fmt.Errorf("there is no verifier for instruction %q", id)
		}
		v, err := mk(c.Args[i])
		if err != nil {
			return nil, fmt.Errorf("instruction %s: %w", id, err)
		}
		out[i] = v
	}
	return out, nil
}

// Loose returns the variants of an answer of which one that follows an instruction
// suffices: without its first line, its last line or both, each also without
// asterisks.
//
// Source: google-research/google-research, instruction_following_eval/
// evaluation_lib.py, test_instruction_following_loose.
func Loose(text string) []string {
	lines := strings.Split(text, "\n")
	part := func(from, to int) string {
		if from >= to {
			return ""
		}
		return pytext.Strip(strings.Join(lines[from:to], "\n"))
	}
	n := len(lines)
	out := []string{text, part(1, n), part(0, n-1), part(1, n-1)}
	for _, v := range out[:4] {
		if strings.Contains(v, "*") {
			out = append(out, strings.ReplaceAll(v, "*", ""))
		}
	}
	kept := out[:0]
	for _, v := range out {
		if !pytext.Blank(v) && !slices.Contains(kept, v) {
			kept = append(kept, v)
		}
	}
	return kept
}

// Follows reports whether one of the texts, none of which is blank, follows.
func Follows(v Verifier, texts []string) bool { return slices.ContainsFunc(texts, v) }

// Rules are the four published ways to count, in the order in which the first is
// the suite's default. The suite's instructions and sources go into each.
func Rules(suite, source string, version string, set Set, names ...string) []suites.Grader {
	var out []suites.Grader
	for _, n := range names {
		loose, each := strings.HasPrefix(n, "loose"), strings.HasSuffix(n, "-instructions")
		doc := "1 if the answer follows every instruction of its prompt, else 0"
		if each {
			doc = "share of the prompt's instructions that the answer follows"
		}
		if loose {
			doc += "; the answer also without its first line, its last line and asterisks"
		}
		out = append(out, &rule{suites.Rule{Suite: suite, Name: n, Version: version, Doc: doc, Source: source, Stages: []string{"verified"}}, set, loose, each})
	}
	return out
}

type rule struct {
	id    suites.Rule
	set   Set
	loose bool
	each  bool // the score is a share
}

// Rule implements [suites.Grader].
func (r *rule) Rule() suites.Rule { return r.id }

// Check reports an item whose instructions cannot be verified.
func (r *rule) Check(it suites.Item) error {
	_, err := r.set.Verifiers(it.Reference)
	return err
}

// Grade implements [suites.Grader]. Extracted has a 1 for every instruction that
// was followed and a 0 for each other, in the prompt's order.
func (r *rule) Grade(it suites.Item, text string) suites.Grade {
	g := suites.Grade{Rule: r.id.String(), Outcome: suites.NoAnswer}
	verifiers, err := r.set.Verifiers(it.Reference)
	if pytext.Blank(text) || strings.TrimSpace(text) == "" {
		g.Outcome = suites.Empty
		return g
	}
	if err != nil {
		return g // see Check
	}
	texts := []string{text}
	if r.loose {
		texts = Loose(text)
	}
	bits := make([]byte, len(verifiers))
	kept := 0
	for i, v := range verifiers {
		bits[i] = '0'
		if Follows(v, texts) {
			bits[i] = '1'
			kept++
		}
	}
	g.Extracted, g.Stage, g.Outcome = string(bits), 1, suites.Wrong
	if kept == len(bits) {
		g.Outcome, g.Score = suites.Correct, 1
	} else if r.each {
		g.Score = float64(kept) / float64(len(bits))
	}
	return g
}

// Parts implements [suites.Parted]: how many instructions were followed, of how
// many. A blank answer follows none.
func (r *rule) Parts(it suites.Item, g suites.Grade) (kept, all int) {
	if g.Extracted == "" {
		var c Checks
		if json.Unmarshal([]byte(it.Reference), &c) != nil {
			return 0, 0
		}
		return 0, len(c.IDs)
	}
	return strings.Count(g.Extracted, "1"), len(g.Extracted)
}
