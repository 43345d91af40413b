// Package stat holds the distribution functions that decisions rest on.
package stat

import "math"

// NormalQuantile is the inverse of the standard normal distribution function.
func NormalQuantile(p float64) float64 { return math.Sqrt2 * math.Erfinv(2*p-1) }

// NormalCDF is the standard normal distribution function.
func NormalCDF(x float64) float64 { return math.Erfc(-x/math.Sqrt2) / 2 }

// TCDF is Student's t distribution function with df degrees of freedom:
// 1 − I_{df/(df+t²)}(df/2, 1/2)/2 for t ≥ 0. Source: DLMF 8.17.
func TCDF(t, df float64) float64 {
	if math.IsInf(t, 0) {
		return (1 + math.Copysign(1, t)) / 2
	}
	tail := betaIncomplete(df/2, 0.5, df/(df+t*t)) / 2
	if t < 0 {
		return tail
	}
	return 1 - tail
}

// TTail is P(T > |t|) for Student's t with df degrees of freedom, exact however
// small it is.
func TTail(t, df float64) float64 { return betaIncomplete(df/2, 0.5, df/(df+t*t)) / 2 }

// TQuantile is the inverse of Student's t distribution function with df degrees
// of freedom, by bisection.
func TQuantile(p, df float64) float64 {
	lo, hi := -1.0, 1.0
	for TCDF(lo, df) > p {
		lo *= 2
	}
	for TCDF(hi, df) < p {
		hi *= 2
	}
	for hi-lo > 1e-12*(1+math.Abs(lo)) {
		mid := (lo + hi) / 2
		if TCDF(mid, df) < p {
			lo = mid
		} else {
			hi = mid
		}
	}
	return (lo + hi) / 2
}

// betaIncomplete is the regularised incomplete beta function I_x(a, b), by the
// continued fraction DLMF 8.17.22, evaluated with Lentz's method.
func betaIncomplete(a, b, x float64) float64 {
	switch {
	case x <= 0:
		return 0
	case x >= 1:
		return 1
	case x > (a+1)/(a+b+2): // the fraction converges fast on the other side
		return 1 - betaIncomplete(b, a, 1-x)
	}
	const tiny = 1e-300
	front := math.Exp(a*math.Log(x)+b*math.Log1p(-x)-LogBeta(a, b)) / a
	f, c, d := 1.0, 1.0, 0.0
	for i := 0; i <= 400; i++ {
		m := float64(i / 2)
		var num float64
		switch {
		case i == 0:
			num = 1
		case i%2 == 0:
			num = m * (b - m) * x / ((a + 2*m - 1) * (a + 2*m))
		default:
			num = -(a + m) * (a + b + m) * x / ((a + 2*m) * (a + 2*m + 1))
		}
		d = 1 + num*d
		if math.Abs(d) < tiny {
			d = tiny
		}
		d = 1 / d
		c = 1 + num/c
		if math.Abs(c) < tiny {
			c = tiny
		}
		f *= c * d
		if math.Abs(1-c*d) < 1e-15 {
			break
		}
	}
	return front * (f - 1)
}

// LogBeta is the logarithm of the beta function.
func LogBeta(a, b float64) float64 {
	la, _ := math.Lgamma(a)
	lb, _ := math.Lgamma(b)
	lab, _ := math.Lgamma(a + b)
	return la + lb - lab
}

// McNemar is the two-sided p-value of no difference, where b and c pairs differ
// one way and the other: twice the smaller tail of Binomial(b+c, 1/2), less mid
// times the probability of what was observed. mid is 0 for the exact test
// (McNemar 1947, Psychometrika 12:153) and 1 for the mid-p test (Fagerland,
// Lydersen, Laake 2013, BMC Med. Res. Methodol. 13:91).
func McNemar(b, c int, mid float64) float64 {
	cdf, pmf := BinomialHalf(b+c, min(b, c))
	return min(2*cdf-mid*pmf, 1)
}

// BinomialHalf returns P(X ≤ k) and P(X = k) for X ~ Binomial(n, 1/2).
func BinomialHalf(n, k int) (cdf, pmf float64) {
	ln, _ := math.Lgamma(float64(n) + 1)
	for i := 0; i <= k; i++ {
		a, _ := math.Lgamma(float64(i) + 1)
		b, _ := math.Lgamma(float64(n-i) + 1)
		pmf = math.Exp(ln - a - b - float64(n)*math.Ln2)
		cdf += pmf
	}
	return min(cdf, 1), pmf
}
