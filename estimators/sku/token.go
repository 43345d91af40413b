package sku

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner/spec"
)

// TokenPrice is what a host bills for a million tokens. Reasoning is billed as
// output.
type TokenPrice struct {
	Host   string    `json:"host"`
	Model  string    `json:"model"`
	In     float64   `json:"input_usd_per_m"`
	Out    float64   `json:"output_usd_per_m"`
	AsOf   string    `json:"as_of,omitempty"` // YYYY-MM
	Kind   spec.Kind `json:"kind"`
	Source string    `json:"source"`
}

// DefaultTokenPrice is what hosts of open models asked by size, when nothing is
// configured for the model itself. It is a class of price lists, not an offer.
func DefaultTokenPrice(params float64) (TokenPrice, bool) {
	const source = "serverless price classes of open-model hosts by parameters, input and output alike"
	if !(params > 0) {
		return TokenPrice{}, false
	}
	for _, c := range []struct{ below, usd float64 }{{4.1e9, 0.10}, {8.1e9, 0.20}, {21.1e9, 0.30}, {41.1e9, 0.80}, {80.1e9, 0.90}, {110.1e9, 1.80}, {480e9, 2.40}, {math.Inf(1), 3.50}} {
		if params < c.below {
			return TokenPrice{Host: "price class", In: c.usd, Out: c.usd, AsOf: "2024-10", Kind: spec.Assumed, Source: source}, true
		}
	}
	return TokenPrice{}, false
}

// TokenFileError says what is wrong with a file of token prices.
type TokenFileError struct {
	Line int
	Why  string
}

func (e *TokenFileError) Error() string {
	return fmt.Sprintf("token prices, line %d: %s", e.Line, e.Why)
}

// UserError is what the user can do.
func (e *TokenFileError) UserError() string {
	return "the file is CSV with the columns model, input_usd_per_m and output_usd_per_m, and host, as_of and source where known"
}

// MaxTokenPrices bounds what is read from one file.
const MaxTokenPrices = 10_000

// ReadTokenPrices reads a price file: CSV with a header that names at least
// model, input_usd_per_m and output_usd_per_m. Its error is a [*TokenFileError].
func ReadTokenPrices(r io.Reader) ([]TokenPrice, error) {
	cr := csv.NewReader(r)
	cr.FieldsPerRecord = -1
	head, err := cr.Read()
	if err != nil {
		return nil, &TokenFileError{1, "there is no header"}
	}
	col := map[string]int{}
	for i, h := range head {
		col[strings.ToLower(strings.TrimSpace(strings.TrimPrefix(h, "\ufeff")))] = i
	}
	for _, name := range []string{"model", "input_usd_per_m", "output_usd_per_m"} {
		if _, ok := col[name]; !ok {
			return nil, &TokenFileError{1, fmt.Sprintf("column %q is missing", name)}
		}
	}
	var out []TokenPrice
	for {
		rec, err := cr.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		var pe *csv.ParseError
		if errors.As(err, &pe) {
			return nil, &TokenFileError{pe.Line, pe.Err.Error()}
		}
		if err != nil {
			return nil, &TokenFileError{0, err.Error()}
		}
		line, _ := cr.FieldPos(0)
		if len(out) == MaxTokenPrices {
			return nil, &TokenFileError{line, fmt.Sprintf("more than %d prices", MaxTokenPrices)}
		}
		p, err := tokenPrice(rec, col)
		if err != nil {
			return nil, &TokenFileError{line, err.Error()}
		}
		out = append(out, p)
	}
}

func tokenPrice(rec []string, col map[string]int) (TokenPrice, error) {
	str := func(name string) string {
		if i, ok := col[name]; ok && i < len(rec) {
			return strings.TrimSpace(rec[i])
		}
		return ""
	}
	p := TokenPrice{Host: str("host"), Model: str("model"), AsOf: str("as_of"), Kind: spec.Published, Source: str("source")}
	if p.Model == "" {
		return p, errors.New("model is empty")
	}
	for _, f := range []struct {
		name string
		at   *float64
	}{{"input_usd_per_m", &p.In}, {"output_usd_per_m", &p.Out}} {
		v, err := strconv.ParseFloat(strings.TrimPrefix(str(f.name), "$"), 64)
		if err != nil || math.IsNaN(v) || v < 0 || v > 10_000 {
			return p, fmt.Errorf("%s is %.40q, not USD for a million tokens", f.name, str(f.name))
		}
		*f.at = v
	}
	return p, nil
}
