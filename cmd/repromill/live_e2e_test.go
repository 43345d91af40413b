//go:build e2e

package main

import (
	"net/http"
	"net/http/httptest"
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
