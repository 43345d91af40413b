package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/repromill/repromill/estimators/calibrate"
	"github.com/repromill/repromill/estimators/serving"
	"github.com/repromill/repromill/estimators/sku"
)

// splits is what `estimate MODEL --layouts N --json` prints.
type splits struct {
	Model     string            `json:"model"`
	Precision string            `json:"precision"`
	Load      serving.Workload  `json:"load"`
	Splits    []calibrate.Split `json:"layouts"`
}

// printLayouts shows every way to lay a model over at most so many GPUs.
func (a *app) printLayouts(cal *calibrate.Calibration, ask calibrate.Ask, skus []*sku.SKU, most int) error {
	out := splits{Model: ask.Shape.Name, Precision: ask.Shape.Precision.String(), Load: ask.Load, Splits: []calibrate.Split{}}
	for _, g := range skus {
		out.Splits = append(out.Splits, cal.Splits(ask, g, most)...)
	}
	if a.jsonOut {
		return a.printJSON(out)
	}
	if len(out.Splits) == 0 {
		fmt.Fprintf(a.stdout, "%s in %s fits none of these GPUs, up to %d of them\n", clean(out.Model), out.Precision, most)
		return nil
	}
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "GPU\tGPUS\tNODES\tTP\tPP\tEP\tROOM\tTOKENS/S\tPER GPU\tTTFT\tTPOT\tLINKS\tCONFIDENCE\t")
	for _, s := range out.Splits {
		l := s.Layout
		ep, mark := "-", ""
		if l.Expert {
			ep = fmt.Sprint(l.GPUs)
		}
		if s.Best {
			mark = "best per GPU"
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%s\t%d\t%s\t%s\t%s\t%s\t%.0f %%\t%s\t%s\n", s.SKU, l.GPUs, max(1, l.Nodes), l.TP, max(1, l.PP), ep, s.Batch,
			between(s.Throughput), sig(s.PerGPU), seconds(s.TTFT), seconds(s.TPOT), 100*s.LinkShare, s.Confidence, mark)
	}
	return w.Flush()
}
