package planner

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/spec"
)

// evaluated is the plan of a fixture with claims, an environment and runs.
func evaluated(t *testing.T, name string) *spec.Plan {
	t.Helper()
	for _, f := range fixtures(t) {
		if strings.HasSuffix(f.path, "/"+name+".txtar") {
			return planDir(t, layOut(t, f.files), string(f.files["@abstract"]))
		}
	}
	t.Fatalf("no fixture %s", name)
	return nil
}

func clone(t *testing.T, p *spec.Plan) *spec.Plan {
	t.Helper()
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var out spec.Plan
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return &out
}

// TestExplainEverything: the fields of every fixture's plan can be asked for by
// the name that they have in the tree, and give the value that stands there.
func TestExplainEverything(t *testing.T) {
	for _, f := range fixtures(t) {
		p := planDir(t, layOut(t, f.files), string(f.files["@abstract"]))
		n := 0
		tree(p).leaves(func(l *node) {
			if n++; n%9 != 0 { // each of them builds the tree again
				return
			}
			e, err := Explain(p, l.path)
			if err != nil || string(e.Value) != string(l.json()) {
				t.Errorf("%s: %s: %v", f.path, l.path, err)
			}
		})
		if n < 10 {
			t.Errorf("%s: only %d fields", f.path, n)
		}
	}
}

func TestExplain(t *testing.T) {
	p := evaluated(t, "evalckpt")
	for field, want := range map[string]func(*Explanation) bool{
		"environment.python.version": func(e *Explanation) bool { return string(e.Value) == "null" && len(e.Reasons) == 1 },
		"environment.framework":      func(e *Explanation) bool { return len(e.Evidence) > 0 },
		"environment.requirements":   func(e *Explanation) bool { return len(e.Decisions) > 0 && e.InHash },
		"runs.minimal.command":       func(e *Explanation) bool { return e.Evidence[0].File != "" && e.Decisions[0].What == "minimal run" },
		"runs.minimal.argv":          func(e *Explanation) bool { return e.InHash && len(e.Evidence) > 0 },
		"claims.c1.value":            func(e *Explanation) bool { return e.Evidence[0].Line > 0 && e.Evidence[0].Quote != "" },
		"claims.c1":                  func(e *Explanation) bool { return e.InHash },
		"decisions":                  func(e *Explanation) bool { return !e.InHash },
		" runs ":                     func(e *Explanation) bool { return len(e.Decisions) > 0 },
	} {
		if e, err := Explain(p, field); err != nil || !want(e) {
			t.Errorf("%s: %v, %+v", field, err, e)
		}
	}
	for field, want := range map[string]string{
		"": "runs", "nothing": "claims", "runs.minimal.x": "runs.minimal.command", "claims.c99": "claims.c1", "runs.minimal.command.x": "it is a value",
	} {
		_, err := Explain(p, field)
		var user *InputError
		if !errors.As(err, &user) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %q", field, err, want)
		}
	}
}

// TestDiffGroups: each change counts as what it changes, and the groups agree
// with the hash.
func TestDiffGroups(t *testing.T) {
	base := evaluated(t, "evalckpt")
	minimal := slices.IndexFunc(base.Runs, func(r spec.Run) bool { return r.ID == "minimal" })
	base.Runs[minimal].Selected = true
	base.Seal()
	for name, c := range map[string]struct {
		edit  func(*spec.Plan)
		field string
		group string
	}{
		"argv":          {func(p *spec.Plan) { p.Runs[minimal].Argv = []string{"true"} }, "runs.minimal.argv", "execution"},
		"timeout":       {func(p *spec.Plan) { p.Runs[minimal].TimeoutS++ }, "runs.minimal.timeout_s", "execution"},
		"claim":         {func(p *spec.Plan) { v := 1.0; p.Claims[0].Value = &v }, "claims.c1.value", "verdict"},
		"expectation":   {func(p *spec.Plan) { p.Runs[minimal].Expects = &spec.Expectation{Metric: "m", Value: 1} }, "runs.minimal.expects.metric", "verdict"},
		"text":          {func(p *spec.Plan) { p.Claims[0].Text = "other" }, "claims.c1.text", "wording"},
		"warning":       {func(p *spec.Plan) { p.Warnings = append(p.Warnings, spec.Warning{Code: "new", Message: "x"}) }, "warnings.new.message", "wording"},
		"other run":     {func(p *spec.Plan) { p.Runs = append(p.Runs, spec.Run{ID: "z", Argv: []string{"x"}}) }, "runs.z.argv", "wording"},
		"python":        {func(p *spec.Plan) { p.Environment.Python.Version = "3.6" }, "environment.python.version", "execution"},
		"python's kind": {func(p *spec.Plan) { p.Environment.Python.Kind = spec.Assumed }, "environment.python.kind", "wording"},
		"removed claim": {func(p *spec.Plan) { p.Claims = p.Claims[1:] }, "claims.c1.id", "verdict"},
		"new binding": {func(p *spec.Plan) {
			p.Bindings = []spec.Binding{{Kind: "set", Name: "N", Value: "4"}}
		}, "bindings.N.value", "execution"},
	} {
		p := clone(t, base)
		c.edit(p)
		for _, d := range []Differences{Diff(base, p), Diff(p, base)} {
			i := slices.IndexFunc(d.Changes, func(x Change) bool { return x.Field == c.field })
			if i < 0 || d.Changes[i].Group != c.group {
				t.Errorf("%s: %+v, want %s in %s", name, d.Changes, c.field, c.group)
				continue
			}
			only := !slices.ContainsFunc(d.Changes, func(x Change) bool { return x.Group == "execution" || x.Group == "verdict" })
			if d.SameHash != only {
				t.Errorf("%s: same hash %v, though the groups say %v", name, d.SameHash, only)
			}
		}
	}
	if d := Diff(base, clone(t, base)); len(d.Changes) != 0 || !d.SameHash {
		t.Errorf("a plan differs from itself: %+v", d.Changes)
	}
	// A run in front of the others moves none of them.
	p := clone(t, base)
	p.Runs = append([]spec.Run{{ID: "first"}}, p.Runs...)
	for _, c := range Diff(base, p).Changes {
		if !strings.HasPrefix(c.Field, "runs.first") {
			t.Errorf("%s changes with a run before it", c.Field)
		}
	}
}

func TestSeeds(t *testing.T) {
	run := func(argv []string, s *spec.Seeding, seeds ...int64) *spec.Plan {
		return &spec.Plan{Runs: []spec.Run{{ID: "minimal", Kind: "minimal", Argv: argv, Seeding: s, Seeds: seeds}, {ID: "smoke", Kind: "smoke", Argv: argv, Seeding: s}}}
	}
	flag, arg := &spec.Seeding{By: "flag", Name: "--seed"}, &spec.Seeding{By: "argument", Name: "seed="}
	for name, c := range map[string]struct {
		plan  *spec.Plan
		argv  string
		seeds []int64
		warn  bool
	}{
		"added":    {run([]string{"p", "x.py"}, flag), "p x.py --seed {seed}", []int64{0, 1, 2}, false},
		"replaced": {run([]string{"p", "--seed", "42", "-v"}, flag, 42), "p --seed {seed} -v", []int64{42, 43, 44}, false},
		"joined":   {run([]string{"p", "--seed=42"}, flag, 42), "p --seed={seed}", []int64{42, 43, 44}, false},
		"hydra":    {run([]string{"p", "seed=1"}, arg, 1), "p seed={seed}", []int64{1, 2, 3}, false},
		"by hand":  {run([]string{"p", "-s{seed}"}, nil), "p -s{seed}", []int64{0, 1, 2}, false},
		"exempt":   {run([]string{"p"}, &spec.Seeding{By: "exempt", Reason: "it is stored"}), "p", nil, true},
		"none":     {run([]string{"p"}, &spec.Seeding{By: "none", Reason: "no option"}), "p", nil, true},
		"unknown":  {run([]string{"p"}, nil), "p", nil, true},
	} {
		if err := Seeds(c.plan, 3); err != nil {
			t.Fatal(err)
		}
		r, smoke := c.plan.Runs[0], c.plan.Runs[1]
		if strings.Join(r.Argv, " ") != c.argv || !slices.Equal(r.Seeds, c.seeds) || c.warn != (len(c.plan.Warnings) == 1) || len(smoke.Seeds) > 0 {
			t.Errorf("%s: %q with %v, %v", name, r.Argv, r.Seeds, c.plan.Warnings)
		}
		if err := Seeds(c.plan, 2); err != nil || strings.Join(c.plan.Runs[0].Argv, " ") != c.argv || len(c.seeds) > 0 && len(c.plan.Runs[0].Seeds) != 2 {
			t.Errorf("%s: a second time: %+v, %v", name, c.plan.Runs[0], err)
		}
	}
	one := run([]string{"p", "--seed", "42"}, flag, 42)
	if err := Seeds(one, 1); err != nil || strings.Join(one.Runs[0].Argv, " ") != "p --seed 42" || !slices.Equal(one.Runs[0].Seeds, []int64{42}) {
		t.Errorf("one seed changes the command: %+v", one.Runs[0])
	}
	for _, k := range []int{0, -1, MaxSeeds + 1} {
		var user *InputError
		if err := Seeds(run(nil, flag), k); !errors.As(err, &user) {
			t.Errorf("%d seeds: %v", k, err)
		}
	}
}

// TestSeeding holds how a seed is found to small repositories.
func TestSeeding(t *testing.T) {
	script := "import argparse\np = argparse.ArgumentParser()\np.add_argument('--lr')\n%sa = p.parse_args()\naccuracy = 1.0\nprint(f'accuracy: {accuracy:.2f}')\n"
	seed := "p.add_argument('--random-seed', type=int, default=3)\n"
	for name, c := range map[string]struct {
		command, flag string
		by, name      string
	}{
		"declared":         {"python train.py --lr 1", seed, "flag", "--random-seed"},
		"given":            {"python train.py --lr 1 --random-seed 5", seed, "flag", "--random-seed"},
		"not declared":     {"python train.py --lr 1", "", "none", ""},
		"eval":             {"python eval.py --checkpoint model.pth --random-seed 5", seed, "exempt", ""},
		"eval, sampled":    {"python eval.py --checkpoint model.pth --temperature 0.7 --random-seed 5", seed, "flag", "--random-seed"},
		"key and value":    {"python train.py seed=4", "", "argument", "seed="},
		"recomputed":       {"python tables.py", "", "exempt", ""},
		"recomputed, seed": {"python tables.py", seed, "flag", "--random-seed"},
	} {
		file := strings.Fields(c.command)[1]
		p := planDir(t, layOut(t, map[string][]byte{
			"README.md": []byte("# P\n\n```bash\n" + c.command + "\n```\n\nThis should give an accuracy of 1.00.\n"),
			file:        []byte(strings.Replace(script, "%s", c.flag, 1)), "model.pth": []byte("x"),
		}), "")
		i := slices.IndexFunc(p.Runs, func(r spec.Run) bool { return r.ID == "minimal" })
		if i < 0 || p.Runs[i].Seeding == nil || p.Runs[i].Seeding.By != c.by || p.Runs[i].Seeding.Name != c.name {
			t.Errorf("%s: %+v", name, p.Runs)
		} else if s := p.Runs[i].Seeding; s.By != "flag" && s.By != "argument" && s.Reason == "" {
			t.Errorf("%s: no reason: %+v", name, s)
		}
	}
}

func TestForSKU(t *testing.T) {
	p := evaluated(t, "evalckpt")
	if p.Environment.SKU != "" || len(p.Environment.SKUs) < 5 {
		t.Fatalf("%+v", p.Environment.SKUs)
	}
	before := p.Hash
	if err := ForSKU(p, "b200"); err != nil {
		t.Fatal(err)
	}
	if len(p.Environment.SKUs) != 1 || p.Environment.SKU != "b200" || p.Hash == before || p.Validate() != nil {
		t.Errorf("%+v", p.Environment)
	}
	var user *InputError
	if err := ForSKU(p, "h100"); !errors.As(err, &user) || !strings.Contains(err.Error(), "it knows: b200") {
		t.Errorf("%v", err)
	}
	if err := ForSKU(&spec.Plan{}, "h100"); !errors.As(err, &user) || !strings.Contains(err.Error(), "leave --sku out") {
		t.Errorf("%v", err)
	}
	none := &spec.Plan{Runs: []spec.Run{{ID: "a", Status: "auto"}}}
	none.Environment.SKUs = map[string]spec.SKUFit{"b200": {Status: "needs_bump", Deviations: []spec.Deviation{{What: "tensorflow", Used: "none", Reason: "r"}}}}
	if err := ForSKU(none, "b200"); err != nil || none.Runs[0].Status != "legacy_env" || len(none.Runs[0].Needs) != 1 {
		t.Errorf("%v %+v", err, none.Runs)
	}
}

// TestSharedPlaceholder: what one command leaves to the reader is not taken for
// a value in the next.
func TestSharedPlaceholder(t *testing.T) {
	p := needy()
	p.Runs = append(p.Runs, spec.Run{ID: "full", Kind: "full", Status: "auto", Argv: []string{"x", "--task=[mnli/qqp]", "--M", "N/x"}})
	sharePlaceholders(p)
	r := p.Runs[1]
	if !slices.Equal(r.Placeholders, []string{"[mnli/qqp]"}) || r.Status != "manual_data" || len(r.Needs) != 1 {
		t.Errorf("%+v", r)
	}
}
