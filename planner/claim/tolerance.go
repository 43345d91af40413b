package claim

import (
	"fmt"
	"math"

	"github.com/repromill/repromill/planner/spec"
)

// DefaultRelative is the tolerance where nobody states one: 1 % of the value.
const DefaultRelative = 0.01

// Tolerance is how far a measured value may lie from the claim, from the best
// source there is: what is stated beside the value; the binomial spread of an
// accuracy over a test set of known size (95 %, normal approximation); 1 %
// relative, flagged as default. A claim that is itself a range has no width
// beyond it.
// place names where the claim stands.
func (c *Claim) Tolerance(place string) *spec.Tolerance {
	switch {
	case c.PlusMinus != nil:
		return &spec.Tolerance{Value: *c.PlusMinus, Kind: "absolute", Source: "stated: " + place}
	case c.Value == nil:
		return &spec.Tolerance{Kind: "absolute", Source: "stated: the claim's own range"}
	}
	if t := c.binomial(); t != nil {
		return t
	}
	return &spec.Tolerance{Value: DefaultRelative, Kind: "relative", Source: "default"}
}

func (c *Claim) binomial() *spec.Tolerance {
	switch c.Key.Base {
	case "accuracy", "exact_match", "pass_at_1", "top5_accuracy":
	default:
		return nil
	}
	n, what := c.Items, "stated beside the claim"
	if n == 0 {
		n, what = TestItems(c.Dataset), "the usual test set of "+c.Dataset
	}
	if n == 0 || c.Relation != "absolute" {
		return nil
	}
	p, scale := *c.Value, 1.0
	if p > 1 {
		p, scale = p/100, 100
	}
	if p < 0 || p > 1 {
		return nil
	}
	half := 1.96 * math.Sqrt(p*(1-p)/float64(n)) * scale
	if half == 0 {
		half = scale / float64(n)
	}
	return &spec.Tolerance{
		Value: math.Round(half*1e4) / 1e4, Kind: "absolute",
		Source: fmt.Sprintf("binomial: 95 %% interval over %d items, %s", n, what),
	}
}
