package planner

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/repromill/repromill/planner/spec"
)

func TestNoCode(t *testing.T) {
	p, err := Plan(Input{
		Target: spec.Target{Input: "2401.00001", Kind: "arxiv", ID: "2401.00001"},
		Paper:  &spec.Paper{ID: "2401.00001", Version: "v2", Abstract: "It reduces memory by 65.5% and reaches a perplexity of 12.3 on WikiText-103."},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Runs) != 0 || len(p.Claims) != 2 || !hasWarning(p, "no_code") {
		t.Errorf("runs %d, claims %d, warnings %v", len(p.Runs), len(p.Claims), p.Warnings)
	}
	for _, c := range p.Claims {
		if c.Checkable != "paper_only" || c.Where.Paper != "abstract" {
			t.Errorf("claim %+v", c)
		}
	}
	checkDocument(t, compileSchema(t), p)
}

func TestModel(t *testing.T) {
	m := &spec.Model{ID: "org/model", Revision: strings.Repeat("a", 40), Facts: []spec.Fact{{Name: "layers", Value: "64", Kind: spec.Measured}}}
	p, err := Plan(Input{Target: spec.Target{Input: "org/model", Kind: "hf_model", ID: "org/model"}, Model: m})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Suites) != 0 || len(p.Runs) != 0 || p.Model != m {
		t.Errorf("plan %+v", p)
	}
	checkDocument(t, compileSchema(t), p)
}

func TestPassages(t *testing.T) {
	p, err := Plan(Input{
		Target: spec.Target{Kind: "arxiv", ID: "2401.00001"},
		Paper:  &spec.Paper{ID: "2401.00001", Version: "v1", Abstract: "not read when passages are given: accuracy of 1.5%"},
		Passages: []Passage{
			{Where: "abstract", Text: "We reach an accuracy of 93.2% on CIFAR-10."},
			{Where: "table 2", Text: "| model | WER |\n|---|---|\n| base | 4.26 |\n"},
			{Where: "section 5", Text: "An accuracy of 93.2% on CIFAR-10 is stated again."},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Claims) != 2 || p.Claims[1].Where.Paper != "table 2" || *p.Claims[1].Value != 4.26 {
		t.Errorf("claims %+v", p.Claims)
	}
}

func hasWarning(p *spec.Plan, code string) bool {
	for _, w := range p.Warnings {
		if w.Code == code {
			return true
		}
	}
	return false
}

// TestEncodings plans the same README in the encodings that are met.
func TestEncodings(t *testing.T) {
	text := "# Résumé\n\n```\npython run.py --out metrics.json\n```\n\nThe accuracy of 93.2% is reached.\n"
	var le, be []byte
	le, be = append(le, 0xFF, 0xFE), append(be, 0xFE, 0xFF)
	for _, u := range utf16.Encode([]rune(text)) {
		le = append(le, byte(u), byte(u>>8))
		be = append(be, byte(u>>8), byte(u))
	}
	var latin []byte
	for _, r := range text {
		latin = append(latin, byte(r))
	}
	script := "import json\njson.dump({'accuracy': 100 * 3 / 4}, open('metrics.json', 'w'))\n"
	var want string
	for name, readme := range map[string][]byte{
		"utf-8": []byte(text), "utf-8 with mark": append([]byte("\xEF\xBB\xBF"), text...), "utf-16 le": le, "utf-16 be": be,
		"utf-16 without mark": le[2:], "latin-1": latin, "crlf": []byte(strings.ReplaceAll(text, "\n", "\r\n")),
	} {
		p := planDir(t, layOut(t, map[string][]byte{"README.md": readme, "run.py": []byte(script)}), "")
		got := summary(p)
		if want == "" {
			want = got
		}
		if got != want || len(p.Claims) != 1 || len(p.Runs[0].Collect) == 0 {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
	}
}

// TestLinksAndPipes plans a checkout with links out of it and a named pipe:
// neither is opened.
func TestLinksAndPipes(t *testing.T) {
	dir := layOut(t, map[string][]byte{"README.md": []byte("```\npython run.py\n```\n"), "run.py": []byte("print(1)\n")})
	outside := filepath.Join(t.TempDir(), "secret.md")
	if err := os.WriteFile(outside, []byte("The accuracy of 12.3% is a secret.\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, l := range []string{"LEAK.md", "requirements.txt"} {
		if err := os.Symlink(outside, filepath.Join(dir, l)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/", filepath.Join(dir, "root")); err != nil {
		t.Fatal(err)
	}
	mkfifo(t, filepath.Join(dir, "PIPE.md"))
	p := planDir(t, dir, "")
	if len(p.Claims) != 0 || strings.Contains(summary(p), "secret") {
		t.Errorf("a link was followed:\n%s", summary(p))
	}
}

// forbidden are words of the repositories that the rules are measured on: no
// rule may know them. They are written in two parts, so that this file does not
// hold them.
var forbidden = []string{
	"nano" + "gpt", "nano" + "chat", "karp" + "athy", "sim" + "cse", "princeton" + "-nlp", "facebook" + "research", "micro" + "soft", "segment" + "-anything",
	"segment" + "_anything", "petar" + "v-", "clean" + "rl", "vwx" + "yzjn", "vision" + "_transformer", "vit" + "_jax", "openai/" + "whisper", "ga" + "lore", "ql" + "ora",
	"artid" + "oro", "diffusion" + "_policy", "real-" + "stanford", "state" + "-spaces", "sales" + "force", "kv" + "frans", "latent" + "-consistency", "luosi" + "allen",
	"guan" + "aco", "execute" + "_cora", "run" + "_glue", "main" + "_finetune",
}

func TestNoSpecialCases(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return err
		}
		files++
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		low := strings.ToLower(string(src))
		for _, w := range forbidden {
			if strings.Contains(low, w) {
				t.Errorf("%s holds %q: write a general rule", p, w)
			}
		}
		return nil
	})
	if err != nil || files < 20 {
		t.Fatalf("%d files, %v", files, err)
	}
}

// TestNothingRuns holds that no package below this one can start a program.
func TestNothingRuns(t *testing.T) {
	for _, dir := range []string{".", "spec", "inspect", "inspect/python", "inspect/markdown", "inspect/shell", "recipe", "claim"} {
		paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(paths) == 0 {
			t.Fatal(dir, err)
		}
		for _, p := range paths {
			if strings.HasSuffix(p, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, im := range f.Imports {
				switch im.Path.Value {
				case `"os/exec"`, `"net"`, `"net/http"`, `"plugin"`, `"unsafe"`:
					t.Errorf("%s imports %s", p, im.Path.Value)
				}
			}
		}
	}
}
