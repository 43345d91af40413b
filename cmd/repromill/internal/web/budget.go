package web

import (
	"errors"
	"net/http"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/access"
	"github.com/repromill/repromill/runner/store"
)

// expected is what the whole job of a plan is estimated to take: on the GPU it
// was made for, else on the one with the fewest GPU-hours. nil is unknown.
func expected(p *spec.Plan) (gpuHours float64, usd *float64) {
	best := chosenEstimate(p)
	if best == nil || best.GPUHours == nil {
		return 0, nil
	}
	if best.USD != nil {
		usd = &best.USD.P50
	}
	return best.GPUHours.P50, usd
}

// chosenEstimate is the estimate that speaks for a plan.
func chosenEstimate(p *spec.Plan) (best *spec.Estimate) {
	for i := range p.Estimates {
		e := &p.Estimates[i]
		if e.Scope != "" || e.Fits == "no" || p.Environment.SKU != "" && e.SKU != p.Environment.SKU && e.SKU != "cpu" {
			continue
		}
		if best == nil || e.GPUHours != nil && (best.GPUHours == nil || e.GPUHours.P50 < best.GPUHours.P50) {
			best = e
		}
	}
	return best
}

// within refuses a run that is estimated beyond what its key may spend on one.
func within(g access.Grant, hours float64, usd *float64) error {
	const fix = "choose a smaller run, or ask for a key with a larger budget"
	if g.MaxGPUHours > 0 && hours > g.MaxGPUHours {
		return problemf(http.StatusForbidden, fix, "the run is estimated at %.3g GPU-hours and the key allows %.3g for one run", hours, g.MaxGPUHours)
	}
	if g.MaxUSD > 0 && usd != nil && *usd > g.MaxUSD {
		return problemf(http.StatusForbidden, fix, "the run is estimated at %.3g USD and the key allows %.3g for one run", *usd, g.MaxUSD)
	}
	return nil
}

// overLimit tells of the daily limit, in the way of any other limit of rate.
func overLimit(err error, used, hours, limit float64) error {
	if !errors.Is(err, store.ErrOverLimit) {
		return err
	}
	p := problemf(http.StatusTooManyRequests, "wait until the use of the last 24 hours is less, or ask for a larger limit",
		"%.3g GPU-hours of the %.3g for 24 hours are in use, and this run is estimated at %.3g", used, limit, hours)
	p.retry = time.Hour
	return p
}
