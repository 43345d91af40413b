// Package catalog is the list of suites that this program knows.
package catalog

import (
	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/aalcr"
	"github.com/repromill/repromill/suites/aime"
	"github.com/repromill/repromill/suites/gpqa"
	"github.com/repromill/repromill/suites/ifbench"
	"github.com/repromill/repromill/suites/ifeval"
	"github.com/repromill/repromill/suites/mmlupro"
	"github.com/repromill/repromill/suites/ruler"
	"github.com/repromill/repromill/suites/synthetic"
	"github.com/repromill/repromill/suites/toolcalls"
)

// All returns every suite, those that model cards report first. Counts of
// questions are those of the data sets; repeats are NVIDIA's; variances within
// questions and token counts are assumptions for planning, to be replaced by an
// estimate from the first repeats.
//
// Sources: modelscope/evalscope fde259d, evalscope/benchmarks/_meta (counts);
// NVIDIA-NeMo/Evaluator ac66aff, nemo-evaluator-launcher/examples/nemotron
// (repeats).
func All() suites.Catalog {
	return append(suites.Catalog{
		mmlupro.Definition(),
		aime.Definition(2025),
		aime.Definition(2024),
		gpqa.Definition(),
		ifbench.Definition(),
		ifeval.Definition(),
		toolcalls.Definition(),
		synthetic.Choice(),
		synthetic.Lookup(),
		ruler.Definition(),
		aalcr.Definition(),
	}, later()...)
}
