package ruler

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/suitetest"
)

func all(list ...string) suites.Item {
	b, _ := json.Marshal(list)
	return suites.Item{ID: "vt/0001", Category: "vt", Reference: string(b)}
}

func TestOfficial(t *testing.T) {
	it := all("ABCDE", "FGHIJ")
	qa := it
	qa.Category = "qa_1"
	suitetest.Grader(t, Official(), []suitetest.Case{
		{Name: "all", Item: it, Text: "abcde and fghij", Want: suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 1, Extracted: "ABCDE, FGHIJ"}},
		{Name: "half", Item: it, Text: "FGHIJ", Want: suites.Grade{Outcome: suites.Wrong, Score: .5, Stage: 2, Extracted: "FGHIJ"}},
		{Name: "none", Item: it, Text: "KLMNO", Want: suites.Grade{Outcome: suites.Wrong, Stage: 3, Weak: true}},
		{Name: "blank", Item: it, Text: "\n", Want: suites.Grade{Outcome: suites.Empty}},
		{Name: "one spelling of an answer", Item: qa, Text: "it is fghij", Want: suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 2, Extracted: "FGHIJ"}},
	})
	suitetest.Grader(t, All(), []suitetest.Case{{Name: "half of the spellings", Item: qa, Text: "it is fghij", Want: suites.Grade{Outcome: suites.Wrong, Score: .5, Stage: 2, Extracted: "FGHIJ"}}})
	suitetest.Grader(t, Part(), []suitetest.Case{{Name: "any", Item: it, Text: "it is fghij", Want: suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 2, Extracted: "FGHIJ"}}})
	for _, bad := range []suites.Item{{Reference: "[]"}, all("a", " "), {Reference: ""}} {
		if Official().(suites.Checker).Check(bad) == nil {
			t.Errorf("%q can be graded", bad.Reference)
		}
	}
}

func FuzzGraders(f *testing.F) {
	f.Add("ABCDE", `["abcde"]`)
	f.Add("\xff", "[")
	f.Add("İ", `["i"]`)
	f.Fuzz(func(t *testing.T, text, reference string) {
		it := suites.Item{Category: "qa_2", Reference: reference}
		for _, g := range Graders() {
			if g.(suites.Checker).Check(it) == nil {
				suitetest.Sound(t, g, it, text)
			}
		}
	})
}

func BenchmarkRunaway(b *testing.B) {
	for name, unit := range map[string]string{"prefixes": "ABCD ", "letters": "A", "accents": "é"} {
		text := strings.Repeat(unit, 160_000/len(unit))
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				Official().Grade(all("ABCDE", "FGHIJ", strings.Repeat("A", 200)+"B"), text)
			}
		})
	}
}
