package executortest

import (
	"os"
	"path/filepath"
	"testing"
)

// Place makes a folder for one test of an executor, with a blank in its path,
// that every user may enter.
func Place(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "executor test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// FoldersIn is a [Harness.Folder] that makes each folder below dir, under a
// parent of its own.
func FoldersIn(dir string) func(t *testing.T, name string) string {
	return func(t *testing.T, name string) string {
		t.Helper()
		parent, err := os.MkdirTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(parent, 0o755); err != nil {
			t.Fatal(err)
		}
		p := filepath.Join(parent, name)
		if err := os.Mkdir(p, 0o755); err != nil {
			t.Fatal(err)
		}
		return p
	}
}
