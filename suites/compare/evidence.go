package compare

import "math"

// process gathers evidence against one null hypothesis about the mean
// difference: mean ≤ null (up) or mean ≥ null (down). If the null is true, the
// chance that rejected ever becomes true is at most alpha, however often one
// looks (only nearly so for the asymptotic process).
//
// Evidence falls as null moves towards the data, at every time, so that
// intervals can be found by bisection over nulls.
type process interface {
	observe(d float64) // one difference, -1 to 1
	rejected() bool
	value() float64 // e-value, NaN where there is none
}

// side is the direction of the bet.
type side float64

const (
	up   side = 1  // against mean ≤ null
	down side = -1 // against mean ≥ null
)

// gridSize bets share the stake, spread over bet sizes from 0.005 to 0.9 in
// even steps of the logarithm, so that small differences and large ones are
// both found soon.
const gridSize = 40

func gridBet(j int) float64 {
	return 0.005 * math.Pow(0.9/0.005, float64(j)/(gridSize-1))
}

// grid returns the bet sizes.
func grid() (bets [gridSize]float64) {
	for j := range bets {
		bets[j] = gridBet(j)
	}
	return bets
}

// capBet keeps a bet's factor 1 + side·l·(d−null) at 0.05 or more for every d
// from -1 to 1. For side up the worst d is -1, for down it is 1.
func capBet(l, null float64, s side) float64 { return min(l, 0.95/(1+float64(s)*null)) }

// mixture is the closed-form mixture betting e-process. With counts n+, n0, n−
// of differences 1, 0 and −1,
//
//	E = 1/J Σ_j (1+l_j(1−m0))^n+ · (1−l_j·m0)^n0 · (1−l_j(1+m0))^n−
//
// against mean ≤ m0, and the same with −l_j against mean ≥ m0. It depends on
// counts alone: it can be resumed and merged over shards, in any order. Other
// differences, which repeats bring, add to a sum per bet.
//
// Source: the test martingale of Waudby-Smith and Ramdas, "Estimating means of
// bounded random variables by betting", arXiv 2010.09686, section 4, with a
// fixed grid in place of a predictable bet.
type mixture struct {
	null            float64
	side            side
	threshold       float64
	logThreshold    float64
	plus, zero, neg float64 // counts
	bets            [gridSize]float64
	logs            [3][gridSize]float64 // of the factors of 1, 0 and -1
	rest            [gridSize]float64    // sums of logs for other differences
}

func newMixture(null float64, s side, o Options) process {
	m := &mixture{null: null, side: s, threshold: 1 / o.Alpha, logThreshold: -math.Log(o.Alpha) - 1e-9, bets: grid()}
	for j, l := range m.bets {
		l = float64(s) * capBet(l, null, s)
		m.bets[j] = l
		for k, d := range [3]float64{1, 0, -1} {
			m.logs[k][j] = math.Log1p(l * (d - null))
		}
	}
	return m
}

func (m *mixture) observe(d float64) {
	switch d {
	case 1:
		m.plus++
	case 0:
		m.zero++
	case -1:
		m.neg++
	default:
		for j, l := range m.bets {
			m.rest[j] += math.Log1p(l * (d - m.null))
		}
	}
}

// log is the logarithm of what bet j has made of its stake.
func (m *mixture) log(j int) float64 {
	return m.plus*m.logs[0][j] + m.zero*m.logs[1][j] + m.neg*m.logs[2][j] + m.rest[j]
}

func (m *mixture) value() float64 {
	var sum float64
	for j := range gridSize {
		sum += math.Exp(m.log(j))
	}
	return sum / gridSize
}

func (m *mixture) rejected() bool {
	best := math.Inf(-1)
	for j := range gridSize {
		best = max(best, m.log(j))
	}
	// The mean of the bets is at most the best one.
	return best >= m.logThreshold && m.value() >= m.threshold
}

// MixtureE returns the e-value against mean ≤ null, or if atLeast against
// mean ≥ null, of counts of differences 1, 0 and -1, in closed form.
func MixtureE(plus, zero, minus int, null float64, atLeast bool) float64 {
	s := up
	if atLeast {
		s = down
	}
	m := newMixture(null, s, Options{Alpha: 0.05}).(*mixture)
	m.plus, m.zero, m.neg = float64(plus), float64(zero), float64(minus)
	return m.value()
}

// wor is the mixture e-process for a benchmark of N questions asked in random
// order without replacement. The null for the next difference is what the rest
// would have to average for the whole to average m0:
//
//	mu_t = (N·m0 − S_{t−1}) / (N − t + 1)
//
// The null is rejected for certain when the rest can not bring the mean down to
// it, holds for certain when it can not bring the mean above it, and at t = N
// the answer is exact. Bets are capped anew at every step, or factors turn
// negative near the end.
//
// Source: Waudby-Smith and Ramdas, "Confidence sequences for sampling without
// replacement", arXiv 2006.04347; gostevehoward/confseq, src/confseq/betting.py
// (mu_t, logical_cs).
type wor struct {
	null      float64
	side      side
	threshold float64
	total     float64
	n, sum    float64
	bets      [gridSize]float64
	capital   [gridSize]float64
	e         float64
	settled   bool // the null is known to be true or false
}

func newWOR(null float64, s side, o Options) process {
	w := &wor{null: null, side: s, threshold: 1 / o.Alpha, total: float64(o.Total), bets: grid(), e: 1}
	for j := range w.capital {
		w.capital[j] = 1
	}
	w.settle()
	return w
}

// exactness absorbs rounding in sums of up to a million differences.
const exactness = 1e-9

// settle ends the process where the rest of the questions can not matter.
func (w *wor) settle() {
	left, need := w.total-w.n, w.total*w.null-w.sum
	need *= float64(w.side)
	switch { // the rest can add from -left to left
	case need < -left-exactness:
		w.settled, w.e = true, math.Inf(1)
	case need >= left-exactness:
		w.settled, w.e = true, 0
	}
}

func (w *wor) observe(d float64) {
	if w.settled {
		return
	}
	mu := (w.total*w.null - w.sum) / (w.total - w.n)
	gain := float64(w.side) * (d - mu)
	limit := math.Inf(1)
	if edge := 1 + float64(w.side)*mu; edge > 0 {
		limit = 0.95 / edge
	}
	var sum float64
	capped := 1 + limit*gain
	for j, l := range w.bets {
		f := capped
		if l < limit {
			f = 1 + l*gain
		}
		c := w.capital[j] * f
		if c < 1e-290 {
			c = 0 // before arithmetic on denormal numbers makes a look a hundred times slower
		}
		w.capital[j] = c
		sum += c
	}
	if sum > 1e300 {
		for j, c := range w.capital {
			w.capital[j] = min(c, 1e290) // cannot overflow; like the line above it only loses evidence
		}
	}
	w.e = sum / gridSize
	w.n++
	w.sum += d
	w.settle()
}

func (w *wor) value() float64 { return w.e }
func (w *wor) rejected() bool { return w.e >= w.threshold }

// hedged is one half of the hedged betting confidence sequence: a single
// predictable bet, on differences mapped to X = (D+1)/2. With m the null so
// mapped,
//
//	K+ = Π (1 + min(l_t, c/m)(X_t − m)),  K− = Π (1 − min(l_t, c/(1−m))(X_t − m)),  c = 1/2
//	l_t = sqrt(2·log(2/α) / (v_{t−1} · t · log(1+t)))
//
// where α is two-sided; v_t = (1/4 + Σ(X_i−mean_i)²)/(t+1) and mean_t =
// (1/2 + ΣX)/(t+1). Half of the stake is on either side, so that each half
// rejects at 2/α, which is 1 over the rate per side.
//
// Source: Waudby-Smith and Ramdas, arXiv 2010.09686, section 4.2.
type hedged struct {
	null      float64 // mapped to 0 to 1
	side      side
	threshold float64
	scale     float64 // 2·log(2/α)
	t         float64
	sum, sq   float64
	k         float64
}

func newHedged(null float64, s side, o Options) process {
	return &hedged{null: (null + 1) / 2, side: s, threshold: 1 / o.Alpha, scale: 2 * math.Log(1/o.Alpha), k: 1}
}

func (h *hedged) observe(d float64) {
	x := (d + 1) / 2
	h.t++
	v := (0.25 + h.sq) / h.t // of the t-1 before
	l := math.Sqrt(h.scale / (v * h.t * math.Log1p(h.t)))
	room := h.null
	if h.side == down {
		room = 1 - h.null
	}
	if room > 0 {
		l = min(l, 0.5/room)
	}
	h.k = min(h.k*(1+float64(h.side)*l*(x-h.null)), 1e300)
	h.sum += x
	mean := (0.5 + h.sum) / (h.t + 1)
	h.sq += (x - mean) * (x - mean)
}

func (h *hedged) value() float64 { return h.k }
func (h *hedged) rejected() bool { return h.k >= h.threshold }

// burnIn is how many pairs an asymptotic interval needs before it is trusted.
const burnIn = 200

// asymptotic is the mixture confidence sequence for means of many differences:
//
//	mean ± sd · sqrt((nρ²+1)/(n²ρ²) · log((nρ²+1)/α²)),  ρ² = (−2·log α + log(1 − 2·log α)) / n*
//
// with α two-sided and n* a quarter of the benchmark, where it is tightest.
//
// Source: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central
// limit theory and asymptotic confidence sequences", arXiv 2103.06476.
type asymptotic struct {
	null       float64
	side       side
	alpha      float64 // two-sided
	rho2       float64
	n, sum, sq float64
}

func newAsymptotic(null float64, s side, o Options) process {
	alpha := 2 * o.Alpha
	best := max(float64(o.Total)/4, 1)
	return &asymptotic{null: null, side: s, alpha: alpha, rho2: (-2*math.Log(alpha) + math.Log(1-2*math.Log(alpha))) / best}
}

func (a *asymptotic) observe(d float64) {
	a.n++
	a.sum += d
	a.sq += d * d
}

func (a *asymptotic) rejected() bool {
	if a.n < burnIn {
		return false
	}
	mean := a.sum / a.n
	sd := math.Sqrt(max(a.sq/a.n-mean*mean, 0))
	if sd == 0 {
		return false // nothing varied yet: no scale to judge by
	}
	r := a.n*a.rho2 + 1
	half := sd * math.Sqrt(r/(a.n*a.n*a.rho2)*math.Log(r/(a.alpha*a.alpha)))
	return float64(a.side)*(mean-a.null) > half
}

func (a *asymptotic) value() float64 { return math.NaN() }
