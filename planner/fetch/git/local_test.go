package git

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func localConfig(t testing.TB, child []string) Config {
	return Config{CacheDir: t.TempDir(), Child: child, Transport: noNetwork{t}}
}

func TestLocalRepository(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, child []string) {
		r := newRepo(t, filepath.Join(t.TempDir(), "proj"))
		ids := sample(t, r)
		r.write("huge.bin", noise(3_000_000)) // streamed, not read whole
		ids["main"] = r.commit("huge")
		r.git("gc", "-q")
		r.write("loose.txt", "loose")
		ids["loose"] = r.commit("loose")
		c := newCloner(t, localConfig(t, child))
		for ref, want := range map[string]string{
			"": "loose", "HEAD": "loose", "main": "loose", "feature/x": "feature", "v1.0": "second", "refs/tags/light": "first",
			ids["first"]: "first", ids["first"][:8]: "first", ids["main"][:11]: "main", ids["tag"]: "second", strings.ToUpper(ids["feature"]): "feature",
		} {
			co := checkout(t, c, Request{Repo: r.dir, Ref: ref})
			if co.Commit != ids[want] || co.Repo != r.dir || co.Dirty || co.Plain {
				t.Errorf("%q: %s, want commit %s", ref, brief(co), ids[want])
			}
			checkModes(t, co)
			if want == "loose" && (content(t, co.Dir, "loose.txt") != "loose" || content(t, co.Dir, "huge.bin") != noise(3_000_000)) {
				t.Errorf("%q: wrong content", ref)
			}
		}
		for _, ref := range []string{"nosuch", "HEAD~1", "deadbeef", strings.Repeat("1", 40), "../../etc/passwd"} {
			_, err := c.Checkout(t.Context(), Request{Repo: r.dir, Ref: ref})
			var bad *RefError
			if !errors.As(err, &bad) {
				t.Errorf("%q: error %v, want a RefError", ref, err)
			}
		}
	})
}

// A large notebook that is saved again is stored as a delta whose copies go
// back and forth in the version before.
func TestLargeDelta(t *testing.T) {
	t.Parallel()
	r := newRepo(t, filepath.Join(t.TempDir(), "proj"))
	text := noise(1_500_000)
	moved := text[100_000:150_000] + "x" + text[:50_000] + "y" + text[400_000:1_450_000]
	r.write("data.bin", text)
	r.commit("first")
	r.write("data.bin", moved)
	r.commit("second")
	r.git("repack", "-a", "-d", "-f", "-q")
	id := r.git("rev-parse", "HEAD:data.bin")
	if base := r.gitIn(id, "cat-file", "--batch-check=%(deltabase)"); base == strings.Repeat("0", 40) {
		t.Fatal("git stored no delta")
	}
	co := checkout(t, newCloner(t, localConfig(t, nil)), Request{Repo: r.dir})
	if content(t, co.Dir, "data.bin") != moved {
		t.Error("wrong content")
	}
}

func TestLocalShapes(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	r := newRepo(t, filepath.Join(base, "proj"))
	ids := sample(t, r)
	r.git("gc", "-q")
	r.git("worktree", "add", "-q", filepath.Join(base, "linked"), "feature/x")
	r.git("clone", "-q", "--bare", ".", filepath.Join(base, "bare.git"))
	r.git("clone", "-q", "--shared", ".", filepath.Join(base, "shared"))
	for dir, want := range map[string]string{"proj": "main", "linked": "feature", "bare.git": "main", "shared": "main"} {
		t.Run(dir, func(t *testing.T) {
			modes(t, func(t *testing.T, child []string) {
				co := checkout(t, newCloner(t, localConfig(t, child)), Request{Repo: filepath.Join(base, dir)})
				if co.Commit != ids[want] || co.Plain || co.Dirty {
					t.Errorf("%s, want commit %s", brief(co), ids[want])
				}
			})
		})
	}
	t.Run("relative alternates", func(t *testing.T) {
		alt := filepath.Join(base, "shared", ".git", "objects", "info", "alternates")
		if err := os.WriteFile(alt, []byte("../../../proj/.git/objects\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		co := checkout(t, newCloner(t, localConfig(t, childCommand())), Request{Repo: filepath.Join(base, "shared")})
		if co.Commit != ids["main"] {
			t.Errorf("commit %s", co.Commit)
		}
	})
	t.Run("folder within a worktree", func(t *testing.T) {
		co := checkout(t, newCloner(t, localConfig(t, nil)), Request{Repo: filepath.Join(base, "proj", "a")})
		if !co.Plain || co.Files != 1 {
			t.Errorf("%+v", co)
		}
	})
	t.Run("symbolic link", func(t *testing.T) {
		link := filepath.Join(base, "link")
		if err := os.Symlink("proj", link); err != nil {
			t.Fatal(err)
		}
		if co := checkout(t, newCloner(t, localConfig(t, nil)), Request{Repo: link}); co.Commit != ids["main"] {
			t.Errorf("%+v", co)
		}
	})
}

func TestLocalMistakes(t *testing.T) {
	base := t.TempDir()
	newRepo(t, filepath.Join(base, "unborn"))
	broken := newRepo(t, filepath.Join(base, "broken"))
	broken.write("f", "x")
	broken.commit("x")
	if err := os.RemoveAll(filepath.Join(broken.dir, ".git", "refs")); err != nil {
		t.Fatal(err)
	}
	sha256 := newRepo(t, filepath.Join(base, "sha256"))
	if err := os.RemoveAll(filepath.Join(sha256.dir, ".git")); err != nil {
		t.Fatal(err)
	}
	sha256.git("init", "-q", "--object-format=sha256", ".")
	sha256.write("f", "x")
	sha256.commit("x")
	if err := os.WriteFile(filepath.Join(base, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		"nosuch": "no such folder", "file": "not a folder", "unborn": "no commits", "broken": "not a git repository", "sha256": "sha256",
	} {
		_, err := newCloner(t, localConfig(t, childCommand())).Checkout(t.Context(), Request{Repo: filepath.Join(base, dir)})
		var bad *RepoError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", dir, err, want)
		}
	}
}

// The commit counts, not the worktree; that these differ is a fact.
func TestDirtyWorktree(t *testing.T) {
	t.Parallel()
	changes := map[string]struct {
		change func(r *repo)
		dirty  bool
	}{
		"none":      {func(*repo) {}, false},
		"touched":   {func(r *repo) { r.write("README.md", "# two\n") }, false},
		"untracked": {func(r *repo) { r.write("new.txt", "x") }, false},
		"edited":    {func(r *repo) { r.write("README.md", "# 2\n") }, true},
		"same size": {func(r *repo) { r.write("README.md", "# tw0\n") }, true},
		"staged":    {func(r *repo) { r.write("README.md", "# 2\n"); r.git("add", "README.md") }, true},
		"added":     {func(r *repo) { r.write("new.txt", "x"); r.git("add", "new.txt") }, true},
		"deleted":   {func(r *repo) { _ = os.Remove(filepath.Join(r.dir, "README.md")) }, true},
		"mode":      {func(r *repo) { _ = os.Chmod(filepath.Join(r.dir, "README.md"), 0o755) }, true},
		"link": {func(r *repo) {
			_ = os.Remove(filepath.Join(r.dir, "link.md"))
			_ = os.Symlink("run.sh", filepath.Join(r.dir, "link.md"))
		}, true},
	}
	for name, tc := range changes {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t, t.TempDir())
			ids := sample(t, r)
			tc.change(r)
			c := newCloner(t, localConfig(t, nil))
			co := checkout(t, c, Request{Repo: r.dir})
			if co.Commit != ids["main"] || co.Dirty != tc.dirty || content(t, co.Dir, "README.md") != "# two\n" {
				t.Errorf("%s, want dirty %v", brief(co), tc.dirty)
			}
			if again := checkout(t, c, Request{Repo: r.dir}); !again.FromCache || again.Dirty != tc.dirty {
				t.Errorf("from the cache: %s", brief(again))
			}
		})
	}
}

func TestPlainFolder(t *testing.T) {
	t.Parallel()
	build := func() *repo { return &repo{t, t.TempDir()} }
	r := build()
	r.write("b.txt", "b")
	r.write("b/inner.txt", "inner") // sorts after b.txt in a tree
	r.write("run.sh", "#!/bin/sh\n")
	if err := os.Chmod(filepath.Join(r.dir, "run.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("b/inner.txt", filepath.Join(r.dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(r.dir, "evil")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(r.dir, "empty", "emptier"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := newCloner(t, localConfig(t, nil))
	co := checkout(t, c, Request{Repo: r.dir})
	if !co.Plain || co.Ref != "HEAD" || !co.CommitDate.IsZero() || co.Files != 4 || len(co.Copied) != 1 || len(co.Skipped) != 1 {
		t.Errorf("%+v", co)
	}
	checkModes(t, co)
	if content(t, co.Dir, "link") != "inner" {
		t.Error("link was not copied")
	}
	for _, ref := range []string{"HEAD", "main", "master", co.Commit, co.Commit[:10]} {
		if again := checkout(t, c, Request{Repo: r.dir, Ref: ref}); !again.FromCache || again.Commit != co.Commit {
			t.Errorf("%s: %+v", ref, again)
		}
	}
	for _, ref := range []string{"v1", "0000000"} {
		_, err := c.Checkout(t.Context(), Request{Repo: r.dir, Ref: ref})
		var bad *RefError
		if !errors.As(err, &bad) || !slices.Contains(bad.Have, co.Commit) {
			t.Errorf("%s: %v", ref, err)
		}
	}

	// The tree is git's own, and the commit a constant function of it.
	const who, when = "plain folder <plain@repromill.invalid>", " 946684800 +0000"
	r.git("init", "-q", ".")
	r.git("add", "-A")
	tree := r.git("write-tree")
	want := r.gitIn("tree "+tree+"\nauthor "+who+when+"\ncommitter "+who+when+"\n\nContent of a plain folder\n",
		"hash-object", "-t", "commit", "--stdin")
	if co.Commit != want {
		t.Errorf("commit %s, git says %s", co.Commit, want)
	}
	if err := os.RemoveAll(filepath.Join(r.dir, ".git")); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(){
		"content": func() { r.write("b.txt", "B") },
		"name":    func() { _ = os.Rename(filepath.Join(r.dir, "b.txt"), filepath.Join(r.dir, "c.txt")) },
		"mode":    func() { _ = os.Chmod(filepath.Join(r.dir, "run.sh"), 0o644) },
		"link": func() {
			_ = os.Remove(filepath.Join(r.dir, "link"))
			_ = os.Symlink("c.txt", filepath.Join(r.dir, "link"))
		},
	} {
		before := checkout(t, c, Request{Repo: r.dir}).Commit
		change()
		if after := checkout(t, c, Request{Repo: r.dir}); after.Commit == before || after.FromCache {
			t.Errorf("a change of %s does not change the commit", what)
		}
	}
}

func TestPlainFolderLimits(t *testing.T) {
	r := &repo{t, t.TempDir()}
	r.write("a", "aaaa")
	r.write("d/b", "bbbb")
	r.write(".Git/config", "x")
	for cap, l := range map[string]Limits{CapFiles: {Files: 1}, CapTotal: {TotalBytes: 7}, CapFile: {FileBytes: 3}} {
		cfg := localConfig(t, nil)
		cfg.Limits = l
		_, err := newCloner(t, cfg).Checkout(t.Context(), Request{Repo: r.dir})
		var limit *LimitError
		if !errors.As(err, &limit) || limit.Cap != cap {
			t.Errorf("%v, want cap %s", err, cap)
		}
		nothingStaged(t, cfg.CacheDir)
	}
	co := checkout(t, newCloner(t, localConfig(t, nil)), Request{Repo: r.dir})
	if co.Files != 2 || len(co.Skipped) != 1 || co.Skipped[0].Path != ".Git" {
		t.Errorf("%+v", co)
	}
}

// A submodule of a local repository comes from the repository beside it, never
// from a folder that happens to lie there.
func TestLocalSubmodules(t *testing.T) {
	base := t.TempDir()
	inner := newRepo(t, filepath.Join(base, "inner"))
	inner.write("i.txt", "inner")
	id := inner.commit("i")
	(&repo{t, filepath.Join(base, "private")}).write("key", "secret")
	outer := newRepo(t, filepath.Join(base, "outer"))
	outer.write(".gitmodules", modules("in", "in", "../inner", "key", "key", "../private", "abs", "abs", inner.dir))
	outer.git("add", "-A")
	for _, p := range []string{"in", "key", "abs"} {
		outer.git("update-index", "--add", "--cacheinfo", "160000,"+id+","+p)
	}
	outer.git("commit", "-q", "-m", "x")
	co := checkout(t, newCloner(t, localConfig(t, childCommand())), Request{Repo: outer.dir, Submodules: true})
	if content(t, co.Dir, "in/i.txt") != "inner" || len(co.Submodules) != 1 || len(co.Skipped) != 2 || co.Files != 2 {
		t.Errorf("%s: submodules %+v, skipped %+v", brief(co), co.Submodules, co.Skipped)
	}
}

// TestPartialLocalRepository checks out what a partial clone holds, says what
// it lacks, and looks again when it has become whole.
func TestPartialLocalRepository(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, child []string) {
		r := newRepo(t, filepath.Join(t.TempDir(), "proj"))
		r.write("small.txt", "small")
		r.write("data/big.bin", noise(300_000))
		r.commit("all")
		blob := strings.TrimSpace(r.git("rev-parse", "HEAD:data/big.bin"))
		loose := filepath.Join(r.dir, ".git", "objects", blob[:2], blob[2:])
		away := filepath.Join(t.TempDir(), "away")
		if err := os.Rename(loose, away); err != nil {
			t.Fatal(err)
		}
		c := newCloner(t, localConfig(t, child))
		for range 2 {
			co := checkout(t, c, Request{Repo: r.dir})
			want := []Skipped{{Path: "data/big.bin", Why: whyAbsent}}
			if content(t, co.Dir, "small.txt") != "small" || !slices.Equal(co.Skipped, want) || co.FromCache {
				t.Errorf("%s, skipped %v", brief(co), co.Skipped)
			}
		}
		if err := os.Rename(away, loose); err != nil {
			t.Fatal(err)
		}
		co := checkout(t, c, Request{Repo: r.dir})
		if len(co.Skipped) != 0 || content(t, co.Dir, "data/big.bin") != noise(300_000) {
			t.Errorf("%s, skipped %v", brief(co), co.Skipped)
		}
		if co = checkout(t, c, Request{Repo: r.dir}); !co.FromCache {
			t.Error("the whole checkout was not cached")
		}
	})
}
