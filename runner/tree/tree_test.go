package tree_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/repromill/repromill/runner/tree"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestCopy(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	must(t, os.MkdirAll(filepath.Join(from, "d", "e"), 0o755))
	must(t, os.WriteFile(filepath.Join(from, "d", "run"), []byte("x"), 0o555))
	must(t, os.WriteFile(filepath.Join(from, "plain"), []byte("y"), 0o400))
	must(t, os.Symlink("/etc/passwd", filepath.Join(from, "out")))
	must(t, syscall.Mkfifo(filepath.Join(from, "pipe"), 0o644))
	must(t, tree.Copy(t.Context(), from, to, nil))
	if l, err := os.Readlink(filepath.Join(to, "out")); err != nil || l != "/etc/passwd" {
		t.Errorf("link = %q, %v", l, err)
	}
	for name, want := range map[string]os.FileMode{"d/run": 0o755, "plain": 0o644, "d/e": os.ModeDir | 0o755} {
		info, err := os.Lstat(filepath.Join(to, name))
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
	if there(filepath.Join(to, "pipe")) {
		t.Error("a named pipe was copied")
	}
	must(t, os.Chmod(filepath.Join(to, "d"), 0))
	must(t, tree.Remove(to))
	if there(to) {
		t.Error("the copy is still there")
	}
}

func BenchmarkCopy(b *testing.B) {
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
		must(b, tree.Copy(b.Context(), from, to, nil))
	}
}
