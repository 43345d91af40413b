package gpqa_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/data"
	"github.com/repromill/repromill/suites/gpqa"
	"github.com/repromill/repromill/suites/suitetest"
)

var item = suites.Item{ID: "rec1", Reference: "B", NOptions: 4}

func right(letter string, stage int) suites.Grade {
	return suites.Grade{Outcome: suites.Correct, Score: 1, Stage: stage, Extracted: letter}
}

func wrong(got string, stage int) suites.Grade {
	return suites.Grade{Outcome: suites.Wrong, Stage: stage, Extracted: got}
}

func TestBoxed(t *testing.T) {
	suitetest.Grader(t, gpqa.Boxed(), []suitetest.Case{
		{Name: "answer line", Item: item, Text: "It is so.\n\nAnswer: B", Want: right("B", 3)},
		{Name: "last answer line", Item: item, Text: "Answer: A\n**Answer:** B", Want: right("B", 3)},
		{Name: "box before line", Item: item, Text: `Answer: A, \boxed{B}`, Want: right("B", 1)},
		{Name: "letter in box", Item: item, Text: `\boxed{\text{B}}`, Want: right("B", 2)},
		{Name: "lower case", Item: item, Text: "Answer: b", Want: wrong("b", 3)},
		{Name: "beyond the options", Item: item, Text: "Answer: E", Want: wrong("E", 3)},
		{Name: "dollars", Item: item, Text: "Answer: $B$", Want: suites.Grade{Outcome: suites.NoAnswer}},
	})
}

func TestSimpleEvals(t *testing.T) {
	suitetest.Grader(t, gpqa.SimpleEvals(), []suitetest.Case{
		{Name: "plain", Item: item, Text: "Answer: B", Want: right("B", 1)},
		{Name: "dollars", Item: item, Text: "answer : $B$", Want: right("B", 1)},
		{Name: "first of two", Item: item, Text: "Answer: A. No. Answer: B", Want: wrong("A", 1)},
		{Name: "part of a word", Item: item, Text: "answer: because", Want: wrong("b", 1)},
		{Name: "next line", Item: item, Text: "Answer:\nB", Want: suites.Grade{Outcome: suites.NoAnswer}},
		{Name: "bold", Item: item, Text: "**Answer:** B", Want: suites.Grade{Outcome: suites.NoAnswer}},
		{Name: "long s", Item: item, Text: "anſwer: B", Want: right("B", 1)},
	})
}

func TestLMEvalStrict(t *testing.T) {
	suitetest.Grader(t, gpqa.LMEvalStrict(), []suitetest.Case{
		{Name: "in brackets", Item: item, Text: "The answer is (B).", Want: right("(B)", 1)},
		{Name: "without a stop", Item: item, Text: "The answer is (b)", Want: right("(b", 1)},
		{Name: "rest of the line", Item: item, Text: "The answer is (B), since", Want: wrong("(B), sinc", 1)},
		{Name: "only the letter", Item: item, Text: "The answer is B", Want: wrong("", 1)},
		{Name: "end of a line", Item: item, Text: "The answer is \nThe answer is (B).", Want: right("(B)", 1)},
		{Name: "other case", Item: item, Text: "the answer is (B).", Want: suites.Grade{Outcome: suites.NoAnswer}},
	})
}

// row is a row with the shape of the data set's.
func row(i int) gpqa.Row {
	return gpqa.Row{ID: fmt.Sprintf("rec%04d", i), Question: fmt.Sprintf("\nQuestion  %d?\n", i), Correct: fmt.Sprintf(" right %d\n", i),
		Incorrect: fmt.Sprintf("wrong  %d", i), Second: "b [title] b", Third: "c", Domain: []string{"Physics", "Biology"}[i%2]}
}

func rows(n int) (out []gpqa.Row) {
	for i := range n {
		out = append(out, row(i))
	}
	return out
}

func TestSuite(t *testing.T) {
	for _, v := range gpqa.Definition().Variants {
		t.Run(v.Name, func(t *testing.T) {
			d, err := gpqa.New(v.Name, rows(40))
			if err != nil {
				t.Fatal(err)
			}
			suitetest.Suite(t, d)
			if got := d.Grader().Rule().Name; got != v.Rule {
				t.Errorf("rule %s, the variant names %s", got, v.Rule)
			}
			items, _ := d.Items(context.Background())
			count, changed := map[string]int{}, 0
			for _, it := range items {
				for r := range 8 {
					asked := d.Asked(it, r)
					count[asked.Reference]++
					if asked.Reference != d.Asked(it, 0).Reference {
						changed++
					}
				}
			}
			if len(count) != 4 || (changed == 0) != (v.Name == gpqa.Skills) {
				t.Errorf("letters %v, %d repeats differ from the first", count, changed)
			}
		})
	}
	if _, err := gpqa.New("x", nil); err == nil {
		t.Error("an unknown variant was opened")
	}
	if _, err := gpqa.New(gpqa.AA, []gpqa.Row{row(1), row(1)}); err == nil {
		t.Error("two questions share an id")
	}
}

func TestPrompts(t *testing.T) {
	for variant, want := range map[string]string{
		gpqa.Skills: "Answer the following multiple choice question. The last line of your response should be in the following format: 'Answer: A/B/C/D' (e.g. 'Answer: A').\n\n" +
			"Question  0?\n\nA) c\nB) b. b\nC) right 0\nD) wrong 0",
		gpqa.Simple: "Answer the following multiple choice question. The last line of your response should be of the following format: 'Answer: $LETTER' (without quotes) " +
			"where LETTER is one of ABCD. Think step by step before answering.\n\n\nQuestion  0?\n\n\nA) c\nB) wrong  0\nC)  right 0\n\nD) b [title] b",
	} {
		d, err := gpqa.New(variant, rows(2))
		if err != nil {
			t.Fatal(err)
		}
		items, err := d.Items(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p, err := d.Prompt(items[0], 0)
		if err != nil || len(p.Messages) != 1 || p.Messages[0].Content != want {
			t.Errorf("%s: %v\n got %q\nwant %q", variant, err, p.Messages, want)
		}
		if asked := d.Asked(items[0], 0); asked.Reference != "C" {
			t.Errorf("%s: right letter %s", variant, asked.Reference)
		}
	}
}

// TestOpen reads the data set through a mirror, as a CSV with quotes and line ends
// in its cells.
func TestOpen(t *testing.T) {
	d := gpqa.Definition()
	dir := t.TempDir()
	f := d.Data[0]
	name := filepath.Join(dir, "huggingface.co", "datasets", filepath.FromSlash(f.Repo), "resolve", f.Commit, f.Path)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	csv := "Pre-Revision Question,Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3,Record ID,High-level domain,Subdomain\n" +
		"x,\"Two\nlines, \"\"quoted\"\"?\",1,2,3,4,recA,Physics,Optics\n"
	if err := os.WriteFile(name, []byte(csv), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := fetch.New(fetch.Config{Mirror: dir})
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.Open(t.Context(), suites.Env{Hub: data.New(data.Config{Client: c}), Variant: gpqa.AA, Files: d.Data})
	if err != nil {
		t.Fatal(err)
	}
	items, err := s.Items(t.Context())
	if err != nil || len(items) != 1 || items[0].ID != "recA" || items[0].Question != "Two\nlines, \"quoted\"?" || items[0].Options[0] != "1" || items[0].Category != "Physics" {
		t.Errorf("%+v, %v", items, err)
	}
	if err := os.WriteFile(name, []byte("Question\nx\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Open(t.Context(), suites.Env{Hub: data.New(data.Config{Client: c}), Variant: gpqa.AA, Files: d.Data}); err == nil || !strings.Contains(err.Error(), "Record ID") {
		t.Errorf("a data set without its columns: %v", err)
	}
}

func FuzzGraders(f *testing.F) {
	for _, s := range []string{"Answer: B", "answer :\t$c$", "The answer is (B).", "The answer is \xff\nThe answer is ", `\boxed{\text{D}}`, "anſwer: d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, g := range gpqa.Graders() {
			suitetest.Sound(t, g, item, text)
		}
	})
}

func BenchmarkRunaway(b *testing.B) {
	for name, unit := range map[string]string{"answers": "answer: ", "statements": "The answer is \n", "spaces": "Answer:    ", "boxes": `\boxed{`} {
		text := strings.Repeat(unit, 160_000/len(unit))
		for _, g := range gpqa.Graders() {
			b.Run(name+"/"+g.Rule().Name, func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					g.Grade(item, text)
				}
			})
		}
	}
}
