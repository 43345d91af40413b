package cli

import (
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/spec"
)

func TestForeignTextIsTamed(t *testing.T) {
	const text = "ok é\tx\r\n50%\r100%\n\x1b]0;t\x07\u202e\u009b31m €"
	for size := 1; size <= len(text); size++ {
		var b strings.Builder
		w := &cleanWriter{w: &b}
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			if k, err := w.Write([]byte(rest[:n])); k != n || err != nil {
				t.Fatal(k, err)
			}
			rest = rest[n:]
		}
		if got, want := b.String(), "ok é\tx\n50%\n100%\n\ufffd]0;t\ufffd\ufffd\ufffd31m €"; strings.ReplaceAll(got, "\n\n", "\n") != want {
			t.Errorf("in pieces of %d: %q, want %q", size, got, want)
		}
	}
}

func TestPrintablePlan(t *testing.T) {
	v := 1.25e-7
	p := &spec.Plan{Runs: []spec.Run{{Command: "a\x1bb", Env: map[string]string{"K\x07": "v\u202e"}}}, Claims: []spec.Claim{{Value: &v}}}
	got := printable(p)
	if got.Runs[0].Command != "a\ufffdb" || got.Runs[0].Env["K\ufffd"] != "v\ufffd" || *got.Claims[0].Value != v || p.Runs[0].Command != "a\x1bb" {
		t.Errorf("%+v", got)
	}
}
