package planner

import (
	"context"
	"encoding/xml"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/spec"
)

// TestExample plans the example of the demonstration: its code as it lies in
// examples/papers, and the abstract as the mirror gives it.
func TestExample(t *testing.T) {
	const id = "2604.08075"
	paths, err := filepath.Glob(filepath.Join("..", "examples", "mirror", "export.arxiv.org", "api", "query@id_list="+id+"&*=1"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("the mirror has no entry: %v", err)
	}
	src, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	var feed struct {
		Entry struct {
			Title   string `xml:"title"`
			Summary string `xml:"summary"`
		} `xml:"entry"`
	}
	if err := xml.Unmarshal(src, &feed); err != nil || feed.Entry.Summary == "" {
		t.Fatalf("no abstract in %s: %v", paths[0], err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("..", "examples", "papers", id))); err != nil {
		t.Fatal(err)
	}
	// what a run in the source folder may have left is not part of the code
	if err := os.RemoveAll(filepath.Join(dir, "results")); err != nil {
		t.Fatal(err)
	}
	facts, err := inspect.Dir(context.Background(), dir, inspect.Config{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := Plan(Input{
		Target: spec.Target{Input: "https://arxiv.org/abs/" + id, Kind: "arxiv", ID: id, Version: "v1"},
		Paper:  &spec.Paper{ID: id, Version: "v1", Title: feed.Entry.Title, Abstract: feed.Entry.Summary},
		Source: spec.Source{Repo: "https://example.org/simulation", StatedBy: "mirror", Simulated: true, Note: "an independent re-implementation"},
		Repo:   facts,
	})
	if err != nil {
		t.Fatal(err)
	}
	checkDocument(t, compileSchema(t), p)
	checked := 0
	for _, r := range p.Runs {
		if r.Kind == "minimal" && r.Selected {
			checked = len(r.ClaimIDs)
		}
	}
	if checked < 3 || p.Environment.Manager != "none" {
		t.Errorf("the minimal run checks %d claims with manager %s", checked, p.Environment.Manager)
	}
	got := summary(p)
	golden := filepath.Join("testdata", "example.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("plan differs (-want +got):\n%s", d)
	}
}
