package compare

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"

	"github.com/repromill/repromill/results/stat"
)

// method is the part that all methods share.
type method struct {
	name, doc   string
	assumptions []string
}

func (m method) Name() string          { return m.name }
func (m method) Doc() string           { return m.doc }
func (m method) Assumptions() []string { return m.assumptions }

// fixed is a method that looks once.
type fixed struct {
	method
	decide func(r *Result, pairs []Pair, o Options) error
}

// Compare implements [Method].
func (f *fixed) Compare(pairs []Pair, o Options) (Result, error) {
	o = o.withDefaults(len(pairs))
	if err := o.check(len(pairs)); err != nil {
		return Result{}, err
	}
	r, err := describe(f, pairs, o)
	if err != nil {
		return Result{}, err
	}
	if err := f.decide(&r, pairs, o); err != nil {
		return Result{}, err
	}
	return r.finish(), nil
}

const (
	sampled    = "the questions are a random sample of the questions meant"
	lookedOnce = "the data are looked at once, at a number of questions fixed in advance"
	fewDiffer  = "enough questions on which the arms differ for the mean to be nearly normal"
)

// TOST is the paired t test for equivalence: two one-sided tests, which is the
// same as the 1-2α interval lying within the margin. Standard errors are
// clustered where questions share a passage; degrees of freedom are clusters
// less one.
//
// Source: Schuirmann 1987 (J. Pharmacokinet. Biopharm. 15:657); clustering as
// in Miller, arXiv 2411.00640.
func TOST() Method {
	return &fixed{method{"tost", "paired t, two one-sided tests", []string{sampled, lookedOnce, fewDiffer}}, pairedT}
}

// NonInferiority is the lower of the two tests of [TOST] alone: the claim is
// that the candidate is not worse by the margin or more.
func NonInferiority() Method {
	return &fixed{method{"noninferiority", "paired t, one side: not worse by the margin", []string{sampled, lookedOnce, fewDiffer}},
		func(r *Result, pairs []Pair, o Options) error {
			o.OneSided, r.OneSided = true, true
			return pairedT(r, pairs, o)
		}}
}

func pairedT(r *Result, _ []Pair, o Options) error {
	r.Level = 1 - 2*o.Alpha
	if r.Clusters < 2 {
		r.Lo, r.Hi = -1, 1
		r.Warnings = append(r.Warnings, "all questions share one passage: there is nothing to estimate an error from")
		return nil
	}
	df := float64(r.Clusters - 1)
	half := stat.TQuantile(1-o.Alpha, df) * r.StdErr
	if r.StdErr == 0 {
		// Nothing varied, so the t test has no scale. The share of questions that
		// differ by something else than this is below 1-α^(1/n), and each differs by
		// at most 2.
		half = 2 * (1 - math.Pow(o.Alpha, 1/float64(r.Clusters)))
		if r.Diff == 0 {
			half /= 2
		}
	}
	r.Lo, r.Hi = max(r.Diff-half, -1), min(r.Diff+half, 1)
	r.Verdict = judge(r.Lo, r.Hi, o)
	if r.StdErr > 0 {
		p := 1 - stat.TCDF((r.Diff+o.Margin)/r.StdErr, df)
		if !o.OneSided {
			p = max(p, stat.TCDF((r.Diff-o.Margin)/r.StdErr, df))
		}
		r.PValue = &p
	}
	return nil
}

const flips = 20_000

// SignFlip is a permutation test that assumes no normal distribution; for the
// thirty questions of AIME. Shifted by the null value, a symmetric difference is
// as likely to be positive as negative. The mean of a random subset of the
// questions is at most m0 exactly as often as flipped signs give at least the
// observed mean under the null m0, so that the interval's ends are quantiles of
// subset means. 20,000 subsets are drawn from the seed.
//
// Source: Hartigan, "Using subsample values as typical values", JASA 1969.
func SignFlip() Method {
	return &fixed{method{"signflip", "sign-flip permutation, two one-sided tests, for few questions",
		[]string{sampled, lookedOnce, "differences are symmetric about their mean"}}, signFlip}
}

// flipGroup is a number of clusters that are alike: the sum of their
// differences, and their questions.
type flipGroup struct {
	sum      float64
	n, count int
}

// flipGroups collects clusters that are alike, in an order that does not depend
// on anything but the pairs.
func flipGroups(pairs []Pair) []flipGroup {
	var units []flipGroup
	index := map[string]int{}
	for _, p := range pairs {
		k, ok := index[p.Cluster]
		if p.Cluster == "" || !ok {
			k = len(units)
			units = append(units, flipGroup{count: 1})
			index[p.Cluster] = k
		}
		units[k].sum += p.Diff()
		units[k].n++
	}
	slices.SortFunc(units, func(a, b flipGroup) int { return cmp.Or(cmp.Compare(a.sum, b.sum), cmp.Compare(a.n, b.n)) })
	groups := units[:0]
	for _, u := range units {
		if k := len(groups) - 1; k >= 0 && groups[k].sum == u.sum && groups[k].n == u.n {
			groups[k].count++
			continue
		}
		groups = append(groups, u)
	}
	return groups
}

// coins tosses fair coins, 64 at a time.
type coins struct {
	rng  *rand.Rand
	bits uint64
	left int
}

// heads tosses n coins.
func (c *coins) heads(n int) int {
	heads := 0
	for n > 0 {
		if c.left == 0 {
			c.bits, c.left = c.rng.Uint64(), 64
		}
		k := min(n, c.left)
		heads += bits.OnesCount64(c.bits << (64 - k))
		c.bits >>= k
		c.left -= k
		n -= k
	}
	return heads
}

func signFlip(r *Result, pairs []Pair, o Options) error {
	if len(pairs) > 5000 {
		return &TermsError{fmt.Sprintf("signflip is for few questions, got %d", len(pairs)), "use tost"}
	}
	groups := flipGroups(pairs)
	coins := coins{rng: rand.New(rand.NewPCG(o.Seed, 0x51f1))}
	low, high := make([]float64, flips), make([]float64, flips)
	for i := range flips {
		sum, n := 0.0, 0
		for _, g := range groups {
			k := coins.heads(g.count)
			sum += float64(k) * g.sum
			n += k * g.n
		}
		if n == 0 { // flipping nothing gives the observed mean: it counts for every null
			low[i], high[i] = math.Inf(-1), math.Inf(1)
			continue
		}
		low[i] = sum / float64(n)
		high[i] = low[i]
	}
	slices.Sort(low)
	slices.Sort(high)
	// p(m0) = (1 + #{means ≤ m0}) / (1 + flips) must exceed α inside the interval.
	k := int(o.Alpha*(flips+1)) - 1
	r.Level = 1 - 2*o.Alpha
	r.Lo, r.Hi = -1, 1
	if k >= 0 { // a smaller alpha than 1/flips rejects nothing
		r.Lo, r.Hi = max(low[k], -1), min(high[flips-1-k], 1)
	}
	r.Verdict = judge(r.Lo, r.Hi, o)
	count := func(means []float64, keep func(float64) bool) float64 {
		n := 1
		for _, m := range means {
			if keep(m) {
				n++
			}
		}
		return float64(n) / (flips + 1)
	}
	p := count(low, func(m float64) bool { return m <= -o.Margin })
	if !o.OneSided {
		p = max(p, count(high, func(m float64) bool { return m >= o.Margin }))
	}
	r.PValue = &p
	return nil
}

const anyDifference = "worse and better mean any difference, however small; never shows that there is none"

// McNemarExact tests for any difference at all: the pairs on which only one arm
// is right are a fair coin's. p is twice the smaller tail of Binomial(b+c, 1/2).
// Alpha is the two-sided level.
//
// Source: McNemar 1947 (Psychometrika 12:153).
func McNemarExact() Method {
	return &fixed{method{"mcnemar_exact", "exact test for any difference", []string{sampled, lookedOnce, anyDifference}},
		func(r *Result, _ []Pair, o Options) error { mcNemar(r, o, 0); return nil }}
}

// McNemarMidP is [McNemarExact] counting half of the observed outcome's
// probability, which is less conservative for small b+c.
//
// Source: Fagerland, Lydersen, Laake 2013 (BMC Med. Res. Methodol. 13:91).
func McNemarMidP() Method {
	return &fixed{method{"mcnemar_midp", "mid-p test for any difference", []string{sampled, lookedOnce, anyDifference}},
		func(r *Result, _ []Pair, o Options) error { mcNemar(r, o, 1); return nil }}
}

// mcNemar decides by the two-sided p less mid times the observed probability.
func mcNemar(r *Result, o Options, mid float64) {
	p := stat.McNemar(r.BaseOnly, r.CandOnly, mid)
	r.PValue = &p
	r.Level = 1 - o.Alpha
	half := stat.NormalQuantile(1-o.Alpha/2) * r.StdErr
	r.Lo, r.Hi = max(r.Diff-half, -1), min(r.Diff+half, 1)
	if p <= o.Alpha {
		r.Verdict = anyVerdict(r.BaseOnly, r.CandOnly)
	}
}

func anyVerdict(b, c int) Verdict {
	if b > c {
		return Worse
	}
	return Better
}
