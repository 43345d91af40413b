package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// folder makes a folder of code in the home and returns its path.
func (w *world) folder(name string, files map[string]string) string {
	for file, text := range files {
		w.write(name+"/"+file, text)
	}
	return filepath.Join(w.home, name)
}

// script is a repository whose README runs a script and states what it gives.
func script(text string) map[string]string {
	return map[string]string{
		"README.md": "# Script\n\n```bash\npython3 run.py\n```\n\nThis should give an accuracy of 93.2 %.\n",
		"run.py":    text + "\naccuracy = 93.2\nprint(f\"accuracy: {accuracy:.1f}\")\n",
	}
}

// TestPoorRepositories: what cannot be run or checked ends in a verdict that
// says why.
func TestPoorRepositories(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cases := map[string]struct {
		files map[string]string
		words []string
	}{
		"empty":     {map[string]string{".keep": ""}, []string{"not checkable", "Nothing was executed", "no document"}},
		"no-readme": {map[string]string{"run.py": "print('accuracy: 93.2')\n"}, []string{"not checkable", "no claim"}},
		"only-r": {map[string]string{
			"README.md":  "# Study\n\n```bash\nRscript analysis.R\n```\n\nThis should give an accuracy of 93.2 %.\n",
			"analysis.R": "accuracy <- 93.2\ncat(sprintf('accuracy: %.1f\\n', accuracy))\n",
		}, []string{"not checkable", "written in R"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			o := w.must(t, 0, "run", "--yes", w.folder(name, c.files))
			has(t, o.stdout, c.words...)
		})
	}
}

// TestNaughtyScripts: whatever the code does, the run ends by itself, says
// what happened and leaves neither process nor file nor secret outside.
func TestNaughtyScripts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	prefix := fmt.Sprintf("repromill-naughty-%d-", os.Getpid())
	w.write("secret.txt", "file_secret")
	cases := map[string]struct {
		text  string
		flags []string
		words []string
	}{
		"reads secrets": {`import os, glob
print("ENV", sorted(os.environ), os.environ.get("HF_TOKEN"))
for p in ["` + w.home + `/secret.txt", "/proc/1/environ", "/root/.ssh/id_rsa", "/etc/shadow", *glob.glob("/proc/*/environ")]:
    try: print(p, open(p, errors="replace").read()[:4000])
    except OSError as e: print(p, "refused", e.errno)
`, nil, []string{"aligned"}},
		"leaves children": {`import os, sys, time
for i in range(20):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: os.execvp("sleep", ["MARK", "600"])
        os._exit(0)
`, nil, []string{"aligned"}},
		"floods": {`import sys
line = "x" * 65535 + "\n"
while True: sys.stdout.write(line)
`, nil, []string{"inconclusive", "wrote too much"}},
		"sleeps": {"import time\ntime.sleep(3600)\n", []string{"--max-wall", "1s"}, []string{"inconclusive", "the cap of 1s wall time is used up"}},
		"escapes": {`import os
for p in ["` + w.home + `/MARK", "/tmp/MARK", "/etc/MARK", os.path.expanduser("~/../MARK"), "../../MARK"]:
    try: open(p, "w").write("x"); print("wrote", p)
    except OSError as e: print(p, "refused", e.errno)
print("\x1b]0;title\x07\x1b[31mred")
`, nil, []string{"aligned"}},
		"dies": {"import os\nos.kill(os.getpid(), 9)\n", nil, []string{"inconclusive", "killed"}},
		"fails": {"raise SystemExit('no \\x1b[31mred data: get it from the authors')\n", nil,
			[]string{"inconclusive", "ended with code 1", "get it from the authors"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := strings.ReplaceAll(name, " ", "-")
			mark := prefix + dir
			args := append([]string{"run", "--yes", w.folder(dir, script(strings.ReplaceAll(c.text, "MARK", mark)))}, c.flags...)
			begun := time.Now()
			o := w.run([]string{"HF_TOKEN=env_secret", "OPENAI_API_KEY=env_secret"}, args...)
			if o.code != 0 || time.Since(begun) > time.Minute {
				t.Fatalf("exit %d after %s\n%s%s", o.code, time.Since(begun), o.stdout, o.stderr)
			}
			has(t, o.stdout, c.words...)
			id := strings.Fields(o.stderr)[1]
			logs := w.command("logs", id)
			logged, _ := logs.Output()
			if strings.Contains(string(logged)+o.stdout, "_secret") {
				t.Errorf("a secret was read:\n%.4000s", logged)
			}
			for _, dir := range []string{w.home, filepath.Dir(w.home), "/tmp", "/etc"} {
				if _, err := os.Lstat(filepath.Join(dir, mark)); err == nil {
					t.Errorf("%s was written outside", filepath.Join(dir, mark))
				}
			}
			nothingRuns(t, mark)
		})
	}
}

// nothingRuns holds that no process with a word in its command line stays; a
// worker may be on its last step.
func nothingRuns(t *testing.T, word string) {
	t.Helper()
	var left []string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		left = nil
		entries, _ := os.ReadDir("/proc")
		for _, e := range entries {
			line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
			if err == nil && strings.Contains(string(line), word) {
				left = append(left, e.Name()+" "+strings.ReplaceAll(string(line), "\x00", " "))
			}
		}
		if len(left) == 0 {
			return
		}
	}
	t.Errorf("still running: %v", left)
}
