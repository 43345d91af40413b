package model

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
)

// chunk is how many values are compared at once.
const chunk = 1 << 17

// Measure is a number that may be infinite or not a number, which JSON writes
// as null. Reading null gives +Inf.
type Measure float64

// MarshalJSON implements [json.Marshaler].
func (m Measure) MarshalJSON() ([]byte, error) {
	if f := float64(m); f-f != 0 {
		return []byte("null"), nil
	}
	return json.Marshal(float64(m))
}

// UnmarshalJSON implements [json.Unmarshaler].
func (m *Measure) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*m = Measure(math.Inf(1))
		return nil
	}
	return json.Unmarshal(b, (*float64)(m))
}

// Layer is one weight that was read: what its scales look like and, where there
// is a base, how far it lies from it.
type Layer struct {
	Name   string  `json:"name"`
	File   string  `json:"file,omitempty"`
	Format Format  `json:"format"`
	Shape  []int64 `json:"shape"`
	Params int64   `json:"params"`
	Bytes  int64   `json:"bytes"`
	// Read is the share of the rows that were read, 1 without sampling.
	Read   Measure `json:"read"`
	Error  *Error  `json:"error,omitempty"`
	Scales *Scales `json:"scales,omitempty"`
	// Verdict is ok, suspicious, broken, or unread with the reason.
	Verdict string   `json:"verdict"`
	Reasons []string `json:"reasons,omitempty"`
}

// Error is how far a weight lies from its base.
type Error struct {
	Relative Measure `json:"relative"` // Frobenius norm of the error over that of the base
	SQNR     Measure `json:"sqnr_db"`  // null without error
	Cosine   Measure `json:"cosine"`
	MaxAbs   Measure `json:"max_abs"`
	// Rounding is Relative of the base rounded to the nearest value of the same
	// format with scales from its largest magnitudes: what a plain export gives.
	// Calibration may be a little worse, a broken export is far from it.
	Rounding  Measure `json:"rounding"`
	NotFinite int64   `json:"not_finite,omitempty"`
	// Worst is the run of rows that is furthest from what rounding gives there:
	// one wrong expert of many, or a few lost rows, hardly show in the whole.
	Worst *Spot `json:"worst,omitempty"`
}

// Spot is a run of rows of a weight.
type Spot struct {
	Matrix   int     `json:"matrix"` // of a stack of experts, 0 otherwise
	Row      int     `json:"row"`    // in its matrix
	Rows     int     `json:"rows"`
	Relative Measure `json:"relative"`
	Rounding Measure `json:"rounding"`
}

// The bounds of a verdict, as Relative over Rounding. Clipping searches, scales
// shared by fused projections and AWQ's smoothing stay below the first.
const (
	suspiciousRatio = 1.5
	suspiciousSpot  = 2 // of a few rows, whose ratio varies more
	brokenRatio     = 3
)

// ErrShape says that a weight and its base are not of the same size.
var ErrShape = errors.New("weight and base differ in shape")

// Look says how much of a weight is read. The zero value reads all of it.
type Look struct {
	Blocks int // of rows, drawn at random; 0 means all
	Seed   uint64
}

// span is a run of rows of one matrix, with the sums of its squares.
type span struct {
	row, n                  int
	base2, error2, rounding float64
}

// spans cuts a weight into pieces of about chunk values that keep blocks of
// rows whole and never cross from one matrix to the next.
func (l Look) spans(w *Weight) (out []span, share float64) {
	step := max(1, chunk/max(1, w.Cols))
	if w.s.Rows > 1 {
		step = max(step, w.s.Rows) / w.s.Rows * w.s.Rows
	}
	if l.Blocks > 0 {
		step = min(step, max(16, w.s.Rows)) // several places tell more than one
	}
	per := max(1, w.per)
	for first := 0; first < w.Rows; first += per {
		last := min(first+per, w.Rows)
		for row := first; row < last; row += step {
			out = append(out, span{row: row, n: min(step, last-row)})
		}
	}
	if l.Blocks == 0 || len(out) <= l.Blocks {
		return out, 1
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(w.s.Name)) // never fails
	rng := rand.New(rand.NewPCG(l.Seed, h.Sum64()))
	rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	out = out[:l.Blocks]
	slices.SortFunc(out, func(a, b span) int { return cmp.Compare(a.row, b.row) })
	n := 0
	for _, s := range out {
		n += s.n
	}
	return out, float64(n) / float64(w.Rows)
}

func newLayer(w *Weight, share float64) *Layer {
	return &Layer{Name: w.s.Name, Format: w.s.Format, Shape: w.s.Shape, Params: w.s.Params, Bytes: w.s.Bytes, Read: Measure(share), Verdict: "ok"}
}

// Against compares a weight with its base, and looks at its scales on the way,
// in memory that does not depend on their size. The base is read once; a matrix
// whose stored scale is absurd is read a second time to say what rounding would
// have given. A format without rounding is compared with equality in mind: there
// any difference is suspicious.
func Against(ctx context.Context, base, got *Weight) (*Layer, error) {
	return Look{}.Against(ctx, base, got)
}

// Against is [Against] of a part of the weight.
func (l Look) Against(ctx context.Context, base, got *Weight) (*Layer, error) {
	if base.Rows != got.Rows || base.Cols != got.Cols {
		return nil, fmt.Errorf("compare %s: %w: %d×%d and %d×%d", short(got.s.Name), ErrShape, got.Rows, got.Cols, base.Rows, base.Cols)
	}
	if got.Rows == 0 || got.Cols == 0 {
		return newLayer(got, 1), nil
	}
	spans, share := l.spans(got)
	round := newRounder(got)
	got.tally = newTally(got)
	var buf [2][]float32
	var d Diff
	for i := range spans {
		s := &spans[i]
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for i := range buf {
			buf[i] = growFloats(buf[i], s.n*base.Cols)
		}
		if err := errors.Join(base.ReadRows(buf[0], s.row, s.n), got.ReadRows(buf[1], s.row, s.n)); err != nil {
			return nil, err
		}
		var part Diff
		part.Add(buf[0], buf[1])
		s.base2, s.error2, s.rounding = part.base2, part.error2, round.rows(buf[0], s.row, s.n)
		d.merge(&part)
	}
	again := round.again()
	for i := range spans {
		s := &spans[i]
		if !slices.Contains(again, s.row/round.per) {
			continue
		}
		if err := errors.Join(ctx.Err(), base.ReadRows(buf[0][:s.n*base.Cols], s.row, s.n)); err != nil {
			return nil, err
		}
		s.rounding = round.rows(buf[0][:s.n*base.Cols], s.row, s.n)
	}
	layer := newLayer(got, share)
	layer.Scales = got.tally.scales()
	got.tally = nil
	layer.Error = newError(&d, spans, round.per)
	layer.judge()
	return layer, nil
}

func newError(d *Diff, spans []span, per int) *Error {
	var rounding float64
	for i := range spans {
		rounding += spans[i].rounding
	}
	e := &Error{
		Relative: Measure(d.Relative()), SQNR: Measure(d.SQNR()), Cosine: Measure(d.Cosine()), MaxAbs: Measure(d.MaxAbs),
		Rounding: Measure(relative(rounding, d.base2)), NotFinite: d.NotFinite,
	}
	if len(spans) < 2 {
		return e
	}
	most := 0.0
	for i := range spans {
		s := &spans[i]
		// Rows of nearly nothing have large errors that matter to nobody.
		if s.base2 < 1e-6*d.base2/float64(len(spans)) {
			continue
		}
		spot := Spot{
			Matrix: s.row / per, Row: s.row % per, Rows: s.n,
			Relative: Measure(relative(s.error2, s.base2)), Rounding: Measure(relative(s.rounding, s.base2)),
		}
		if x := ratio(spot.Relative, spot.Rounding); x > most {
			most, e.Worst = x, &spot
		}
	}
	return e
}

// Scan looks at a weight alone.
func (l Look) Scan(ctx context.Context, w *Weight) (*Layer, error) {
	spans, share := l.spans(w)
	w.tally = newTally(w)
	for _, s := range spans {
		if w.Cols == 0 {
			break
		}
		if err := errors.Join(ctx.Err(), w.readCodes(s.row, s.n)); err != nil {
			return nil, err
		}
	}
	layer := newLayer(w, share)
	layer.Scales = w.tally.scales()
	w.tally = nil
	layer.judge()
	return layer, nil
}

// judge puts scales and error together; the worse counts.
func (l *Layer) judge() {
	if s := l.Scales; s != nil {
		l.Verdict = s.Verdict
		l.Reasons = append(l.Reasons, s.Findings...)
	}
	if l.Error == nil {
		return
	}
	e := l.Error
	blame := func(broken bool, format string, args ...any) {
		l.Reasons = append(l.Reasons, fmt.Sprintf(format, args...))
		if broken {
			l.Verdict = "broken"
		} else if l.Verdict == "ok" {
			l.Verdict = "suspicious"
		}
	}
	whole := ratio(e.Relative, e.Rounding)
	switch {
	case e.NotFinite > 0:
		blame(true, "%d values are not finite", e.NotFinite)
	case whole > suspiciousRatio:
		blame(whole > brokenRatio, "the error is %.3g of the base, where rounding gives %.3g", float64(e.Relative), float64(e.Rounding))
	}
	if w := e.Worst; w != nil && whole <= brokenRatio {
		if spot := ratio(w.Relative, w.Rounding); spot > suspiciousSpot {
			where := fmt.Sprintf("rows %d to %d", w.Row, w.Row+w.Rows-1)
			if len(l.Shape) > 2 {
				where += fmt.Sprintf(" of expert %d", w.Matrix)
			}
			blame(spot > brokenRatio, "in %s the error is %.3g, where rounding gives %.3g", where, float64(w.Relative), float64(w.Rounding))
		}
	}
}

// ratio is how many times the error of rounding an error is. Where rounding is
// exact, a hundredth of a per cent is left for scales that were stored in 16
// bits.
func ratio(relative, rounding Measure) float64 {
	return float64(relative) / max(float64(rounding), 1e-4)
}

// excess orders layers.
func (l *Layer) excess() float64 {
	switch e := l.Error; {
	case e == nil:
		return 0
	case e.NotFinite > 0:
		return math.Inf(1)
	case e.Worst != nil:
		return max(ratio(e.Relative, e.Rounding), ratio(e.Worst.Relative, e.Worst.Rounding)*suspiciousRatio/suspiciousSpot)
	default:
		return ratio(e.Relative, e.Rounding)
	}
}

// Rank orders layers by how far they are from what rounding gives, worst first;
// without a base by verdict.
func Rank(layers []Layer) {
	weight := map[string]int{"broken": 3, "suspicious": 2, "unread": 1}
	slices.SortStableFunc(layers, func(a, b Layer) int {
		if c := cmp.Compare(b.excess(), a.excess()); c != 0 {
			return c
		}
		return cmp.Or(cmp.Compare(weight[b.Verdict], weight[a.Verdict]), cmp.Compare(a.Name, b.Name))
	})
}

func growFloats(b []float32, n int) []float32 {
	if cap(b) < n {
		return make([]float32, n)
	}
	return b[:n]
}

// RoundingSQNR is the signal to quantisation noise ratio that rounding would
// give, in decibels.
func (e *Error) RoundingSQNR() Measure { return Measure(-20 * math.Log10(float64(e.Rounding))) }
