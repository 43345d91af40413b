package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// With childEnv set the test binary writes a file and kills itself at the hook
// call that strikeEnv names.
const (
	childEnv  = "ATOMICFILE_TEST_PATH"
	strikeEnv = "ATOMICFILE_TEST_STRIKE"
)

func TestMain(m *testing.M) {
	path := os.Getenv(childEnv)
	if path == "" {
		os.Exit(m.Run())
	}
	calls := 0
	strike, _ := strconv.Atoi(os.Getenv(strikeEnv))
	err := Write(path, []byte("new content"), Options{Temp: path + ".tmp", Point: "test:file", Hook: func(point string) {
		fmt.Println(point)
		if calls++; calls == strike {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, want := range []string{"one", "", strings.Repeat("x", 1<<20)} {
		if err := Write(path, []byte(want), Options{Perm: 0o600}); err != nil {
			t.Fatal(err)
		}
		if got := content(t, path); got != want {
			t.Errorf("content has %d bytes, want %d", len(got), len(want))
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"f"}) {
		t.Errorf("left %v", got)
	}
}

func TestKilledAtEveryStep(t *testing.T) {
	run := func(path string, strike int) (string, error) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+path, strikeEnv+"="+strconv.Itoa(strike))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	trace, err := run(filepath.Join(t.TempDir(), "f"), 0)
	if err != nil {
		t.Fatalf("%v\n%s", err, trace)
	}
	points := strings.Fields(trace)
	want := []string{"write", "fsync", "rename", "dirsync"}
	if len(points) != 2*len(want) {
		t.Fatalf("hook points %v", points)
	}
	for i, point := range points {
		if w := "test:file-" + want[i/2] + []string{":before", ":after"}[i%2]; point != w {
			t.Errorf("point %d is %s, want %s", i, point, w)
		}
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte("old content"), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := run(path, i+1); err == nil {
			t.Fatalf("%s: the child was not killed\n%s", point, out)
		}
		wantContent := "old content"
		if i >= slices.Index(points, "test:file-rename:after") {
			wantContent = "new content"
		}
		if got := content(t, path); got != wantContent {
			t.Errorf("%s: content %q, want %q", point, got, wantContent)
		}
		if out, err := run(path, 0); err != nil {
			t.Errorf("%s: writing again: %v\n%s", point, err, out)
		}
		if got := names(t, filepath.Dir(path)); !slices.Equal(got, []string{"f"}) {
			t.Errorf("%s: left %v", point, got)
		}
	}
}

func TestFailuresLeaveTheOldContent(t *testing.T) {
	dir := t.TempDir()
	if err := Write(filepath.Join(dir, "missing", "f"), nil, Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	target := filepath.Join(dir, "isdir")
	if err := os.MkdirAll(filepath.Join(target, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Write(target, []byte("x"), Options{}); err == nil || IsVisible(err) {
		t.Errorf("over a folder: %v", err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"isdir"}) {
		t.Errorf("left %v", got)
	}
}

func TestConcurrentWritersLeaveOneWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := Write(path, []byte(strings.Repeat(strconv.Itoa(i), 10_000)), Options{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got := content(t, path)
	if got != strings.Repeat(got[:1], 10_000) {
		t.Error("writers were mixed")
	}
	if left := names(t, filepath.Dir(path)); len(left) != 1 {
		t.Errorf("left %v", left)
	}
}

func TestMkdirAll(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		if err := MkdirAll(filepath.Join(dir, "a", "b", "c"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{file, filepath.Join(file, "x")} {
		if err := MkdirAll(p, 0o755); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("MkdirAll(%s) = %v, want ENOTDIR", p, err)
		}
	}
}
