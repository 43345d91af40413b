package model

import (
	"math"
)

// steps holds, for every exponent of a float32 magnitude, the number that
// rounds it to a small format when it is added and taken away again: its last
// place is the format's step there, and float32 addition rounds to nearest,
// ties to even, as the format does.
type steps [256]float32

// stepTable makes the steps of a format with man bits of fraction and the least
// normal exponent emin.
func stepTable(man, emin int) (t steps) {
	for e := range t {
		t[e] = float32(math.Ldexp(1.5, 23+max(min(e-127, 100), emin)-man))
	}
	return t
}

var (
	stepsE2M1 = stepTable(1, 0)
	stepsE4M3 = stepTable(3, -6)
)

// grid is a small format with the scale of a block.
type grid struct {
	steps *steps
	most  float32 // largest magnitude
}

var (
	gridE2M1 = grid{&stepsE2M1, MaxE2M1}
	gridE4M3 = grid{&stepsE4M3, MaxE4M3}
)

// roundingError is the sum of the squared errors of values that are rounded to
// a grid with a scale. Values that are not finite count as nothing.
func (g grid) roundingError(values []float32, scale float32) float64 {
	if scale == 0 {
		return energy(values)
	}
	inverse := 1 / scale
	if inverse > math.MaxFloat32 {
		return g.exactly(values, scale)
	}
	var sum float64
	rest := values
	for ; len(rest) >= 8; rest = rest[8:] {
		v := (*[8]float32)(rest)
		e0, e1, e2, e3 := g.off(v[0]*inverse), g.off(v[1]*inverse), g.off(v[2]*inverse), g.off(v[3]*inverse)
		e4, e5, e6, e7 := g.off(v[4]*inverse), g.off(v[5]*inverse), g.off(v[6]*inverse), g.off(v[7]*inverse)
		sum += float64((e0*e0 + e1*e1) + (e2*e2 + e3*e3) + ((e4*e4 + e5*e5) + (e6*e6 + e7*e7)))
	}
	for _, x := range rest {
		e := g.off(x * inverse)
		sum += float64(e * e)
	}
	sum *= float64(scale) * float64(scale)
	if sum-sum != 0 {
		return g.exactly(values, scale)
	}
	return sum
}

// off is how far a scaled value lies from the grid.
func (g grid) off(y float32) float32 {
	y = abs(y)
	s := g.steps[uint8(math.Float32bits(y)>>23)]
	r := float32(y+s) - s
	if r > g.most {
		r = g.most
	}
	return r - y
}

// exactly is roundingError for values or scales that float32 squares cannot
// hold.
func (g grid) exactly(values []float32, scale float32) (sum float64) {
	for _, x := range values {
		if x-x != 0 {
			continue
		}
		y := math.Abs(float64(x) / float64(scale))
		q := float64(g.most)
		if y < q {
			s := float64(g.steps[uint8(math.Float32bits(float32(y))>>23)])
			unit := math.Ldexp(s/1.5, -23)
			q = min(q, math.RoundToEven(y/unit)*unit)
		}
		e := (q - y) * float64(scale)
		sum += e * e
	}
	return sum
}

// energy is the sum of squares of what is finite.
func energy(values []float32) (sum float64) {
	for _, x := range values {
		if x-x == 0 {
			sum += float64(x) * float64(x)
		}
	}
	return sum
}

// rounder rounds rows of a base to the format of a stored weight, with block
// scales from the largest magnitudes. Where one scale spans a whole matrix it is
// the stored one as long as that one is sound: several projections may share
// it, and the base need then be read only once.
type rounder struct {
	s       *Stored
	cols    int
	per     int       // rows of one matrix
	spans   bool      // one scale spans a matrix
	stored  []float32 // that multiplies, per matrix; of spans
	largest []float32 // magnitude seen, per matrix
}

func newRounder(w *Weight) *rounder {
	r := &rounder{s: w.s, cols: w.Cols, per: max(1, w.per)}
	n := ceilDiv(w.Rows, r.per)
	r.largest = make([]float32, n)
	switch {
	case w.s.Format == FormatNVFP4:
		r.spans, r.stored = true, make([]float32, n)
		for i := range r.stored {
			r.stored[i] = w.global(i)
		}
	case w.s.Format == FormatFP8 && w.s.Rows == 0 && w.s.Cols == 0:
		r.spans, r.stored = true, make([]float32, n)
		for i := range r.stored {
			r.stored[i] = w.table[min(i, len(w.table)-1)]
		}
	}
	return r
}

// top is the largest magnitude that a matrix can hold with a scale of 1.
func (r *rounder) top() float32 {
	if r.s.Format == FormatNVFP4 {
		return MaxE2M1 * MaxE4M3
	}
	return MaxE4M3
}

// again lists the matrices whose stored scale is not sound, which have to be
// rounded once more with a scale of their own, and sets it.
func (r *rounder) again() (out []int) {
	if !r.spans {
		return nil
	}
	for m, largest := range r.largest {
		if at := r.stored[m] * r.top(); largest > at*1.01 || largest < at/16 || at-at != 0 {
			r.stored[m] = largest / r.top()
			out = append(out, m)
		}
	}
	return out
}

// rows rounds n rows of the base from row on, all of one matrix, and returns the
// sum of the squared errors. Blocks of several rows begin at multiples of their
// height.
func (r *rounder) rows(src []float32, row, n int) (sum float64) {
	m := row / r.per
	switch r.s.Format {
	case FormatNVFP4:
		sum, largest := r.nvfp4(src, r.stored[m])
		r.largest[m] = max2(r.largest[m], largest)
		return sum
	case FormatMXFP4:
		for ; len(src) >= BlockMXFP4; src = src[BlockMXFP4:] {
			block := src[:BlockMXFP4]
			if top := amax(block); top > 0 {
				sum += gridE2M1.roundingError(block, DecodeE8M0(EncodeE8M0(top/4)))
			}
		}
	case FormatMXFP8:
		for ; len(src) >= BlockMXFP4; src = src[BlockMXFP4:] {
			block := src[:BlockMXFP4]
			if top := amax(block); top > 0 {
				sum += gridE4M3.roundingError(block, DecodeE8M0(EncodeE8M0(top/256)))
			}
		}
	case FormatFP8:
		if !r.spans {
			return r.blocks(src, n)
		}
		r.largest[m] = max2(r.largest[m], amax(src))
		return gridE4M3.roundingError(src, r.stored[m])
	case FormatBF16:
		for _, x := range src {
			if e := float64(DecodeBF16(EncodeBF16(x)) - x); e-e == 0 {
				sum += e * e
			}
		}
	}
	return sum
}

// nvfp4 also gives the largest magnitude.
func (r *rounder) nvfp4(src []float32, global float32) (sum float64, largest float32) {
	if global == 0 || global-global != 0 {
		return energy(src), amax(src)
	}
	inverse := 1 / (MaxE2M1 * global)
	for ; len(src) >= BlockNVFP4; src = src[BlockNVFP4:] {
		block := src[:BlockNVFP4]
		if top := amax(block); top > 0 {
			largest = max2(largest, top)
			sum += gridE2M1.roundingError(block, tableE4M3[EncodeE4M3(top*inverse)]*global)
		}
	}
	return sum, largest
}

// blocks rounds to FP8 with a scale per block or per row.
func (r *rounder) blocks(src []float32, n int) (sum float64) {
	height, width := 1, r.cols
	if r.s.Rows > 0 && r.s.Cols > 0 {
		height, width = r.s.Rows, r.s.Cols
	}
	for top := 0; top < n; top += height {
		bottom := min(top+height, n)
		for left := 0; left < r.cols; left += width {
			right := min(left+width, r.cols)
			var m float32
			for i := top; i < bottom; i++ {
				m = max2(m, amax(src[i*r.cols+left:i*r.cols+right]))
			}
			if m == 0 {
				continue
			}
			for i := top; i < bottom; i++ {
				sum += gridE4M3.roundingError(src[i*r.cols+left:i*r.cols+right], m/MaxE4M3)
			}
		}
	}
	return sum
}
