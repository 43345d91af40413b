package planner

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/spec"
)

// ForSKU makes the environment of the plan one for a GPU model: the plan is
// restricted to it, what has to move for it is applied when the environment is
// made, and the plan is sealed again. The error is an [InputError].
func ForSKU(p *spec.Plan, id string) error {
	fit, ok := p.Environment.SKUs[id]
	if !ok {
		known := strings.Join(slices.Sorted(maps.Keys(p.Environment.SKUs)), ", ")
		if known == "" {
			return &InputError{fmt.Sprintf("--sku %s: the plan judges its environment for no GPU model", id), "leave --sku out"}
		}
		return &InputError{fmt.Sprintf("--sku %s: the plan does not judge its environment for this model", id), "it knows: " + known}
	}
	p.Environment.SKU = id
	p.Environment.SKUs = map[string]spec.SKUFit{id: fit}
	if fit.Status == "unknown" {
		p.Warnings = append(p.Warnings, spec.Warning{Code: "sku_unknown",
			Message: "it is not known whether this environment works on " + id + "; nothing is changed for it"})
	}
	for _, d := range fit.Deviations {
		if d.Used != "none" {
			continue
		}
		for i := range p.Runs {
			r := &p.Runs[i]
			why := fmt.Sprintf("no release of %s is known to work on %s: %s", d.What, id, d.Reason)
			if need(r, "environment", d.What, "legacy_env", why); r.Status == "auto" {
				r.Status = "legacy_env"
			}
		}
	}
	p.Seal()
	return nil
}
