package runner

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
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

func TestCopyTree(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	must(t, os.MkdirAll(filepath.Join(from, "d", "e"), 0o755))
	must(t, os.WriteFile(filepath.Join(from, "d", "run"), []byte("x"), 0o555))
	must(t, os.WriteFile(filepath.Join(from, "plain"), []byte("y"), 0o400))
	must(t, os.Symlink("/etc/passwd", filepath.Join(from, "out")))
	must(t, syscall.Mkfifo(filepath.Join(from, "pipe"), 0o644))
	must(t, copyTree(t.Context(), from, to))
	if l, err := os.Readlink(filepath.Join(to, "out")); err != nil || l != "/etc/passwd" {
		t.Errorf("link = %q, %v", l, err)
	}
	for name, want := range map[string]os.FileMode{"d/run": 0o755, "plain": 0o644, "d/e": os.ModeDir | 0o755} {
		info, err := os.Lstat(filepath.Join(to, name))
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
	if exists(filepath.Join(to, "pipe")) {
		t.Error("a named pipe was copied")
	}
	must(t, os.Chmod(filepath.Join(to, "d"), 0))
	must(t, removeTree(to))
	if exists(to) {
		t.Error("the copy is still there")
	}
}

func BenchmarkCopyTree(b *testing.B) {
	from := b.TempDir()
	for i := range 100 {
		dir := filepath.Join(from, "d", string(rune('a'+i%26)))
		must(b, os.MkdirAll(dir, 0o755))
		for j := range 10 {
			must(b, os.WriteFile(filepath.Join(dir, "f"+string(rune('0'+j))), []byte(strings.Repeat("x", 4096)), 0o644))
		}
	}
	for b.Loop() {
		to := filepath.Join(b.TempDir(), "copy")
		must(b, copyTree(b.Context(), from, to))
	}
}
