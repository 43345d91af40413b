// Package suitetest holds the conformance tests that every grader, suite and
// journal passes.
package suitetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/suites"
)

// Case is one text with the grade that a rule gives it. Rule is not compared.
type Case struct {
	Name string
	Item suites.Item
	Text string
	Want suites.Grade
}

// Grader runs the conformance test of a grader: the cases, and what holds for
// every grader on any text.
func Grader(t *testing.T, g suites.Grader, cases []Case) {
	t.Helper()
	rule := g.Rule()
	for what, v := range map[string]string{"suite": rule.Suite, "name": rule.Name, "version": rule.Version, "doc": rule.Doc, "source": rule.Source} {
		if v == "" {
			t.Errorf("rule %s says no %s", rule, what)
		}
	}
	item := suites.Item{ID: "conformance", Reference: "B", NOptions: 10}
	if len(cases) > 0 {
		item = cases[0].Item
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			got := g.Grade(c.Item, c.Text)
			c.Want.Rule = rule.String()
			if got != c.Want {
				t.Errorf("grade of %q\n got %+v\nwant %+v", c.Text, got, c.Want)
			}
			Sound(t, g, c.Item, c.Text)
		})
	}
	for i, text := range Hostile() {
		t.Run(fmt.Sprintf("hostile %d", i), func(t *testing.T) { Sound(t, g, item, text) })
	}
	t.Run("linear", func(t *testing.T) { Linear(t, g, item) })
}

// Sound reports a grade that breaks the contract of [suites.Grader], whatever
// the text. Fuzz tests call it.
func Sound(t testing.TB, g suites.Grader, item suites.Item, text string) {
	t.Helper()
	rule := g.Rule()
	got := g.Grade(item, text)
	if again := g.Grade(item, text); again != got {
		t.Errorf("not pure: %+v, then %+v", got, again)
	}
	if got.Rule != rule.String() {
		t.Errorf("grade names rule %q, want %q", got.Rule, rule)
	}
	if math.IsNaN(got.Score) || got.Score < 0 || got.Score > 1 {
		t.Errorf("score %v is outside 0 to 1", got.Score)
	}
	if got.Stage < 0 || got.Stage > len(rule.Stages) {
		t.Errorf("stage %d, but the rule has %d", got.Stage, len(rule.Stages))
	}
	if !slices.Contains(suites.Outcomes(), got.Outcome) {
		t.Errorf("outcome %q", got.Outcome)
	}
	switch got.Outcome {
	case suites.Correct:
		if got.Extracted == "" || got.Stage == 0 || got.Score == 0 {
			t.Errorf("correct without an answer, a stage or a score: %+v", got)
		}
	case suites.Wrong:
		if got.Stage == 0 {
			t.Errorf("wrong, but nothing was found: %+v", got)
		}
	case suites.NoAnswer, suites.Empty:
		if got.Stage != 0 || got.Extracted != "" {
			t.Errorf("%s with an answer: %+v", got.Outcome, got)
		}
	}
	if strings.TrimSpace(text) == "" && got.Outcome != suites.Empty {
		t.Errorf("blank text has outcome %s", got.Outcome)
	}
}

// Hostile returns texts that have broken graders: runaways, cut UTF-8, unusual
// line ends, nested and unclosed braces.
func Hostile() []string {
	const n = 20_000
	return []string{
		"", " \t\r\n", "\xff\xfe", "A\xff", "\x00", "\u2028\u2029", "é\u0301A\u0301",
		strings.Repeat("answer: ", n), strings.Repeat("Answer:\n", n), "Answer:" + strings.Repeat(" ", 8*n),
		strings.Repeat("A B ", n), strings.Repeat("AB", n), strings.Repeat("answer is ", n),
		strings.Repeat(`\boxed{`, n), strings.Repeat(`\boxed{}`, n), `\boxed` + strings.Repeat("{", n) + "A" + strings.Repeat("}", n),
		strings.Repeat("1", 4*n), `\boxed{` + strings.Repeat("9", 4*n) + "}", strings.Repeat("**Answer**", n), strings.Repeat("$", n),
	}
}

// Linear reports a grader that takes more than linear time on an item, over texts
// of repeated units; without any, those that have broken graders. Each is graded at
// two sizes, eight times apart, and only growth that a quadratic grader shows (64
// times) and times that it takes are reported, the best of several, so that a slow
// or busy machine does not fail it. Go's regular expressions alone grow 15 times:
// long texts get another matcher.
func Linear(t *testing.T, g suites.Grader, item suites.Item, units ...string) {
	t.Helper()
	if units == nil {
		units = []string{"answer: ", "Answer:\n", "A ", "AB", "answer is ", `\boxed{`, `\boxed{}`, " ", "\n", "1", "{", "}", "**", "a", "é"}
	}
	for _, unit := range units {
		small, large := strings.Repeat(unit, 20_000/len(unit)), strings.Repeat(unit, 160_000/len(unit))
		b := timed(g, item, large)
		if b < time.Second {
			continue
		}
		if a, b := best(g, item, small), min(b, best(g, item, large)); b > time.Second && b > 30*a {
			t.Errorf("%q: %d characters take %v, %d take %v", unit, len(small), a, len(large), b)
		}
	}
}

func timed(g suites.Grader, item suites.Item, text string) time.Duration {
	start := time.Now()
	g.Grade(item, text)
	return time.Since(start)
}

func best(g suites.Grader, item suites.Item, text string) time.Duration {
	least := time.Duration(math.MaxInt64)
	for range 3 {
		least = min(least, timed(g, item, text))
	}
	return least
}

// Suite runs the conformance test of a suite.
func Suite(t *testing.T, s suites.Suite) {
	t.Helper()
	items, err := s.Items(context.Background())
	if err != nil {
		t.Fatalf("items: %v", err)
	}
	if len(items) == 0 {
		t.Fatal("no items")
	}
	again, err := s.Items(context.Background())
	if err != nil || len(again) != len(items) {
		t.Fatalf("items a second time: %d of %d, %v", len(again), len(items), err)
	}
	seen := map[string]bool{}
	for i, it := range items {
		if it.ID == "" || seen[it.ID] {
			t.Fatalf("item %d: id %q is empty or taken", i, it.ID)
		}
		seen[it.ID] = true
		if it.SHA() != again[i].SHA() {
			t.Fatalf("item %s changed or moved", it.ID)
		}
		p, err := s.Prompt(it, 0)
		if err != nil {
			t.Fatalf("prompt of %s: %v", it.ID, err)
		}
		if (len(p.Messages) == 0) == (p.Text == "") {
			t.Errorf("prompt of %s: want either messages or text", it.ID)
		}
		q, err := s.Prompt(it, 0)
		a, _ := json.Marshal(p)
		b, _ := json.Marshal(q)
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("prompt of %s is not the same twice (%v)", it.ID, err)
		}
	}
	reordered(t, s, items[0])
	Sound(t, s.Grader(), items[0], "text")
}

// reordered checks that repeats of a question mean the same.
func reordered(t *testing.T, s suites.Suite, it suites.Item) {
	t.Helper()
	want := it.Vote(it.Reference)
	for repeat := range 8 {
		asked := suites.AskedAs(s, it, repeat)
		if again := suites.AskedAs(s, it, repeat); again.SHA() != asked.SHA() {
			t.Errorf("repeat %d of %s is not the same twice", repeat, it.ID)
		}
		if got := asked.Vote(asked.Reference); got != want {
			t.Errorf("repeat %d of %s has the right answer %q, want %q", repeat, it.ID, got, want)
		}
	}
}

// Journal runs the conformance test of a journal. open opens the same journal
// again each time it is called; the one before it is abandoned, as by a crash.
func Journal(t *testing.T, open func(t *testing.T) suites.Journal) {
	t.Helper()
	j := open(t)
	var want []suites.Record
	for i := range 50 {
		r := suites.Record{Key: suites.Key{Suite: "s", Arm: "a", ItemID: fmt.Sprint(i / 2), Repeat: i % 2}, Text: strings.Repeat("line\r\n\u2028\x00é", i), OutputTokens: int64(i)}
		if err := j.Append(r); err != nil {
			t.Fatalf("append %d: %v", i, err)
		}
		want = append(want, r)
		if i%20 == 19 {
			j = open(t)
		}
	}
	twice := want[3]
	twice.Text = "another"
	if err := j.Append(twice); err == nil {
		t.Error("a second record of one key was accepted")
	}
	check := func(j suites.Journal) {
		t.Helper()
		var got []suites.Record
		if err := j.Replay(func(r suites.Record) error { got = append(got, r); return nil }); err != nil {
			t.Fatalf("replay: %v", err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("replay gave %d records, want the %d appended, in order", len(got), len(want))
		}
	}
	check(j)
	j = open(t)
	if err := j.Append(twice); err == nil {
		t.Error("a second record of one key was accepted after opening again")
	}
	check(j)
	stop := errors.New("stop")
	n := 0
	if err := j.Replay(func(suites.Record) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Errorf("replay went on after an error: %d calls, %v", n, err)
	}
}
