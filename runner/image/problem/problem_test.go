package problem_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/repromill/repromill/runner/image/problem"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestTexts reads what uv and pip said of packages that did not install. The
// texts are theirs, with listings of copied files left out.
func TestTexts(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.txt")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d texts, %v", len(files), err)
	}
	var sb strings.Builder
	for _, f := range files {
		body, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&sb, "%s\n", strings.TrimPrefix(strings.TrimSuffix(f, ".txt"), "testdata/"))
		for _, p := range problem.Parse(string(body)) {
			fmt.Fprintf(&sb, "  %s", p.Kind)
			for _, x := range [][2]string{{"", p.Package}, {"==", p.Version}, {" by ", p.By}, {" needs ", strings.Join(p.Needs, " or ")}, {" missing ", p.Name}} {
				if x[1] != "" {
					fmt.Fprintf(&sb, "%s%s", strings.Replace(x[0], "", " ", btoi(x[0] == "")), x[1])
				}
			}
			if d, ok := p.System(); ok {
				fmt.Fprintf(&sb, " -> run %q build %q", d.Run, d.Build)
			}
			sb.WriteString("\n")
		}
	}
	const golden = "testdata/problems.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(sb.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), sb.String()); diff != "" {
		t.Errorf("-want +got (run with -update to accept):\n%s", diff)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestNotMistaken has texts that look like problems and are none.
func TestNotMistaken(t *testing.T) {
	for _, s := range []string{"", "Resolved 3 packages in 1s\nInstalled 3 packages", "copying foo/error.py -> build", "warning: No module named here", "::repromill:: install"} {
		if got := problem.Parse(s); len(got) != 0 {
			t.Errorf("%q: %+v", s, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*/*.txt")
	for _, name := range files {
		if b, err := os.ReadFile(name); err == nil && len(b) < 3000 {
			f.Add(string(b))
		}
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, p := range problem.Parse(s) {
			if p.Kind == "" || len(p.Text) > 400 || strings.Contains(p.Package, "_") {
				t.Errorf("%+v", p)
			}
			p.System()
		}
	})
}
