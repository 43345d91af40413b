package main

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/repromill/repromill"

type pkg struct {
	ImportPath string
	Dir        string
	Imports    []string
	GoFiles    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,GoFiles", module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// inside reports whether an import path lies in the module's folder dir.
func inside(path, dir string) bool {
	rest, ok := strings.CutPrefix(path, module+"/"+dir)
	return ok && (rest == "" || rest[0] == '/')
}

// TestImportDirection holds the layout: cmd → runner → suites → results, and
// cmd → planner → estimators → planner/spec, with a few leaves open to all.
func TestImportDirection(t *testing.T) {
	// What each folder may import of the module beside itself.
	allowed := map[string][]string{
		"cmd":        {"runner", "suites", "results", "planner", "estimators"},
		"runner":     {"suites", "results", "planner/spec", "planner/fetch", "planner/model"},
		"suites":     {"results", "planner/spec", "planner/fetch", "planner/model"},
		"results":    {"planner/spec"},
		"planner":    {"estimators", "results/schema"},
		"estimators": {"planner/spec", "planner/model", "results/schema"},
		"examples":   {"suites"},
	}
	leaves := []string{"planner/spec", "planner/model", "results/schema"}
	for _, p := range packages(t) {
		rel := strings.TrimPrefix(p.ImportPath, module+"/")
		top, _, _ := strings.Cut(rel, "/")
		for _, imp := range p.Imports {
			if !strings.HasPrefix(imp, module+"/") {
				continue
			}
			if slices.ContainsFunc(leaves, func(l string) bool { return rel == l }) {
				t.Errorf("%s is a leaf but imports %s", rel, imp)
				continue
			}
			// planner/fetch is a leaf too, but its own subpackages build on it.
			if inside(p.ImportPath, "planner/fetch") && !inside(imp, "planner/fetch") {
				t.Errorf("%s is a leaf but imports %s", rel, imp)
				continue
			}
			if inside(imp, top) || slices.ContainsFunc(allowed[top], func(d string) bool { return inside(imp, d) }) {
				continue
			}
			t.Errorf("%s must not import %s", rel, imp)
		}
	}
}

// TestThirdPartyStaysBehindItsAdapter keeps modules that are frozen upstream,
// or heavy, where they can be changed later.
func TestThirdPartyStaysBehindItsAdapter(t *testing.T) {
	only := map[string][]string{
		"github.com/abadojack/":        {"suites/ifeval"},
		"github.com/dlclark/regexp2":   {"runner/engine/token"},
		"github.com/nikolalohinski/":   {"runner/engine/chat"},
		"github.com/sugarme/":          {"runner/engine/token"},
		"github.com/apache/arrow/go/":  {"results/schema", "results/dataset"},
		"github.com/go-git/go-git/":    {"planner/fetch/git"},
		"github.com/gocolly/colly/":    {"planner/intake"},
		"github.com/docker/docker/":    {"runner/docker/engine"},
		"modernc.org/sqlite":           {"runner/store"},
		"github.com/landlock-lsm/":     {"runner/sandbox", "planner/fetch/git"},
		"k8s.io/":                      {"runner/kueue"},
		"sigs.k8s.io/":                 {"runner/kueue"},
		"github.com/spf13/cobra":       {"cmd"},
		"github.com/neurosnap/":        {"suites/instruct/punkt"},
		"github.com/schollz/progressb": {"cmd"},
		"gonum.org/v1/plot":            {"results/plot"},
		"github.com/chromedp/":         {}, // tests only
		"gocloud.dev/":                 {"results/bucket"},
		"github.com/aws/":              {"results/bucket"},
		"cloud.google.com/":            {"results/bucket"},
		"github.com/Azure/azure-sdk":   {"results/bucket"},
		"github.com/tiktoken-go/":      {"suites/aalcr"},
	}
	for _, p := range packages(t) {
		for _, imp := range p.Imports {
			for prefix, homes := range only {
				if strings.HasPrefix(imp, prefix) && !slices.ContainsFunc(homes, func(h string) bool { return inside(p.ImportPath, h) }) {
					t.Errorf("%s imports %s, which belongs behind %s", p.ImportPath, imp, strings.Join(homes, ", "))
				}
			}
		}
	}
}

func TestSpecUsesTheStandardLibraryOnly(t *testing.T) {
	for _, p := range packages(t) {
		if !inside(p.ImportPath, "planner/spec") {
			continue
		}
		for _, imp := range p.Imports {
			if strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") {
				t.Errorf("%s imports %s", p.ImportPath, imp)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	for _, p := range packages(t) {
		said := false
		for _, f := range p.GoFiles {
			src, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			said = said || src.Doc != nil
		}
		if !said && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

func TestRootHoldsTheAgreedFoldersOnly(t *testing.T) {
	agreed := []string{"runner", "planner", "estimators", "suites", "results", "cmd", "examples", "go.mod", "go.sum",
		"Makefile", "README.md", "ARCHITECTURE.md", "LICENSE", ".ci", ".gitignore", ".gitattributes"}
	out, err := exec.Command("git", "-C", "../..", "ls-files").Output()
	if err != nil {
		t.Skipf("not a git checkout: %v", err)
	}
	for f := range strings.Lines(string(out)) {
		top, _, _ := strings.Cut(strings.TrimSpace(f), "/")
		if !slices.Contains(agreed, top) {
			t.Errorf("%s is not among the agreed folders", top)
		}
	}
}

func TestMainIsShort(t *testing.T) {
	b, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), "\n"); n > 20 {
		t.Errorf("main.go has %d lines", n)
	}
}

func TestGoModHasNoReplace(t *testing.T) {
	b, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "\nreplace ") {
		t.Error("go.mod has a replace line")
	}
}

// TestFilesAreNotHuge keeps files readable; an entry here needs a reason.
func TestFilesAreNotHuge(t *testing.T) {
	reasons := map[string]string{
		"planner/target/target_test.go": "one table of more than 350 strings",
	}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(filepath.ToSlash(path), "../../")
		if n := strings.Count(string(b), "\n"); n > 500 && reasons[rel] == "" {
			t.Errorf("%s has %d lines", rel, n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
