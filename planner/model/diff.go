package model

import "math"

// Diff accumulates how far the values of a tensor lie from those of its base.
// The zero value is ready; [Diff.Add] may be called for one part after another.
type Diff struct {
	N         int64
	NotFinite int64 // values that are NaN or infinite on either side; left out of the sums
	MaxAbs    float64
	base2     float64 // of the base's squares
	cross     float64 // of base times error
	error2    float64 // of the error's squares
}

// Add compares values with the base's at the same places.
func (d *Diff) Add(base, got []float32) {
	d.N += int64(len(base))
	got = got[:len(base)]
	for len(base) > 0 {
		n := min(len(base), 4096)
		d.add(base[:n], got[:n])
		base, got = base[n:], got[n:]
	}
}

// merge adds another part.
func (d *Diff) merge(o *Diff) {
	d.N, d.NotFinite, d.MaxAbs = d.N+o.N, d.NotFinite+o.NotFinite, max(d.MaxAbs, o.MaxAbs)
	d.base2, d.cross, d.error2 = d.base2+o.base2, d.cross+o.cross, d.error2+o.error2
}

// add sums a part: eight products in float32, their sums in float64. It looks
// at each value only where that cannot be: values that are not finite, or whose
// squares leave the range of float32.
func (d *Diff) add(base, got []float32) {
	var base2, cross, error2 float64
	var most uint32
	b, g := base, got[:len(base)]
	for len(b) >= 8 && len(g) >= 8 {
		v, w := (*[8]float32)(b), (*[8]float32)(g)
		e0, e1, e2, e3 := w[0]-v[0], w[1]-v[1], w[2]-v[2], w[3]-v[3]
		e4, e5, e6, e7 := w[4]-v[4], w[5]-v[5], w[6]-v[6], w[7]-v[7]
		base2 += float64((v[0]*v[0] + v[1]*v[1]) + (v[2]*v[2] + v[3]*v[3]) + ((v[4]*v[4] + v[5]*v[5]) + (v[6]*v[6] + v[7]*v[7])))
		cross += float64((v[0]*e0 + v[1]*e1) + (v[2]*e2 + v[3]*e3) + ((v[4]*e4 + v[5]*e5) + (v[6]*e6 + v[7]*e7)))
		error2 += float64((e0*e0 + e1*e1) + (e2*e2 + e3*e3) + ((e4*e4 + e5*e5) + (e6*e6 + e7*e7)))
		m0, m1 := max(magnitudeBits(e0), magnitudeBits(e1)), max(magnitudeBits(e2), magnitudeBits(e3))
		m2, m3 := max(magnitudeBits(e4), magnitudeBits(e5)), max(magnitudeBits(e6), magnitudeBits(e7))
		most = max(most, max(m0, m1), max(m2, m3))
		b, g = b[8:], g[8:]
	}
	for i, x := range b {
		e := g[i] - x
		base2 += float64(x * x)
		cross += float64(x * e)
		error2 += float64(e * e)
		most = max(most, magnitudeBits(e))
	}
	if sum := base2 + cross + error2; sum-sum != 0 || base2 < 1e-20 {
		d.addFinite(base, got)
		return
	}
	d.base2, d.cross, d.error2 = d.base2+base2, d.cross+cross, d.error2+error2
	d.MaxAbs = max(d.MaxAbs, float64(math.Float32frombits(most)))
}

// magnitudeBits has the order of magnitudes.
func magnitudeBits(x float32) uint32 { return math.Float32bits(x) &^ (1 << 31) }

// addFinite sums what is finite, and counts what is not.
func (d *Diff) addFinite(base, got []float32) {
	for i, x := range base {
		a, e := float64(x), float64(got[i])-float64(x)
		if e-e != 0 {
			d.NotFinite++
			continue
		}
		d.base2 += a * a
		d.cross += a * e
		d.error2 += e * e
		d.MaxAbs = max(d.MaxAbs, math.Abs(e))
	}
}

// Relative is the Frobenius norm of the error over that of the base; +Inf where
// the base is zero and the values are not, 0 where both are.
func (d *Diff) Relative() float64 { return relative(d.error2, d.base2) }

func relative(error2, base2 float64) float64 {
	if error2 == 0 {
		return 0
	}
	return math.Sqrt(error2 / base2)
}

// SQNR is the signal to quantisation noise ratio in decibels; +Inf without error.
func (d *Diff) SQNR() float64 { return -20 * math.Log10(d.Relative()) }

// Cosine is the cosine between both as vectors; 1 where both are zero, 0 where
// one is.
func (d *Diff) Cosine() float64 {
	got2 := d.base2 + 2*d.cross + d.error2
	if d.base2 == 0 || got2 <= 0 {
		if d.base2 == 0 && got2 == 0 {
			return 1
		}
		return 0
	}
	return min(1, (d.base2+d.cross)/math.Sqrt(d.base2*got2))
}
