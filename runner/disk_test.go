package runner

import (
	"errors"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/spec"
)

func TestEnvironmentBytes(t *testing.T) {
	for _, tc := range []struct {
		specs []string
		want  int64
	}{
		{nil, 0},
		{[]string{"numpy==1.26.4", "tqdm"}, 120e6},
		{[]string{"torch==2.4", "torchvision", "numpy"}, 6060e6},
		{[]string{"jax[cuda12]"}, 4e9},
		{[]string{"-r requirements.txt", "scikit-learn"}, 800e6},
		{[]string{"torchmetrics-like"}, 60e6},
	} {
		var e spec.Environment
		for _, s := range tc.specs {
			e.Requirements = append(e.Requirements, spec.Requirement{Spec: s})
		}
		if got := environmentBytes(e); got != tc.want {
			t.Errorf("%q take %d, want %d", tc.specs, got, tc.want)
		}
	}
}

// TestNoRoom: a run that does not fit is refused with the numbers before
// anything is made, and goes on when there is room.
func TestNoRoom(t *testing.T) {
	free := int64(100e6)
	b := newBench(t, map[string]string{"main.sh": "echo acc=0.91\n"}, func(c *Config) {
		c.FreeBytes = func(string) (int64, error) { return free, nil }
	})
	id := b.create(Request{Plan: simple("sh", "main.sh"), Yes: true})
	_, err := b.Drive(t.Context(), id)
	var user *UserError
	if !errors.As(err, &user) || !strings.Contains(err.Error(), "needs about 0.5 GB") || !strings.Contains(err.Error(), "0.1 GB free") || !strings.Contains(user.Fix, "cache prune --keep") {
		t.Fatalf("got %v", err)
	}
	b.consistent(id)
	free = 1e12
	if out, err := b.Drive(t.Context(), id); err != nil || out.Manifest == "" {
		t.Errorf("with room it gave %+v, %v", out, err)
	}
}
