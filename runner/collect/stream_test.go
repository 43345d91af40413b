package collect

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/repromill/repromill/planner/spec"
)

// TestStandardErrorIsReadAfterStandardOutput holds the order: a line on
// standard output counts, and a logger's line only where there is none.
func TestStandardErrorIsReadAfterStandardOutput(t *testing.T) {
	rule := []spec.Collect{{Metric: "acc", Kind: "stdout_regex", Pattern: `acc: ([0-9.]+)`}}
	for name, tc := range map[string]struct {
		out, err, file string
		want           float64
	}{
		"both":    {"acc: 1", "acc: 2", "stdout", 1},
		"logged":  {"hello", "INFO acc: 2", "stderr", 2},
		"nowhere": {"hello", "world", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			src := Source{Dir: dir, Stdout: filepath.Join(dir, "out"), Stderr: filepath.Join(dir, "err")}
			for path, text := range map[string]string{src.Stdout: tc.out, src.Stderr: tc.err} {
				if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := All(t.Context(), src, rule)
			if err != nil || len(got) != 1 {
				t.Fatalf("%v, %v", got, err)
			}
			switch v := got[0].Value; {
			case tc.file == "" && (v != nil || got[0].NotFound == ""):
				t.Errorf("found %+v", v)
			case tc.file != "" && (v == nil || v.File != tc.file || v.Value != tc.want):
				t.Errorf("got %+v, want %g from %s", v, tc.want, tc.file)
			}
		})
	}
}
