//go:build linux && cluster

package kueue

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
		kubectl(t, "apply", "--validate=strict", "-f", f)
		if b, err := os.ReadFile(f); err == nil && !strings.Contains(string(b), "kind: Namespace") {
			t.Cleanup(func() { kubectl(t, "delete", "--wait=false", "-f", f) })
		}
	}
	// Images and processors are not here, so no pod of the servers starts; to be let
	// in is Kueue's own.
	for _, queue := range []string{"example-serving-short", "example-serving-long"} {
		awaitOutput(t, "Pod True\n", "get", "workloads", "-n", "repromill", "-o",
			`jsonpath={range .items[?(@.spec.queueName=="`+queue+`")]}{.metadata.ownerReferences[0].kind} {.status.conditions[?(@.type=="Admitted")].status}{"\n"}{end}`)
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

// awaitOutput waits until kubectl prints something.
func awaitOutput(t *testing.T, want string, args ...string) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		out, err := exec.Command("kubectl", args...).CombinedOutput()
		if string(out) == want && err == nil {
			return
		}
		if time.Now().After(end) {
			all, _ := exec.Command("kubectl", "get", "workloads,jobs,pods", "-n", "repromill", "-o", "wide").CombinedOutput()
			t.Fatalf("kubectl %v prints %q, want %q: %v\n%s", args, out, want, err, all)
		}
	}
}
