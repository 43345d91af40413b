package calibrate

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Prediction is one row against what was predicted without it.
type Prediction struct {
	Line      int     `json:"line"`
	Fold      string  `json:"fold"`
	Model     string  `json:"model"`
	SKU       string  `json:"sku"`
	Precision string  `json:"precision"`
	Engine    string  `json:"engine"`
	Measured  float64 `json:"measured"`
	P10       float64 `json:"p10"`
	P50       float64 `json:"p50"`
	P90       float64 `json:"p90"`

	pair string // what an FP8 and an NVFP4 row of the same configuration share
}

// Score sums up predictions.
type Score struct {
	Name     string  `json:"name"`
	N        int     `json:"n"`
	Median   float64 `json:"median_abs_pct_error"`
	P90      float64 `json:"p90_abs_pct_error"`
	Bias     float64 `json:"bias_pct"`    // median of predicted/measured - 1
	Coverage float64 `json:"coverage_80"` // per cent of measurements within P10 to P90
}

// Ratio is how well the ratio of NVFP4 to FP8 at equal configuration is
// predicted.
type Ratio struct {
	Pairs         int     `json:"pairs"`
	Measured      float64 `json:"measured_median"`
	Predicted     float64 `json:"predicted_median"`
	Median        float64 `json:"median_abs_pct_error"`
	BestConstant  float64 `json:"best_constant"`
	ConstantError float64 `json:"best_constant_median_abs_pct_error"`
}

// Report is the result of a backtest.
type Report struct {
	LeaveOut string `json:"leave_out"` // sku|model, or none: the shipped calibration
	Score
	Overall     Score        `json:"overall"` // the same, beside the parts
	Folds       []Score      `json:"folds"`
	SKUs        []Score      `json:"by_sku"`
	Models      []Score      `json:"by_model"`
	Precisions  []Score      `json:"by_precision"`
	Engines     []Score      `json:"by_engine"`
	NVFP4       *Ratio       `json:"nvfp4_over_fp8,omitempty"`
	Predictions []Prediction `json:"predictions,omitempty"`
	Notes       []string     `json:"notes,omitempty"`
}

// LeaveOutError says that a kind of fold is none.
type LeaveOutError struct{ Name, Why string }

func (e *LeaveOutError) Error() string { return fmt.Sprintf("--leave-out %s: %s", e.Name, e.Why) }

// UserError is what the user can do.
func (e *LeaveOutError) UserError() string {
	return "leave out sku or model, of which the file needs two; without --leave-out the shipped calibration is scored"
}

// Backtest predicts every row from rows of other GPUs ("sku") or other models
// ("model"). Each fold fits everything from scratch, the intervals too: nothing
// of a row that is left out reaches its prediction. Models of the same structure
// are one model, whatever they are called.
func Backtest(rows []Row, configs *Configs, leaveOut string) (*Report, error) {
	var key func(*point) string
	switch leaveOut {
	case "sku":
		key = skuKey
	case "model":
		key = modelKey
	default:
		return nil, &LeaveOutError{leaveOut, "unknown"}
	}
	ps, err := resolve(rows, configs)
	if err != nil {
		return nil, err
	}
	folds := map[string][]int{}
	for i, p := range ps {
		folds[key(p)] = append(folds[key(p)], i)
	}
	if len(folds) < 2 {
		return nil, &LeaveOutError{leaveOut, "all rows are of one"}
	}
	preds := make([]Prediction, len(ps))
	for _, k := range sortedKeys(folds) {
		if err := predictFold(ps, folds[k], preds); err != nil {
			return nil, err
		}
		name := foldName(ps, folds[k], leaveOut)
		for _, i := range folds[k] {
			preds[i].Fold = name
		}
	}
	return newReport(leaveOut, preds), nil
}

func sortedKeys(m map[string][]int) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func foldName(ps []*point, members []int, leaveOut string) string {
	if leaveOut == "sku" {
		return ps[members[0]].sku.ID
	}
	var names []string
	for _, i := range members {
		if n := ps[i].row.Model; !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	out := names[0]
	for _, n := range names[1:] {
		out += " + " + n
	}
	return out
}

// predictFold fits without the members and predicts them.
func predictFold(ps []*point, members []int, preds []Prediction) error {
	out := make([]bool, len(ps))
	for _, i := range members {
		out[i] = true
	}
	var train []*point
	for i, p := range ps {
		if !out[i] {
			q := *p
			train = append(train, &q)
		}
	}
	c, err := fitPoints(train)
	if err != nil {
		return err
	}
	var kinds []string
	for _, i := range members {
		if k, _ := c.knows(ps[i]); !slices.Contains(kinds, k) {
			kinds = append(kinds, k)
		}
	}
	c.spread(train, kinds)
	for _, i := range members {
		p := ps[i]
		e := c.Estimate(Query{Shape: p.shape, SKU: p.sku, Layout: p.layout, Load: p.load, Framework: p.row.Framework})
		preds[i] = prediction(p, e)
	}
	return nil
}

func prediction(p *point, e Estimate) Prediction {
	return Prediction{
		Line: p.row.Line, Model: p.row.Model, SKU: p.sku.ID, Precision: p.row.Precision, Engine: p.engine,
		Measured: p.row.Throughput, P10: e.Throughput.P10, P50: e.Throughput.P50, P90: e.Throughput.P90,
		pair: p.pair(),
	}
}

// pair is what rows share that only differ in number format.
func (p *point) pair() string {
	return fmt.Sprintf("%s|%s|%s|%+v|%+v", p.model, p.sku.ID, p.version, p.layout, p.load)
}

// Check predicts rows with a calibration that is not fitted to them.
func (c *Calibration) Check(rows []Row, configs *Configs) (*Report, error) {
	ps, err := resolve(rows, configs)
	if err != nil {
		return nil, err
	}
	preds := make([]Prediction, len(ps))
	seen := 0
	for i, p := range ps {
		preds[i] = prediction(p, c.Estimate(Query{Shape: p.shape, SKU: p.sku, Layout: p.layout, Load: p.load, Framework: p.row.Framework}))
		preds[i].Fold = "all"
		if k, _ := c.knows(p); k == knownCell {
			seen++
		}
	}
	r := newReport("none", preds)
	if seen > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d of these rows are of configurations that the calibration was fitted to: their errors flatter it", seen))
	}
	return r, nil
}

func newReport(leaveOut string, preds []Prediction) *Report {
	r := &Report{LeaveOut: leaveOut, Score: ScoreOf("overall", preds), Predictions: preds, NVFP4: ratioOf(preds)}
	r.Overall = r.Score
	r.Folds = by(preds, func(p *Prediction) string { return p.Fold })
	r.SKUs = by(preds, func(p *Prediction) string { return p.SKU })
	r.Models = by(preds, func(p *Prediction) string { return p.Model })
	r.Precisions = by(preds, func(p *Prediction) string { return p.Precision })
	r.Engines = by(preds, func(p *Prediction) string { return p.Engine })
	return r
}

func by(preds []Prediction, key func(*Prediction) string) []Score {
	groups := map[string][]Prediction{}
	for i := range preds {
		k := key(&preds[i])
		groups[k] = append(groups[k], preds[i])
	}
	out := make([]Score, 0, len(groups))
	for k, g := range groups {
		out = append(out, ScoreOf(k, g))
	}
	slices.SortFunc(out, func(a, b Score) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// ScoreOf sums up predictions under a name.
func ScoreOf(name string, preds []Prediction) Score {
	ape := make([]float64, 0, len(preds))
	bias := make([]float64, 0, len(preds))
	covered := 0
	for _, p := range preds {
		d := 100 * (p.P50/p.Measured - 1)
		bias = append(bias, d)
		ape = append(ape, math.Abs(d))
		if p.P10 <= p.Measured && p.Measured <= p.P90 {
			covered++
		}
	}
	return Score{Name: name, N: len(preds), Median: quantile(ape, 0.5), P90: quantile(ape, 0.9), Bias: quantile(bias, 0.5),
		Coverage: 100 * float64(covered) / float64(max(1, len(preds)))}
}

// quantile interpolates linearly between order statistics. It sorts x.
func quantile(x []float64, q float64) float64 {
	if len(x) == 0 {
		return 0
	}
	slices.Sort(x)
	at := q * float64(len(x)-1)
	lo := int(at)
	hi := min(lo+1, len(x)-1)
	return x[lo] + (at-float64(lo))*(x[hi]-x[lo])
}

// Pool joins the predictions of reports: each row counts once for each.
func Pool(reports ...*Report) *Report {
	var all []Prediction
	name := ""
	for i, r := range reports {
		if i > 0 {
			name += "+"
		}
		name += r.LeaveOut
		all = append(all, r.Predictions...)
	}
	out := newReport(name, all)
	// A pair belongs to one report; mixing them would pair rows with themselves.
	out.NVFP4 = nil
	return out
}

// Only keeps the predictions that a condition holds for.
func (r *Report) Only(keep func(*Prediction) bool) *Report {
	var some []Prediction
	for i := range r.Predictions {
		if keep(&r.Predictions[i]) {
			some = append(some, r.Predictions[i])
		}
	}
	return newReport(r.LeaveOut, some)
}

// ratioOf compares NVFP4 rows with FP8 rows of the same configuration.
func ratioOf(preds []Prediction) *Ratio {
	fp8 := map[string]*Prediction{}
	for i := range preds {
		if isFormat(preds[i].Precision, "fp8") {
			fp8[preds[i].pair] = &preds[i]
		}
	}
	var measured, predicted, errs, logs []float64
	for i := range preds {
		base := fp8[preds[i].pair]
		if base == nil || !isFormat(preds[i].Precision, "nvfp4") {
			continue
		}
		m := preds[i].Measured / base.Measured
		p := preds[i].P50 / base.P50
		measured, predicted = append(measured, m), append(predicted, p)
		errs = append(errs, 100*math.Abs(p/m-1))
		logs = append(logs, math.Log(m))
	}
	if len(errs) == 0 {
		return nil
	}
	best := math.Exp(quantile(logs, 0.5))
	var constant []float64
	for _, m := range measured {
		constant = append(constant, 100*math.Abs(best/m-1))
	}
	return &Ratio{Pairs: len(errs), Measured: quantile(measured, 0.5), Predicted: quantile(predicted, 0.5), Median: quantile(errs, 0.5),
		BestConstant: best, ConstantError: quantile(constant, 0.5)}
}

func isFormat(precision, weights string) bool {
	return len(precision) >= len(weights) && precision[:len(weights)] == weights
}
