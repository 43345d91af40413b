package planner

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/spec"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// fixture is one archive: files of a repository, "@abstract" of the paper, and
// "@want", the plan in short.
type fixture struct {
	path  string
	arc   *txtar.Archive
	files map[string][]byte
}

func fixtures(t testing.TB) []*fixture {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) < 15 {
		t.Fatalf("fixtures: %d, %v", len(paths), err)
	}
	var out []*fixture
	for _, p := range paths {
		arc, err := txtar.ParseFile(p)
		if err != nil {
			t.Fatal(err)
		}
		f := &fixture{path: p, arc: arc, files: map[string][]byte{}}
		for _, x := range arc.Files {
			f.files[x.Name] = x.Data
		}
		out = append(out, f)
	}
	return out
}

// layOut writes the files of the repository to a folder.
func layOut(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		if strings.HasPrefix(name, "@") {
			continue
		}
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func planDir(t testing.TB, dir string, abstract string) *spec.Plan {
	t.Helper()
	facts, err := inspect.Dir(context.Background(), dir, inspect.Config{})
	if err != nil {
		t.Fatal(err)
	}
	date := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	in := Input{
		Target: spec.Target{Input: "https://example.org/lab/repo", Kind: "git", ID: "lab/repo"},
		Source: spec.Source{Repo: "https://example.org/lab/repo", Commit: strings.Repeat("0", 40), CommitDate: &date},
		Repo:   facts,
	}
	if abstract != "" {
		in.Paper = &spec.Paper{ID: "2401.00001", Version: "v1", Abstract: abstract}
	}
	p, err := Plan(in)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestGolden(t *testing.T) {
	schema := compileSchema(t)
	for _, f := range fixtures(t) {
		t.Run(strings.TrimSuffix(filepath.Base(f.path), ".txtar"), func(t *testing.T) {
			dir := layOut(t, f.files)
			p := planDir(t, dir, string(f.files["@abstract"]))
			if _, err := os.Stat(filepath.Join(dir, "executed")); err == nil {
				t.Error("planning executed the repository's code")
			}
			checkDocument(t, schema, p)
			got := summary(p)
			if want := string(f.files["@want"]); got != want {
				if *update {
					f.save(t, got)
					return
				}
				t.Errorf("plan differs (-want +got):\n%s", cmp.Diff(want, got))
			}
		})
	}
}

func (f *fixture) save(t *testing.T, want string) {
	t.Helper()
	for i := range f.arc.Files {
		if f.arc.Files[i].Name == "@want" {
			f.arc.Files[i].Data = []byte(want)
			want = ""
		}
	}
	if want != "" {
		f.arc.Files = append(f.arc.Files, txtar.File{Name: "@want", Data: []byte(want)})
	}
	if err := os.WriteFile(f.path, txtar.Format(f.arc), 0o644); err != nil {
		t.Fatal(err)
	}
}

func compileSchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(spec.SchemaJSON))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("plan.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("plan.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checkDocument holds a plan to its schema, its round trip and its hash.
func checkDocument(t testing.TB, s *jsonschema.Schema, p *spec.Plan) {
	t.Helper()
	var b bytes.Buffer
	if err := p.Encode(&b); err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(doc); err != nil {
		t.Errorf("the plan breaks the JSON Schema: %v", err)
	}
	q, err := spec.Decode(&b)
	if err != nil {
		t.Fatalf("the plan does not decode: %v", err)
	}
	if q.ComputeHash() != p.Hash {
		t.Error("a round trip changes the hash")
	}
}

// summary is a plan in short, one fact a line.
func summary(p *spec.Plan) string {
	var b strings.Builder
	out := func(format string, args ...any) {
		fmt.Fprintln(&b, strings.TrimRight(fmt.Sprintf(format, args...), " "))
	}
	e := p.Environment
	out("environment %s python=%q cuda=%q framework=%s%s compile=%v system=%v", e.Manager, e.Python.Version, e.CUDA.Version, e.Framework.Name, e.Framework.Version, e.NeedsCompile, e.SystemPackages)
	for _, d := range e.DependencySources {
		out("  source %s %s %s: %s", d.Path, d.Role, d.Pinned, d.Reason)
	}
	for _, r := range e.Requirements {
		out("  require %s%s", r.Spec, at(r.Evidence))
	}
	if e.ExcludeNewer != nil {
		out("  exclude newer than %s", e.ExcludeNewer.Format(time.RFC3339))
	}
	for _, r := range p.Runs {
		out("run %s %s %s selected=%v quoted=%v gpus=%d timeout=%d seeds=%v%s", r.Kind, r.Route, r.Status, r.Selected, r.Quoted, r.GPUs.Min, r.TimeoutS, r.Seeds, at(r.Evidence))
		for _, s := range r.Setup {
			out("  setup %q in %s network=%v", s.Argv, s.Cwd, s.Network)
		}
		if r.Script != nil {
			out("  script %s %q in %s", r.Script.Interpreter, r.Script.Text, r.Cwd)
		} else {
			out("  argv %q in %s", r.Argv, r.Cwd)
		}
		for _, k := range []string{"CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MODEL"} {
			if v, ok := r.Env[k]; ok {
				out("  env %s=%s", k, v)
			}
		}
		for _, pt := range r.Patches {
			out("  patch %s %s:%d %q -> %q: %s", pt.Kind, pt.File, pt.Line, pt.Before, pt.After, pt.Reason)
		}
		if len(r.Placeholders) > 0 {
			out("  placeholders %q", r.Placeholders)
		}
		for _, a := range r.Assets {
			out("  asset %s %s %s", a.Kind, a.Name, a.Access)
		}
		for _, s := range r.Reasons {
			out("  reason %s", s)
		}
		if len(r.ClaimIDs) > 0 {
			out("  checks %v", r.ClaimIDs)
		}
		for _, c := range r.Collect {
			out("  collect %s %s %s%s%s scale=%g unit=%q", c.Metric, c.Kind, c.Path, c.Pointer, c.Pattern, c.Scale, c.Unit)
		}
		if x := r.Expects; x != nil {
			out("  expects %s %g %s %s %s", x.Metric, x.Value, x.Unit, x.Dataset, x.Tolerance.Source)
		}
	}
	for _, c := range p.Claims {
		out("claim %s %s %s%s %s baseline=%q dataset=%q better=%s %s%s:%d %s tolerance=%g %s (%s)", c.ID, c.Metric, value(c), c.Unit, c.Relation, c.Baseline, c.Dataset,
			c.Direction, c.Where.Paper, c.Where.File, c.Where.Line, c.Checkable, c.Tolerance.Value, c.Tolerance.Kind, c.Tolerance.Source)
	}
	for _, d := range p.Decisions {
		out("decision %s = %s: %s", d.What, d.Chosen, d.Because)
		for _, o := range d.Over {
			out("  over %s", o)
		}
	}
	for _, w := range p.Warnings {
		out("warning %s: %s%s", w.Code, w.Message, at(w.Evidence))
	}
	return b.String()
}

func at(ev []spec.Evidence) string {
	if len(ev) == 0 {
		return ""
	}
	return fmt.Sprintf(" @%s:%d", ev[0].File, ev[0].Line)
}

func value(c spec.Claim) string {
	switch {
	case c.Value != nil:
		return fmt.Sprintf("%g", *c.Value)
	case c.ValueLo != nil && c.ValueHi != nil:
		return fmt.Sprintf("%g..%g", *c.ValueLo, *c.ValueHi)
	case c.ValueHi != nil:
		return fmt.Sprintf("<=%g", *c.ValueHi)
	case c.ValueLo != nil:
		return fmt.Sprintf(">=%g", *c.ValueLo)
	}
	return "?"
}
