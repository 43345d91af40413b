package ifbench_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/results/schema/schematest"
	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/data"
	"github.com/repromill/repromill/suites/ifbench"
	"github.com/repromill/repromill/suites/suitetest"
)

var item = suites.Item{ID: "1", Reference: `{"instruction_id_list":["words:repeats","format:no_whitespace"],"kwargs":[{"small_n":1.0},{}]}`}

func TestGraders(t *testing.T) {
	grade := func(o suites.Outcome, score float64, bits string) suites.Grade {
		return suites.Grade{Outcome: o, Score: score, Stage: 1, Extracted: bits}
	}
	want := map[string][2]suites.Grade{
		"strict":              {grade(suites.Wrong, 0, "00"), grade(suites.Wrong, 0, "00")},
		"loose":               {grade(suites.Correct, 1, "11"), grade(suites.Wrong, 0, "10")},
		"strict-instructions": {grade(suites.Wrong, 0, "00"), grade(suites.Wrong, 0, "00")},
		"loose-instructions":  {grade(suites.Correct, 1, "11"), grade(suites.Wrong, .5, "10")},
	}
	for _, g := range ifbench.Graders() {
		w := want[g.Rule().Name]
		t.Run(g.Rule().Name, func(t *testing.T) {
			suitetest.Grader(t, g, []suitetest.Case{
				{Name: "followed without the first line", Item: item, Text: "so so\nword", Want: w[0]},
				{Name: "one followed without the first line", Item: item, Text: "so so\none two", Want: w[1]},
				{Name: "blank", Item: item, Text: "\n", Want: suites.Grade{Outcome: suites.Empty}},
			})
		})
	}
}

// TestOpen reads rows as the hub has them, and leaves out prompts with instructions
// that cannot be verified.
func TestOpen(t *testing.T) {
	def := ifbench.Definition()
	file := def.Data[0]
	var b bytes.Buffer
	// Rows of the hub have every argument that any instruction has.
	args := func(n, word any) map[string]any { return map[string]any{"N": n, "word": word} }
	err := schematest.Write(&b, schematest.Column{Name: "key", Values: []string{"1", "2", "3"}}, schematest.Column{Name: "prompt", Values: []string{"p1", "p2", "p3"}},
		schematest.Column{Name: "instruction_id_list", Values: [][]string{{"sentence:keyword"}, {"words:start_verb"}, {"format:title_case", "words:odd_even_syllables"}}},
		schematest.Column{Name: "kwargs", Values: [][]map[string]any{{args(2.0, "river")}, {args(nil, nil)}, {args(nil, nil), args(3.0, nil)}}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	name := filepath.Join(dir, "huggingface.co/datasets", file.Repo, "resolve", file.Commit, file.Path)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	client, err := fetch.New(fetch.Config{Mirror: dir})
	if err != nil {
		t.Fatal(err)
	}
	hub := data.New(data.Config{Client: client, Cache: t.TempDir()})
	s, err := def.Open(context.Background(), suites.Env{Hub: hub, Files: []data.File{file}})
	if err != nil {
		t.Fatal(err)
	}
	suitetest.Suite(t, s)
	items, err := s.Items(context.Background())
	if err != nil || len(items) != 1 || items[0].Reference != `{"instruction_id_list":["sentence:keyword"],"kwargs":[{"N":2,"word":"river"}]}` {
		t.Errorf("%+v, %v", items, err)
	}
}

func TestExcluded(t *testing.T) {
	f := ifbench.Definition().Facts
	for _, want := range []string{"15 of 300", "words:start_verb", "words:odd_even_syllables"} {
		if !strings.Contains(f.Excluded, want) {
			t.Errorf("what is left out does not say %q: %s", want, f.Excluded)
		}
	}
	check := ifbench.Graders()[0].(suites.Checker)
	err := check.Check(suites.Item{Reference: `{"instruction_id_list":["words:start_verb"],"kwargs":[{}]}`})
	if err == nil || !strings.Contains(err.Error(), "part-of-speech") {
		t.Errorf("an instruction that cannot be verified: %v", err)
	}
}

// every makes one item of each kind of instruction.
func every() (out []suites.Item) {
	for _, k := range kinds() {
		args := "{}"
		if len(k.Args) > 0 {
			args = k.Args[0]
		}
		out = append(out, suites.Item{ID: k.ID, Reference: fmt.Sprintf(`{"instruction_id_list":[%q],"kwargs":[%s]}`, k.ID, args)})
	}
	return out
}

// TestRunaway holds every verifier to linear time on hostile texts.
func TestRunaway(t *testing.T) {
	strict := ifbench.Graders()[1]
	for _, it := range every() {
		t.Run(it.ID, func(t *testing.T) { suitetest.Linear(t, strict, it, "\n ", "It is. \"(* ") })
	}
}

func FuzzGraders(f *testing.F) {
	items, rules := every(), ifbench.Graders()
	for _, s := range []string{"a,\"b\r", "* a\n- b", "14,21", "(((((a)))))", "É\xff", "\x1c", "A. B? C!", "Question 1: a\nA) b", "ID,Country", "1800-٠1-01", "\n\n \n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, it := range items {
			loose, strict := rules[0].Grade(it, text), rules[1].Grade(it, text)
			if strict.Score > loose.Score {
				t.Errorf("%s is followed strictly and not loosely", it.ID)
			}
			suitetest.Sound(t, rules[0], it, text)
		}
	})
}

// BenchmarkRunaway grades 160,000 characters of ordinary sentences, loosely, under
// each kind of instruction.
func BenchmarkRunaway(b *testing.B) {
	text := strings.Repeat("Dr. Smith went home. It's \"late\", he said!\n", 160_000/44)
	g := ifbench.Graders()[0]
	for _, it := range every() {
		b.Run(it.ID, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				g.Grade(it, text)
			}
		})
	}
}
