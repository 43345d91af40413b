package suites

import (
	"fmt"
	"slices"
	"strings"
)

// Registry holds graders by suite and rule. It is a value that a program builds
// from the suites it knows; there is no global one.
type Registry struct {
	graders []Grader
}

// NewRegistry returns a registry of graders. The first grader of a suite is the
// suite's default rule. Two graders of one suite must differ in name.
func NewRegistry(graders ...Grader) (Registry, error) {
	seen := map[[2]string]bool{}
	for _, g := range graders {
		r := g.Rule()
		k := [2]string{r.Suite, r.Name}
		switch {
		case r.Suite == "" || r.Name == "" || r.Version == "":
			return Registry{}, fmt.Errorf("register rule %q of suite %q: suite, name and version are needed", r.Name, r.Suite)
		case seen[k]:
			return Registry{}, fmt.Errorf("register rule %q of suite %q: registered twice", r.Name, r.Suite)
		}
		seen[k] = true
	}
	return Registry{slices.Clone(graders)}, nil
}

// UnknownError says that a suite or rule is not registered, and which are. It is
// the user's to correct.
type UnknownError struct {
	What  string // "suite" or "rule of mmlu-pro"
	Name  string
	Known []string
}

func (e *UnknownError) Error() string { return fmt.Sprintf("there is no %s %q", e.What, e.Name) }

// UserError returns the fix.
func (e *UnknownError) UserError() string { return "choose one of " + strings.Join(e.Known, ", ") }

// Suites returns the names of the suites in order of registration.
func (r Registry) Suites() []string {
	var out []string
	for _, g := range r.graders {
		if s := g.Rule().Suite; !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// Rules returns the rules of a suite, the default first.
func (r Registry) Rules(suite string) []Rule {
	var out []Rule
	for _, g := range r.graders {
		if rule := g.Rule(); rule.Suite == suite {
			out = append(out, rule)
		}
	}
	return out
}

// Grader returns the grader of a suite's rule: its name, or name@version to
// insist on a version. An empty rule is the suite's default. The error is an
// [*UnknownError].
func (r Registry) Grader(suite, rule string) (Grader, error) {
	var known []string
	for _, g := range r.graders {
		have := g.Rule()
		if have.Suite != suite {
			continue
		}
		if rule == "" || rule == have.Name || rule == have.String() {
			return g, nil
		}
		known = append(known, have.String())
	}
	if known == nil {
		return nil, &UnknownError{"suite", suite, r.Suites()}
	}
	return nil, &UnknownError{"rule of " + suite, rule, known}
}
