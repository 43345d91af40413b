package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestFoldersThatCannotBeWritten names the folder and what to set, for each
// kind of folder and each way in which it fails.
func TestFoldersThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	repo := w.folder("repo", smallPaper(0))
	w.write("a-file", "x")
	names := map[string]string{"REPROMILL_STATE": "paths.state", "REPROMILL_RESULTS": "paths.results", "REPROMILL_CACHE": "paths.cache"}
	for name, setting := range names {
		o := w.run([]string{name + "=" + filepath.Join(w.home, "a-file", "below")}, "run", "--yes", repo)
		if o.code != 2 {
			t.Errorf("%s: exit %d\n%s%s", name, o.code, o.stdout, o.stderr)
		}
		has(t, o.stderr, setting, "fix: ")
	}
	for _, options := range []string{"ro", "size=8k"} {
		for name, setting := range names {
			at := filepath.Join(w.home, strings.ToLower(name)+options[:2])
			if err := os.MkdirAll(at, 0o755); err != nil {
				t.Fatal(err)
			}
			// A mount of its own, seen by this command alone.
			inner := w.command("run", "--yes", repo)
			cmd := exec.Command("sh", append([]string{"-c", `mount -t tmpfs -o "$0" none "$1" || exit 99; shift; exec "$@"`, options, at}, inner.Args...)...)
			cmd.Dir, cmd.Env = inner.Dir, append(inner.Env, name+"="+at)
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Unshareflags: syscall.CLONE_NEWNS}
			stdout, stderr := &bytes.Buffer{}, &bytes.Buffer{}
			cmd.Stdout, cmd.Stderr = stdout, stderr
			if err := cmd.Start(); err != nil {
				t.Skipf("a small file system cannot be mounted here: %v", err)
			}
			o := w.finish(cmd, stdout, stderr)
			if o.code == 99 {
				t.Skipf("a small file system cannot be mounted here: %s", o.stderr)
			}
			if o.code != 2 || !strings.Contains(o.stderr, setting) {
				t.Errorf("%s with %s: exit %d\n%s%s", name, options, o.code, o.stdout, o.stderr)
			}
			if _, id, ok := strings.Cut(o.stderr, "run --resume "); ok { // elsewhere it can still be committed
				id = strings.Fields(id)[0]
				has(t, w.must(t, 0, "run", "--resume", id).stdout, "aligned", "93.4")
				if s := w.state(id); len(s.Attempts) != 1 {
					t.Errorf("the code ran again: %+v", s)
				}
			} else if name == "REPROMILL_RESULTS" && options != "ro" {
				t.Errorf("no word on how to go on: %s", o.stderr)
			}
		}
	}
}
