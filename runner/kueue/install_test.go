//go:build linux && cluster

package kueue

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/repromill/repromill/runner"
)

const manifests = "../../examples/cluster"

// TestManifests applies every example, then submits as one who may do only
// what the example grants.
func TestManifests(t *testing.T) {
	r := newRecorder(t)
	files, err := filepath.Glob(manifests + "/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("the examples are %v, %v", files, err)
	}
	kubectl(t, "apply", "-f", filepath.Join(manifests, "namespace.yaml"))
	for _, f := range files {
		switch filepath.Base(f) {
		case "serving.yaml": // its images and GPUs are not here
			kubectl(t, "apply", "--dry-run=server", "-f", f)
			continue
		case "autoscale.yaml": // of KEDA, which is not here
			continue
		}
		kubectl(t, "apply", "-f", f)
		if b, err := os.ReadFile(f); err == nil && !strings.Contains(string(b), "kind: Namespace") {
			t.Cleanup(func() { kubectl(t, "delete", "--wait=false", "-f", f) })
		}
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Impersonate.UserName = "system:serviceaccount:repromill:repromill-submitter"
	e := through(t, r, cfg)
	a := r.counting(t)
	h, err := e.Submit(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	started(t, a)
	letGo(t, a)
	if st := wait(t, e, h, final); st.Phase != runner.Succeeded {
		t.Errorf("ended %+v", st)
	}
	b := r.counting(t)
	if h, err = e.Submit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	started(t, b)
	if err := e.Cancel(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if st := wait(t, e, h, final); st.Phase != runner.Cancelled {
		t.Errorf("ended %+v", st)
	}
}
