package planner

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/recipe"
	"github.com/repromill/repromill/planner/spec"
)

// MaxSeeds bounds the executions of one run.
const MaxSeeds = 100

// seedToken stands for the seed in a command.
const seedToken = "{seed}"

var (
	seedFlagRE = regexp.MustCompile(`^--?(?:(?:random|rng|manual|global|train|training|torch|np|numpy)[_-])?seed$`)
	seedArgRE  = regexp.MustCompile(`^\+{0,2}(?:[\w.]+\.)?(?:random_|rng_)?seed=`)
	// samplingRE are options that make the answers of a model random.
	samplingRE = regexp.MustCompile(`^--?(?:temperature|do[_-]sample|top[_-]?[pk]|sampling|num[_-]samples|n[_-]samples|num[_-]return[_-]sequences|sample)(?:=|$)`)
)

// seeding finds how a seed reaches the code of a run, or why it does not
// matter. A run that computes its number from what is stored, or scores a
// checkpoint without sampling, gives the same number each time.
func seeding(f *inspect.Facts, c *recipe.Command, r *spec.Run) *spec.Seeding {
	s := seedOption(f, c, r)
	switch {
	case r.Route == "stored_result":
		return &spec.Seeding{By: "exempt", Reason: "it reads a result that is stored"}
	case r.Route == "eval_checkpoint" && !slices.ContainsFunc(r.Argv, samplingRE.MatchString):
		return &spec.Seeding{By: "exempt", Reason: "it scores a checkpoint without sampling, which gives the same number for every seed"}
	case r.Route == "recompute" && s.By == "none":
		return &spec.Seeding{By: "exempt", Reason: "it computes its number anew from what is given and declares no seed"}
	}
	return s
}

func seedOption(f *inspect.Facts, c *recipe.Command, r *spec.Run) *spec.Seeding {
	for _, w := range r.Argv {
		name, _, _ := strings.Cut(w, "=")
		switch {
		case seedFlagRE.MatchString(name):
			return &spec.Seeding{By: "flag", Name: name, Evidence: r.Evidence}
		case seedArgRE.MatchString(w):
			return &spec.Seeding{By: "argument", Name: name + "=", Evidence: r.Evidence}
		}
	}
	if r.Script != nil || c.Inner != nil {
		return &spec.Seeding{By: "none", Reason: "the command is a shell script, which passes no seed on"}
	}
	if m := f.Modules[c.Entry]; m != nil {
		for _, fl := range m.Flags {
			if name := fl.Names[len(fl.Names)-1]; fl.By != "global" && seedFlagRE.MatchString(name) {
				return &spec.Seeding{By: "flag", Name: name, Evidence: []spec.Evidence{{File: c.Entry, Line: fl.Line}}}
			}
		}
	}
	if c.Entry == "" {
		return &spec.Seeding{By: "none", Reason: "the program is not part of the checkout, so no option for a seed is known"}
	}
	return &spec.Seeding{By: "none", Reason: "no option for a seed was found in " + c.Entry}
}

// Seeds makes every stochastic run of the plan that is no smoke run execute k
// times, with k seeds one after the other from the one that is planned, and
// seals the plan. What no seed reaches stays one execution, and the plan says
// why. The error is an [InputError].
func Seeds(p *spec.Plan, k int) error {
	if k < 1 || k > MaxSeeds {
		return &InputError{fmt.Sprintf("--seeds %d is not between 1 and %d", k, MaxSeeds), "give how often a stochastic run is executed, such as 3"}
	}
	for i := range p.Runs {
		r := &p.Runs[i]
		if r.Kind == "smoke" {
			continue
		}
		if r.Seeding == nil {
			r.Seeding = handSeeding(r)
		}
		switch by := r.Seeding.By; {
		case by == "exempt" || by == "none":
			if k > 1 {
				p.Warnings = append(p.Warnings, spec.Warning{Code: "one_seed", Evidence: r.Seeding.Evidence,
					Message: fmt.Sprintf("run %s is executed once and not %d times: %s", r.ID, k, r.Seeding.Reason)})
			}
			continue
		case k > 1:
			passSeed(r)
		}
		first := int64(0)
		if len(r.Seeds) > 0 {
			first = r.Seeds[0]
		}
		r.Seeds = nil
		for n := range int64(k) {
			r.Seeds = append(r.Seeds, first+n)
		}
	}
	p.Seal()
	return nil
}

// handSeeding is for a plan that was written by hand: it says by "{seed}" where
// the seed goes.
func handSeeding(r *spec.Run) *spec.Seeding {
	text := strings.Join(r.Argv, " ")
	for _, v := range r.Env {
		text += " " + v
	}
	for _, s := range r.Setup {
		text += " " + strings.Join(s.Argv, " ")
	}
	if strings.Contains(text, seedToken) {
		return &spec.Seeding{By: "argument", Name: seedToken, Reason: "the plan says where it goes"}
	}
	return &spec.Seeding{By: "none", Reason: "its command holds no " + seedToken}
}

// passSeed writes "{seed}" where the command takes its seed.
func passSeed(r *spec.Run) {
	name := r.Seeding.Name
	argv := slices.Clone(r.Argv)
	if slices.ContainsFunc(argv, func(w string) bool { return strings.Contains(w, seedToken) }) || name == seedToken {
		return
	}
	set := false
	for i, w := range argv {
		switch {
		case r.Seeding.By == "argument" && strings.HasPrefix(w, name):
			argv[i], set = name+seedToken, true
		case strings.HasPrefix(w, name+"="):
			argv[i], set = name+"="+seedToken, true
		case w == name && i+1 < len(argv):
			argv[i+1], set = seedToken, true
		}
	}
	if !set {
		argv = append(argv, name, seedToken)
	}
	r.Argv, r.Quoted = argv, false
	r.Command = typed(r)
}
