package spec

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// The closed vocabularies of the document, by type and field.
var (
	targetKinds   = []string{"", "arxiv", "hf_model", "hf_dataset", "hf_space", "git", "local", "openreview"}
	statedBy      = []string{"", "user", "author", "author_page", "hub_curated", "hub_claimed", "aggregator", "mirror"}
	kinds         = []string{"", string(Measured), string(Published), string(Derived), string(Estimated), string(Assumed)}
	managers      = []string{"", "none", "pip", "uv", "poetry", "pdm", "conda", "pipenv", "unknown"}
	roles         = []string{"primary", "also", "ignored"}
	pinnings      = []string{"full", "partial", "none"}
	indexKinds    = []string{"index", "find_links", "channel"}
	fits          = []string{"ok", "other_cuda_build", "needs_bump", "cpu_ok", "unknown"}
	runKinds      = []string{"smoke", "minimal", "full"}
	runRoutes     = []string{"eval_checkpoint", "stored_result", "short_schedule", "reduced_training", "recompute", "demo"}
	runStatuses   = []string{"auto", "manual_data", "gated", "smoke_only", "legacy_env", "external_evaluator", "judge_needed", "blocked"}
	patchKinds    = []string{"", "source", "data", "flag", "env"}
	assetKinds    = []string{"dataset", "checkpoint"}
	accesses      = []string{"in_repo", "auto", "bound", "manual", "gated", "missing"}
	collectKinds  = []string{"stdout_regex", "json", "jsonl", "csv", "notebook", "file_exists"}
	selectors     = []string{"", "last", "first", "min", "max"}
	checkables    = []string{"numeric", "paper_only", "figure_only", "judge_needed", "none"}
	relations     = []string{"", "absolute", "ratio", "difference"}
	directions    = []string{"", "higher", "lower"}
	toleranceKind = []string{"absolute", "relative"}
	interpreters  = []string{"bash", "sh", "python"}
	bindingKinds  = []string{"data", "checkpoint", "set"}
	needKinds     = []string{"placeholder", "file", "checkpoint", "dataset", "setting", "secret", "entry", "environment", "result"}
	preflights    = []string{"ok", "gated", "missing", "unreachable", "not_checked"}
	seedings      = []string{"flag", "argument", "none", "exempt"}
	suiteKinds    = []string{"accuracy", "throughput", "checkpoint"}
	placings      = []string{"", SideBySide, OneAfterAnother}
	settingClass  = []string{"subject", "harmless", "unfair", "unknown"}

	commitRE = regexp.MustCompile(`^[0-9a-f]{40}$`)
	hashRE   = regexp.MustCompile(`^[0-9a-f]{64}$`)
	nameRE   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$`)
	envRE    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// MaxQuote bounds a quotation, in characters.
const MaxQuote = 300

// Validate reports every way in which the plan breaks its own schema, joined
// into one error; nil means the runner can take it.
func (p *Plan) Validate() error {
	v := &validator{}
	if p.Schema != SchemaV1 {
		v.add("schema is %q, want %q", p.Schema, SchemaV1)
	}
	if p.Hash != "" && !hashRE.MatchString(p.Hash) {
		v.add("hash %q is not 64 hex digits", p.Hash)
	}
	v.oneOf("target.kind", p.Target.Kind, targetKinds)
	v.source(&p.Source)
	v.environment(&p.Environment)
	claims := map[string]bool{}
	for i := range p.Claims {
		v.claim(fmt.Sprintf("claims[%d]", i), &p.Claims[i], claims)
	}
	ids := map[string]bool{}
	for i := range p.Runs {
		v.run(fmt.Sprintf("runs[%d]", i), &p.Runs[i], ids, claims)
	}
	v.bindings(p.Bindings, ids)
	for i, f := range p.Preflight {
		v.oneOf(fmt.Sprintf("preflight[%d].status", i), f.Status, preflights)
	}
	suites := map[string]bool{}
	for i := range p.Suites {
		v.suite(fmt.Sprintf("suites[%d]", i), &p.Suites[i], suites)
	}
	for i := range p.Estimates {
		v.estimate(fmt.Sprintf("estimates[%d]", i), &p.Estimates[i])
	}
	if p.Model != nil {
		v.facts("model.facts", p.Model.Facts)
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

// words refuses what no argument vector can carry.
func (v *validator) words(at string, argv []string) {
	for i, a := range argv {
		if strings.ContainsRune(a, 0) || !utf8.ValidString(a) {
			v.add("%s[%d] holds a zero byte or is not UTF-8", at, i)
		}
	}
	if len(argv) > 0 && argv[0] == "" {
		v.add("%s names no program", at)
	}
}

func (v *validator) finite(at string, xs ...*float64) {
	for _, x := range xs {
		if x != nil && (math.IsNaN(*x) || math.IsInf(*x, 0)) {
			v.add("%s is not a finite number", at)
		}
	}
}

func (v *validator) interval(at string, x Interval) {
	v.finite(at, &x.P10, &x.P50, &x.P90)
	if x.P10 > x.P50 || x.P50 > x.P90 || x.P10 < 0 {
		v.add("%s: want 0 <= p10 <= p50 <= p90, have %g, %g, %g", at, x.P10, x.P50, x.P90)
	}
}

func (v *validator) evidence(at string, ev []Evidence) {
	for i, e := range ev {
		if e.Line < 0 {
			v.add("%s[%d].line is negative", at, i)
		}
		if utf8.RuneCountInString(e.Quote) > MaxQuote {
			v.add("%s[%d].quote is longer than %d characters", at, i, MaxQuote)
		}
	}
}

func (v *validator) facts(at string, fs []Fact) {
	for i, f := range fs {
		v.oneOf(fmt.Sprintf("%s[%d].kind", at, i), string(f.Kind), kinds[1:])
		v.evidence(fmt.Sprintf("%s[%d].evidence", at, i), f.Evidence)
	}
}

func (v *validator) source(s *Source) {
	if c := s.Commit; c != "" && !commitRE.MatchString(c) {
		v.add("source.commit %q is not 40 hex digits", c)
	}
	v.relPath("source.subdir", s.Subdir)
	v.oneOf("source.stated_by", s.StatedBy, statedBy)
	for i, c := range s.Candidates {
		v.oneOf(fmt.Sprintf("source.candidates[%d].stated_by", i), c.StatedBy, statedBy)
	}
	v.facts("source.facts", s.Facts)
}

func (v *validator) environment(e *Environment) {
	v.oneOf("environment.manager", e.Manager, managers)
	for _, f := range []struct {
		at string
		v  VersionFact
	}{{"python", e.Python}, {"cuda", e.CUDA}, {"framework", e.Framework.VersionFact}} {
		v.oneOf("environment."+f.at+".kind", string(f.v.Kind), kinds)
		if f.v.Version != "" && f.v.Kind == "" {
			v.add("environment.%s has a version and no kind", f.at)
		}
		v.evidence("environment."+f.at+".evidence", f.v.Evidence)
	}
	for i, d := range e.DependencySources {
		at := fmt.Sprintf("environment.dependency_sources[%d]", i)
		v.oneOf(at+".role", d.Role, roles)
		v.oneOf(at+".pinned", d.Pinned, pinnings)
		v.relPath(at+".path", d.Path)
	}
	for i, r := range e.Requirements {
		at := fmt.Sprintf("environment.requirements[%d]", i)
		if r.Spec == "" || strings.ContainsAny(r.Spec, "\x00\n\r") {
			v.add("%s.spec %q is no single line", at, r.Spec)
		}
		v.evidence(at+".evidence", r.Evidence)
	}
	for i, x := range e.Indexes {
		at := fmt.Sprintf("environment.indexes[%d]", i)
		v.oneOf(at+".kind", x.Kind, indexKinds)
		if x.URL == "" || strings.ContainsAny(x.URL, "\x00\n\r ") {
			v.add("%s.url %q is empty or holds white space", at, x.URL)
		}
	}
	for id, s := range e.SKUs {
		v.oneOf("environment.skus."+id+".status", s.Status, fits)
	}
	if _, ok := e.SKUs[e.SKU]; e.SKU != "" && !ok {
		v.add("environment.sku is %q, which environment.skus does not hold", e.SKU)
	}
}

func (v *validator) claim(at string, c *Claim, ids map[string]bool) {
	if c.ID == "" || ids[c.ID] {
		v.add("%s.id %q is empty or used twice", at, c.ID)
	}
	ids[c.ID] = true
	v.oneOf(at+".checkable", c.Checkable, checkables)
	v.oneOf(at+".relation", c.Relation, relations)
	v.oneOf(at+".direction", c.Direction, directions)
	v.tolerance(at, c.Tolerance)
	v.finite(at+".value", c.Value, c.ValueLo, c.ValueHi)
	if c.ValueLo != nil && c.ValueHi != nil && *c.ValueLo > *c.ValueHi {
		v.add("%s: value_lo %g is above value_hi %g", at, *c.ValueLo, *c.ValueHi)
	}
	v.relPath(at+".where.file", c.Where.File)
}

func (v *validator) tolerance(at string, t *Tolerance) {
	if t == nil {
		return
	}
	v.oneOf(at+".tolerance.kind", t.Kind, toleranceKind)
	v.finite(at+".tolerance.value", &t.Value)
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
	seen := map[string]bool{}
	for _, id := range r.ClaimIDs {
		if !claims[id] || seen[id] {
			v.add("%s.claim_ids names %q, which is no claim of this plan or stands twice", at, id)
		}
		seen[id] = true
	}
	v.command(at, r)
	for k, val := range r.Env {
		if !envRE.MatchString(k) || strings.ContainsRune(val, 0) {
			v.add("%s.env has the name %q or a zero byte in its value", at, k)
		}
	}
	for i, pt := range r.Patches {
		v.oneOf(fmt.Sprintf("%s.patches[%d].kind", at, i), pt.Kind, patchKinds)
		v.relPath(fmt.Sprintf("%s.patches[%d].file", at, i), pt.File)
	}
	for i, a := range r.Assets {
		v.oneOf(fmt.Sprintf("%s.assets[%d].kind", at, i), a.Kind, assetKinds)
		v.oneOf(fmt.Sprintf("%s.assets[%d].access", at, i), a.Access, accesses)
	}
	if r.TimeoutS < 0 {
		v.add("%s.timeout_s is negative", at)
	}
	if r.GPUs.Min < 0 {
		v.add("%s.gpus.min is negative", at)
	}
	v.evidence(at+".evidence", r.Evidence)
	v.facts(at+".work", r.Work)
	for i := range r.Collect {
		v.collect(fmt.Sprintf("%s.collect[%d]", at, i), &r.Collect[i])
	}
	for i, n := range r.Needs {
		v.oneOf(fmt.Sprintf("%s.needs[%d].what", at, i), n.What, needKinds)
		v.oneOf(fmt.Sprintf("%s.needs[%d].status", at, i), n.Status, runStatuses)
	}
	if r.Seeding != nil {
		v.oneOf(at+".seeding.by", r.Seeding.By, seedings)
		v.evidence(at+".seeding.evidence", r.Seeding.Evidence)
	}
	if r.Expects != nil {
		v.finite(at+".expects.value", &r.Expects.Value)
		v.tolerance(at+".expects", r.Expects.Tolerance)
		v.oneOf(at+".expects.direction", r.Expects.Direction, directions)
	}
}

// bindings checks that what a person gave can be found again and told apart.
func (v *validator) bindings(list []Binding, runs map[string]bool) {
	names := map[string]bool{}
	for i, b := range list {
		at := fmt.Sprintf("bindings[%d]", i)
		v.oneOf(at+".kind", b.Kind, bindingKinds)
		if !nameRE.MatchString(b.Name) || names[b.Name] {
			v.add("%s.name %q is used twice or not made of letters, digits and _.-", at, b.Name)
		}
		names[b.Name] = true
		switch {
		case b.Kind == "set" && (b.Path != "" || b.URL != "" || b.Place != ""):
			v.add("%s sets a word and has a path, a url or a place", at)
		case b.Kind != "set" && (b.Path == "") == (b.URL == ""):
			v.add("%s wants one of path and url", at)
		case b.Path != "" && !path.IsAbs(b.Path):
			v.add("%s.path %q is not absolute", at, b.Path)
		case b.Path != "" && b.SHA256 == "", b.SHA256 != "" && !hashRE.MatchString(b.SHA256):
			v.add("%s.sha256 %q is not 64 hex digits", at, b.SHA256)
		}
		v.words(at+".value", []string{"x", b.Value})
		v.relPath(at+".place", b.Place)
		for _, id := range b.Runs {
			if !runs[id] {
				v.add("%s.runs names %q, which is no run of this plan", at, id)
			}
		}
	}
}

// command checks what is executed: one argument vector or one script.
func (v *validator) command(at string, r *Run) {
	v.words(at+".argv", r.Argv)
	switch {
	case len(r.Argv) > 0 && r.Script != nil:
		v.add("%s has both argv and script", at)
	case r.Selected && len(r.Argv) == 0 && r.Script == nil:
		v.add("%s is selected but has neither argv nor script", at)
	}
	if s := r.Script; s != nil {
		v.oneOf(at+".script.interpreter", s.Interpreter, interpreters)
	}
	for i, s := range r.Setup {
		if len(s.Argv) == 0 {
			v.add("%s.setup[%d] has no argv", at, i)
		}
		v.words(fmt.Sprintf("%s.setup[%d].argv", at, i), s.Argv)
		v.relPath(fmt.Sprintf("%s.setup[%d].cwd", at, i), s.Cwd)
	}
}

func (v *validator) collect(at string, c *Collect) {
	v.oneOf(at+".kind", c.Kind, collectKinds)
	v.oneOf(at+".select", c.Select, selectors)
	v.relPath(at+".path", c.Path)
	v.finite(at+".scale", &c.Scale)
	if c.Metric == "" {
		v.add("%s.metric is empty", at)
	}
	if c.Kind != "stdout_regex" {
		if c.Path == "" {
			v.add("%s.path is empty", at)
		}
		if c.Kind != "csv" && c.Pointer != "" && c.Pointer[0] != '/' {
			v.add("%s.pointer %q is no JSON pointer: it must start with /", at, c.Pointer)
		}
		return
	}
	if _, err := regexp.Compile(c.Pattern); err != nil || c.Pattern == "" {
		v.add("%s.pattern is empty or does not compile: %v", at, err)
	}
}

func (v *validator) suite(at string, s *Suite, ids map[string]bool) {
	if s.ID == "" || ids[s.ID] {
		v.add("%s.id %q is empty or used twice", at, s.ID)
	}
	ids[s.ID] = true
	v.oneOf(at+".kind", s.Kind, suiteKinds)
	v.oneOf(at+".placing", s.Placing, placings)
	if s.Status != "" {
		v.oneOf(at+".status", s.Status, runStatuses)
	}
	if _, err := json.Marshal(s.Sampling); err != nil {
		v.add("%s.sampling is not JSON: %v", at, err)
	}
	arms := map[string]bool{}
	for i, a := range s.Arms {
		if a.Name == "" || arms[a.Name] {
			v.add("%s.arms[%d].name %q is empty or used twice", at, i, a.Name)
		}
		arms[a.Name] = true
	}
	if c := s.Compare; c != nil {
		v.finite(at+".compare", &c.Margin, &c.Alpha)
	}
	if s.Questions < 0 || s.Repeats < 0 || s.Seed < 0 || s.Budget.Tokens < 0 || s.Budget.USD < 0 {
		v.add("%s: questions, repeats, seed and budget cannot be negative", at)
	}
	if s.Kind == "accuracy" && s.Selected && len(s.Arms) == 0 {
		v.add("%s is selected but has no arms", at)
	}
	for i, f := range s.Dataset.Files {
		if !commitRE.MatchString(f.Commit) || f.SHA256 != "" && f.SHA256 != strings.ToLower(f.SHA256) {
			v.add("%s.dataset.files[%d]: the commit %q is not 40 hex digits, or the SHA-256 is not in lower case", at, i, f.Commit)
		}
	}
	if o := s.Outlook; o != nil {
		v.finite(at+".outlook", &o.StdErr, &o.Resolves)
		v.oneOf(at+".outlook.kind", string(o.Kind), kinds[1:])
	}
	for i, x := range s.Settings {
		v.oneOf(fmt.Sprintf("%s.settings[%d].class", at, i), x.Class, settingClass)
	}
	v.finite(at+".budget.usd", &s.Budget.USD)
	if l := s.Load; l != nil {
		for i := range l.Rates {
			v.finite(at+".load.rates", &l.Rates[i])
		}
		for i := range l.Floors {
			v.finite(at+".load.floors", &l.Floors[i])
		}
	}
}

func (v *validator) estimate(at string, e *Estimate) {
	v.oneOf(at+".kind", string(e.Kind), kinds)
	v.oneOf(at+".fits", e.Fits, []string{"", "yes", "no", "unknown"})
	for _, q := range []struct {
		name string
		iv   *Interval
	}{{"gpu_hours", e.GPUHours}, {"usd", e.USD}, {"owned_usd", e.OwnedUSD}, {"hosted_usd", e.HostedUSD}, {"wall_s", e.WallS}, {"busy_gpu_hours", e.BusyHours}} {
		if q.iv != nil {
			v.interval(at+"."+q.name, *q.iv)
		}
	}
	for i, p := range e.Parts {
		if p.GPUHours != nil {
			v.interval(fmt.Sprintf("%s.parts[%d].gpu_hours", at, i), *p.GPUHours)
		}
	}
	if e.GPUHours == nil && e.Reason == "" {
		v.add("%s.gpu_hours is null and reason does not say why", at)
	}
}
