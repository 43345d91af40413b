package pipeline

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/intake"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/planner/target"
	"github.com/repromill/repromill/suites/accuracy"
	"github.com/repromill/repromill/suites/catalog"
	"github.com/repromill/repromill/suites/throughput"
)

// suites says of every suite that is known what it would take to compare the
// target with its baselines, and what it could tell.
func (j *job) suites(ctx context.Context, p *spec.Plan) error {
	w := j.req.Wishes.Compare
	if w == nil {
		w = &accuracy.Wish{}
	}
	if p.Model == nil {
		if j.req.Wishes.Compare != nil {
			return j.noModel()
		}
		return nil
	}
	var models []*intake.Model
	for _, id := range w.Baselines {
		t, err := target.Parse(id)
		if err != nil {
			return fmt.Errorf("--baseline: %w", err)
		}
		m, err := j.baseline(ctx, id, t)
		if err != nil {
			return err
		}
		p.Warnings = append(p.Warnings, m.Warnings...)
		models = append(models, m)
	}
	arms := name(append(models, j.candidate))
	var err error
	if p.Suites, err = propose(*w, arms); err != nil {
		return err
	}
	j.describe(p, w)
	p.Seal()
	return p.Validate()
}

// propose says what the suites of accuracy and of throughput would take. Where
// suites are named, the others are left out.
func propose(w accuracy.Wish, arms []spec.Arm) (out []spec.Suite, err error) {
	named := slices.Contains(w.Suites, throughput.Name)
	w.Suites = slices.DeleteFunc(slices.Clone(w.Suites), func(s string) bool { return s == throughput.Name })
	if !named || len(w.Suites) > 0 {
		if out, err = accuracy.Propose(catalog.All(), w, arms); err != nil {
			return nil, err
		}
		if len(w.Suites) > 0 && !named {
			return out, nil
		}
	}
	var load throughput.Wish
	if w.Load != nil {
		load = *w.Load
	}
	s, err := throughput.Propose(load, arms, w.Seed, named)
	return append(out, s), err
}

// describe adds the decisions and warnings that go with the suites.
func (j *job) describe(p *spec.Plan, w *accuracy.Wish) {
	chosen := 0
	for i := range p.Suites {
		s := &p.Suites[i]
		if len(w.Baselines) == 0 && len(w.Suites) == 0 && s.Selected {
			s.Selected = false
			s.Reasons = append(s.Reasons, "not chosen: there is nothing to compare with; add --baseline MODEL, or name it with --suites for its score alone")
		}
		if s.Selected {
			chosen++
		}
	}
	if chosen == 0 {
		p.Warnings = append(p.Warnings, spec.Warning{Code: "no_suite_chosen", Message: "no suite is chosen: name what the model is compared with by --baseline, and suites by --suites"})
		return
	}
	for _, x := range p.Suites[0].Settings {
		if x.Class == "unfair" {
			p.Warnings = append(p.Warnings, spec.Warning{Code: "unfair_setting", Message: fmt.Sprintf("the arms are not served alike: %s is %s: %s", x.Setting, strings.Join(quoted(x.Values), " and "), x.Why)})
		}
	}
}

func quoted(list []string) []string {
	out := slices.Clone(list)
	for i := range out {
		if out[i] == "" {
			out[i] = "the engine's default"
		}
	}
	return out
}

// formats are number formats as the names of models and their facts have them.
var formats = []string{"nvfp4", "mxfp4", "mxfp8", "fp8", "int8", "int4", "awq", "gptq", "gguf", "bf16", "fp16", "bfloat16", "float16"}

// formatOf is the number format of a model's weights, by its files and, where
// they mix formats, by its name; "" where neither says.
func formatOf(m *intake.Model) string {
	words := []string{path.Base(m.ID)}
	for _, fact := range []string{"quant_algo", "quant_method", "dtype"} {
		for _, f := range m.Facts {
			if f.Name == fact {
				words = append(words, f.Value)
			}
		}
	}
	for _, w := range words {
		for _, f := range formats {
			if strings.Contains(strings.ToLower(w), f) {
				switch f {
				case "bfloat16":
					return "bf16"
				case "float16":
					return "fp16"
				}
				return f
			}
		}
	}
	return ""
}

// name makes the arms of the models, the baselines first. Each is called by its
// format where that tells them apart, or by its format and what it is multiplied
// in, else by its model's name.
func name(models []*intake.Model) []spec.Arm {
	arms := make([]spec.Arm, len(models))
	count := map[string]int{}
	for i, m := range models {
		arms[i] = spec.Arm{Model: m.ID, Revision: m.Revision, Format: formatOf(m)}
		if filepath.IsAbs(m.ID) {
			arms[i].Math = mathOf(m)
		}
		count[arms[i].Format]++
		count[arms[i].Format+"-"+arms[i].Math]++
	}
	taken := map[string]int{}
	for i := range arms {
		n, both := arms[i].Format, arms[i].Format+"-"+arms[i].Math
		switch {
		case n != "" && count[n] == 1:
		case n != "" && arms[i].Math != "" && count[both] == 1:
			n = both
		default:
			n = strings.ToLower(path.Base(arms[i].Model))
		}
		if taken[n]++; taken[n] > 1 {
			n = fmt.Sprintf("%s-%d", n, taken[n])
		}
		arms[i].Name = n
	}
	return arms
}

// rechoose applies wishes to the suites of a plan that is there.
func rechoose(p *spec.Plan, w accuracy.Wish) error {
	if len(w.Baselines) > 0 {
		return &Error{Msg: "a plan that is made cannot be given other baselines", Fix: "plan again with --baseline"}
	}
	if len(p.Suites) == 0 {
		return &Error{Msg: "the plan has no suites", Fix: "plan a model with --baseline MODEL"}
	}
	var named []string
	for _, s := range p.Suites {
		if s.Selected {
			named = append(named, strings.TrimSuffix(s.Name+":"+s.Variant, ":"))
		}
		if c := s.Compare; c != nil && w.Margin == 0 {
			w.Margin = c.Margin
		}
		if c := s.Compare; c != nil && w.Alpha == 0 {
			w.Alpha = c.Alpha
		}
		if w.Seed == 0 {
			w.Seed = s.Seed
		}
	}
	if len(w.Suites) == 0 {
		w.Suites = named
	}
	var err error
	old := p.Suites
	if p.Suites, err = propose(w, old[0].Arms); err != nil {
		return err
	}
	for i := range p.Suites {
		if p.Suites[i].Settings == nil {
			p.Suites[i].Settings = old[0].Settings
		}
	}
	p.Seal()
	return p.Validate()
}
