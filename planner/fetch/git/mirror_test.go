package git

import (
	"errors"
	"net/http"
	"path/filepath"
	"testing"
)

// noNetwork fails a test that dials.
type noNetwork struct{ t testing.TB }

func (n noNetwork) RoundTrip(r *http.Request) (*http.Response, error) {
	n.t.Errorf("dialled %s", r.URL)
	return nil, errors.New("no network")
}

func TestMirror(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, child []string) {
		base := t.TempDir()
		mirror := filepath.Join(base, "mirror")
		normal := newRepo(t, filepath.Join(mirror, "github.com/own/normal"))
		ids := sample(t, normal)
		normal.git("clone", "-q", "--bare", ".", filepath.Join(mirror, "github.com/own/bare.git"))
		plain := &repo{t, filepath.Join(mirror, "gitlab.com/group/sub/plain")}
		plain.write("x.txt", "plain")
		outside := &repo{t, filepath.Join(base, "papers", "2604.08075")}
		outside.write("sim.py", "print(1)\n")
		cfg := localConfig(t, child)
		cfg.Mirror = mirror
		cfg.Trees = map[string]string{"https://github.com/Own/Sim.git": "../papers/2604.08075"}
		c := newCloner(t, cfg)
		for url, want := range map[string]string{
			"https://github.com/own/normal": ids["main"], "https://github.com/own/normal.git": ids["main"], "https://github.com/own/bare": ids["main"],
		} {
			co := checkout(t, c, Request{Repo: url})
			if co.Commit != want || co.Plain || co.Repo == url && filepath.Ext(url) == ".git" {
				t.Errorf("%s: %+v", url, co)
			}
		}
		if co := checkout(t, c, Request{Repo: "https://github.com/own/normal", Ref: ids["first"]}); co.Commit != ids["first"] {
			t.Errorf("pinned: %+v", co)
		}
		if co := checkout(t, c, Request{Repo: "https://gitlab.com/group/sub/plain"}); !co.Plain || content(t, co.Dir, "x.txt") != "plain" {
			t.Errorf("plain: %+v", co)
		}
		sim := checkout(t, c, Request{Repo: "https://github.com/Own/Sim"})
		if !sim.Plain || sim.Repo != "https://github.com/Own/Sim" || content(t, sim.Dir, "sim.py") == "" {
			t.Errorf("tree: %+v", sim)
		}
		same := checkout(t, newCloner(t, localConfig(t, nil)), Request{Repo: outside.dir})
		if same.Commit != sim.Commit {
			t.Errorf("the folder is commit %s by itself, %s in the mirror", same.Commit, sim.Commit)
		}
		_, err := c.Checkout(t.Context(), Request{Repo: "https://github.com/own/nosuch"})
		var missing *NotInMirrorError
		if !errors.As(err, &missing) || len(missing.Looked) != 2 {
			t.Errorf("error %v", err)
		}
	})
}

func TestAddToMirror(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, child []string) {
		s := newServer(t)
		r := s.repo(t, "own/proj")
		ids := sample(t, r)
		sub := s.repo(t, "own/sub")
		sub.write("s.txt", "sub")
		sid := sub.commit("s")
		r.write(".gitmodules", modules("s", "s", "../sub", "dead", "dead", "../dead", "me", "me", "../proj"))
		r.git("add", "-A")
		for _, p := range []string{"s", "dead", "me"} {
			r.git("update-index", "--add", "--cacheinfo", "160000,"+sid+","+p)
		}
		r.git("commit", "-q", "-m", "subs")
		ids["main"] = r.git("rev-parse", "HEAD")
		cfg := s.config(t, child)
		c := newCloner(t, cfg)
		mirror := t.TempDir()
		url := s.URL + "/own/proj"
		if _, err := c.AddToMirror(t.Context(), mirror, Request{Repo: url, Ref: ids["first"]}); err != nil {
			t.Fatal(err) // HEAD is detached until the default branch is added
		}
		e, err := c.AddToMirror(t.Context(), mirror, Request{Repo: url, Submodules: true})
		if err != nil {
			t.Fatal(err)
		}
		if e.Commit != ids["main"] || e.Ref != "main" || e.Received == 0 || len(e.Submodules) != 1 || len(e.Skipped) != 2 {
			t.Errorf("%+v", e)
		}
		for _, ref := range []string{"v1.0", ids["feature"], "main", "v1.0"} {
			if _, err := c.AddToMirror(t.Context(), mirror, Request{Repo: url, Ref: ref}); err != nil {
				t.Fatalf("add %s: %v", ref, err)
			}
		}
		want := checkout(t, newCloner(t, s.config(t, nil)), Request{Repo: url, Submodules: true})
		s.Close()
		bare := &repo{t, e.Dir}
		bare.git("fsck", "--full", "--strict")
		if got := bare.git("rev-parse", "HEAD", "main", "v1.0^{commit}"); got != ids["main"]+"\n"+ids["main"]+"\n"+ids["second"] {
			t.Errorf("git reads %s", got)
		}
		offline := s.config(t, child)
		offline.Mirror, offline.Transport = mirror, noNetwork{t}
		m := newCloner(t, offline)
		got := checkout(t, m, Request{Repo: url, Submodules: true})
		if got.Commit != want.Commit || got.Files != want.Files || content(t, got.Dir, "s/s.txt") != "sub" {
			t.Errorf("from the mirror %+v, from the server %+v", got, want)
		}
		for ref, id := range map[string]string{"v1.0": "second", ids["feature"]: "feature", ids["second"][:10]: "second"} {
			if co := checkout(t, m, Request{Repo: url, Ref: ref}); co.Commit != ids[id] {
				t.Errorf("%s: %+v", ref, co)
			}
		}
		if left := mustGlob(t, filepath.Join(mirror, "*")); len(left) != 1 {
			t.Errorf("the mirror holds %v", left)
		}
	})
}

func TestAddToMirrorRefuses(t *testing.T) {
	c := newCloner(t, localConfig(t, nil))
	for _, raw := range []string{"/srv/repo", "git@github.com:a/b", "file:///x"} {
		_, err := c.AddToMirror(t.Context(), t.TempDir(), Request{Repo: raw})
		var bad *RepoError
		if !errors.As(err, &bad) {
			t.Errorf("%s: %v", raw, err)
		}
	}
}
