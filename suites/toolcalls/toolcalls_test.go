package toolcalls_test

import (
	"context"
	"strings"
	"testing"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/suitetest"
	"github.com/repromill/repromill/suites/toolcalls"
)

const functions = `[{"name": "geo.area", "description": "Area.", "parameters": {"type": "dict", "required": ["base", "unit"], "properties": {` +
	`"base": {"type": "float", "description": "Base."}, "unit": {"type": "string", "description": "Unit.", "enum": ["m", "square metres"]}, "n": {"type": "array", "items": {"type": "integer"}}, "opt": {"type": "dict", "properties": {"z": {"type": "float", "description": "Z."}}}}}}]`

var item = suites.Item{ID: "1", Reference: `{"functions": ` + functions + `, "answer": {"geo.area": {"base": [10.0], "unit": ["square metres"], "n": [[1, 2], ""], "opt": [""]}}}`}

func call(args string) string {
	return suites.ToolAnswer{Calls: []suites.ToolCall{{Name: "geo_area", Arguments: args}}}.Text()
}

func grade(o suites.Outcome, score float64, stage int) suites.Grade {
	return suites.Grade{Outcome: o, Score: score, Stage: stage, Extracted: "geo_area"}
}

func TestGraders(t *testing.T) {
	two := suites.ToolAnswer{Calls: []suites.ToolCall{{Name: "geo_area", Arguments: "{}"}, {Name: "geo_area", Arguments: "{}"}}}.Text()
	other := suites.ToolAnswer{Calls: []suites.ToolCall{{Name: "geo.area", Arguments: "{}"}}}.Text()
	cases := []suitetest.Case{
		{Name: "right", Text: call(`{"base": 10, "unit": "Square-Metres", "n": [1, 2]}`), Want: grade(suites.Correct, 1, 7)},
		{Name: "two calls", Text: two, Want: grade(suites.Wrong, 0, 1)},
		{Name: "not JSON", Text: call(`{"base": 10`), Want: grade(suites.Wrong, 0, 2)},
		{Name: "not an object", Text: call(`[10]`), Want: grade(suites.Wrong, 0, 2)},
		{Name: "name as it was not sent", Text: other, Want: suites.Grade{Outcome: suites.Wrong, Stage: 3, Extracted: "geo.area"}},
		{Name: "required parameter missing", Text: call(`{"base": 10}`), Want: grade(suites.Wrong, 0, 4)},
		{Name: "parameter that the tool lacks", Text: call(`{"base": 10, "unit": "m", "x": 1}`), Want: grade(suites.Wrong, 0, 5)},
		{Name: "wrong type", Text: call(`{"base": "10", "unit": "square metres"}`), Want: grade(suites.Wrong, 0, 6)},
		{Name: "wrong type of an item", Text: call(`{"base": 10, "unit": "square metres", "n": 1.5}`), Want: grade(suites.Wrong, 0, 6)},
		{Name: "text and no call", Text: suites.ToolAnswer{Content: "I cannot."}.Text(), Want: suites.Grade{Outcome: suites.NoAnswer}},
		{Name: "no tool answer", Text: "geo_area(base=10)", Want: suites.Grade{Outcome: suites.NoAnswer}},
	}
	wrongValue := suitetest.Case{Name: "wrong value", Text: call(`{"base": 11, "unit": "square metres"}`), Want: grade(suites.Wrong, 0, 7)}
	for i := range cases {
		cases[i].Item = item
	}
	wrongValue.Item = item
	suitetest.Grader(t, toolcalls.AST(), append(cases, wrongValue))
	cases[0].Want.Stage, wrongValue.Want = 6, grade(suites.Correct, 1, 6)
	suitetest.Grader(t, toolcalls.Schema(), append(cases, wrongValue))
}

func data() *toolcalls.Data {
	q := toolcalls.Question{ID: "simple_0", Category: "simple", Functions: []byte(functions), Turns: [][]suites.Message{{{Role: "user", Content: "How large?"}}}}
	q.Answers = toolcalls.Answers(`[{"geo.area": {"base": [10], "unit": ["m", ""]}}]`)
	return &toolcalls.Data{Questions: []toolcalls.Question{q}}
}

func TestSuite(t *testing.T) {
	suitetest.Suite(t, data())
	items, err := data().Items(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	p, err := data().Prompt(items[0], 0)
	want := `[{"type":"function","function":{"name":"geo_area","description":"Area.","parameters":{"type":"object","required":["base","unit"],"properties":{` +
		`"base":{"type":"number","description":"Base. This is a float type value.","format":"float"},"unit":{"type":"string","description":"Unit.","enum":["m","square metres"]},` +
		`"n":{"type":"array","items":{"type":"integer"}},"opt":{"type":"object","properties":{"z":{"type":"number","description":"Z. This is a float type value.","format":"float"}}}}}}}]`
	if err != nil || string(p.Tools) != want || p.Messages[0].Content != "How large?" {
		t.Errorf("%v, messages %+v, tools\n%s\nwant\n%s", err, p.Messages, p.Tools, want)
	}
}

func TestQuestionsThatCannotBeAsked(t *testing.T) {
	for name, change := range map[string]func(q *toolcalls.Question){
		"no right answer": func(q *toolcalls.Question) { q.Answers = nil },
		"several turns":   func(q *toolcalls.Question) { q.Turns = append(q.Turns, q.Turns[0]) },
		"unknown type": func(q *toolcalls.Question) {
			q.Functions = []byte(strings.Replace(functions, `"float"`, `"HashMap"`, 1))
		},
		"other function": func(q *toolcalls.Question) { q.Answers = toolcalls.Answers(`[{"f": {}}]`) },
		"items untyped":  func(q *toolcalls.Question) { q.Functions = []byte(strings.Replace(functions, `"items"`, `"of"`, 1)) },
	} {
		d := data()
		change(&d.Questions[0])
		if _, err := d.Items(context.Background()); err == nil || !strings.Contains(err.Error(), "simple_0") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzGraders(f *testing.F) {
	for _, s := range []string{`{"base": 10, "unit": "m"}`, `{"n": [[1], {}]}`, `{"base": 1e999}`, `{"a": "\ud800"}`, `[`, `{"opt": {"z": [null]}}`, strings.Repeat("[", 20000)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, args string) {
		for _, g := range toolcalls.Graders() {
			suitetest.Sound(t, g, item, call(args))
			suitetest.Sound(t, g, item, args)
		}
	})
}

// BenchmarkRunaway grades calls with arguments of 160,000 characters.
func BenchmarkRunaway(b *testing.B) {
	for name, args := range map[string]string{
		"text":   `{"base": 10, "unit": "` + strings.Repeat("square ", 160_000/7) + `"}`,
		"list":   `{"base": 10, "unit": "m", "n": [` + strings.Repeat("1,", 80_000) + `1]}`,
		"nested": strings.Repeat("[", 160_000),
		"digits": `{"base": ` + strings.Repeat("1", 160_000) + `}`,
	} {
		text := call(args)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				toolcalls.AST().Grade(item, text)
			}
		})
	}
}
