package mmlupro_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/repromill/repromill/suites/mmlupro"
	"github.com/repromill/repromill/suites/suitetest"
)

func data(style mmlupro.Style) *mmlupro.Data {
	d := &mmlupro.Data{Style: style, Questions: []mmlupro.Question{
		{QuestionID: 70, Question: "Which is even?", Options: []string{"1", "N/A", "2", "3"}, Answer: "B", Category: "math"},
		{QuestionID: 71, Question: "\nWhich is odd?\n", Options: []string{"1", "2"}, Answer: "A", Category: "math"},
	}}
	for i := range 6 {
		d.Shots = append(d.Shots, mmlupro.Question{Question: fmt.Sprintf("shot %d", i), Options: []string{"x", "y"}, Category: "math", CoT: fmt.Sprintf("A: Let's think step by step. The answer is (%c).", "AB"[i%2])})
	}
	return d
}

func TestSuites(t *testing.T) {
	for _, style := range []mmlupro.Style{mmlupro.FiveShot, mmlupro.BoxedChat} {
		t.Run(string(style), func(t *testing.T) { suitetest.Suite(t, data(style)) })
	}
}

func TestFiveShotPrompt(t *testing.T) {
	d := data(mmlupro.FiveShot)
	items, err := d.Items(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	d.Fits = func(p string) bool { return strings.Count(p, "Question:") <= 3 } // room for two examples
	p, err := d.Prompt(items[0], 0)
	if err != nil {
		t.Fatal(err)
	}
	want := `The following are multiple choice questions (with answers) about math. Think step by step and then finish your answer with "the answer is (X)" where X is the correct letter choice.



Question:
shot 0
Options:
A. x
B. y
Answer: Let's think step by step. The answer is (A).

Question:
shot 1
Options:
A. x
B. y
Answer: Let's think step by step. The answer is (B).

Question:
Which is even?
Options:
A. 1
B. 2
C. 3
Answer: Let's think step by step.`
	if p.Text != want || len(p.Stop) != 1 || p.Stop[0] != "Question:" {
		t.Errorf("got\n%s\nwant\n%s", p.Text, want)
	}
	d.Shots = d.Shots[:4]
	if _, err := d.Prompt(items[0], 0); err == nil {
		t.Error("four examples pass for five")
	}
}

func TestBoxedPrompt(t *testing.T) {
	d := data(mmlupro.BoxedChat)
	items, err := d.Items(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	p, err := d.Prompt(items[1], 0)
	want := `Answer the following multiple choice question. The last line of your response should be in the following format: 'Answer: \boxed{A/B/C/D/E/F/G/H/I/J}' (e.g. 'Answer: \boxed{A}').

Which is odd?

A) 1
B) 2`
	if err != nil || len(p.Messages) != 1 || p.Messages[0].Content != want {
		t.Errorf("%v\ngot\n%+v\nwant\n%s", err, p, want)
	}
}

func TestQuestionsThatCannotBeAsked(t *testing.T) {
	for name, q := range map[string]mmlupro.Question{
		"no options":          {QuestionID: 1, Answer: "A"},
		"gold not an option":  {QuestionID: 1, Options: []string{"x", "y"}, Answer: "C"},
		"gold not a letter":   {QuestionID: 1, Options: []string{"x", "y"}, Answer: "x"},
		"too many options":    {QuestionID: 1, Options: strings.Split("abcdefghijk", ""), Answer: "A"},
		"options only filled": {QuestionID: 1, Options: []string{"N/A", "N/A"}, Answer: "A"},
	} {
		d := &mmlupro.Data{Style: mmlupro.FiveShot, Questions: []mmlupro.Question{q}}
		if _, err := d.Items(context.Background()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := (&mmlupro.Data{}).Items(context.Background()); err == nil {
		t.Error("no style: accepted")
	}
}
