package toolcalls_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/toolcalls"
)

var writeCases = flag.String("write-cases", "", "write the cases of TestUpstream to `FILE` and stop")

// caseOf is an answer to a question.
type caseOf struct {
	Reference string            `json:"reference"`
	Calls     []suites.ToolCall `json:"calls"`
}

// made are values by type, as JSON. Each is right of its type; some are equal to
// others in Python and not as they are written.
var made = map[string][]string{
	"integer": {"1", "0", "-3", "10", "123456789012345678901234567890", "7"},
	"float":   {"1.0", "0.5", "-3.0", "1e3", "2.50", "0.1", "1e400", "9007199254740993"},
	"string":  {`"New York"`, `"new york, ny"`, `"it's"`, `"it\"s"`, `"2024-01-02"`, `"a^b*c_d/e.f"`, `"İΣ"`, `"x"`, `" "`, `"true"`, `"1"`},
	"boolean": {"true", "false"},
	"dict":    {`{"a": 1}`, `{"a": "New York", "b": 2.0}`, `{}`, `{"b": [1, 2]}`, `{"a": "x", "c": {"d": 1}}`},
	"other":   {"null", "[]", "{}", `""`, `[[1]]`, `"variable"`, "1", "true", `["a"]`},
}

var scalars = []string{"integer", "float", "string", "boolean", "dict"}

func pick(r *rand.Rand, from []string) string { return from[r.IntN(len(from))] }

func some(r *rand.Rand, n int, f func() string) string {
	var out []string
	for range n {
		out = append(out, f())
	}
	return strings.Join(out, ", ")
}

// value makes one of a type; what is a list has items of inner.
func value(r *rand.Rand, typ, inner string) string {
	switch typ {
	case "array", "tuple":
		return "[" + some(r, r.IntN(4), func() string { return value(r, inner, "integer") }) + "]"
	case "any":
		return pick(r, made["string"])
	}
	return pick(r, made[typ])
}

// dictAnswer is how right answers give a dict: with a list for each field.
func dictAnswer(v string) string {
	var m map[string]json.RawMessage
	if json.Unmarshal([]byte(v), &m) != nil {
		return v
	}
	out := map[string][]json.RawMessage{}
	for k, e := range m {
		out[k] = []json.RawMessage{e}
		if k == "b" {
			out[k] = append(out[k], json.RawMessage(`""`))
		}
	}
	b, err := json.Marshal(out)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func answerOf(typ, inner, v string) string {
	if typ == "dict" {
		return dictAnswer(v)
	}
	var list []json.RawMessage
	if inner != "dict" || json.Unmarshal([]byte(v), &list) != nil {
		return v
	}
	var out []string
	for _, e := range list {
		out = append(out, dictAnswer(string(e)))
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// dress changes a text in ways that may not matter.
func dress(r *rand.Rand, v string) string {
	switch r.IntN(5) {
	case 0:
		return strings.ToUpper(v)
	case 1:
		return strings.ReplaceAll(v, " ", "_")
	case 2:
		return strings.ReplaceAll(v, "-", ".")
	case 3:
		return strings.ReplaceAll(v, "'", `\"`)
	}
	return strings.ReplaceAll(v, ", ", ",")
}

func generate(seed uint64, n int) (out []caseOf) {
	r := rand.New(rand.NewPCG(seed, 1))
	for range n {
		var props, required, answers, args []string
		for i := range 1 + r.IntN(3) {
			name := string(rune('p' + i))
			typ := pick(r, []string{"integer", "float", "string", "string", "boolean", "array", "tuple", "dict", "any"})
			inner := pick(r, scalars)
			items := ""
			if typ == "array" || typ == "tuple" {
				items = fmt.Sprintf(`, "items": {"type": %q}`, inner)
			}
			props = append(props, fmt.Sprintf(`%q: {"type": %q, "description": "d"%s}`, name, typ, items))
			if r.IntN(2) == 0 {
				required = append(required, fmt.Sprintf("%q", name))
			}
			right := []string{value(r, typ, inner)}
			for r.IntN(3) == 0 {
				right = append(right, value(r, typ, inner))
			}
			listed := []string{}
			for _, v := range right {
				listed = append(listed, answerOf(typ, inner, v))
			}
			switch r.IntN(12) {
			case 0, 1, 2:
				listed = append(listed, `""`)
			case 3:
				listed = append([]string{`""`}, listed...)
			case 4:
				listed = append(listed, `"variable"`)
			case 5:
				listed = []string{`"variable"`}
			}
			answers = append(answers, fmt.Sprintf("%q: [%s]", name, strings.Join(listed, ", ")))
			v := pick(r, right)
			switch r.IntN(16) {
			case 0:
				v = value(r, typ, inner)
			case 1:
				v = pick(r, made["other"])
			case 2:
				v = value(r, pick(r, scalars), inner)
			case 3, 4:
				v = dress(r, v)
			case 5:
				v = strings.ReplaceAll(v, ".0", "")
			case 6:
				continue // it is left out
			}
			args = append(args, fmt.Sprintf("%q: %s", name, v))
		}
		if r.IntN(25) == 0 {
			args = append(args, `"extra": 1`)
		}
		name := pick(r, []string{"find", "math.sum", "a_b"})
		call := suites.ToolCall{Name: strings.ReplaceAll(name, ".", "_"), Arguments: "{" + strings.Join(args, ", ") + "}"}
		list := []suites.ToolCall{call}
		switch r.IntN(40) {
		case 0:
			list[0].Name = name
		case 1:
			list[0].Name = "other"
		case 2:
			list = append(list, call)
		case 3:
			list[0].Arguments = strings.TrimSuffix(call.Arguments, "}")
		case 4:
			list[0].Arguments = pick(r, []string{"", "[]", "null", `"{}"`, "{} {}", `{"p": NaNN}`, `{"p": ` + strings.Repeat("1", 4301) + `}`, `{"p": 1, "p": 2}`})
		}
		functions := fmt.Sprintf(`{"name": %q, "description": "d", "parameters": {"type": "dict", "properties": {%s}, "required": [%s]}}`, name, strings.Join(props, ", "), strings.Join(required, ", "))
		if r.IntN(3) == 0 {
			functions = `{"name": "other", "parameters": {"type": "dict", "properties": {}, "required": []}}, ` + functions
		}
		out = append(out, caseOf{fmt.Sprintf(`{"functions": [%s], "answer": {%q: {%s}}}`, functions, name, strings.Join(answers, ", ")), list})
	}
	return out
}

// TestUpstream holds the rule to what the published checker said of generated
// calls: 1 valid, 0 not, D the arguments cannot be decoded, E the checker fails.
//
// The outcomes were made with ShishirPatil/gorilla 6ea5797 (ast_checker.py, Python's
// functions, a model whose tool names have no dots) on CPython 3.11.
func TestUpstream(t *testing.T) {
	cases := generate(17, 6000)
	if *writeCases != "" {
		f, err := os.Create(*writeCases)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		enc := json.NewEncoder(f)
		for _, c := range cases {
			if err := enc.Encode(c); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	b, err := os.ReadFile("testdata/upstream.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.TrimSpace(string(b))
	if len(want) != len(cases) {
		t.Fatalf("%d outcomes of %d cases", len(want), len(cases))
	}
	count := map[byte]int{}
	for i, c := range cases {
		g := toolcalls.AST().Grade(suites.Item{Reference: c.Reference}, suites.ToolAnswer{Calls: c.Calls}.Text())
		count[want[i]]++
		if (g.Score == 1) != (want[i] == '1') {
			t.Errorf("case %d: %+v, published %c\nreference %s\ncalls %+v", i, g, want[i], c.Reference, c.Calls)
		}
	}
	t.Logf("valid %d, not %d, not decoded %d, checker fails %d", count['1'], count['0'], count['D'], count['E'])
}
