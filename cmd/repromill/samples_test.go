//go:build e2e || (linux && cluster)

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/repromill/repromill/results/schema"
)

// samplesIn are the samples that the runs of a test's folder committed.
func samplesIn(t *testing.T, dir string) []schema.SampleRow {
	t.Helper()
	return rowsIn[schema.SampleRow](t, dir)
}

// rowsIn are the rows of a table of the data set below a folder that holds a user's
// files.
func rowsIn[T schema.Row](t *testing.T, dir string) (out []T) {
	t.Helper()
	var row T
	files, err := filepath.Glob(filepath.Join(dir, "data", "repromill", row.Table(), "*", "*", "*", "*.parquet"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no %s: %v", row.Table(), err)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r, err := schema.NewReader[T](f)
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
