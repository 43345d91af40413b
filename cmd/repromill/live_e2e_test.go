//go:build e2e

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRequirementsThatNobodyHas is slow because it makes a real environment.
func TestRequirementsThatNobodyHas(t *testing.T) {
	w := newWorld(t)
	index := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(index.Close)
	w.write("config/repromill/config.yaml", "indexes: {url: "+index.URL+"/simple}\n")
	o := w.must(t, 0, "run", "--yes", w.folder("study", map[string]string{
		"README.md":        "# Study\n\n```bash\npip install -r requirements.txt\npython3 run.py\n```\n\nThis should give an accuracy of 93.2 %.\n",
		"requirements.txt": "no-such-package-of-ours==9.9.9\n",
		"run.py":           "import no_such_package_of_ours\naccuracy = 93.2\nprint(f'accuracy: {accuracy:.1f}')\n",
	}))
	has(t, o.stdout, "inconclusive", "the installation failed", "No matching distribution found", "no-such-package-of-ours==9.9.9")
}

// TestKillWhilePlanning kills the planning of a linked paper once at every
// durable step on the way to its pages and its code, and plans again.
func TestKillWhilePlanning(t *testing.T) {
	log := filepath.Join(t.TempDir(), "points")
	plan := func(w *world, env ...string) outcome { return w.run(env, "plan", "--json", "2511.98765") }
	w := newWorld(t)
	w.queueLens(0)
	want := plan(w, "REPROMILL_FAIL_LOG="+log)
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	points := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(points) < 20 || !strings.Contains(string(text), "git:ref:after") {
		t.Fatalf("the durable steps are %q", points)
	}
	hash := decode[planOf](t, want.stdout).Hash
	for i, name := range points {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			w := newWorld(t)
			w.queueLens(0)
			if o := plan(w, fmt.Sprintf("REPROMILL_FAIL_AT=%d", i+1)); o.code != -1 {
				t.Errorf("not killed: exit %d\n%s", o.code, o.stderr)
			}
			o := plan(w)
			if o.code != 0 || decode[planOf](t, o.stdout).Hash != hash {
				t.Errorf("exit %d\n%s%s", o.code, o.stdout, o.stderr)
			}
			// What was killed on the way is swept by the next that makes
			// something new.
			again := len(w.requests("", ""))
			if plan(w); len(w.requests("", "")) != again {
				t.Error("the plan after that was not free of requests")
			}
		})
	}
}
