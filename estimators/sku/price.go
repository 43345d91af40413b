package sku

import (
	"fmt"
	"math"
	"time"

	"github.com/repromill/repromill/planner/spec"
)

// Terms is how a GPU-hour is paid for. The two differ by 1.5 to 3 times and are
// never mixed.
type Terms string

// The terms of a price.
const (
	OnDemand Terms = "on_demand" // by the hour, cancelled any time
	Owned    Terms = "owned"     // cost of ownership, or a contract of years
)

// Price is what an hour of one GPU costs.
type Price struct {
	Low    float64   `json:"low_usd"`
	Mid    float64   `json:"mid_usd"`
	High   float64   `json:"high_usd"`
	Terms  Terms     `json:"terms"`
	AsOf   string    `json:"as_of"` // YYYY-MM
	Kind   spec.Kind `json:"kind"`
	Source string    `json:"source"`
}

const (
	tco   = "SemiAnalysisAI/InferenceX-app constants.ts @77ca49a: hyperscaler, neocloud, 3-year rental"
	pages = "on-demand pages of providers"
)

// DefaultPrice is the range that public pages gave. ok is false where none was
// found: then only a price of the user's makes money of hours.
func DefaultPrice(id string, terms Terms) (p Price, ok bool) {
	table := onDemand
	if terms == Owned {
		table = owned
	}
	p, ok = table[id]
	return p, ok
}

func spot(low, mid, high float64, asOf string) Price {
	return Price{low, mid, high, OnDemand, asOf, spec.Published, pages}
}

func own(low, mid, high float64) Price {
	return Price{low, mid, high, Owned, "2026-06", spec.Published, tco}
}

var onDemand = map[string]Price{
	"a100":                spot(0.80, 1.60, 3.00, "2026-05"),
	"h100":                spot(1.47, 2.95, 6.88, "2026-05"),
	"h200":                spot(2.25, 4.00, 7.00, "2026-06"),
	"b200":                spot(3.75, 6.00, 14.24, "2026-06"),
	"gb200":               {4.54, 4.54, 4.54, OnDemand, "2026-03", spec.Published, "half of one superchip, one provider"},
	"rtx-pro-6000":        spot(0.66, 0.66, 0.66, "2026-06"),
	"rtx-pro-6000-server": spot(0.66, 0.66, 0.66, "2026-06"),
}

var owned = map[string]Price{
	"h100": own(1.30, 1.30, 1.69), "h200": own(1.41, 1.60, 1.74), "b200": own(1.95, 2.34, 2.90), "b300": own(2.34, 2.81, 3.48),
	"gb200": own(2.21, 2.75, 3.30), "gb300": own(2.65, 3.30, 3.96),
}

// PriceError says that a configured price cannot be meant.
type PriceError struct {
	SKU string
	Why string
}

func (e *PriceError) Error() string { return "price of " + e.SKU + ": " + e.Why }

// UserError is what the user can do.
func (e *PriceError) UserError() string {
	return "prices are USD per GPU-hour, in config.yaml: `prices: {" + e.SKU + ": 3.50}`"
}

// UserPrice is a price that the user configured. asOf is a month, or empty.
func UserPrice(id string, usd float64, terms Terms, asOf, source string) (Price, error) {
	if math.IsNaN(usd) || usd < 0 || usd > 1000 {
		return Price{}, &PriceError{id, fmt.Sprintf("%v USD per GPU-hour cannot be meant", usd)}
	}
	if _, err := time.Parse("2006-01", asOf); err != nil && asOf != "" {
		return Price{}, &PriceError{id, fmt.Sprintf("%.20q is no month such as 2026-11", asOf)}
	}
	return Price{usd, usd, usd, terms, asOf, spec.Published, source}, nil
}

// Stale reports whether a price is older than a year.
func (p Price) Stale(now time.Time) bool {
	t, err := time.Parse("2006-01", p.AsOf)
	return err == nil && now.Sub(t) > 366*24*time.Hour
}
