package git

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// sample makes a repository with two branches, tags of both kinds, a deep
// folder, an executable, links, an LFS pointer, and a commit that no ref
// points to.
func sample(t testing.TB, r *repo) (ids map[string]string) {
	ids = map[string]string{}
	r.write("README.md", "# one\n")
	ids["first"] = r.commit("first")
	r.git("tag", "light")
	r.write("a/b/c/deep.txt", strings.Repeat("deep ", 1000))
	r.write("run.sh", "#!/bin/sh\n")
	if err := os.Chmod(filepath.Join(r.dir, "run.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{
		"link.md": "README.md", "a/up.md": "../README.md", "chain": "link.md", "folder": "a",
		"passwd": "/etc/passwd", "out": "../../outside", "loop1": "loop2", "loop2": "loop1", "dangling": "nowhere",
	} {
		if err := os.Symlink(target, filepath.Join(r.dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	r.write("weights.bin", "version https://git-lfs.github.com/spec/v1\n"+
		"oid sha256:"+strings.Repeat("ab", 32)+"\nsize 123456789\n")
	r.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n*.txt filter=evil\n")
	ids["second"] = r.commit("second")
	r.git("tag", "-a", "v1.0", "-m", "release")
	ids["tag"] = r.git("rev-parse", "v1.0")
	r.git("checkout", "-q", "-b", "feature/x")
	r.write("feature.txt", "x\n")
	ids["feature"] = r.commit("feature")
	r.git("checkout", "-q", "main")
	r.write("README.md", "# two\n")
	ids["main"] = r.commit("main")
	return ids
}

func TestCheckout(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, child []string) {
		s := newServer(t)
		ids := sample(t, s.repo(t, "own/proj"))
		cfg := s.config(t, child)
		c := newCloner(t, cfg)
		co := checkout(t, c, Request{Repo: s.URL + "/own/proj"})
		if co.Commit != ids["main"] || co.Ref != "main" || co.Repo != s.URL+"/own/proj" {
			t.Errorf("got %s %s %s", co.Repo, co.Ref, co.Commit)
		}
		if want := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC); !co.CommitDate.Equal(want) {
			t.Errorf("commit date %v", co.CommitDate)
		}
		for name, want := range map[string]string{
			"README.md": "# two\n", "a/b/c/deep.txt": strings.Repeat("deep ", 1000), "link.md": "# two\n",
			"a/up.md": "# two\n", "chain": "# two\n", "run.sh": "#!/bin/sh\n",
		} {
			if got := content(t, co.Dir, name); got != want {
				t.Errorf("%s: %.40q, want %.40q", name, got, want)
			}
		}
		skipped := map[string]string{}
		for _, k := range co.Skipped {
			skipped[k.Path] = k.Why
		}
		for p, why := range map[string]string{"folder": "not a regular file", "passwd": "leaves the tree", "out": "leaves the tree",
			"loop1": "loop", "loop2": "loop", "dangling": "not a regular file"} {
			if !strings.Contains(skipped[p], why) {
				t.Errorf("%s skipped because %q, want %q", p, skipped[p], why)
			}
		}
		if len(co.Skipped) != 6 || len(co.Copied) != 3 || co.Files != 8 {
			t.Errorf("%d skipped, %d copied, %d files", len(co.Skipped), len(co.Copied), co.Files)
		}
		if want := []Pointer{{"weights.bin", strings.Repeat("ab", 32), 123456789}}; !slices.Equal(co.LFS, want) {
			t.Errorf("LFS %+v", co.LFS)
		}
		checkModes(t, co)
		nothingStaged(t, cfg.CacheDir)
	})
}

// checkModes holds that a checkout is read-only regular files and folders
// only, without .git, and that the executable bit is kept.
func checkModes(t *testing.T, co *Checkout) {
	t.Helper()
	files, bytes := 0, int64(0)
	err := filepath.WalkDir(co.Dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if d.Name() == ".git" {
			t.Errorf("%s exists", p)
		}
		if d.IsDir() {
			return nil
		}
		if info.Mode().Perm()&0o222 != 0 {
			t.Errorf("%s is writable: %v", p, info.Mode())
		}
		if !info.Mode().IsRegular() {
			t.Errorf("%s is %v", p, info.Mode())
		}
		if exec := info.Mode()&0o100 != 0; exec != (d.Name() == "run.sh") {
			t.Errorf("%s: executable %v", p, exec)
		}
		files++
		bytes += info.Size()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files != co.Files || bytes != co.Bytes {
		t.Errorf("reported %d files of %d bytes, found %d of %d", co.Files, co.Bytes, files, bytes)
	}
}

func TestRefs(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	r := s.repo(t, "proj")
	ids := sample(t, r)
	bare := s.root + "/nofilter"
	r.git("clone", "-q", "--bare", ".", bare)
	r.git("config", "uploadpack.allowFilter", "true")
	r.git("config", "uploadpack.allowReachableSHA1InWant", "true")
	cases := []struct {
		repo, ref, commit, err string
	}{
		{"proj", "", "main", ""},
		{"proj", "HEAD", "main", ""},
		{"proj", "main", "main", ""},
		{"proj", "refs/heads/main", "main", ""},
		{"proj", "feature/x", "feature", ""},
		{"proj", "light", "first", ""},
		{"proj", "v1.0", "second", ""},
		{"proj", "refs/tags/v1.0", "second", ""},
		{"proj", ids["first"], "first", ""},
		{"proj", strings.ToUpper(ids["second"]), "second", ""},
		{"proj", ids["tag"], "second", ""},        // the id of an annotated tag
		{"proj", ids["main"][:7], "main", ""},     // advertised
		{"proj", ids["second"][:9], "second", ""}, // peeled tag
		{"nofilter", ids["first"], "first", ""},   // a tag's id, given out
		{"proj", "nosuch", "", "have"},
		{"proj", "HEAD~1", "", "expressions"},
		{"proj", "../x", "", "not a ref"},
		{"proj", "--upload-pack=x", "", "not a ref"},
		{"proj", "0000000", "", "not among"},
		{"nofilter", "0000000", "", "cannot be searched"},
		{"proj", strings.Repeat("0", 39) + "1", "", "on none of its branches and tags"},
	}
	c := newCloner(t, s.config(t, nil))
	for _, tc := range cases {
		t.Run(tc.repo+"/"+tc.ref, func(t *testing.T) {
			co, err := c.Checkout(t.Context(), Request{Repo: s.URL + "/" + tc.repo, Ref: tc.ref})
			if tc.commit != "" {
				if err != nil {
					t.Fatal(err)
				}
				if co.Commit != ids[tc.commit] {
					t.Errorf("commit %s, want %s (%s)", co.Commit, ids[tc.commit], tc.commit)
				}
				return
			}
			var bad *RefError
			if !errors.As(err, &bad) {
				t.Fatalf("error %v, want a RefError", err)
			}
			if tc.err == "have" {
				if !slices.Contains(bad.Have, "main") || !slices.Contains(bad.Have, "v1.0") {
					t.Errorf("offered %v", bad.Have)
				}
			} else if !strings.Contains(err.Error(), tc.err) {
				t.Errorf("error %q, want %q", err, tc.err)
			}
		})
	}
}

// A server that gives out only what it advertises is asked for ever more
// history; a short id is searched without trees and files.
func TestUnadvertisedCommit(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, child []string) {
		s := newServer(t)
		r := s.repo(t, "proj")
		var history strings.Builder
		for i := range 60 {
			text := fmt.Sprint(i, strings.Repeat(" some text that makes deltas worth while", 50))
			fmt.Fprintf(&history, "commit refs/heads/main\ncommitter c <c@d> %d +0000\ndata 1\nx\nM 644 inline n.txt\ndata %d\n%s\n",
				1_700_000_000+i, len(text), text)
		}
		r.gitIn(history.String(), "fast-import", "--quiet")
		ids := strings.Fields(r.git("rev-list", "--reverse", "main"))
		c := newCloner(t, s.config(t, child))
		for _, i := range []int{58, 20, 3} { // depth 50, depth 50, depth 1000
			co := checkout(t, c, Request{Repo: s.URL + "/proj", Ref: ids[i]})
			if got := content(t, co.Dir, "n.txt"); co.Commit != ids[i] || !strings.HasPrefix(got, fmt.Sprint(i, " ")) {
				t.Errorf("commit %d: got %s, %.10q", i, co.Commit, got)
			}
		}
		r.git("config", "uploadpack.allowFilter", "true")
		co := checkout(t, c, Request{Repo: s.URL + "/proj", Ref: ids[7][:12]})
		if co.Commit != ids[7] {
			t.Errorf("short id gave %s, want %s", co.Commit, ids[7])
		}
	})
}

func TestPinnedCommitNeedsNoNetwork(t *testing.T) {
	s := newServer(t)
	ids := sample(t, s.repo(t, "proj"))
	cfg := s.config(t, nil)
	first := checkout(t, newCloner(t, cfg), Request{Repo: s.URL + "/proj", Ref: "v1.0"})
	if first.FromCache || first.Received == 0 {
		t.Errorf("first checkout: %+v", first)
	}
	s.Close()
	again := checkout(t, newCloner(t, cfg), Request{Repo: s.URL + "/proj.git", Ref: ids["second"]})
	if !again.FromCache || again.Dir != first.Dir || again.Received != 0 || again.Files != first.Files {
		t.Errorf("second checkout: %+v", again)
	}
	if _, err := newCloner(t, cfg).Checkout(t.Context(), Request{Repo: s.URL + "/proj"}); err == nil {
		t.Error("a branch was resolved without a network")
	}
}

func TestDamagedCacheIsFetchedAgain(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	ids := sample(t, s.repo(t, "proj"))
	damages := map[string]func(t *testing.T, dir string){
		"byte": func(t *testing.T, dir string) { rewrite(t, dir, "README.md", "# tw0\n", 0o444) },
		"size": func(t *testing.T, dir string) { rewrite(t, dir, "README.md", "", 0o444) },
		"mode": func(t *testing.T, dir string) { rewrite(t, dir, "README.md", "# two\n", 0o555) },
		"gone": func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "README.md")) },
		"more": func(t *testing.T, dir string) { rewrite(t, dir, "extra", "x", 0o444) },
		"link": func(t *testing.T, dir string) {
			remove(t, filepath.Join(dir, "README.md"))
			if err := os.Symlink("/etc/hostname", filepath.Join(dir, "README.md")); err != nil {
				t.Fatal(err)
			}
		},
		"manifest": func(t *testing.T, dir string) {
			rewrite(t, filepath.Dir(dir), "manifest", "100644 0 x \"y\"\n", 0o600)
		},
		"meta": func(t *testing.T, dir string) { rewrite(t, filepath.Dir(dir), "meta.json", "{", 0o600) },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			cfg := s.config(t, nil)
			c := newCloner(t, cfg)
			req := Request{Repo: s.URL + "/proj", Ref: ids["main"]}
			co := checkout(t, c, req)
			damage(t, co.Dir)
			again := checkout(t, c, req)
			if again.FromCache || content(t, again.Dir, "README.md") != "# two\n" {
				t.Errorf("after damage: %+v", again)
			}
			if third := checkout(t, c, req); !third.FromCache {
				t.Error("the repaired checkout is not used")
			}
			nothingStaged(t, cfg.CacheDir)
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func rewrite(t *testing.T, dir, name, text string, mode fs.FileMode) {
	t.Helper()
	p := filepath.Join(dir, name)
	_ = os.Remove(p)
	if err := os.WriteFile(p, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, child []string) {
		s := newServer(t)
		r := s.repo(t, "proj")
		r.write("small.txt", "x")
		r.write("data/big.bin", noise(300_000))
		r.commit("all")
		cases := map[string]struct {
			limits Limits
			cap    string
			path   string
		}{
			"transfer": {Limits{TransferBytes: 100_000}, CapTransfer, ""},
			"files":    {Limits{Files: 1}, CapFiles, ""},
			"total":    {Limits{TotalBytes: 200_000}, CapTotal, ""},
			"file":     {Limits{FileBytes: 200_000}, CapFile, "data/big.bin"},
			"time":     {Limits{Time: time.Nanosecond}, CapTime, ""},
		}
		for name, tc := range cases {
			t.Run(name, func(t *testing.T) {
				cfg := s.config(t, child)
				cfg.Limits = tc.limits
				_, err := newCloner(t, cfg).Checkout(t.Context(), Request{Repo: s.URL + "/proj"})
				var limit *LimitError
				if !errors.As(err, &limit) || limit.Cap != tc.cap || limit.Path != tc.path {
					t.Fatalf("error %v, want cap %s", err, tc.cap)
				}
				if !strings.Contains(err.Error(), s.URL+"/proj") || !strings.Contains(limit.UserError(), tc.cap) {
					t.Errorf("message %q", err)
				}
				nothingStaged(t, cfg.CacheDir)
			})
		}
		t.Run("cached", func(t *testing.T) {
			cfg := s.config(t, child)
			co := checkout(t, newCloner(t, cfg), Request{Repo: s.URL + "/proj"})
			cfg.Limits = Limits{TotalBytes: 1000}
			_, err := newCloner(t, cfg).Checkout(t.Context(), Request{Repo: s.URL + "/proj", Ref: co.Commit})
			var limit *LimitError
			if !errors.As(err, &limit) || limit.Cap != CapTotal {
				t.Errorf("error %v", err)
			}
		})
	})
}

func TestProgress(t *testing.T) {
	s := newServer(t)
	sample(t, s.repo(t, "proj"))
	cfg := s.config(t, childCommand())
	var phases []string
	var last Progress
	cfg.Progress = func(p Progress) {
		if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
			phases = append(phases, p.Phase)
		}
		last = p
	}
	checkout(t, newCloner(t, cfg), Request{Repo: s.URL + "/proj"})
	if want := []string{"resolve", "receive", "write"}; !slices.Equal(phases, want) {
		t.Errorf("phases %v, want %v", phases, want)
	}
	if last.Bytes == 0 || last.Repo != s.URL+"/proj" {
		t.Errorf("last report %+v", last)
	}
}

// Many callers of one process, and of one cache, get one clone.
func TestConcurrentCheckouts(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sample(t, s.repo(t, "proj"))
	cfg := s.config(t, nil)
	packs := 0
	s.setWrap(func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				s.mu.Lock()
				packs++
				s.mu.Unlock()
			}
			h.ServeHTTP(w, r)
		})
	})
	var wg sync.WaitGroup
	dirs := make([]string, 6)
	for i := range dirs {
		c := newCloner(t, cfg)
		wg.Go(func() {
			co, err := c.Checkout(context.Background(), Request{Repo: s.URL + "/proj"})
			if err != nil {
				t.Error(err)
				return
			}
			dirs[i] = co.Dir
		})
	}
	wg.Wait()
	if slices.Sort(dirs); dirs[0] != dirs[5] || packs != 1 {
		t.Errorf("%d packs were sent, checkouts %v", packs, dirs)
	}
}

func TestRepoErrors(t *testing.T) {
	s := newServer(t)
	s.repo(t, "empty")
	page := func(status int, body string) func(http.Handler) http.Handler {
		return func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				_, _ = w.Write([]byte(body))
			})
		}
	}
	cases := map[string]struct {
		repo string
		wrap func(http.Handler) http.Handler
		want string
	}{
		"missing":  {"/nosuch", nil, "not found"},
		"empty":    {"/empty", nil, "no commits"},
		"401":      {"/x", page(401, "secret page"), "needs a token"},
		"403":      {"/x", page(403, ""), "refused"},
		"451":      {"/x", page(451, ""), "taken down"},
		"html":     {"/x", page(200, "<html>hello</html>"), "not git's"},
		"nothing":  {"/x", page(200, ""), "not git's"},
		"userinfo": {"https://user:hunter2@example.org/x", nil, "user name or password"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s.setWrap(tc.wrap)
			url := tc.repo
			if strings.HasPrefix(url, "/") {
				url = s.URL + url
			}
			_, err := newCloner(t, s.config(t, nil)).Checkout(t.Context(), Request{Repo: url})
			var bad *RepoError
			if !errors.As(err, &bad) || !strings.Contains(bad.Why, tc.want) {
				t.Fatalf("error %v, want %q", err, tc.want)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "secret page") {
				t.Errorf("message tells too much: %q", err)
			}
		})
	}
}
