package calibrate

import (
	"errors"
	"math"
)

// fitConfig are the knobs of a fit. The zero value is what callers want.
type fitConfig struct {
	start []float64 // nil means the priors
	steps int       // 0 means 40
	scale float64   // 0 means residualScale
}

// residualScale is the error of log throughput beyond which rows count for less,
// and how much a row counts beside the priors. Repeats, versions and quirks of one
// configuration differ by some 0.3; it is more than that because rows of one
// configuration share their errors and tell less than as many independent ones.
// Of 0.3, 0.45 and 0.675 leaving groups out inside each of the 15 folds of a
// backtest chose the last every time.
const residualScale = 0.675

// siteScale is that of a site's own rows: they are few, and of what is asked.
const siteScale = 0.3

// fit finds the parameters that explain the points: the mode of a posterior
// with soft-L1 errors and Gaussian priors, by Levenberg and Marquardt's method.
func fit(d *design, ps []*point, cfg fitConfig) ([]float64, error) {
	if len(ps) == 0 {
		return nil, errors.New("fit: no rows")
	}
	n := len(d.list)
	theta := make([]float64, n)
	for i, p := range d.list {
		theta[i] = p.mean
	}
	if cfg.start != nil {
		copy(theta, cfg.start)
	}
	steps := cfg.steps
	if steps == 0 {
		steps = 40
	}
	scale := cfg.scale
	if scale == 0 {
		scale = residualScale
	}
	lambda := 1e-3
	a, g := make([]float64, n*n), make([]float64, n)
	trial, work := make([]float64, n), make([]float64, n*n)
	cost := objective(d, ps, theta, scale)
	for range steps {
		normal(d, ps, theta, a, g, scale)
		improved := false
		for range 8 {
			copy(work, a)
			for i := range n {
				work[i*n+i] *= 1 + lambda
			}
			copy(trial, g)
			if !solve(work, trial, n) {
				lambda *= 10
				continue
			}
			for i := range trial {
				trial[i] += theta[i]
			}
			if c := objective(d, ps, trial, scale); c < cost {
				improved = cost-c > 1e-5*cost
				cost = c
				copy(theta, trial)
				lambda = math.Max(lambda/5, 1e-9)
				break
			}
			lambda *= 6
		}
		if !improved {
			break
		}
	}
	return theta, nil
}

// objective is what fit makes small.
func objective(d *design, ps []*point, theta []float64, scale float64) float64 {
	sum := 0.0
	for _, p := range ps {
		c := coef(p.feats, theta)
		r := (p.logPred(&c) - p.y) / scale
		sum += 2 * (math.Sqrt(1+r*r) - 1)
	}
	for i, p := range d.list {
		z := (theta[i] - p.mean) / p.sd
		sum += z * z
	}
	return sum
}

// normal builds the normal equations of the linearised problem, with soft-L1 as
// weights. Only the few coefficients of the time model are differentiated by
// differences; the chain rule does the rest.
func normal(d *design, ps []*point, theta, a, g []float64, scale float64) {
	n := len(theta)
	clear(a)
	clear(g)
	const h = 1e-4
	var grad [32]float64
	row := make([]float64, n)
	for _, p := range ps {
		c := coef(p.feats, theta)
		f0 := p.logPred(&c)
		for k := range c {
			moved := c
			moved[k] += h
			grad[k] = (p.logPred(&moved) - f0) / h
		}
		r := (f0 - p.y) / scale
		w := 1 / math.Sqrt(1+r*r) / (scale * scale)
		for _, f := range p.feats {
			row[f.param] += grad[f.coef] * f.x
		}
		for i, fi := range p.feats {
			vi := row[fi.param] * w
			if vi == 0 {
				continue // a coefficient that this row does not feel
			}
			g[fi.param] -= vi * (f0 - p.y)
			for _, fj := range p.feats[:i+1] {
				// Only the lower triangle is used.
				a[max(fi.param, fj.param)*n+min(fi.param, fj.param)] += vi * row[fj.param]
			}
		}
		for _, f := range p.feats {
			row[f.param] = 0
		}
	}
	for i, p := range d.list {
		inv := 1 / (p.sd * p.sd)
		a[i*n+i] += inv
		g[i] -= inv * (theta[i] - p.mean)
	}
}

// solve replaces b by the solution of a·x = b for a symmetric positive definite
// matrix, by Cholesky's method; false where it is none. a is overwritten.
func solve(a, b []float64, n int) bool {
	for i := range n {
		ri := a[i*n : i*n+n]
		for j := range i + 1 {
			rj := a[j*n : j*n+n]
			v := ri[j] - dot(ri[:j], rj[:j])
			if i != j {
				ri[j] = v / rj[j]
				continue
			}
			if !(v > 0) {
				return false
			}
			ri[i] = math.Sqrt(v)
		}
	}
	for i := range n {
		for k := range i {
			b[i] -= a[i*n+k] * b[k]
		}
		b[i] /= a[i*n+i]
	}
	for i := n - 1; i >= 0; i-- {
		for k := i + 1; k < n; k++ {
			b[i] -= a[k*n+i] * b[k]
		}
		b[i] /= a[i*n+i]
	}
	return true
}

// dot keeps four sums at a time, so that additions do not wait for each other.
func dot(a, b []float64) float64 {
	var s0, s1, s2, s3 float64
	n := len(a) &^ 3
	b = b[:len(a)]
	for k := 0; k < n; k += 4 {
		s0 += a[k] * b[k]
		s1 += a[k+1] * b[k+1]
		s2 += a[k+2] * b[k+2]
		s3 += a[k+3] * b[k+3]
	}
	for k := n; k < len(a); k++ {
		s0 += a[k] * b[k]
	}
	return s0 + s1 + s2 + s3
}
