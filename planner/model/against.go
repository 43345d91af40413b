package model

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"math"
	"slices"
)

// chunk is how many values are compared at once.
const chunk = 1 << 18

// Layer is how far a weight lies from its base.
type Layer struct {
	Name     string  `json:"name"`
	Format   Format  `json:"format"`
	Params   int64   `json:"params"`
	Relative float64 `json:"relative"` // Frobenius norm of the error over that of the base
	SQNR     float64 `json:"sqnr_db"`
	Cosine   float64 `json:"cosine"`
	MaxAbs   float64 `json:"max_abs"`
	// Rounding is Relative of the base rounded to the nearest value of the same
	// format with scales from its largest magnitudes: what a plain export gives.
	// Calibration may be a little worse, a broken export is far from it.
	Rounding  float64 `json:"rounding"`
	NotFinite int64   `json:"not_finite,omitempty"`
	Verdict   string  `json:"verdict"` // ok|suspicious|broken
}

// The bounds of a verdict, as Relative over Rounding. Clipping searches, scales
// shared by fused projections and AWQ's smoothing stay below the first.
const (
	suspiciousRatio = 1.5
	brokenRatio     = 3
)

// ErrShape says that a weight and its base are not of the same size.
var ErrShape = errors.New("weight and base differ in shape")

// Against compares a weight with its base, in memory that does not depend on
// their size. The base is read twice. A format without rounding is compared with
// equality in mind: there any difference is suspicious.
func Against(ctx context.Context, base, got *Weight) (*Layer, error) {
	if base.Rows != got.Rows || base.Cols != got.Cols {
		return nil, fmt.Errorf("compare %s: %w: %d×%d and %d×%d", short(got.s.Name), ErrShape, got.Rows, got.Cols, base.Rows, base.Cols)
	}
	step := max(1, chunk/max(1, base.Cols))
	if got.s.Rows > 1 {
		step = max(step, got.s.Rows) / got.s.Rows * got.s.Rows // whole rows of blocks
	}
	want, have := make([]float32, step*base.Cols), make([]float32, step*base.Cols)
	round, err := newRounder(ctx, base, got.s, step, want)
	if err != nil {
		return nil, err
	}
	var d Diff
	var rounding float64
	for row := 0; row < base.Rows; row += step {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n := min(step, base.Rows-row)
		w, h := want[:n*base.Cols], have[:n*base.Cols]
		if err := errors.Join(base.ReadRows(w, row, n), got.ReadRows(h, row, n)); err != nil {
			return nil, err
		}
		d.Add(w, h)
		rounding += round.rows(w, row, n)
	}
	l := &Layer{
		Name: got.s.Name, Format: got.s.Format, Params: got.s.Params, Relative: d.Relative(), SQNR: d.SQNR(),
		Cosine: d.Cosine(), MaxAbs: d.MaxAbs, Rounding: relative(rounding, d.base2), NotFinite: d.NotFinite,
	}
	l.judge()
	return l, nil
}

func (l *Layer) judge() {
	switch x := l.excess(); {
	case x > brokenRatio:
		l.Verdict = "broken"
	case x > suspiciousRatio:
		l.Verdict = "suspicious"
	default:
		l.Verdict = "ok"
	}
}

// excess is how many times the error of rounding the error is.
func (l *Layer) excess() float64 {
	if l.NotFinite > 0 {
		return math.Inf(1)
	}
	// Where rounding is exact, a hundredth of a per cent is left for scales that
	// were stored in 16 bits.
	return l.Relative / max(l.Rounding, 1e-4)
}

// Rank orders layers by how far they are from what rounding gives, worst first.
func Rank(layers []Layer) {
	slices.SortStableFunc(layers, func(a, b Layer) int { return cmp.Compare(b.excess(), a.excess()) })
}

// rounder rounds rows of a base to the format of a stored weight.
type rounder struct {
	s      *Stored
	cols   int
	per    int       // rows of one matrix
	global []float32 // amax per matrix
}

// newRounder reads the base once for what the largest magnitudes decide.
func newRounder(ctx context.Context, base *Weight, s *Stored, step int, buf []float32) (*rounder, error) {
	r := &rounder{s: s, cols: base.Cols, per: base.Rows}
	perTensor := s.Format == FormatNVFP4 || s.Format == FormatFP8 && s.Cols == 0 && s.Rows == 0
	if !perTensor {
		return r, nil
	}
	if n := len(s.Shape); n > 2 && (s.Global != nil && s.Global.Elements() > 1 || s.Format == FormatFP8 && s.Scale != nil && s.Scale.Elements() > 1) {
		r.per = int(s.Shape[n-2])
	}
	r.global = make([]float32, ceilDiv(base.Rows, max(1, r.per)))
	for row := 0; row < base.Rows; row += step {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n := min(step, base.Rows-row)
		if err := base.ReadRows(buf, row, n); err != nil {
			return nil, err
		}
		for i := range n {
			g := &r.global[(row+i)/r.per]
			*g = max2(*g, amax(buf[i*r.cols:][:r.cols]))
		}
	}
	return r, nil
}

// rows rounds n rows of the base from row on, and returns the sum of the
// squared errors.
func (r *rounder) rows(src []float32, row, n int) (sum float64) {
	switch r.s.Format {
	case FormatNVFP4:
		for i := range n {
			g := r.global[(row+i)/r.per] / (MaxE2M1 * MaxE4M3)
			if g == 0 {
				continue // a matrix of zeros
			}
			for line := src[i*r.cols:][:r.cols]; len(line) >= BlockNVFP4; line = line[BlockNVFP4:] {
				block := line[:BlockNVFP4]
				sum += errorE2M1(block, tableE4M3[EncodeE4M3(amax(block)/MaxE2M1/g)]*g)
			}
		}
	case FormatMXFP4:
		for ; len(src) >= BlockMXFP4; src = src[BlockMXFP4:] {
			block := src[:BlockMXFP4]
			sum += errorE2M1(block, DecodeE8M0(EncodeE8M0(amax(block)/4)))
		}
	case FormatFP8:
		return r.fp8(src, row, n)
	case FormatBF16:
		for _, x := range src {
			e := float64(DecodeBF16(EncodeBF16(x)) - x)
			sum += e * e
		}
	}
	return sum
}

// fp8 rounds with the blocks of the stored weight. Blocks of several rows begin
// at multiples of their height, as the caller reads them.
func (r *rounder) fp8(src []float32, row, n int) (sum float64) {
	height, width := 1, r.cols
	if r.s.Rows > 0 && r.s.Cols > 0 {
		height, width = r.s.Rows, r.s.Cols
	}
	for top := 0; top < n; top += height {
		bottom := min(top+height, n)
		for left := 0; left < r.cols; left += width {
			right := min(left+width, r.cols)
			var m float32
			if r.global != nil {
				m = r.global[(row+top)/r.per]
			} else {
				for i := top; i < bottom; i++ {
					m = max2(m, amax(src[i*r.cols+left:i*r.cols+right]))
				}
			}
			if m == 0 {
				continue
			}
			s, inverse := m/MaxE4M3, MaxE4M3/m
			for i := top; i < bottom; i++ {
				for _, x := range src[i*r.cols+left : i*r.cols+right] {
					e := float64(tableE4M3[EncodeE4M3(x*inverse)]*s - x)
					sum += e * e
				}
			}
		}
	}
	return sum
}

// errorE2M1 is the sum of the squared errors of a block that is rounded with a
// scale.
func errorE2M1(block []float32, scale float32) float64 {
	var even, odd float64 // two chains, so that one sum need not wait for the other
	if scale == 0 {
		for _, x := range block {
			even += float64(x) * float64(x)
		}
		return even
	}
	inverse := 1 / scale
	for i := 0; i+1 < len(block); i += 2 {
		a, b := abs(block[i]), abs(block[i+1])
		x := float64(tableE2M1[roundE2M1(math.Float32bits(a*inverse))&15]*scale - a)
		y := float64(tableE2M1[roundE2M1(math.Float32bits(b*inverse))&15]*scale - b)
		even += x * x
		odd += y * y
	}
	return even + odd
}

// Scales is what the scales of one weight look like without its base.
type Scales struct {
	Name      string  `json:"name"`
	Blocks    int64   `json:"blocks"`
	Zero      int64   `json:"zero"`       // blocks whose scale makes everything zero
	NotFinite int64   `json:"not_finite"` // NaN or infinite
	Largest   float64 `json:"largest"`    // block scale, without the global one
	Saturated int64   `json:"saturated"`  // at the largest code of E4M3
	Codes     int     `json:"codes"`      // distinct values of the block scales
	Global    float64 `json:"global"`     // what multiplies, whatever the convention
	// Extreme is the share of blocks in a sample of rows that use the code ±6. A
	// scale from the largest magnitude puts at least one value of every block
	// there; searches for a better scale may leave some out.
	Extreme  float64  `json:"extreme"`
	Findings []string `json:"findings,omitempty"` // what cannot come from a sound export
}

// ScanScales looks at the scales of an NVFP4 weight, all of them, and at the
// codes of at most 64 rows, in bounded memory.
func ScanScales(ctx context.Context, w *Weight) (*Scales, error) {
	if w.s.Format != FormatNVFP4 {
		return nil, fmt.Errorf("scan scales of %s: its format is %s", short(w.s.Name), w.s.Format)
	}
	s := &Scales{Name: w.s.Name, Blocks: w.s.Scale.Bytes(), Global: float64(w.globals[0])}
	if w.s.Inverse {
		s.Global = 1 / s.Global
	}
	var seen [256]int64
	buf := make([]byte, min(1<<20, s.Blocks))
	for at := int64(0); at < s.Blocks; at += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b := buf[:min(int64(len(buf)), s.Blocks-at)]
		if err := w.read(w.scales, w.s.Scale, b, at); err != nil {
			return nil, err
		}
		for _, c := range b {
			seen[c]++
		}
	}
	for c, n := range seen {
		v := float64(tableE4M3[c])
		switch {
		case n == 0:
			continue
		case v != v:
			s.NotFinite += n
		case v == 0:
			s.Zero += n
		case v == MaxE4M3:
			s.Saturated += n
		}
		s.Codes++
		s.Largest = max(s.Largest, v)
		if v < 0 {
			s.Findings = append(s.Findings, fmt.Sprintf("%d block scales are negative", n))
		}
	}
	if err := s.extremes(w); err != nil {
		return nil, err
	}
	s.judge()
	return s, nil
}

// extremes samples codes of rows spread over the weight.
func (s *Scales) extremes(w *Weight) error {
	rows := min(64, w.Rows)
	width := w.Cols / 2
	buf := make([]byte, width)
	var full, blocks int64
	for i := range rows {
		row := int64(i) * int64(w.Rows) / int64(rows)
		if err := w.read(w.data, w.s.Weight, buf, row*int64(width)); err != nil {
			return err
		}
		for b := 0; b+8 <= width; b += 8 {
			blocks++
			// A nibble of 7 in any of the 16: the largest magnitude.
			x := binary.LittleEndian.Uint64(buf[b:]) | 0x8888888888888888
			if hasFullNibble(x) {
				full++
			}
		}
	}
	if blocks > 0 {
		s.Extreme = float64(full) / float64(blocks)
	}
	return nil
}

func hasFullNibble(x uint64) bool {
	y := x & (x >> 1)
	y &= y >> 2
	return y&0x1111111111111111 != 0
}

func (s *Scales) judge() {
	find := func(when bool, format string, args ...any) {
		if when {
			s.Findings = append(s.Findings, fmt.Sprintf(format, args...))
		}
	}
	g := s.Global
	find(s.NotFinite > 0, "%d block scales are NaN", s.NotFinite)
	find(g != g || math.IsInf(g, 0) || g <= 0, "the global scale is %v", g)
	find(g > 1, "the global scale multiplies by %.3g: no weight is that large, it may be the inverse", g)
	find(g > 0 && g < 1e-12, "the global scale multiplies by %.3g: all weights vanish", g)
	find(10*s.Zero > s.Blocks, "%.0f %% of the blocks have a scale of zero", 100*float64(s.Zero)/float64(s.Blocks))
	find(s.Saturated > max(8, s.Blocks/100), "%.1f %% of the block scales are at the largest value: their blocks are clipped", 100*float64(s.Saturated)/float64(s.Blocks))
	find(s.Blocks >= 64 && s.Codes < 3, "the block scales take %d values in all: they do not follow the weights", s.Codes)
	find(s.Largest > 0 && s.Largest < 8, "the largest block scale is %.3g of 448: the global scale is far too large", s.Largest)
	find(s.Blocks >= 64 && s.Extreme < 0.3, "%.0f %% of the sampled blocks reach the largest code, where scales from the largest magnitude give nearly all of them", 100*s.Extreme)
}
