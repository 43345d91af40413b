package toolcalls

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/pytext"
)

// The stages at which an answer is decided: that which fails it, or the last.
const (
	calls  = 1 + iota // how many calls there are: one is wanted
	parsed            // its arguments are a JSON object
	tool              // it names the right tool
	needed            // required parameters are there
	known             // no parameter is there that the tool lacks, none that is wanted is missing
	types             // parameters have the types of the tool's schema
	values            // and one of the right values
)

var stages = []string{"calls", "json", "tool", "required", "parameters", "types", "values"}

// reference is what an answer is graded by.
type reference struct {
	Functions []function                  `json:"functions"`
	Answer    map[string]map[string][]any `json:"answer"`
}

// parse reads an item's reference: the tools, and the right one with the values
// that each of its parameters may have.
func parse(s string) (name string, f function, want map[string][]any, err error) {
	var ref reference
	dec := json.NewDecoder(strings.NewReader(s))
	dec.UseNumber()
	if err := dec.Decode(&ref); err != nil {
		return "", f, nil, fmt.Errorf("the reference is no JSON with functions and answer: %w", err)
	}
	if len(ref.Answer) != 1 {
		return "", f, nil, fmt.Errorf("the reference calls %d functions, want one", len(ref.Answer))
	}
	for name, want = range ref.Answer {
	}
	i := slices.IndexFunc(ref.Functions, func(f function) bool { return f.Name == name })
	if i < 0 || name == "" {
		return "", f, nil, fmt.Errorf("the reference calls %q, which is no tool of the question", name)
	}
	return name, ref.Functions[i], want, ref.Functions[i].check()
}

// sent is a tool's name as it is sent: OpenAI's protocol has no dots.
func sent(name string) string { return strings.ReplaceAll(name, ".", "_") }

type rule struct {
	id     suites.Rule
	values bool // arguments must have the right values
}

// Graders returns the rules, the default first.
func Graders() []suites.Grader { return []suites.Grader{AST(), Schema()} }

// AST wants one call of the right tool with all required parameters, each of the
// right type and with one of the values that the data set allows; texts are
// compared without case and some punctuation.
//
// Source: ShishirPatil/gorilla 6ea5797, berkeley-function-call-leaderboard/
// bfcl_eval/eval_checker/ast_eval/ast_checker.py, for Python's functions.
func AST() suites.Grader {
	return &rule{suites.Rule{Suite: Suite, Name: "ast", Version: "1", Stages: stages,
		Doc:    "one call of the right tool, required parameters there, types and values among those allowed; else 0",
		Source: "ShishirPatil/gorilla@6ea5797:berkeley-function-call-leaderboard/bfcl_eval/eval_checker/ast_eval/ast_checker.py"}, true}
}

// Schema wants one call of the right tool with all required parameters and none
// that it lacks, each of the type that its schema says, whatever the values: what a
// program needs to run the call at all.
func Schema() suites.Grader {
	return &rule{suites.Rule{Suite: Suite, Name: "schema", Version: "1", Stages: stages[:types],
		Doc:    "one call of the right tool, valid JSON, required parameters there and typed by the schema; else 0",
		Source: "JSON Schema 2020-12, type and required"}, false}
}

// Rule implements [suites.Grader].
func (r *rule) Rule() suites.Rule { return r.id }

// Check reports an item that cannot be graded.
func (r *rule) Check(it suites.Item) error {
	_, _, _, err := parse(it.Reference)
	return err
}

// Grade implements [suites.Grader] for the text of a [suites.ToolAnswer]. Extracted
// is the name of the first tool called. Text without a call is no answer.
func (r *rule) Grade(it suites.Item, text string) suites.Grade {
	g := suites.Grade{Rule: r.id.String(), Outcome: suites.NoAnswer}
	if pytext.Blank(text) || strings.TrimSpace(text) == "" {
		g.Outcome = suites.Empty
		return g
	}
	a, err := suites.ParseToolAnswer(text)
	if err != nil || len(a.Calls) == 0 {
		return g
	}
	name, f, want, err := parse(it.Reference)
	if err != nil {
		return g // see Check
	}
	g.Extracted, g.Outcome = clip(a.Calls[0].Name), suites.Wrong
	var right bool
	if g.Stage, right = r.decide(a.Calls, sent(name), f, want); right {
		g.Outcome, g.Score = suites.Correct, 1
	}
	return g
}

func clip(s string) string {
	const most = 100
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// decide returns the stage at which calls are decided, and whether they are right.
func (r *rule) decide(made []suites.ToolCall, name string, f function, want map[string][]any) (int, bool) {
	if len(made) != 1 {
		return calls, false
	}
	v, err := load(made[0].Arguments)
	args, ok := v.(map[string]any)
	if err != nil || !ok {
		return parsed, false
	}
	if made[0].Name != name {
		return tool, false
	}
	for _, p := range f.Parameters.Required {
		if _, ok := args[p]; !ok {
			return needed, false
		}
	}
	for p := range args {
		_, ok := f.Parameters.Properties[p]
		if _, allowed := want[p]; !ok || r.values && !allowed {
			return known, false
		}
	}
	if !r.values {
		for p, v := range args {
			if of := f.Parameters.Properties[p]; !fits(v, of.Type, of.inner()) {
				return types, false
			}
		}
		return types, true
	}
	for p, answers := range want {
		if _, ok := args[p]; !ok && !in("", answers) {
			return known, false
		}
	}
	right := true
	for p, v := range args {
		of := f.Parameters.Properties[p]
		if n, ok := v.(json.Number); ok && of.Type == "float" && kind(n) == "int" {
			v = float(n)
		}
		ok, variable := typed(v, want[p], pythonTypes[of.Type], of.inner())
		if !ok {
			return types, false
		}
		right = right && valueMatches(v, of, want[p], variable)
	}
	return values, right
}

// fits reports whether a value is of a type by JSON Schema: 1.0 is an integer.
func fits(v any, typ, inner string) bool {
	switch want := pythonTypes[typ]; want {
	case "int":
		n, ok := number(v)
		return ok && kind(v) != "bool" && n.IsInt()
	case "float":
		return kind(v) == "int" || kind(v) == "float"
	case "list":
		list, ok := v.([]any)
		return ok && !slices.ContainsFunc(list, func(e any) bool { return !fits(e, gorilla(inner), "") })
	default:
		return kind(v) == want || typ == "any"
	}
}

// gorilla is a type of the data set for a Python type, of which a list is taken as
// it is.
func gorilla(python string) string {
	switch python {
	case "int":
		return "integer"
	case "float":
		return "float"
	case "bool":
		return "boolean"
	case "dict":
		return "dict"
	case "str":
		return "string"
	}
	return "any"
}
