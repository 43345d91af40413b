package cli

import (
	"fmt"

	"github.com/repromill/repromill/results/dataset"
)

func (a *app) printVerify(rep *dataset.VerifyReport) {
	fmt.Fprintf(a.stdout, "%d runs, %d files, %d rows, %.1f MB\n", rep.Runs, rep.Files, rep.Rows, float64(rep.Bytes)/1e6)
	for _, id := range rep.InProgress {
		fmt.Fprintf(a.stdout, "  run %s is being committed by another process\n", id)
	}
	for _, p := range rep.Problems {
		fmt.Fprintf(a.stdout, "  %s\n", clean(p.String()))
	}
	if rep.OK() {
		fmt.Fprintln(a.stdout, "clean")
	}
}
