package planner

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/spec"
)

// Explanation is where a field of a plan comes from.
type Explanation struct {
	Field     string          `json:"field"`
	Value     json.RawMessage `json:"value"`
	Kind      spec.Kind       `json:"kind,omitempty"` // of number, where one is stated
	InHash    bool            `json:"in_hash"`        // changing it makes another plan
	Evidence  []spec.Evidence `json:"evidence,omitempty"`
	Reasons   []string        `json:"reasons,omitempty"`   // stated beside the field
	Decisions []spec.Decision `json:"decisions,omitempty"` // what was chosen, what lost and why
	Warnings  []spec.Warning  `json:"warnings,omitempty"`
}

// Explain gives the evidence chain of a field, named as in "environment.python",
// "runs.minimal.command" or "claims.c1.value". The error is an [InputError]
// that lists the fields there are.
func Explain(p *spec.Plan, field string) (*Explanation, error) {
	root := tree(p)
	n, rest := root.get(strings.TrimSpace(field))
	if first, _, _ := strings.Cut(rest, "."); n.declares(first) {
		e := &Explanation{Field: strings.TrimSpace(field), Value: json.RawMessage("null"), Reasons: []string{"nothing states it, so the plan leaves it empty"}}
		e.decisions(p, &node{path: e.Field, v: n.v, up: n})
		return e, nil
	}
	if rest != "" || n == root {
		var names []string
		for _, k := range n.kids {
			names = append(names, k.path)
		}
		where := "the plan has no field " + fmt.Sprintf("%q", field)
		if n != root {
			where = fmt.Sprintf("%s has no field %q", n.path, rest)
		}
		if len(names) == 0 {
			return nil, &InputError{where, "it is a value: explain " + n.path}
		}
		return nil, &InputError{where, "it has " + strings.Join(names, ", ")}
	}
	e := &Explanation{Field: n.path, Value: n.json()}
	n.leaves(func(l *node) { e.InHash = e.InHash || l.covered() })
	e.evidence(p, n)
	e.reasons(n)
	e.decisions(p, n)
	for _, w := range p.Warnings {
		if slices.ContainsFunc(w.Evidence, func(x spec.Evidence) bool {
			return slices.ContainsFunc(e.Evidence, func(y spec.Evidence) bool { return x.File == y.File && x.Line == y.Line && x.File != "" })
		}) {
			e.Warnings = append(e.Warnings, w)
		}
	}
	return e, nil
}

// declares says that a thing has a field of that name, which may be empty.
func (n *node) declares(name string) bool {
	if name == "" || n.v.Kind() != reflect.Struct {
		return false
	}
	return slices.ContainsFunc(reflect.VisibleFields(n.v.Type()), func(f reflect.StructField) bool {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		return tag == name && !f.Anonymous
	})
}

// evidence is that of the field itself, or of the nearest thing around it that
// has any.
func (e *Explanation) evidence(p *spec.Plan, n *node) {
	for at := n; at != nil && at.up != nil && len(e.Evidence) == 0; at = at.up {
		if at.v.Kind() == reflect.Struct {
			if k := at.v.FieldByName("Kind"); k.IsValid() && k.Type() == reflect.TypeFor[spec.Kind]() && e.Kind == "" {
				e.Kind = spec.Kind(k.String())
			}
		}
		e.collect(p, at.own())
	}
}

// own is where a thing states its own evidence, or the thing itself where only
// its parts do.
func (n *node) own() *node {
	for _, k := range n.kids {
		if k.key == "evidence" || k.key == "where" {
			return k
		}
	}
	return n
}

func (e *Explanation) collect(p *spec.Plan, n *node) {
	switch x := n.v.Interface().(type) {
	case spec.Evidence:
		e.Evidence = append(e.Evidence, x)
		return
	case spec.Where:
		at := spec.Evidence{File: x.File, Line: x.Line, Field: x.Paper}
		if c, ok := n.up.v.Interface().(spec.Claim); ok {
			at.Quote = clip(c.Text)
		}
		if p.Paper != nil && x.Paper != "" {
			at.URL = p.Paper.URL
		}
		e.Evidence = append(e.Evidence, at)
		return
	}
	for _, k := range n.kids {
		e.collect(p, k)
	}
}

// reasons are the words that stand beside the field, in it or around it.
func (e *Explanation) reasons(n *node) {
	add := func(s string) {
		if s != "" && !slices.Contains(e.Reasons, s) {
			e.Reasons = append(e.Reasons, s)
		}
	}
	for at := n; at.up != nil; at = at.up {
		for _, k := range at.kids {
			switch k.key {
			case "reason", "because", "note", "source":
				if k.leaf() && k.v.Kind() == reflect.String {
					add(k.v.String())
				}
			case "reasons", "supported_by":
				for i := range k.v.Len() {
					add(k.v.Index(i).String())
				}
			}
		}
		if len(e.Reasons) > 0 {
			return
		}
	}
}

// decisions are those about the thing that the field belongs to.
func (e *Explanation) decisions(p *spec.Plan, n *node) {
	for _, d := range p.Decisions {
		if about(d.What, n) {
			e.Decisions = append(e.Decisions, d)
		}
	}
}

// about says that a decision's subject is a field, or what it belongs to.
func about(what string, n *node) bool {
	parts := strings.SplitN(n.path, ".", 3)
	sub := ""
	if len(parts) > 1 {
		sub = parts[1]
	}
	switch parts[0] {
	case "environment":
		topics := map[string][]string{
			"python": {"python"}, "cuda": {"cuda"}, "framework": {"framework", "pytorch", "tensorflow", "jax"},
			"exclude_newer": {"package versions"}, "requirements": {"dependency source", "environment", "package"},
			"dependency_sources": {"dependency source", "environment"}, "manager": {"environment", "dependency source"},
			"system_packages": {"system"}, "skus": {"sku"},
			"": {"environment", "dependency source", "python", "cuda", "framework", "package", "system"},
		}
		return slices.ContainsFunc(topics[sub], func(t string) bool { return strings.HasPrefix(strings.ToLower(what), t) })
	case "runs":
		run := n
		for run.up.up != nil && run.up.up.up != nil {
			run = run.up
		}
		if r, ok := run.v.Interface().(spec.Run); ok {
			return what == r.Kind+" run"
		}
		return strings.HasSuffix(what, " run")
	case "claims":
		return sub == "" && strings.Contains(what, "claim") || sub != "" && (what == "claim "+sub || what == "metric of "+sub)
	case "source":
		return strings.HasPrefix(what, "code") || strings.HasPrefix(what, "source")
	}
	return false
}
