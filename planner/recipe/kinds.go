package recipe

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/repromill/repromill/planner/spec"
)

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
		b.ch.Runs[len(b.ch.Runs)-1].Reasons = append(b.ch.Runs[len(b.ch.Runs)-1].Reasons, "scaled down to a quick check: its numbers are not comparable with any claim")
		b.decide("smoke run", k.Display, nil, "the minimal command, "+k.Limits+"; its numbers are not comparable")
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
