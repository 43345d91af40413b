package model

import "math"

// Diff accumulates how far the values of a tensor lie from those of its base.
// The zero value is ready; [Diff.Add] may be called for one part after another.
type Diff struct {
	N         int64
	NotFinite int64 // values that are NaN or infinite on either side; left out of the sums
	MaxAbs    float64
	base2     float64
	got2      float64
	cross     float64
	error2    float64
}

// Add compares values with the base's at the same places.
func (d *Diff) Add(base, got []float32) {
	got = got[:len(base)]
	var base2, got2, cross, error2, most float64
	for i, x := range base {
		a, b := float64(x), float64(got[i])
		e := b - a
		if e-e != 0 { // infinite or NaN
			d.NotFinite++
			continue
		}
		base2 += a * a
		got2 += b * b
		cross += a * b
		error2 += e * e
		if e < 0 {
			e = -e
		}
		if e > most {
			most = e
		}
	}
	d.N += int64(len(base))
	d.base2, d.got2, d.cross, d.error2 = d.base2+base2, d.got2+got2, d.cross+cross, d.error2+error2
	d.MaxAbs = max(d.MaxAbs, most)
}

// Relative is the Frobenius norm of the error over that of the base; +Inf where
// the base is zero and the values are not, 0 where both are.
func (d *Diff) Relative() float64 {
	if d.error2 == 0 {
		return 0
	}
	return math.Sqrt(d.error2 / d.base2)
}

// SQNR is the signal to quantisation noise ratio in decibels; +Inf without error.
func (d *Diff) SQNR() float64 { return -20 * math.Log10(d.Relative()) }

// Cosine is the cosine between both as vectors; 1 where both are zero, 0 where
// one is.
func (d *Diff) Cosine() float64 {
	if d.base2 == 0 || d.got2 == 0 {
		if d.base2 == d.got2 {
			return 1
		}
		return 0
	}
	return d.cross / math.Sqrt(d.base2*d.got2)
}
