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

// add sums a part, and looks at each value only when the sums are not finite.
func (d *Diff) add(base, got []float32) {
	var base2, cross, error2 [2]float64
	var most float32
	got = got[:len(base)]
	i := 0
	for ; i+1 < len(base); i += 2 {
		e0, e1 := got[i]-base[i], got[i+1]-base[i+1]
		a0, a1 := float64(base[i]), float64(base[i+1])
		x0, x1 := float64(e0), float64(e1)
		base2[0] += a0 * a0
		base2[1] += a1 * a1
		cross[0] += a0 * x0
		cross[1] += a1 * x1
		error2[0] += x0 * x0
		error2[1] += x1 * x1
		most = max2(max2(most, abs(e0)), abs(e1))
	}
	if i < len(base) {
		e := got[i] - base[i]
		a, x := float64(base[i]), float64(e)
		base2[0], cross[0], error2[0] = base2[0]+a*a, cross[0]+a*x, error2[0]+x*x
		most = max2(most, abs(e))
	}
	b, c, e := base2[0]+base2[1], cross[0]+cross[1], error2[0]+error2[1]
	if sum := b + c + e; sum-sum != 0 {
		d.addFinite(base, got)
		return
	}
	d.base2, d.cross, d.error2, d.MaxAbs = d.base2+b, d.cross+c, d.error2+e, max(d.MaxAbs, float64(most))
}

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
