//go:build e2e || (linux && cluster)

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/repromill/repromill/results/schema"
)

// samplesIn are the samples that the runs of a test's folder committed.
func samplesIn(t *testing.T, dir string) (out []schema.SampleRow) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "data", "repromill", "samples", "*", "*", "*", "*.parquet"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r, err := schema.NewReader[schema.SampleRow](f)
		if err != nil {
			t.Fatal(err)
		}
		for {
			rows, err := r.Next()
			if err != nil {
				break
			}
			out = append(out, rows...)
		}
	}
	return out
}
