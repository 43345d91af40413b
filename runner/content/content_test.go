package content

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, body := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func of(t testing.TB, name string) Sum {
	t.Helper()
	s, err := Of(t.Context(), name, Config{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "hello\n"})
	want := sha256.Sum256([]byte("hello\n"))
	if got := of(t, filepath.Join(dir, "a")); got != (Sum{SHA256: hex.EncodeToString(want[:]), Files: 1, Bytes: 6}) {
		t.Errorf("got %+v", got)
	}
}

// TestCoreutils holds the name of a folder to the command of the package
// comment, on names that sort differently as paths and as names.
func TestCoreutils(t *testing.T) {
	for _, tool := range []string{"find", "sort", "xargs", "sha256sum"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("this machine has no", tool)
		}
	}
	dir := t.TempDir()
	files := map[string]string{"a/b": "1", "a.txt": "2", "a": "", "ä/ö x": "3", "-n": "4", "new\nline": "5", `back\slash`: "6", "z/empty": ""}
	delete(files, "a")
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 300 {
		files[fmt.Sprintf("d%d/e%d/f%d", r.IntN(9), r.IntN(9), i)] = strings.Repeat("x", r.IntN(5000))
	}
	write(t, dir, files)
	cmd := exec.Command("sh", "-c", `find . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum -- | sha256sum`)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	got := of(t, dir)
	if want := strings.Fields(string(out))[0]; got.SHA256 != want {
		t.Errorf("got %s, sha256sum says %s", got.SHA256, want)
	}
	if got.Files != int64(len(files)) || !got.Folder {
		t.Errorf("got %+v of %d files", got, len(files))
	}
}

// TestChanges: whatever a run could see differently changes the name, and what
// it could not does not.
func TestChanges(t *testing.T) {
	for name, c := range map[string]struct {
		edit    func(dir string) error
		changes bool
	}{
		"content":      {func(d string) error { return os.WriteFile(d+"/a/x", []byte("2"), 0o644) }, true},
		"name":         {func(d string) error { return os.Rename(d+"/a/x", d+"/a/y") }, true},
		"new file":     {func(d string) error { return os.WriteFile(d+"/new", nil, 0o644) }, true},
		"removed":      {func(d string) error { return os.Remove(d + "/a/x") }, true},
		"link moved":   {func(d string) error { os.Remove(d + "/l"); return os.Symlink("a/x", d+"/l") }, true},
		"mode":         {func(d string) error { return os.Chmod(d+"/b", 0o600) }, false},
		"empty folder": {func(d string) error { return os.Mkdir(d+"/e", 0o755) }, false},
	} {
		dir := t.TempDir()
		write(t, dir, map[string]string{"a/x": "1", "b": "1"})
		if err := os.Symlink("b", dir+"/l"); err != nil {
			t.Fatal(err)
		}
		before := of(t, dir)
		if err := c.edit(dir); err != nil {
			t.Fatal(err)
		}
		if changed := of(t, dir).SHA256 != before.SHA256; changed != c.changes {
			t.Errorf("%s: changes the name = %v", name, changed)
		}
	}
}

func TestRefuses(t *testing.T) {
	outside := t.TempDir()
	write(t, outside, map[string]string{"secret": "s"})
	for name, c := range map[string]struct {
		make func(dir string) error
		want string
	}{
		"nothing":      {func(string) error { return nil }, "holds no file"},
		"absolute":     {func(d string) error { return os.Symlink(outside+"/secret", d+"/l") }, "out of the folder"},
		"climbing":     {func(d string) error { return os.Symlink("../../../../../../../etc/passwd", d+"/l") }, "out of the folder"},
		"through":      {func(d string) error { os.Symlink("..", d+"/up"); return os.Symlink("up/..", d+"/l") }, "out of the folder"},
		"dangling":     {func(d string) error { return os.Symlink("none", d+"/l") }, "leads nowhere"},
		"loop":         {func(d string) error { return os.Symlink("l", d+"/l") }, "leads nowhere"},
		"pipe":         {func(d string) error { return syscall.Mkfifo(d+"/p", 0o644) }, "a pipe"},
		"linked pipe":  {func(d string) error { syscall.Mkfifo(d+"/p", 0o644); return os.Symlink("p", d+"/l") }, "a pipe"},
		"not readable": {func(d string) error { return os.WriteFile(d+"/x", []byte("1"), 0o000) }, "permission denied"},
	} {
		if name == "not readable" && os.Geteuid() == 0 {
			continue // root reads everything
		}
		dir := t.TempDir()
		if err := c.make(dir); err != nil {
			t.Fatal(err)
		}
		_, err := Of(t.Context(), dir, Config{})
		var user *Error
		if !errors.As(err, &user) || !strings.Contains(err.Error(), c.want) || user.UserError() == "" {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
	if _, err := Of(t.Context(), filepath.Join(outside, "none"), Config{}); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a path that is not there: %v", err)
	}
	if _, err := Of(t.Context(), "/dev/null", Config{}); err == nil {
		t.Error("a device is named")
	}
}

func TestInterrupted(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{}
	for i := range 500 {
		files[fmt.Sprintf("f%d", i)] = "x"
	}
	write(t, dir, files)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Of(ctx, dir, Config{Workers: 3, Progress: func(_, bytes int64) {
		if bytes > 100 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestProgress: it is told of every byte, and the last word is the whole.
func TestProgress(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": strings.Repeat("x", 1<<20), "b/c": "yy"})
	var last int64
	s, err := Of(t.Context(), dir, Config{Workers: 1, Progress: func(_, bytes int64) {
		if bytes < last {
			t.Errorf("progress goes back from %d to %d", last, bytes)
		}
		last = bytes
	}})
	if err != nil || last != s.Bytes || s.Bytes != 1<<20+2 {
		t.Errorf("%+v, last told %d, %v", s, last, err)
	}
}

func BenchmarkFolder(b *testing.B) {
	dir := b.TempDir()
	files := map[string]string{}
	for i := range 2000 {
		files[fmt.Sprintf("d%d/f%d", i%20, i)] = strings.Repeat("x", 50_000)
	}
	write(b, dir, files)
	b.SetBytes(2000 * 50_000)
	b.ReportAllocs()
	for b.Loop() {
		of(b, dir)
	}
}
