package git

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A ref is believed for as long as the request allows, and not for longer.
func TestRefAge(t *testing.T) {
	s := newServer(t)
	r := s.repo(t, "proj")
	r.write("a.txt", "one")
	first := r.commit("one")
	cfg := s.config(t, nil)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	cfg.Now = func() time.Time { return now }
	c := newCloner(t, cfg)
	req := Request{Repo: s.URL + "/proj", MaxAge: time.Hour}
	checkout(t, c, req)
	r.write("a.txt", "two")
	second := r.commit("two")
	asked := s.count()
	if co := checkout(t, c, req); co.Commit != first || co.Ref != "main" || s.count() != asked {
		t.Errorf("within its age: %s, %d requests", brief(co), s.count()-asked)
	}
	if co := checkout(t, c, Request{Repo: s.URL + "/proj"}); co.Commit != second {
		t.Errorf("without an age: %s", brief(co))
	}
	r.write("a.txt", "three")
	third := r.commit("three")
	now = now.Add(61 * time.Minute)
	if co := checkout(t, c, req); co.Commit != third {
		t.Errorf("past its age: %s", brief(co))
	}
	now = now.Add(-30 * time.Minute) // a clock that was set back is not believed
	asked = s.count()
	if checkout(t, c, req); s.count() == asked {
		t.Error("a record from the future was believed")
	}
	files, err := filepath.Glob(filepath.Join(cfg.CacheDir, "git", "refs", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("records %v, %v", files, err)
	}
	if err := os.WriteFile(files[0], []byte(`{"repo":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if co := checkout(t, c, req); co.Commit != third {
		t.Errorf("past a damaged record: %s", brief(co))
	}
	nothingStaged(t, cfg.CacheDir)
}
