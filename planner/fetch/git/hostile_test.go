package git

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree writes a tree object byte by byte, past all of git's checks. Each line
// is "mode name id".
func (r *repo) tree(lines ...[3]string) string {
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%s %s\x00", l[0], l[1])
		for i := 0; i < 40; i += 2 {
			var v byte
			if _, err := fmt.Sscanf(l[2][i:i+2], "%02x", &v); err != nil {
				r.t.Fatal(err)
			}
			b.WriteByte(v)
		}
	}
	return r.gitIn(b.String(), "hash-object", "-t", "tree", "--literally", "-w", "--stdin")
}

func (r *repo) blob(text string) string {
	return r.gitIn(text, "hash-object", "-w", "--stdin")
}

// commitTree points main at a tree.
func (r *repo) commitTree(tree string) string {
	id := r.git("commit-tree", "-m", "crafted", tree)
	r.git("update-ref", "refs/heads/main", id)
	return id
}

func TestHostileTree(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, child []string) {
		s := newServer(t)
		r := s.repo(t, "proj")
		good, evil := r.blob("good"), r.blob("evil")
		dir := r.tree([3]string{"100644", "config", evil}, [3]string{"100755", "hooks", evil})
		etc, up := r.blob("/etc"), r.blob("../../../..")
		entries := [][3]string{
			{"100644", "ok.txt", good},
			{"100644", "ok.txt", evil}, // a second one of the name
			{"40000", "ok.txt", dir},
			{"120000", "data", etc},
			{"40000", "data", dir}, // through the link
			{"120000", "up", up},
			{"100644", "../escape", evil},
			{"100644", "a/../../x", evil},
			{"40000", "..", dir},
			{"40000", ".", dir},
			{"100644", "/abs", evil},
			{"40000", ".git", dir},
			{"40000", ".GIT", dir},
			{"40000", ".g\u200cit", dir},
			{"40000", "git~1", dir},
			{"40000", "GIT~7", dir},
			{"40000", ".git ", dir},
			{"40000", ".git...", dir},
			{"40000", ".git::$INDEX_ALLOCATION", dir},
			{"40000", ".Git:x", dir},
			{"100644", "back\\slash", evil},
			{"100644", "nul.txt", evil},
			{"100644", "COM1", evil},
			{"100644", "line\nbreak", evil},
			{"100644", "\x1b[31mred", evil},
			{"100644", "latin\xe9", evil},
			{"100644", strings.Repeat("n", 256), evil},
			{"100600", "odd-mode", good}, // git reads it as 100644
			{"160000", "sub", strings.Repeat("12", 20)},
		}
		id := r.commitTree(r.tree(entries...))
		cfg := s.config(t, child)
		co := checkout(t, newCloner(t, cfg), Request{Repo: s.URL + "/proj"})
		if co.Commit != id || co.Files != 2 || content(t, co.Dir, "ok.txt") != "good" || content(t, co.Dir, "odd-mode") != "good" {
			t.Errorf("checkout %+v", co)
		}
		// Every entry but the two files, and the link "data" whose name was
		// free for the folder, is accounted for.
		if want := len(entries) - 2 - 1; len(co.Skipped) < want {
			t.Errorf("%d skipped, want %d: %+v", len(co.Skipped), want, co.Skipped)
		}
		found, err := os.ReadDir(co.Dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range found {
			names = append(names, e.Name())
		}
		if !slices.Equal(names, []string{"odd-mode", "ok.txt"}) {
			t.Errorf("materialised %q", names)
		}
		for _, p := range []string{"escape", "x", "abs"} {
			_ = filepath.WalkDir(cfg.CacheDir, func(at string, d os.DirEntry, err error) error {
				if err == nil && d.Name() == p {
					t.Errorf("%s exists", at)
				}
				return nil
			})
		}
	})
}

// Trees that are small on the wire and huge, or endless, when walked.
func TestTreeBombs(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	bombs := map[string]func(r *repo) string{
		"files": func(r *repo) string { // 10^10 files
			at, mode := r.blob("x"), "100644"
			for range 10 {
				var lines [][3]string
				for i := range 10 {
					lines = append(lines, [3]string{mode, fmt.Sprint("d", i), at})
				}
				at, mode = r.tree(lines...), "40000"
			}
			return at
		},
		"folders": func(r *repo) string { // no file at all
			at := r.tree()
			for range 10 {
				var lines [][3]string
				for i := range 10 {
					lines = append(lines, [3]string{"40000", fmt.Sprint("d", i), at})
				}
				at = r.tree(lines...)
			}
			return at
		},
		"60k files": func(r *repo) string {
			blob := r.blob("x")
			var dirs [][3]string
			for d := range 60 {
				var lines [][3]string
				for i := range 1000 {
					lines = append(lines, [3]string{"100644", fmt.Sprintf("f%04d", i), blob})
				}
				dirs = append(dirs, [3]string{"40000", fmt.Sprintf("d%02d", d), r.tree(lines...)})
			}
			return r.tree(dirs...)
		},
	}
	for name, make := range bombs {
		t.Run(name, func(t *testing.T) {
			r := s.repo(t, strings.ReplaceAll(name, " ", ""))
			r.commitTree(make(r))
			cfg := s.config(t, childCommand())
			if name != "60k files" {
				cfg.Limits.Files = 2000
			}
			_, err := newCloner(t, cfg).Checkout(t.Context(), Request{Repo: s.URL + "/" + filepath.Base(r.dir)})
			var limit *LimitError
			if !errors.As(err, &limit) || limit.Cap != CapFiles {
				t.Errorf("error %v", err)
			}
			nothingStaged(t, cfg.CacheDir)
		})
	}
}

// Trees that git would refuse to make.
func TestOddTrees(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	t.Run("deep", func(t *testing.T) {
		r := s.repo(t, "deep")
		at := r.tree([3]string{"100644", "bottom", r.blob("x")})
		for range 300 {
			at = r.tree([3]string{"40000", "d", at})
		}
		r.commitTree(at)
		co := checkout(t, newCloner(t, s.config(t, nil)), Request{Repo: s.URL + "/deep"})
		if co.Files != 0 || len(co.Skipped) != 1 || !strings.Contains(co.Skipped[0].Why, "deeper") {
			t.Errorf("checkout %+v", co)
		}
	})
	t.Run("missing blob", func(t *testing.T) {
		r := s.repo(t, "missing")
		good := r.git("commit-tree", "-m", "x", r.tree([3]string{"100644", "f", r.blob("here")}))
		r.git("update-ref", "refs/heads/main", good)
		gone := r.blob("gone")
		r.commitTree(r.tree([3]string{"100644", "f", gone}))
		if err := os.Remove(filepath.Join(r.dir, ".git/objects", gone[:2], gone[2:])); err != nil {
			t.Fatal(err)
		}
		cfg := s.config(t, nil)
		if _, err := newCloner(t, cfg).Checkout(t.Context(), Request{Repo: s.URL + "/missing"}); err == nil {
			t.Error("a commit without its blob was checked out")
		}
		nothingStaged(t, cfg.CacheDir)
	})
}

func TestSubmodules(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, child []string) {
		s := newServer(t)
		inner := s.repo(t, "org/inner")
		inner.write("inner.txt", "inner")
		old := inner.commit("old")
		inner.write("inner.txt", "newer")
		inner.commit("new")
		outer := s.repo(t, "org/outer")
		outer.write("outer.txt", "outer")
		outer.write(".gitmodules", modules("in", "vendor/in", "../inner", "again", "again", s.URL+"/org/inner/.git"))
		outer.git("add", "-A")
		outer.git("update-index", "--add", "--cacheinfo", "160000,"+old+",vendor/in")
		outer.git("update-index", "--add", "--cacheinfo", "160000,"+inner.git("rev-parse", "HEAD")+",again")
		outer.git("commit", "-q", "-m", "x")
		c := newCloner(t, s.config(t, child))
		without := checkout(t, c, Request{Repo: s.URL + "/org/outer"})
		if len(without.Skipped) != 2 || !strings.Contains(without.Skipped[1].Why, "../inner") || len(without.Submodules) != 0 {
			t.Errorf("without submodules: %+v", without)
		}
		with := checkout(t, c, Request{Repo: s.URL + "/org/outer", Submodules: true})
		if with.Dir == without.Dir || len(with.Skipped) != 0 || len(with.Submodules) != 2 || with.Files != 4 {
			t.Errorf("with submodules: %+v", with)
		}
		if content(t, with.Dir, "vendor/in/inner.txt") != "inner" || content(t, with.Dir, "again/inner.txt") != "newer" {
			t.Error("a submodule has another commit's content")
		}
	})
}

func modules(nameFolderURL ...string) string {
	var b strings.Builder
	for i := 0; i < len(nameFolderURL); i += 3 {
		fmt.Fprintf(&b, "[submodule %q]\n\tpath = %s\n\turl = %s\n", nameFolderURL[i], nameFolderURL[i+1], nameFolderURL[i+2])
	}
	return b.String()
}

// No address of a .gitmodules runs anything, reads a local file, loops, or
// goes deeper than allowed.
func TestHostileSubmodules(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	secret := newRepo(t, t.TempDir())
	secret.write("secret", "s")
	id := secret.commit("x")
	loop := s.repo(t, "loop")
	loop.write("f", "x")
	loop.commit("first")
	urls := map[string]string{
		"ext":   "ext::sh -c touch% " + filepath.Join(t.TempDir(), "pwned"),
		"file":  "file://" + secret.dir,
		"path":  secret.dir,
		"fd":    "fd::17",
		"self":  "./",
		"other": "../loop",
		"up":    "../../../../../etc",
		"dash":  "--upload-pack=touch",
		"empty": "",
		"lan":   "https://10.0.0.1/x",
		"gone":  s.URL + "/nosuch",
	}
	var b strings.Builder
	for name, url := range urls {
		b.WriteString(modules(name, name, url))
	}
	loop.write(".gitmodules", b.String())
	loop.git("add", "-A")
	for name := range urls {
		loop.git("update-index", "--add", "--cacheinfo", "160000,"+id+","+name)
	}
	loop.git("commit", "-q", "-m", "x")
	co := checkout(t, newCloner(t, s.config(t, nil)), Request{Repo: s.URL + "/loop", Submodules: true})
	why := map[string]string{}
	for _, k := range co.Skipped {
		why[k.Path] = k.Why
	}
	for name, want := range map[string]string{
		"ext": "remote helper", "file": "scheme file", "path": "path of the author", "fd": "remote helper", "self": "loop",
		"other": "loop", "up": "leaves its host", "dash": "path of the author", "empty": "no url", "lan": "not public", "gone": "not found",
	} {
		if !strings.Contains(why[name], want) {
			t.Errorf("%s: skipped because %q, want %q", name, why[name], want)
		}
	}
	if co.Files != 2 || len(co.Submodules) != 0 || len(co.Skipped) != len(urls) {
		t.Errorf("checkout %+v", co)
	}
}

func TestSubmoduleBounds(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	t.Run("depth", func(t *testing.T) {
		at := ""
		for i := range 6 {
			r := s.repo(t, fmt.Sprint("level", i))
			r.write("f", "x")
			if i > 0 {
				r.write(".gitmodules", modules("s", "s", fmt.Sprint("../level", i-1)))
				r.git("add", "-A")
				r.git("update-index", "--add", "--cacheinfo", "160000,"+at+",s")
				r.git("commit", "-q", "-m", "x")
				at = r.git("rev-parse", "HEAD")
			} else {
				at = r.commit("x")
			}
		}
		co := checkout(t, newCloner(t, s.config(t, nil)), Request{Repo: s.URL + "/level5", Submodules: true})
		if len(co.Submodules) != 3 || len(co.Skipped) != 1 || !strings.Contains(co.Skipped[0].Why, "deeper") {
			t.Errorf("submodules %+v, skipped %+v", co.Submodules, co.Skipped)
		}
	})
	t.Run("many", func(t *testing.T) {
		r := s.repo(t, "many")
		var lines [][3]string
		for i := range maxSubmodules + 6 {
			lines = append(lines, [3]string{"160000", fmt.Sprintf("s%03d", i), strings.Repeat("12", 20)})
		}
		r.commitTree(r.tree(lines...))
		co := checkout(t, newCloner(t, s.config(t, nil)), Request{Repo: s.URL + "/many", Submodules: true})
		if last := co.Skipped[len(co.Skipped)-1]; len(co.Skipped) != len(lines) || !strings.Contains(last.Why, "more than 64") {
			t.Errorf("%d skipped, last %+v", len(co.Skipped), last)
		}
	})
	t.Run("budget", func(t *testing.T) {
		cfg := s.config(t, nil)
		cfg.Limits.Files = 3 // level5 and three submodules have seven
		_, err := newCloner(t, cfg).Checkout(t.Context(), Request{Repo: s.URL + "/level5", Submodules: true})
		var limit *LimitError
		if !errors.As(err, &limit) || limit.Cap != CapFiles {
			t.Errorf("error %v", err)
		}
	})
}
