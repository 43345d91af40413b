package ifeval_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/ifeval"
	"github.com/repromill/repromill/suites/instruct"
	"github.com/repromill/repromill/suites/suitetest"
)

// item asks for no commas and at least three words.
var item = suites.Item{ID: "1", Reference: `{"instruction_id_list":["punctuation:no_comma","length_constraints:number_words"],"kwargs":[{},{"relation":"at least","num_words":3}]}`}

func grade(o suites.Outcome, score float64, bits string) suites.Grade {
	return suites.Grade{Outcome: o, Score: score, Stage: 1, Extracted: bits}
}

func TestGraders(t *testing.T) {
	want := map[string][3]suites.Grade{
		"strict":              {grade(suites.Correct, 1, "11"), grade(suites.Wrong, 0, "01"), grade(suites.Wrong, 0, "01")},
		"loose":               {grade(suites.Correct, 1, "11"), grade(suites.Wrong, 0, "01"), grade(suites.Correct, 1, "11")},
		"strict-instructions": {grade(suites.Correct, 1, "11"), grade(suites.Wrong, .5, "01"), grade(suites.Wrong, .5, "01")},
		"loose-instructions":  {grade(suites.Correct, 1, "11"), grade(suites.Wrong, .5, "01"), grade(suites.Correct, 1, "11")},
	}
	for _, g := range ifeval.Graders() {
		w := want[g.Rule().Name]
		t.Run(g.Rule().Name, func(t *testing.T) {
			suitetest.Grader(t, g, []suitetest.Case{
				{Name: "both followed", Item: item, Text: "one two three", Want: w[0]},
				{Name: "one followed", Item: item, Text: "one, two three", Want: w[1]},
				{Name: "followed without the first line", Item: item, Text: "Sure, here:\none two three", Want: w[2]},
				{Name: "blank", Item: item, Text: "\x1c \n", Want: suites.Grade{Outcome: suites.Empty}},
			})
		})
	}
}

func TestParts(t *testing.T) {
	g := ifeval.Graders()[0]
	kept, all := g.(suites.Parted).Parts(item, g.Grade(item, "one, two three"))
	if kept != 1 || all != 2 {
		t.Errorf("%d of %d, want 1 of 2", kept, all)
	}
	if kept, all = g.(suites.Parted).Parts(item, g.Grade(item, "")); kept != 0 || all != 2 {
		t.Errorf("of a blank answer: %d of %d, want 0 of 2", kept, all)
	}
}

// TestSymbols: two prompts ask for characters that are no letters.
func TestSymbols(t *testing.T) {
	it := suites.Item{ID: "1129", Reference: `{"instruction_id_list":["keywords:letter_frequency"],"kwargs":[{"letter":"!","let_frequency":6,"let_relation":"at least"}]}`}
	g := ifeval.Graders()[0]
	for text, want := range map[string]float64{"a!!! b!!!": 1, "a!!! b!!": 0} {
		if got := g.Grade(it, text).Score; got != want {
			t.Errorf("%q scores %v, want %v", text, got, want)
		}
	}
}

func TestCheck(t *testing.T) {
	check := ifeval.Graders()[0].(suites.Checker)
	if err := check.Check(item); err != nil {
		t.Error(err)
	}
	for _, ref := range []string{"", "B", "{}", `{"instruction_id_list":["punctuation:no_comma"],"kwargs":[]}`,
		`{"instruction_id_list":["nope:nope"],"kwargs":[{}]}`,
		`{"instruction_id_list":["length_constraints:number_words"],"kwargs":[{"num_words":3}]}`,
		`{"instruction_id_list":["length_constraints:number_words"],"kwargs":[{"num_words":3.5,"relation":"at least"}]}`,
		`{"instruction_id_list":["length_constraints:number_words"],"kwargs":[{"num_words":-3,"relation":"at least"}]}`,
		`{"instruction_id_list":["length_constraints:number_words"],"kwargs":[{"num_words":3,"relation":"more than"}]}`,
		`{"instruction_id_list":["keywords:existence"],"kwargs":[{"keywords":[]}]}`,
		`{"instruction_id_list":["keywords:letter_frequency"],"kwargs":[{"letter":"ab","let_frequency":1,"let_relation":"at least"}]}`,
		`{"instruction_id_list":["language:response_language"],"kwargs":[{"language":"xx"}]}`,
		`{"instruction_id_list":["detectable_format:multiple_sections"],"kwargs":[{"section_spliter":"(","num_sections":1}]}`,
		`{"instruction_id_list":["length_constraints:nth_paragraph_first_word"],"kwargs":[{"num_paragraphs":1,"nth_paragraph":2,"first_word":"a"}]}`} {
		if check.Check(suites.Item{Reference: ref}) == nil {
			t.Errorf("reference %s: accepted", ref)
		}
	}
}

func prompts() *instruct.Prompts {
	return &instruct.Prompts{Rules: ifeval.Graders(), List: []instruct.Prompt{
		{Key: "1000", Prompt: "Write three words.", Checks: instruct.Checks{IDs: []string{"length_constraints:number_words"},
			Args: []instruct.Args{{"num_words": []byte("3"), "relation": []byte(`"at least"`), "keywords": []byte("null")}}}},
		{Key: "1001", Prompt: "No commas.", Checks: instruct.Checks{IDs: []string{"punctuation:no_comma"}, Args: []instruct.Args{nil}}},
	}}
}

func TestSuite(t *testing.T) {
	suitetest.Suite(t, prompts())
	items, err := prompts().Items(context.Background())
	if err != nil || strings.Contains(items[0].Reference, "null") {
		t.Errorf("%v: null arguments are kept in %s", err, items[0].Reference)
	}
	bad := prompts()
	bad.List[1].IDs[0] = "nope:nope"
	if _, err := bad.Items(context.Background()); err == nil || !strings.Contains(err.Error(), "prompt 1001") {
		t.Errorf("an unknown instruction: %v", err)
	}
}

// every makes one item of each kind of instruction.
func every() map[string]suites.Item {
	out := map[string]suites.Item{}
	for _, k := range kinds() {
		args := "{}"
		if len(k.Args) > 0 {
			args = k.Args[0]
		}
		c := fill([]caseOf{{ID: k.ID, Args: []byte(args)}})[0]
		out[k.ID] = suites.Item{ID: k.ID, Reference: fmt.Sprintf(`{"instruction_id_list":[%q],"kwargs":[%s]}`, k.ID, c.Args)}
	}
	return out
}

// TestRunaway holds every verifier to linear time on hostile texts.
func TestRunaway(t *testing.T) {
	strict := ifeval.Graders()[0]
	for id, it := range every() {
		t.Run(id, func(t *testing.T) { suitetest.Linear(t, strict, it, "-\n", "It is. *** ", "<<['?") })
	}
}

func FuzzGraders(f *testing.F) {
	items, rules := every(), ifeval.Graders()
	for _, s := range []string{"one, two", "* a\n- b", "<<t>>", "{\"a\": NaN}", "É\xff", "\x1c", "a\u2028b. C d", "p.p.s", "''\"``"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, it := range items {
			for _, g := range rules {
				suitetest.Sound(t, g, it, text)
			}
			strict, loose := rules[0].Grade(it, text), rules[1].Grade(it, text)
			if strict.Score > loose.Score {
				t.Errorf("%s is followed strictly and not loosely", it.ID)
			}
		}
	})
}

// BenchmarkRunaway grades 160,000 characters of ordinary sentences, loosely, under
// each kind of instruction.
func BenchmarkRunaway(b *testing.B) {
	text := strings.Repeat("Dr. Smith went home. It's \"late\", he said!\n", 160_000/44)
	g := ifeval.Graders()[1]
	for _, k := range kinds() {
		it := every()[k.ID]
		b.Run(k.ID, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				g.Grade(it, text)
			}
		})
	}
}
