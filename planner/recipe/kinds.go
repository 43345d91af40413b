package recipe

import (
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"

	"github.com/repromill/repromill/planner/inspect/python"
	"github.com/repromill/repromill/planner/inspect/shell"
	"github.com/repromill/repromill/planner/spec"
)

// limitFlag recognises options that make a run shorter, with the value that a
// quick check gives them. Lower rank is the better limit.
var limitFlags = []struct {
	re    *regexp.Regexp
	value string
}{
	{regexp.MustCompile(`^--?(?:quick|smoke|smoke[_-]test|fast[_-]dev[_-]run|dry[_-]run|debug|sanity)$`), ""},
	{regexp.MustCompile(`^--?(?:max[_-](?:train[_-])?steps|total[_-]steps|num[_-](?:training[_-]|train[_-])?steps|max[_-]iters?|num[_-]iters?|iterations|max[_-]timesteps|total[_-]timesteps|steps)$`), "10"},
	{regexp.MustCompile(`^--?(?:max[_-](?:train[_-]|eval[_-])?(?:samples|examples)|n[_-]examples|limit|num[_-](?:samples|requests|examples)|max[_-]samples)$`), "10"},
	{regexp.MustCompile(`^--?(?:epochs|num[_-](?:train[_-])?epochs|max[_-]epochs|train[_-]epochs|n[_-]epochs)$`), "1"},
	{regexp.MustCompile(`^--?(?:trials|n[_-]trials|num[_-](?:runs|trials|seeds)|repeats?|runs|n[_-]seeds|seeds)$`), "1"},
}

// smoke adds the cheapest check: one that the repository offers, or the
// minimal command with a limit that its script knows.
func (b *builder) smoke(minimal *Candidate) {
	var best *Candidate
	for _, k := range b.cands {
		if !k.Smoke && k.Route != "demo" || k == minimal || k.Missing != "" || len(k.Unbound) > 0 {
			continue
		}
		if best == nil || smokeRank(k, minimal) > smokeRank(best, minimal) {
			best = k
		}
	}
	if best != nil && best.Smoke && best.Route != "demo" {
		b.add(best, "smoke", false)
		b.decide("smoke run", best.Display, nil, "the repository offers it as its quick check")
		return
	}
	if k := b.limited(minimal); k != nil {
		b.add(k, "smoke", false)
		b.decide("smoke run", k.Display, nil, "the minimal command with the limit that its script declares; its numbers are not comparable")
		return
	}
	if best != nil && best.Entry != minimal.Entry {
		b.add(best, "smoke", false)
		b.decide("smoke run", best.Display, nil, "a documented demonstration; nothing cheaper is offered")
		return
	}
	if minimal.Route == "demo" {
		return // it serves as the smoke run itself
	}
	b.decide("smoke run", "none", nil, "the repository offers no quick check, and the script declares no option that limits it")
}

func smokeRank(k, minimal *Candidate) float64 {
	s := k.Score
	if k.Entry == minimal.Entry {
		s += 40
	}
	if k.Smoke {
		s += 30
	}
	return s
}

// limited is the minimal command with the strongest limit of its script, or
// nil.
func (b *builder) limited(minimal *Candidate) *Candidate {
	m := b.f.Modules[minimal.Entry]
	if m == nil || minimal.Script != nil || len(minimal.Unbound) > 0 || minimal.Missing != "" {
		return nil
	}
	for _, lf := range limitFlags {
		for _, fl := range m.Flags {
			name := fl.Names[len(fl.Names)-1]
			if fl.By == "global" || !lf.re.MatchString(name) || (lf.value == "") != strings.HasPrefix(fl.Action, "store_true") {
				continue
			}
			return b.with(minimal, fl, name, lf.value)
		}
	}
	return nil
}

// with is a copy of a candidate with one option set, recorded as a patch.
func (b *builder) with(k *Candidate, fl python.Flag, name, value string) *Candidate {
	c := *k.Command
	before := shell.Quote(c.Argv)
	c.Argv = slices.Clone(c.Argv)
	set := false
	for i, a := range c.Argv {
		n, _, eq := strings.Cut(a, "=")
		if n != name {
			continue
		}
		set = true
		if eq {
			c.Argv[i] = name + "=" + value
		} else if i+1 < len(c.Argv) && value != "" {
			c.Argv[i+1] = value
		}
	}
	if !set {
		c.Argv = append(c.Argv, name)
		if value != "" {
			c.Argv = append(c.Argv, value)
		}
	}
	c.Display = shell.Quote(c.Argv)
	c.Quoted = false
	c.Patches = append(slices.Clone(c.Patches), spec.Patch{Kind: "flag", File: c.Entry, Line: fl.Line, Before: before, After: c.Display,
		Reason: fmt.Sprintf("%s limits the run to a quick check", name)})
	out := *k
	out.Command, out.Smoke, out.Seconds = &c, true, 0
	return &out
}

// full adds the whole experiment: the candidate that looks most like it, or
// the minimal command itself.
func (b *builder) full(minimal *Candidate) {
	best := minimal
	for _, k := range b.cands {
		if k.Route == "demo" || k.Route == "stored_result" && minimal.Route != "stored_result" || vendored(b.f, k.Entry) || k.Nodes > 1 {
			continue
		}
		if k.Full+k.Score/20 > best.Full+best.Score/20 {
			best = k
		}
	}
	b.add(best, "full", false)
	if best == minimal {
		b.decide("full run", best.Display, nil, "the minimal command is already the whole experiment that is documented")
	} else {
		b.decide("full run", best.Display, nil, "asks for most among the documented experiments")
	}
}

func (b *builder) decide(what, chosen string, over []string, because string) {
	b.ch.Decisions = append(b.ch.Decisions, spec.Decision{What: what, Chosen: chosen, Over: over, Because: because})
}

// explain records the choice of the minimal run with what lost and why.
func (b *builder) explain(minimal *Candidate) {
	var over []string
	seen := map[string]bool{minimal.Display: true}
	rest := slices.Clone(b.cands)
	sort.SliceStable(rest, func(i, j int) bool { return rest[i].Score > rest[j].Score })
	for _, k := range rest {
		if seen[k.Display] || len(over) >= 8 {
			continue
		}
		seen[k.Display] = true
		over = append(over, fmt.Sprintf("%s (%s): %s", short(k.Display), place(k.Evidence), against(k)))
	}
	for _, c := range b.cmds {
		if c.Role == RoleBlocking && len(over) < 12 && !seen[c.Display] {
			seen[c.Display] = true
			over = append(over, fmt.Sprintf("%s (%s): never ends by itself", short(c.Display), place(c.Evidence)))
		}
		if c.Role == RoleCluster && len(over) < 12 && !seen[c.Display] {
			seen[c.Display] = true
			over = append(over, fmt.Sprintf("%s (%s): needs a batch scheduler", short(c.Display), place(c.Evidence)))
		}
	}
	because := "the smallest documented run that gives a result"
	if len(minimal.Why) > 0 {
		because = strings.Join(minimal.Why, "; ")
	}
	b.decide("minimal run", minimal.Display, over, because)
}

func short(s string) string {
	s = clip(s)
	if len(s) > 120 {
		s = s[:117] + "..."
	}
	return s
}

// against is the strongest reason against a candidate.
func against(k *Candidate) string {
	if len(k.Why) == 0 {
		return "less evidence"
	}
	var bad []string
	for _, w := range k.Why {
		for _, p := range []string{"place", "tests", "quick", "demonstration", "beside", "figure", "asks", "names a large", "long", "not in", "copied", "no document", "fails without"} {
			if strings.Contains(w, p) {
				bad = append(bad, w)
				break
			}
		}
	}
	if len(bad) == 0 {
		return "less evidence"
	}
	return strings.Join(bad, "; ")
}
