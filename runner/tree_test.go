package runner

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/spec"
)

func TestApplyPatch(t *testing.T) {
	const body = "one\r\ntwo\nthree\ntwo\nlast"
	for name, c := range map[string]struct {
		patch spec.Patch
		want  string // the whole file, or part of the mismatch after "!"
	}{
		"by line":         {spec.Patch{File: "a/f.py", Line: 2, Before: "two", After: "2"}, "one\r\n2\nthree\ntwo\nlast"},
		"keeps CRLF":      {spec.Patch{File: "a/f.py", Line: 1, Before: "one", After: "1"}, "1\r\ntwo\nthree\ntwo\nlast"},
		"last line":       {spec.Patch{File: "a/f.py", Line: 5, Before: "last", After: "x"}, "one\r\ntwo\nthree\ntwo\nx"},
		"by text":         {spec.Patch{File: "a/f.py", Before: "three", After: "3"}, "one\r\ntwo\n3\ntwo\nlast"},
		"other text":      {spec.Patch{File: "a/f.py", Line: 2, Before: "Two", After: "2"}, `!a/f.py:2 does not fit: expected "Two", found "two"`},
		"part of a line":  {spec.Patch{File: "a/f.py", Line: 3, Before: "thre", After: "3"}, "!does not fit"},
		"beyond the end":  {spec.Patch{File: "a/f.py", Line: 9, Before: "x", After: "y"}, "!the file has 5 lines"},
		"twice":           {spec.Patch{File: "a/f.py", Before: "two", After: "2"}, "!on the lines 2 and 4"},
		"nowhere":         {spec.Patch{File: "a/f.py", Before: "four", After: "4"}, "!no line is"},
		"no file":         {spec.Patch{File: "b.py", Line: 1, Before: "x", After: "y"}, "!there is no such file"},
		"link out":        {spec.Patch{File: "link", Line: 1, Before: "secret", After: "y"}, "!there is no such file"},
		"folder link out": {spec.Patch{File: "dir/secret", Line: 1, Before: "secret", After: "y"}, "!there is no such file"},
		"flag":            {spec.Patch{Kind: "flag", File: "a/f.py", Line: 1, Before: "x", After: "y"}, body},
	} {
		t.Run(name, func(t *testing.T) {
			dir, out := t.TempDir(), t.TempDir()
			must(t, os.Mkdir(filepath.Join(dir, "a"), 0o755))
			must(t, os.WriteFile(filepath.Join(dir, "a", "f.py"), []byte(body), 0o755))
			must(t, os.WriteFile(filepath.Join(out, "secret"), []byte("secret"), 0o644))
			must(t, os.Symlink(filepath.Join(out, "secret"), filepath.Join(dir, "link")))
			must(t, os.Symlink(out, filepath.Join(dir, "dir")))
			err := applyPatch(dir, c.patch)
			if fit := fits(dir, c.patch); (fit == nil) != (err == nil) && err != nil {
				t.Errorf("fits says %v, applyPatch %v", fit, err)
			}
			got, _ := os.ReadFile(filepath.Join(dir, "a", "f.py"))
			if want, bad := strings.CutPrefix(c.want, "!"); bad {
				if m, ok := err.(mismatch); !ok || !strings.Contains(string(m), want) || string(got) != body {
					t.Errorf("%v, want a mismatch with %q; file %q", err, want, got)
				}
			} else if err != nil || string(got) != want {
				t.Errorf("%v, file %q, want %q", err, got, want)
			}
			if s, _ := os.ReadFile(filepath.Join(out, "secret")); string(s) != "secret" {
				t.Error("a file outside was changed")
			}
			if info, _ := os.Stat(filepath.Join(dir, "a", "f.py")); info.Mode().Perm()&0o111 == 0 {
				t.Error("the file is no longer executable")
			}
		})
	}
}
