package runner

import (
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/spec"
)

func TestBeyondCaps(t *testing.T) {
	iv := func(p10, p50, p90 float64) *spec.Interval { return &spec.Interval{P10: p10, P50: p50, P90: p90} }
	plan := &spec.Plan{Estimates: []spec.Estimate{
		{SKU: "h100", Fits: "yes", GPUHours: iv(8, 10, 14), USD: iv(16, 25, 60)},
		{SKU: "b200", Fits: "yes", GPUHours: iv(5, 6, 9), USD: iv(20, 30, 70)},
		{SKU: "rtx-4060", Fits: "no"},
		{SKU: "h100", Scope: "run/full", GPUHours: iv(900, 1000, 2000)},
	}}
	for _, c := range []struct {
		caps Caps
		sku  string
		want string
	}{
		{Caps{}, "", ""},
		{Caps{GPUHours: 5, USD: 16}, "", ""}, // possible, if not likely
		{Caps{GPUHours: 4}, "", "6 GPU-hours (5 to 9) on b200"},
		{Caps{USD: 10}, "", "25 USD (16 to 60) on h100"},
		{Caps{GPUHours: 6}, "h100", "10 GPU-hours (8 to 14) on h100"},
	} {
		plan.Environment.SKU = c.sku
		got := beyondCaps(plan, c.caps)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%+v on %q: %q, want %q", c.caps, c.sku, got, c.want)
		}
	}
	plan.Environment.SKU = ""
	plan.Estimates[1].GPUHours = nil
	if got := beyondCaps(plan, Caps{GPUHours: 4}); got != "" {
		t.Errorf("a GPU whose cost is unknown is ruled out: %s", got)
	}
}
