package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/repromill/repromill/results/schema"
)

// committed calls f with every row of a table that a script's runs committed, and
// with the folder it lies in, whose name says what the row does not.
func committed[R schema.Row](ts *testscript.TestScript, table string, f func(folder string, row R)) {
	root := filepath.Join(ts.MkAbs(".home"), "data", "repromill", table)
	ts.Check(filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(name) != ".parquet" {
			return err
		}
		in, err := os.Open(name)
		if err != nil {
			return err
		}
		defer in.Close()
		r, err := schema.NewReader[R](in)
		if err != nil {
			return err
		}
		for {
			rows, err := r.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			for _, row := range rows {
				f(strings.TrimPrefix(filepath.Dir(name), root), row)
			}
		}
	}))
}

// looks checks the committed looks of sequential comparisons: they stand from 0 on
// without a gap, over ever more questions, and only the last is final. It also
// checks that samples name the stage of their rule. It prints how many there are.
func looks(ts *testscript.TestScript, neg bool, args []string) {
	by := map[string][]schema.ComparisonRow{}
	committed(ts, schema.Comparisons, func(folder string, r schema.ComparisonRow) {
		key := folder + " " + r.RunID + " " + r.Suite + " " + r.Arm + " " + r.Method
		by[key] = append(by[key], r)
	})
	most := 0
	for key, rows := range by {
		slices.SortFunc(rows, func(a, b schema.ComparisonRow) int { return cmp.Compare(a.Look, b.Look) })
		for i, r := range rows {
			last := i == len(rows)-1
			if r.Look != int64(i) || r.Final != last || i > 0 && r.N.V <= rows[i-1].N.V || !last && r.Verdict != "undecided" {
				ts.Fatalf("%s: look %d of %d is %+v", key, i, len(rows), r)
			}
			if r.Method == "wor_e" && (!r.EValue.Valid || !r.EBeyond.Valid) {
				ts.Fatalf("%s: look %d has no evidence: %+v", key, i, r)
			}
		}
		most = max(most, len(rows))
	}
	stages := map[string]bool{}
	committed(ts, schema.Samples, func(folder string, r schema.SampleRow) {
		for part := range strings.SplitSeq(folder, "/") {
			if suite, ok := strings.CutPrefix(part, "suite="); ok {
				r.Suite = suite
			}
		}
		stages[r.Suite+" "+r.Stage] = true
	})
	fmt.Fprintf(ts.Stdout(), "%d comparisons, at most %d looks\n", len(by), most)
	for _, s := range slices.Sorted(maps.Keys(stages)) {
		fmt.Fprintln(ts.Stdout(), s)
	}
}
