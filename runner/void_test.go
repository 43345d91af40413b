package runner

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/spec"
)

// TestVoidIsNotCollected: nothing is read from what ran on another GPU model
// than the plan is for, and the report says why.
func TestVoidIsNotCollected(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	if err := os.WriteFile(out, []byte("accuracy 0.9\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := &drive{dir: dir, plan: &spec.Plan{Runs: []spec.Run{{ID: "a", Collect: []spec.Collect{{Metric: "accuracy", Kind: "stdout_regex", Pattern: "accuracy ([0-9.]+)"}}}}}}
	for _, tc := range []struct {
		st   Status
		read int
	}{
		{Status{Phase: Succeeded, Stdout: out}, 1},
		{Status{Phase: Failed, Reason: ReasonWrongSKU, Message: "its nodes have NVIDIA-H200 (h200) and the plan is for b200", Stdout: out}, 0},
	} {
		got, _, err := d.collect(t.Context(), Executed{Units: []Unit{{Run: "a", Status: tc.st, Reason: failure(tc.st)}}})
		if err != nil || len(got.Metrics) != tc.read || len(got.Missing) != 1-tc.read {
			t.Errorf("collected %+v, %v", got, err)
		}
		if tc.read == 0 && !strings.Contains(got.Missing[0].Reason, "void: the command was given another GPU model than the plan is for: its nodes have NVIDIA-H200") {
			t.Errorf("the reason is %q", got.Missing[0].Reason)
		}
	}
}
