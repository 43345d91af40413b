package spec

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// The closed vocabularies of the document.
var (
	runKinds      = []string{"smoke", "minimal", "full"}
	runRoutes     = []string{"eval_checkpoint", "stored_result", "short_schedule", "reduced_training", "recompute", "demo"}
	runStatuses   = []string{"auto", "manual_data", "gated", "smoke_only", "legacy_env", "external_evaluator", "judge_needed", "blocked"}
	collectKinds  = []string{"stdout_regex", "json", "jsonl", "csv", "notebook", "file_exists"}
	selectors     = []string{"", "last", "first", "min", "max"}
	checkables    = []string{"numeric", "paper_only", "figure_only", "judge_needed", "none"}
	relations     = []string{"", "absolute", "ratio", "difference"}
	directions    = []string{"", "higher", "lower"}
	toleranceKind = []string{"absolute", "relative"}
	interpreters  = []string{"bash", "sh", "python"}
	suiteKinds    = []string{"accuracy", "throughput", "checkpoint"}

	commitRE = regexp.MustCompile(`^[0-9a-f]{40}$`)
	envRE    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// Validate reports every way in which the plan breaks its own schema, joined
// into one error; nil means the runner can take it.
func (p *Plan) Validate() error {
	v := &validator{}
	if p.Schema != SchemaV1 {
		v.add("schema is %q, want %q", p.Schema, SchemaV1)
	}
	if c := p.Source.Commit; c != "" && !commitRE.MatchString(c) {
		v.add("source.commit %q is not 40 hex digits", c)
	}
	v.relPath("source.subdir", p.Source.Subdir)
	claims := map[string]bool{}
	for i, c := range p.Claims {
		at := fmt.Sprintf("claims[%d]", i)
		if c.ID == "" || claims[c.ID] {
			v.add("%s.id %q is empty or used twice", at, c.ID)
		}
		claims[c.ID] = true
		v.oneOf(at+".checkable", c.Checkable, checkables)
		v.oneOf(at+".relation", c.Relation, relations)
		v.oneOf(at+".direction", c.Direction, directions)
		v.tolerance(at, c.Tolerance)
		if c.ValueLo != nil && c.ValueHi != nil && *c.ValueLo > *c.ValueHi {
			v.add("%s: value_lo %g is above value_hi %g", at, *c.ValueLo, *c.ValueHi)
		}
	}
	ids := map[string]bool{}
	for i := range p.Runs {
		v.run(fmt.Sprintf("runs[%d]", i), &p.Runs[i], ids, claims)
	}
	for i, s := range p.Suites {
		v.oneOf(fmt.Sprintf("suites[%d].kind", i), s.Kind, suiteKinds)
	}
	return errors.Join(v.errs...)
}

type validator struct{ errs []error }

func (v *validator) add(format string, args ...any) {
	v.errs = append(v.errs, fmt.Errorf("plan: "+format, args...))
}

func (v *validator) oneOf(at, got string, allowed []string) {
	if !slices.Contains(allowed, got) {
		v.add("%s is %q, want one of %s", at, got, strings.Join(allowed, ", "))
	}
}

// relPath refuses paths that leave the checkout.
func (v *validator) relPath(at, p string) {
	if p == "" {
		return
	}
	if path.IsAbs(p) || strings.ContainsAny(p, "\x00\\") || path.Clean(p) == ".." || strings.HasPrefix(path.Clean(p), "../") {
		v.add("%s %q leaves the checkout", at, p)
	}
}

func (v *validator) tolerance(at string, t *Tolerance) {
	if t == nil {
		return
	}
	v.oneOf(at+".tolerance.kind", t.Kind, toleranceKind)
	if t.Value < 0 {
		v.add("%s.tolerance.value %g is negative", at, t.Value)
	}
}

func (v *validator) run(at string, r *Run, ids, claims map[string]bool) {
	if r.ID == "" || ids[r.ID] {
		v.add("%s.id %q is empty or used twice", at, r.ID)
	}
	ids[r.ID] = true
	v.oneOf(at+".kind", r.Kind, runKinds)
	v.oneOf(at+".route", r.Route, runRoutes)
	v.oneOf(at+".status", r.Status, runStatuses)
	v.relPath(at+".cwd", r.Cwd)
	for _, id := range r.ClaimIDs {
		if !claims[id] {
			v.add("%s.claim_ids names %q, which is no claim of this plan", at, id)
		}
	}
	switch {
	case len(r.Argv) > 0 && r.Script != nil:
		v.add("%s has both argv and script", at)
	case r.Selected && len(r.Argv) == 0 && r.Script == nil:
		v.add("%s is selected but has neither argv nor script", at)
	}
	if r.Script != nil {
		v.oneOf(at+".script.interpreter", r.Script.Interpreter, interpreters)
	}
	for i, s := range r.Setup {
		if len(s.Argv) == 0 {
			v.add("%s.setup[%d] has no argv", at, i)
		}
		v.relPath(fmt.Sprintf("%s.setup[%d].cwd", at, i), s.Cwd)
	}
	for k := range r.Env {
		if !envRE.MatchString(k) {
			v.add("%s.env has the name %q", at, k)
		}
	}
	for i, pt := range r.Patches {
		v.relPath(fmt.Sprintf("%s.patches[%d].file", at, i), pt.File)
	}
	if r.TimeoutS < 0 {
		v.add("%s.timeout_s is negative", at)
	}
	for i, c := range r.Collect {
		cat := fmt.Sprintf("%s.collect[%d]", at, i)
		v.oneOf(cat+".kind", c.Kind, collectKinds)
		v.oneOf(cat+".select", c.Select, selectors)
		v.relPath(cat+".path", c.Path)
		if c.Metric == "" {
			v.add("%s.metric is empty", cat)
		}
		if c.Kind == "stdout_regex" {
			if _, err := regexp.Compile(c.Pattern); err != nil || c.Pattern == "" {
				v.add("%s.pattern does not compile: %v", cat, err)
			}
		} else if c.Path == "" {
			v.add("%s.path is empty", cat)
		}
	}
	if r.Expects != nil {
		v.tolerance(at+".expects", r.Expects.Tolerance)
		v.oneOf(at+".expects.direction", r.Expects.Direction, directions)
	}
}
