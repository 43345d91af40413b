package runner

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/content"
	"github.com/repromill/repromill/runner/verdict"
)

// boundPlan is a plan whose command prints what is bound.
func boundPlan(t *testing.T, dir string, edit func(*spec.Plan, *spec.Binding)) *spec.Plan {
	t.Helper()
	sum, err := content.Of(t.Context(), dir, content.Config{})
	must(t, err)
	p := simple("cat", "{bind:acc}/value")
	b := spec.Binding{Kind: "data", Name: "acc", For: "/path/to/acc", Path: dir, SHA256: sum.SHA256, Files: sum.Files, Bytes: sum.Bytes, Runs: []string{"main"}}
	if edit != nil {
		edit(p, &b)
	}
	p.Bindings = []spec.Binding{b}
	p.Seal()
	return p
}

func values(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "value"), []byte(text), 0o644))
	return dir
}

func TestBound(t *testing.T) {
	for name, edit := range map[string]func(*spec.Plan, *spec.Binding){
		"in the command": nil,
		"in a place": func(p *spec.Plan, b *spec.Binding) {
			b.Place = "data/deep/acc"
			p.Runs[0].Argv = []string{"cat", "data/deep/acc/value"}
		},
		"in a script": func(p *spec.Plan, _ *spec.Binding) {
			p.Runs[0].Argv, p.Runs[0].Script = nil, &spec.Script{Interpreter: "sh", Text: "cat {bind:acc}/value\n"}
		},
		"in the environment": func(p *spec.Plan, _ *spec.Binding) {
			p.Runs[0].Argv, p.Runs[0].Env = []string{"sh", "-c", `cat "$WHERE/value"`}, map[string]string{"WHERE": "{bind:acc}"}
		},
	} {
		dir := values(t, "acc=0.9\n")
		b := newBench(t, map[string]string{"README.md": "x"}, nil)
		id := b.create(Request{Plan: boundPlan(t, dir, edit), Yes: true})
		out, err := b.Drive(t.Context(), id)
		must(t, err)
		if out.Verdict != verdict.Aligned {
			t.Errorf("%s: %s, %+v", name, out.Verdict, out.Units)
		}
		i := slices.IndexFunc(out.Deviations, func(d spec.Deviation) bool { return d.What == "data acc" })
		if i < 0 || !strings.Contains(out.Deviations[i].Used, dir) || out.Deviations[i].Declared != "/path/to/acc" {
			t.Errorf("%s: deviations %+v", name, out.Deviations)
		}
		a := b.exec.jobs[b.exec.keys[len(b.exec.keys)-1]].a
		if len(a.Inputs) != 1 || a.Inputs[0].Path != dir || !slices.Contains(a.ReadOnly, dir) || slices.Contains(a.Writable, dir) {
			t.Errorf("%s: the attempt sees %+v, read only %v", name, a.Inputs, a.ReadOnly)
		}
		if !strings.Contains(b.kinds(id), "prepare:deviation") {
			t.Errorf("%s: no event tells it: %s", name, b.kinds(id))
		}
		b.consistent(id)
	}
}

// TestBoundRefused: what is not what the plan was made with is never executed.
func TestBoundRefused(t *testing.T) {
	for name, c := range map[string]struct {
		edit   func(*spec.Plan, *spec.Binding)
		change func(dir string)
		want   string
	}{
		"changed":  {nil, func(d string) { must(t, os.WriteFile(d+"/value", []byte("acc=0.8\n"), 0o644)) }, "has changed since the plan was made"},
		"added":    {nil, func(d string) { must(t, os.WriteFile(d+"/more", nil, 0o644)) }, "2 files"},
		"gone":     {nil, func(d string) { must(t, os.RemoveAll(d)) }, "no such file"},
		"a link":   {nil, func(d string) { must(t, os.Symlink("/etc/passwd", d+"/l")) }, "out of the folder"},
		"occupied": {func(_ *spec.Plan, b *spec.Binding) { b.Place = "README.md" }, func(string) {}, "the checkout has something there"},
		"through a link": {func(_ *spec.Plan, b *spec.Binding) { b.Place = "out/x" },
			func(string) {}, "cannot be shown at out/x"},
		"no way to fetch": {func(_ *spec.Plan, b *spec.Binding) { b.Path, b.SHA256, b.URL = "", "", "https://example.org/x" }, func(string) {}, "--data acc=PATH"},
	} {
		dir := values(t, "acc=0.9\n")
		b := newBench(t, map[string]string{"README.md": "x"}, nil)
		must(t, os.Symlink("/tmp", filepath.Join(b.src, "out")))
		p := boundPlan(t, dir, c.edit)
		c.change(dir)
		out, err := b.Drive(t.Context(), b.create(Request{Plan: p, Yes: true}))
		must(t, err)
		text := out.Reason
		for _, r := range out.Refused {
			text += " " + r.Reason
		}
		for _, u := range out.Units {
			text += " " + u.Reason
		}
		if out.Verdict == verdict.Aligned || !strings.Contains(text, c.want) || len(b.exec.keys) > 0 {
			t.Errorf("%s: %s %q, %d attempts", name, out.Verdict, text, len(b.exec.keys))
		}
	}
}

// site answers for one URL out of a folder.
type site struct {
	dir string
	err error
}

func (s site) Fetch(context.Context, string) (string, string, int64, error) {
	if s.err != nil {
		return "", "", 0, s.err
	}
	b, err := os.ReadFile(s.dir)
	sum := sha256.Sum256(b)
	return s.dir, hex.EncodeToString(sum[:]), int64(len(b)), err
}

func TestBoundURL(t *testing.T) {
	dir := values(t, "acc=0.9\n")
	byURL := func(p *spec.Plan, b *spec.Binding) {
		b.Path, b.URL, b.SHA256 = "", "https://example.org/w", ""
		p.Runs[0].Argv = []string{"cat", "{bind:acc}"}
	}
	for name, c := range map[string]struct {
		sha  string
		err  error
		want verdict.Verdict
		why  string
	}{
		"fetched":    {"", nil, verdict.Aligned, ""},
		"other sum":  {strings.Repeat("a", 64), nil, verdict.NotAttempted, "gives something else"},
		"not there":  {"", &fetch.StatusError{URL: "https://example.org/w", Status: http.StatusNotFound}, verdict.NotAttempted, "404"},
		"not a site": {"", &fetch.BlockedError{URL: "https://example.org/w", Reason: "not a known site"}, verdict.NotAttempted, "download it and give the file"},
	} {
		b := newBench(t, nil, func(cfg *Config) { cfg.Assets = site{filepath.Join(dir, "value"), c.err} })
		p := boundPlan(t, dir, byURL)
		p.Bindings[0].SHA256 = c.sha
		p.Seal()
		out, err := b.Drive(t.Context(), b.create(Request{Plan: p, Yes: true}))
		must(t, err)
		if out.Verdict != c.want || c.why != "" && (len(out.Refused) != 1 || !strings.Contains(out.Refused[0].Reason, c.why)) {
			t.Errorf("%s: %s %+v", name, out.Verdict, out.Refused)
		}
	}
}

// TestSeedsReachTheCode: each seed is one execution, with its own number.
func TestSeedsReachTheCode(t *testing.T) {
	b := newBench(t, nil, nil)
	p := simple("sh", "-c", `echo "acc=0.9$1$PYTHONHASHSEED"`, "sh", "{seed}")
	p.Runs[0].Seeds = []int64{3, 4, 5}
	p.Seal()
	out, err := b.Drive(t.Context(), b.create(Request{Plan: p, Yes: true}))
	must(t, err)
	var got []float64
	var seeds []int64
	for _, m := range out.Metrics {
		got, seeds = append(got, m.Value.Value), append(seeds, m.Seed)
	}
	if !slices.Equal(got, []float64{0.933, 0.944, 0.955}) || !slices.Equal(seeds, []int64{3, 4, 5}) {
		t.Errorf("values %v of the seeds %v", got, seeds)
	}
	if r := out.Claims[0]; r.Seeds != 3 || r.MeasuredLo == nil || *r.MeasuredLo >= *r.Measured {
		t.Errorf("the verdict does not rest on the seeds: %+v", r)
	}
}
