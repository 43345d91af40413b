package kernel

import "math"

// Scores multiplies n keys, rows of dim values, with group queries, also rows of
// dim values: scores[g*stride+i] is the product of query g and key i.
func Scores(scores []float32, stride int, queries, keys []float32, n, group, dim int) {
	var out [12]float32
	fast := accelerated && dim%lanes == 0
	for i := 0; i < n; i += 4 {
		rows := min(4, n-i)
		k := keys[i*dim:][:rows*dim]
		for g := 0; g < group; {
			width := 1
			switch {
			case fast && rows == 4 && group-g >= 3:
				width = 3
				dot4x3(&k[0], &queries[g*dim : (g+3)*dim][0], dim, &out[0])
			case fast && rows == 4:
				dot4x1(&k[0], &queries[g*dim : (g+1)*dim][0], dim, &out[0])
			default:
				for r := range rows {
					out[r] = dot(k[r*dim:][:dim], queries[g*dim:][:dim])
				}
			}
			for b := range width {
				to := scores[(g+b)*stride+i:]
				if rows == 4 {
					*(*[4]float32)(to) = *(*[4]float32)(out[b*4:])
				} else {
					copy(to[:rows], out[b*4:])
				}
			}
			g += width
		}
	}
}

// Exps replaces scores by the exponentials of scale times their distance from
// the largest, and returns the sum of those: divided by it they are the softmax.
func Exps(s []float32, scale float32) (sum float32) {
	top := float32(math.Inf(-1))
	for _, v := range s {
		top = max(top, v)
	}
	done := 0
	if accelerated && len(s) >= lanes {
		done = len(s) &^ (lanes - 1)
		expRow(&s[0], done, top, scale)
	}
	for i := done; i < len(s); i++ {
		s[i] = exp((s[i] - top) * scale)
	}
	for _, e := range s {
		sum += e
	}
	return sum
}

// exp is e to the x, for x ≤ 0, within 2 units in the last place: a power of two
// times a polynomial for the rest, as in Cephes' expf.
func exp(x float32) float32 {
	if x < -87 {
		return 0
	}
	n := float32(math.Floor(float64(x*1.44269504 + 0.5)))
	r := x - n*0.693359375
	r -= n * -2.12194440e-4
	p := float32(1.9875691500e-4)
	p = p*r + 1.3981999507e-3
	p = p*r + 8.3334519073e-3
	p = p*r + 4.1665795894e-2
	p = p*r + 1.6666665459e-1
	p = p*r + 5.0000001201e-1
	p = p*r*r + r + 1
	return p * math.Float32frombits(uint32(int32(n)+127)<<23)
}

// SiLU replaces values by x/(1+e^-x) (Elfwing, Uchibe, Doya, arXiv 1702.03118).
func SiLU(x []float32) {
	done := 0
	if accelerated && len(x) >= lanes {
		done = len(x) &^ (lanes - 1)
		siluRow(&x[0], done)
	}
	for i := done; i < len(x); i++ {
		if v := x[i]; v >= 0 {
			x[i] = v / (1 + exp(-v))
		} else {
			e := exp(v)
			x[i] = v * e / (1 + e)
		}
	}
}

// Mix adds n values, rows of dim, each multiplied with its weight.
func Mix(out, values, weights []float32, n, dim int) {
	if n == 0 {
		return
	}
	out, values, weights = out[:dim], values[:n*dim], weights[:n]
	if accelerated && dim%lanes == 0 {
		mixRows(&out[0], &values[0], &weights[0], n, dim)
		return
	}
	for i, w := range weights {
		for d, v := range values[i*dim:][:dim] {
			out[d] += w * v
		}
	}
}
