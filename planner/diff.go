package planner

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/repromill/repromill/planner/spec"
)

// Change is one field in which two plans differ.
type Change struct {
	Field string `json:"field"` // "runs.minimal.argv"
	// Group is what it changes: "execution" (what is run, and in which
	// environment), "verdict" (how the result is judged), "cost", or "wording"
	// (everything else, which leaves the run as it is).
	Group string          `json:"group"`
	A     json.RawMessage `json:"a,omitempty"` // missing where the first plan lacks it
	B     json.RawMessage `json:"b,omitempty"`
}

// Differences is what tells two plans apart.
type Differences struct {
	SameHash bool     `json:"same_hash"` // both execute and judge the same
	HashA    string   `json:"hash_a"`
	HashB    string   `json:"hash_b"`
	Changes  []Change `json:"changes"`
}

// Diff compares two plans field by field. Elements of lists are matched by
// their id, name or path and not by their place, so that a new run changes no
// other. The hashes are those of what the plans say, not those they state.
func Diff(a, b *spec.Plan) Differences {
	out := Differences{HashA: a.ComputeHash(), HashB: b.ComputeHash(), Changes: []Change{}}
	out.SameHash = out.HashA == out.HashB
	selected := map[string]bool{}
	for _, p := range []*spec.Plan{a, b} {
		for _, r := range p.Runs {
			selected[r.ID] = selected[r.ID] || r.Selected
		}
	}
	other := map[string]*node{}
	tree(b).leaves(func(n *node) { other[n.path] = n })
	add := func(n *node, x, y json.RawMessage) {
		if n.path != "hash" && !bytes.Equal(x, y) {
			out.Changes = append(out.Changes, Change{n.path, group(n, selected), x, y})
		}
	}
	tree(a).leaves(func(n *node) {
		if m := other[n.path]; m != nil {
			add(n, n.json(), m.json())
			delete(other, n.path)
			return
		}
		add(n, n.json(), nil)
	})
	tree(b).leaves(func(n *node) {
		if other[n.path] != nil {
			add(n, nil, n.json())
		}
	})
	return out
}

// group says what a field changes.
func group(n *node, selected map[string]bool) string {
	path := n.pattern
	switch {
	case strings.HasPrefix(path, "estimates"):
		return "cost"
	case !n.covered():
		return "wording"
	case strings.HasPrefix(path, "runs[]"):
		run := n
		for run.up.up.up != nil {
			run = run.up
		}
		if id := run.v.FieldByName("ID").String(); !selected[id] {
			return "wording" // of a run that nobody executes
		}
		if strings.HasPrefix(path, "runs[].expects") || strings.HasPrefix(path, "runs[].collect") || path == "runs[].claim_ids" {
			return "verdict"
		}
	case strings.HasPrefix(path, "claims"):
		return "verdict"
	}
	return "execution"
}
