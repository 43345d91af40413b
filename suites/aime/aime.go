// Package aime grades the American Invitational Mathematics Examination: 30
// problems a year, each with an integer from 0 to 999 as its answer.
package aime

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/repromill/repromill/suites"
)

// Suite is the suite's name, whatever the year; the data set is the item's.
const Suite = "aime"

type rule struct {
	id      suites.Rule
	integer bool // take the last integer where there is no box
}

// Graders returns the rules, the default first.
func Graders() []suites.Grader { return []suites.Grader{Boxed(), BoxedOrLast()} }

// Boxed takes the content of the last balanced \boxed{}, or the digits after a
// bare \boxed. It must be an integer from 0 to 999 once LaTeX dress is taken
// off; 016 is 16. A box with anything else is a wrong answer; text without a box
// is no answer.
//
// Source: the common core of NVIDIA-NeMo/Skills 8b18f39
// (nemo_skills/evaluation/math_grader.py) and eth-sri/matharena e927660, with an
// integer comparison in place of a symbolic one; on 1,080 stored answers to
// AIME 2024 it agrees with a symbolic grader on 1,078.
func Boxed() suites.Grader {
	return &rule{suites.Rule{Suite: Suite, Name: "boxed", Version: "1", Stages: []string{"box"},
		Doc:    `last balanced \boxed{}, an integer 0 to 999; else 0`,
		Source: "NVIDIA-NeMo/Skills@8b18f39:nemo_skills/evaluation/math_grader.py"}, false}
}

// BoxedOrLast is [Boxed], or the last integer of a text that has no box. It
// rewards luck: prefer it only to reproduce scores made with it.
//
// Source: eth-sri/matharena e927660, configs/competitions/aime/aime_2025.yaml
// (strict_parsing: false).
func BoxedOrLast() suites.Grader {
	return &rule{suites.Rule{Suite: Suite, Name: "boxed-or-last", Version: "1", Stages: []string{"box", "last_integer"},
		Doc:    `last balanced \boxed{}, else the last integer of the text; 0 to 999; else 0`,
		Source: "eth-sri/matharena@e927660:configs/competitions/aime/aime_2025.yaml"}, true}
}

// Rule implements [suites.Grader].
func (r *rule) Rule() suites.Rule { return r.id }

// Check reports an item that cannot be graded.
func (r *rule) Check(item suites.Item) error {
	if _, ok := parse(item.Reference); !ok {
		return fmt.Errorf("reference %q is not an integer from 0 to 999", item.Reference)
	}
	return nil
}

// Grade implements [suites.Grader]. Extracted is the integer without leading
// zeros, or the content of a box that holds none, cut to 100 bytes.
func (r *rule) Grade(item suites.Item, text string) suites.Grade {
	g := suites.Grade{Rule: r.id.String(), Outcome: suites.NoAnswer}
	content, found := lastBox(text)
	switch {
	case found:
		g.Stage = 1
	case r.integer:
		if content, found = lastInteger(text); found {
			g.Stage, g.Weak = 2, true
		}
	}
	if !found {
		if strings.TrimSpace(text) == "" {
			g.Outcome = suites.Empty
		}
		return g
	}
	g.Outcome = suites.Wrong
	n, ok := parse(content)
	if !ok {
		g.Extracted = clip(content, 100)
		return g
	}
	g.Extracted = strconv.Itoa(n)
	if want, ok := parse(item.Reference); ok && want == n {
		g.Outcome, g.Score = suites.Correct, 1
	}
	return g
}

// clip cuts s to at most n bytes of whole characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}
