package runner

import (
	"fmt"

	"github.com/repromill/repromill/planner/spec"
)

// beyondCaps says that a plan's estimate lies beyond what its user allows, so
// that the run would be ended before it could give anything: even the 10 %
// quantile on the least costly GPU is over a cap. It is empty where the estimate
// is unknown; the caps themselves hold in any case.
func beyondCaps(p *spec.Plan, c Caps) string {
	for _, q := range []struct {
		cap  float64
		unit string
		flag string
		of   func(*spec.Estimate) *spec.Interval
	}{
		{c.GPUHours, "GPU-hours", "--max-gpu-hours", func(e *spec.Estimate) *spec.Interval { return e.GPUHours }},
		{c.USD, "USD", "--max-usd", func(e *spec.Estimate) *spec.Interval { return e.USD }},
	} {
		if q.cap <= 0 {
			continue
		}
		var least *spec.Estimate
		for i := range p.Estimates {
			e := &p.Estimates[i]
			if e.Scope != "" || e.Fits == "no" || p.Environment.SKU != "" && e.SKU != p.Environment.SKU {
				continue
			}
			iv := q.of(e)
			if iv == nil {
				return "" // what one GPU takes is unknown: nothing is ruled out
			}
			if least == nil || iv.P10 < q.of(least).P10 {
				least = e
			}
		}
		if least == nil || q.of(least).P10 <= q.cap {
			continue
		}
		iv := q.of(least)
		return fmt.Sprintf("it is estimated at %.3g %s (%.3g to %.3g) on %s, the least of all GPUs, and the cap is %g: raise %s, or choose a smaller run", iv.P50, q.unit, iv.P10, iv.P90, least.SKU, q.cap, q.flag)
	}
	return ""
}
