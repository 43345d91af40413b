// Package accuracy is the way between a plan's suites and the harness: it proposes
// what a plan says of each suite, and carries out what a plan says.
package accuracy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/compare"
	"github.com/repromill/repromill/suites/throughput"
)

// Wish is what somebody wants to know of a model, as the command line and stored
// requests have it.
type Wish struct {
	Baselines []string `json:"baselines,omitempty"`
	Suites    []string `json:"suites,omitempty"` // names, each as NAME or NAME:VARIANT; none is every suite that can tell
	Margin    float64  `json:"margin,omitempty"` // a fraction; 0 is a point
	Alpha     float64  `json:"alpha,omitempty"`  // per side; 0 is 0.05
	Method    string   `json:"method,omitempty"` // "" is the suite's
	OneSided  bool     `json:"one_sided,omitempty"`
	Look      int      `json:"look,omitempty"` // questions between looks; 0 is 16
	Seed      int64    `json:"seed,omitempty"`
	Repeats   int      `json:"repeats,omitempty"`    // 0 is the suite's
	Questions int      `json:"questions,omitempty"`  // of each suite at most; 0 is all
	MaxTokens int      `json:"max_tokens,omitempty"` // of each answer; 0 is the variant's
	Tokens    int64    `json:"tokens,omitempty"`     // budget of each suite
	Judge     bool     `json:"judge,omitempty"`      // a judge model is at hand
	Placing   string   `json:"placing,omitempty"`    // of the arms' servers on a cluster, as a plan has it
	// Flags are the serving flags by arm or model, where they are known.
	Flags map[string]string `json:"flags,omitempty"`
	// Load is what a throughput suite is to measure.
	Load *throughput.Wish `json:"load,omitempty"`
}

// UserError is a mistake of the user's, with the fix.
type UserError struct{ Msg, Fix string }

func (e *UserError) Error() string { return e.Msg }

// UserError returns the fix.
func (e *UserError) UserError() string { return e.Fix }

// fewQuestions is below how many questions looks during a run are of no use: with
// so few, nothing is decided before the last.
const fewQuestions = 500

func (w *Wish) defaults() {
	if w.Margin == 0 {
		w.Margin = 0.01
	}
	if w.Alpha == 0 {
		w.Alpha = 0.05
	}
	if w.Look == 0 {
		w.Look = 16
	}
	if w.Seed == 0 {
		w.Seed = 1
	}
}

// check refuses what no run can mean.
func (w *Wish) check() error {
	switch {
	case !(w.Margin > 0 && w.Margin < 1):
		return &UserError{fmt.Sprintf("a margin of %v", w.Margin), "give the largest difference that counts as equal, such as 1pt"}
	case !(w.Alpha > 0 && w.Alpha < 0.5):
		return &UserError{fmt.Sprintf("an error rate of %v", w.Alpha), "give an error rate per side such as 0.05"}
	case w.Repeats < 0 || w.Questions < 0 || w.MaxTokens < 0 || w.Tokens < 0 || w.Look < 1:
		return &UserError{"repeats, questions, tokens and looks cannot be negative", "leave out what is not to be bounded"}
	}
	if w.Method != "" {
		_, err := compare.Find(w.Method)
		return err
	}
	return nil
}

// Propose says of every suite of the catalogue whether and how it can be run over
// the arms, the first of which is the baseline. Nothing is read or asked.
func Propose(cat suites.Catalog, w Wish, arms []spec.Arm) ([]spec.Suite, error) {
	w.defaults()
	if err := w.check(); err != nil {
		return nil, err
	}
	wanted := map[string]string{}
	for _, s := range w.Suites {
		name, variant, _ := strings.Cut(s, ":")
		d, err := cat.Find(name)
		if err != nil {
			return nil, err
		}
		if _, err := d.Variant(variant); err != nil && (d.Later == "" || variant != "") {
			return nil, err
		}
		wanted[name] = variant
	}
	settings, err := w.settings(arms)
	if err != nil {
		return nil, err
	}
	var out []spec.Suite
	for _, d := range cat {
		variant, named := wanted[d.Suite]
		if !named && (len(w.Suites) > 0 || d.Named) {
			continue
		}
		s, err := w.suite(d, variant, arms)
		if err != nil {
			return nil, err
		}
		s.Settings = settings
		// A suite that is named and cannot be run is refused by the run, with the
		// reason, and not left out in silence.
		s.Selected = named || s.Status == "auto" && s.Outlook.Enough
		if s.Status == "auto" && !s.Selected {
			s.Reasons = append(s.Reasons, fmt.Sprintf("not chosen: it cannot tell differences below %.2f points; name it with --suites to run it all the same", 100*s.Outlook.Resolves))
		}
		out = append(out, s)
	}
	return out, nil
}

// suite is what a plan says of one suite.
func (w *Wish) suite(d suites.Definition, variant string, arms []spec.Arm) (spec.Suite, error) {
	s := spec.Suite{ID: d.Suite, Name: d.Suite, Kind: "accuracy", Questions: d.Questions, Repeats: d.Repeats, Seed: w.Seed, Arms: arms, Placing: w.Placing,
		Dataset: spec.SuiteDataset{Repo: d.DataSet}, Budget: spec.Budget{Tokens: w.Tokens}, Status: "auto"}
	if w.Repeats > 0 {
		s.Repeats = w.Repeats
	}
	facts := d.Facts
	v, verr := d.Variant(variant)
	if verr == nil {
		facts.Questions, facts.PromptTokens = cmp.Or(v.Questions, facts.Questions), cmp.Or(v.PromptTokens, facts.PromptTokens)
		s.Questions = facts.Questions
	}
	if w.Questions > 0 {
		s.Questions = min(s.Questions, w.Questions)
	}
	s.Outlook = outlook(facts, s, *w)
	have := []suites.Need{suites.Tokenizer}
	if w.Judge {
		have = append(have, suites.Judge)
	}
	if lacks := d.Lacks(have...); len(lacks) > 0 {
		s.Status, s.Reasons = "blocked", lacks
		if slices.Contains(d.Needs, suites.Judge) && !w.Judge && d.Later == "" {
			s.Status, s.Reasons = "judge_needed", append(lacks, "name one with --judge URL")
		}
		return s, nil
	}
	if verr != nil {
		return s, verr
	}
	s.Variant = v.Name
	if w.MaxTokens > 0 {
		v.Sampling.MaxTokens = w.MaxTokens
	}
	b, err := json.Marshal(v.Sampling)
	if err == nil {
		err = json.Unmarshal(b, &s.Sampling)
	}
	if err != nil {
		return s, fmt.Errorf("sampling of %s: %w", d.Suite, err)
	}
	for _, g := range d.Graders {
		if r := g.Rule(); r.Name == v.Rule {
			s.Grader = spec.Grader{Rule: r.Name, Version: r.Version}
		}
	}
	for _, f := range d.Data {
		s.Dataset.Repo, s.Dataset.Revision = f.Repo, f.Commit
		s.Dataset.Files = append(s.Dataset.Files, spec.SuiteFile{Repo: f.Repo, Commit: f.Commit, Path: f.Path, SHA256: f.SHA256})
	}
	if len(arms) > 1 {
		s.Compare = w.terms(s)
	}
	if d.Excluded != "" {
		s.Reasons = append(s.Reasons, "left out: "+d.Excluded)
	}
	return s, nil
}

// terms choose the method: one that may stop early where there are questions
// enough to save, else one look at the end, over all repeats.
func (w *Wish) terms(s spec.Suite) *spec.Compare {
	c := &spec.Compare{Method: w.Method, Margin: w.Margin, Alpha: w.Alpha, OneSided: w.OneSided}
	if c.Method == "" {
		c.Method = compare.TOST().Name()
		if s.Repeats == 1 && s.Questions >= fewQuestions {
			c.Method = compare.WithoutReplacement().Name()
		}
	}
	c.Stop = "at the last question"
	if m, err := compare.Find(c.Method); err == nil {
		if _, ok := m.(compare.Sequential); ok {
			c.Look, c.Stop = w.Look, fmt.Sprintf("at the first look that decides, every %d questions", w.Look)
		}
	}
	return c
}

// outlook says what a suite takes and can tell.
func outlook(f suites.Facts, s spec.Suite, w Wish) *spec.Outlook {
	const power = 0.8
	n := s.Questions * s.Repeats
	se := compare.RepeatError(s.Questions, s.Repeats, f.Within)
	o := &spec.Outlook{Answers: n * len(s.Arms), StdErr: se, Resolves: compare.Resolves(se, w.Alpha, power), Kind: spec.Assumed,
		RepeatsNeeded: compare.Repeats(s.Questions, f.Within, w.Margin, w.Alpha, power)}
	o.PromptTokens, o.OutputTokens = int64(o.Answers)*int64(f.PromptTokens), int64(o.Answers)*int64(f.OutputTokens)
	o.Enough = o.Resolves <= w.Margin
	return o
}

// settings puts the arms' serving flags side by side.
func (w *Wish) settings(arms []spec.Arm) ([]spec.Setting, error) {
	var parsed []*model.Arm
	for i := range arms {
		command, ok := w.Flags[arms[i].Name]
		if !ok {
			if command, ok = w.Flags[arms[i].Model]; !ok {
				continue
			}
		}
		a, err := model.ParseArm(arms[i].Name, command)
		if err != nil {
			return nil, err
		}
		parsed = append(parsed, a)
		arms[i].Flags, _ = model.Words(command) // ParseArm has read it
		if arms[i].Engine == "" {
			arms[i].Engine, arms[i].EngineVersion = a.Engine, a.Version
		}
		if tensor, gpus := a.Parallel(); gpus > 0 {
			arms[i].TP, arms[i].GPUs = tensor, gpus
		}
	}
	if len(parsed) < 2 || len(parsed) < len(arms) {
		return nil, nil
	}
	var out []spec.Setting
	for _, r := range model.CompareArms(parsed).Rows {
		if r.Class != "same" {
			out = append(out, spec.Setting{Setting: r.Setting, Values: r.Values, Class: r.Class, Moves: r.Moves, Why: r.Why})
		}
	}
	return out, nil
}
