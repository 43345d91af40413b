package aime_test

import (
	"strings"
	"testing"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/aime"
	"github.com/repromill/repromill/suites/suitetest"
)

var item = suites.Item{ID: "2024-I-1", Reference: "016"}

func right(stage int) suites.Grade {
	return suites.Grade{Outcome: suites.Correct, Score: 1, Stage: stage, Extracted: "16", Weak: stage == 2}
}

func wrong(got string) suites.Grade {
	return suites.Grade{Outcome: suites.Wrong, Stage: 1, Extracted: got}
}

func TestBoxed(t *testing.T) {
	suitetest.Grader(t, aime.Boxed(), []suitetest.Case{
		{Name: "plain", Item: item, Text: `so \boxed{16}.`, Want: right(1)},
		{Name: "leading zero", Item: item, Text: `\boxed{016}`, Want: right(1)},
		{Name: "last of two", Item: item, Text: `\boxed{7} wait, \boxed{16}`, Want: right(1)},
		{Name: "nested", Item: item, Text: `\boxed{\boxed{16}}`, Want: right(1)},
		{Name: "unclosed last box", Item: item, Text: `\boxed{16} so \boxed{1`, Want: right(1)},
		{Name: "without braces", Item: item, Text: `\boxed 16`, Want: right(1)},
		{Name: "dressed", Item: item, Text: `\boxed{\text{$\,16$}}`, Want: right(1)},
		{Name: "unit", Item: item, Text: `\boxed{16\text{ cm}}`, Want: right(1)},
		{Name: "degrees", Item: item, Text: `\boxed{16^{\circ}}`, Want: right(1)},
		{Name: "escaped brace inside", Item: item, Text: `\boxed{3} \boxed{\left\{16}`, Want: wrong(`\left\{16`)},
		{Name: "escaped brace outside", Item: item, Text: `\{ \boxed{16} \}`, Want: right(1)},
		{Name: "too large", Item: item, Text: `\boxed{1016}`, Want: wrong("1016")},
		{Name: "thousands", Item: item, Text: `\boxed{1,016}`, Want: wrong("1,016")},
		{Name: "negative", Item: item, Text: `\boxed{-16}`, Want: wrong("-16")},
		{Name: "fraction", Item: item, Text: `\boxed{\frac{32}{2}}`, Want: wrong(`\frac{32}{2}`)},
		{Name: "decimal", Item: item, Text: `\boxed{16.5}`, Want: wrong("16.5")},
		{Name: "empty box", Item: item, Text: `\boxed{}`, Want: wrong("")},
		{Name: "no box", Item: item, Text: `the answer is 16`, Want: suites.Grade{Outcome: suites.NoAnswer}},
		{Name: "only an unclosed box", Item: item, Text: `\boxed{16`, Want: suites.Grade{Outcome: suites.NoAnswer}},
	})
}

func TestBoxedOrLast(t *testing.T) {
	suitetest.Grader(t, aime.BoxedOrLast(), []suitetest.Case{
		{Name: "box first", Item: item, Text: `\boxed{16} of 30`, Want: right(1)},
		{Name: "last integer", Item: item, Text: `from 7 we get 16.`, Want: right(2)},
		{Name: "no decimal, no word", Item: item, Text: `16, or x1, 2.5 or -3`, Want: right(2)},
		{Name: "nothing", Item: item, Text: `none`, Want: suites.Grade{Outcome: suites.NoAnswer}},
	})
}

func TestCheck(t *testing.T) {
	for ref, ok := range map[string]bool{"0": true, "016": true, "999": true, "1000": false, "": false, "-1": false, "x": false} {
		err := aime.Boxed().(suites.Checker).Check(suites.Item{Reference: ref})
		if (err == nil) != ok {
			t.Errorf("reference %q: %v", ref, err)
		}
	}
}

func FuzzGraders(f *testing.F) {
	for _, s := range []string{`\boxed{16}`, `\boxed 70`, `\boxed{\text{7}}`, `{\boxed{1}`, `\\boxed{\{}`, "12\xff", `\boxed{\text{`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, g := range aime.Graders() {
			suitetest.Sound(t, g, item, text)
		}
		box, any := aime.Boxed().Grade(item, text), aime.BoxedOrLast().Grade(item, text)
		if box.Stage == 1 && (any.Stage != 1 || any.Extracted != box.Extracted) {
			t.Errorf("the rules disagree on a box: %+v and %+v", box, any)
		}
		if again := aime.Boxed().Grade(item, text+" \n{"); again != box && box.Stage == 1 {
			t.Errorf("text after the box changes it: %+v, then %+v", box, again)
		}
	})
}

func BenchmarkRunaway(b *testing.B) {
	for name, unit := range map[string]string{"boxes": `\boxed{`, "digits": "1", "closed": `\boxed{}`} {
		text := strings.Repeat(unit, 160_000/len(unit))
		for _, g := range aime.Graders() {
			b.Run(name+"/"+g.Rule().Name, func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					g.Grade(item, text)
				}
			})
		}
	}
}
