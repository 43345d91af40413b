package toolcalls

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/repromill/repromill/suites/pytext"
)

// function is a tool as the data set describes it, by Gorilla's names of types.
type function struct {
	Name       string `json:"name"`
	Parameters struct {
		Properties map[string]parameter `json:"properties"`
		Required   []string             `json:"required"`
	} `json:"parameters"`
}

type parameter struct {
	Type  string `json:"type"`
	Items *struct {
		Type string `json:"type"`
	} `json:"items"`
}

// pythonTypes are the Python types of the data set's.
var pythonTypes = map[string]string{"string": "str", "integer": "int", "float": "float", "boolean": "bool", "array": "list", "tuple": "list", "dict": "dict", "any": "str"}

// check reports a description that the checker does not know.
func (f function) check() error {
	for name, p := range f.Parameters.Properties {
		if pythonTypes[p.Type] == "" {
			return fmt.Errorf("parameter %s of %s has the unknown type %q", name, f.Name, p.Type)
		}
		if pythonTypes[p.Type] == "list" && (p.Items == nil || pythonTypes[p.Items.Type] == "") {
			return fmt.Errorf("parameter %s of %s does not say of what type its items are", name, f.Name)
		}
	}
	return nil
}

// inner is the type that a list's items have, "" of what is no list.
func (p parameter) inner() string {
	if pythonTypes[p.Type] == "list" && p.Items != nil {
		return pythonTypes[p.Items.Type]
	}
	return ""
}

// answerType is the type of the first answer that is not "", "" if there is none.
func answerType(answers []any) string {
	for _, a := range answers {
		if a != any("") {
			return kind(a)
		}
	}
	return ""
}

// typed is type_checker: whether a value has the type wanted, or that of the
// answers, by which it is a variable.
func typed(v any, answers []any, want, inner string) (ok, variable bool) {
	first := answerType(answers)
	if kind(v) == want {
		if inner == "" {
			return true, first != "" && first != want
		}
		for _, a := range answers {
			fits := true
			if list, ok := a.([]any); ok {
				for _, e := range v.([]any) {
					if fits, _ = typed(e, list, inner, ""); !fits {
						break
					}
				}
			}
			if fits {
				return true, first != "" && first != want
			}
		}
		return false, false
	}
	return first != "" && kind(v) == first, true
}

var dropped = regexp.MustCompile(`[ ,./\-_*^]`)

// standard is standardize_string.
func standard(s string) string {
	return strings.ReplaceAll(pytext.Lower(dropped.ReplaceAllString(s, "")), "'", `"`)
}

// standards standardises the texts of a list, or the characters of a text; false
// for what has no items.
func standards(v any) ([]any, bool) {
	var out []any
	switch x := v.(type) {
	case []any:
		for _, e := range x {
			if s, ok := e.(string); ok {
				e = standard(s)
			}
			out = append(out, e)
		}
	case string:
		for _, r := range x {
			out = append(out, standard(string(r)))
		}
	default:
		return nil, false
	}
	if out == nil {
		out = []any{}
	}
	return out, true
}

func stringMatches(v string, answers []any) bool {
	v = standard(v)
	for _, a := range answers {
		if s, ok := a.(string); ok && standard(s) == v {
			return true
		}
	}
	return false
}

func listMatches(v []any, answers []any) bool {
	have, _ := standards(v)
	found := false
	for _, a := range answers {
		want, ok := standards(a)
		if !ok {
			return false // upstream fails
		}
		found = found || equal(have, want)
	}
	return found
}

// optional reports whether a field may be left out: "" is among its answers.
func optional(answers any) bool {
	switch x := answers.(type) {
	case []any:
		return in("", x)
	case string:
		return true
	}
	return false
}

func dictMatches(v map[string]any, answers []any) bool {
	for _, a := range answers {
		if a == any("") {
			continue
		}
		want, ok := a.(map[string]any)
		if !ok {
			return false // upstream fails
		}
		if dictMatch(v, want) {
			return true
		}
	}
	return false
}

func dictMatch(v, want map[string]any) bool {
	for k, e := range v {
		if s, ok := e.(string); ok {
			e = standard(s)
		}
		list, ok := standards(want[k])
		if !ok || !in(e, list) {
			return false
		}
	}
	for k, answers := range want {
		if _, ok := v[k]; !ok && !optional(answers) {
			return false
		}
	}
	return true
}

func dictListMatches(v []any, answers []any) bool {
	for _, a := range answers {
		var want []any
		switch x := a.(type) {
		case []any:
			want = x
		case string:
			for _, r := range x {
				want = append(want, string(r))
			}
		default:
			return false // upstream fails
		}
		if len(want) != len(v) {
			continue
		}
		fits := true
		for i, e := range v {
			d, ok := e.(map[string]any)
			if !ok {
				return false // upstream fails
			}
			if fits = dictMatches(d, want[i:i+1]); !fits {
				break
			}
		}
		if fits {
			return true
		}
	}
	return false
}

// valueMatches is the rest of simple_function_checker for one parameter whose type
// is right.
func valueMatches(v any, p parameter, answers []any, variable bool) bool {
	want := pythonTypes[p.Type]
	if variable {
		return in(v, answers)
	}
	switch x := v.(type) {
	case map[string]any:
		if want == "dict" {
			return dictMatches(x, answers)
		}
	case []any:
		if want == "list" && p.inner() == "dict" {
			return dictListMatches(x, answers)
		}
		if want == "list" {
			return listMatches(x, answers)
		}
	case string:
		if want == "str" {
			return stringMatches(x, answers)
		}
	}
	return in(v, answers)
}
