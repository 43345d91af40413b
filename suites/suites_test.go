package suites_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/suitetest"
)

// exact is the smallest grader: the text is the answer.
type exact struct{ suite, name, version string }

func (e exact) Rule() suites.Rule {
	return suites.Rule{Suite: e.suite, Name: e.name, Version: e.version, Doc: "the text is the answer", Source: "this test", Stages: []string{"text"}}
}

func (e exact) Grade(item suites.Item, text string) suites.Grade {
	g := suites.Grade{Outcome: suites.Empty, Rule: e.Rule().String()}
	for _, r := range text {
		if r != ' ' && r != '\t' && r != '\r' && r != '\n' && r != '\u2028' && r != '\u2029' {
			g = suites.Grade{Outcome: suites.Wrong, Stage: 1, Extracted: text, Rule: g.Rule}
			break
		}
	}
	if text != "" && text == item.Reference {
		g.Outcome, g.Score = suites.Correct, 1
	}
	return g
}

func TestConformanceOfTheSmallestGrader(t *testing.T) {
	suitetest.Grader(t, exact{"s", "exact", "1"}, []suitetest.Case{
		{Name: "right", Item: suites.Item{Reference: "x"}, Text: "x", Want: suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 1, Extracted: "x"}},
	})
}

func TestRegistry(t *testing.T) {
	reg, err := suites.NewRegistry(exact{"a", "first", "1"}, exact{"b", "other", "1"}, exact{"a", "second", "3"})
	if err != nil {
		t.Fatal(err)
	}
	if got := reg.Suites(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("suites %v", got)
	}
	if got := len(reg.Rules("a")); got != 2 {
		t.Errorf("%d rules of a", got)
	}
	for _, c := range []struct{ suite, rule, want, fix string }{
		{"a", "", "first@1", ""},
		{"a", "second", "second@3", ""},
		{"a", "second@3", "second@3", ""},
		{"a", "second@2", "", "choose one of first@1, second@3"},
		{"c", "", "", "choose one of a, b"},
	} {
		g, err := reg.Grader(c.suite, c.rule)
		var unknown *suites.UnknownError
		if errors.As(err, &unknown) {
			if unknown.UserError() != c.fix {
				t.Errorf("%s/%s: fix %q, want %q", c.suite, c.rule, unknown.UserError(), c.fix)
			}
		} else if err != nil || g.Rule().String() != c.want {
			t.Errorf("%s/%s: %v, %v", c.suite, c.rule, g, err)
		}
	}
	for _, bad := range [][]suites.Grader{{exact{"a", "x", "1"}, exact{"a", "x", "2"}}, {exact{"a", "x", ""}}} {
		if _, err := suites.NewRegistry(bad...); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}

func TestSettle(t *testing.T) {
	right := suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 1}
	weak := suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 3, Weak: true}
	none := suites.Grade{Outcome: suites.NoAnswer, Score: .1}
	for _, c := range []struct {
		name  string
		g     suites.Grade
		text  string
		end   suites.Ending
		want  suites.Outcome
		score float64
	}{
		{"stated and whole", right, "x", suites.Ending{FinishReason: "stop"}, suites.Correct, 1},
		{"stated before the cut", right, "x", suites.Ending{FinishReason: "length"}, suites.Correct, 1},
		{"stray letter in a cut text", weak, "x", suites.Ending{FinishReason: "length"}, suites.Truncated, 1},
		{"stray letter in a whole text", weak, "x", suites.Ending{FinishReason: "stop"}, suites.Correct, 1},
		{"cut", none, "x", suites.Ending{FinishReason: "length"}, suites.Truncated, .1},
		{"cut while still thinking", none, "", suites.Ending{FinishReason: "length"}, suites.Truncated, .1},
		{"empty", none, "\n", suites.Ending{FinishReason: "stop"}, suites.Empty, .1},
		{"refused", none, "I can not", suites.Ending{Refusal: true}, suites.Refused, .1},
		{"filtered", none, "", suites.Ending{FinishReason: "content_filter"}, suites.Refused, .1},
		{"failed", none, "", suites.Ending{Failed: true}, suites.Error, 0},
	} {
		if got := suites.Settle(c.g, c.text, c.end); got.Outcome != c.want || got.Score != c.score {
			t.Errorf("%s: %s %v, want %s %v", c.name, got.Outcome, got.Score, c.want, c.score)
		}
	}
}

func TestItemSHA(t *testing.T) {
	a := suites.Item{ID: "1", Question: "q", Options: []string{"x", "y"}, Reference: "A"}
	b := a
	b.Reference = "B"
	if a.SHA() == b.SHA() {
		t.Error("a changed gold answer has the same hash")
	}
}
