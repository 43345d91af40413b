package nightly

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"

	"github.com/repromill/repromill/results/stat"
)

// sample is what was measured of one value, beside the good end.
type sample struct {
	ratios      []float64 // of a speed: logarithms, positive is better
	value, good scoreSum  // of answers
}

// scoreSum are scores by item, summed over rounds.
type scoreSum struct {
	sum map[string]float64
	n   float64
}

func (s *scoreSum) add(scores map[string]float64) {
	if s.sum == nil {
		s.sum = map[string]float64{}
	}
	for item, v := range scores {
		s.sum[item] += v
	}
	s.n++
}

func (s *scoreSum) mean() map[string]float64 {
	out := make(map[string]float64, len(s.sum))
	for item, v := range s.sum {
		out[item] = v / s.n
	}
	return out
}

// take reads a round's two runs.
func (s *search) take(ctx context.Context, i int, good, value string) (why string, err error) {
	a, err := s.read.digest(ctx, good)
	if err != nil {
		return "", err
	}
	b, err := s.read.digest(ctx, value)
	if errors.Is(err, fs.ErrNotExist) {
		return "its run committed no results", nil
	}
	if err != nil {
		return "", err
	}
	if s.key == nil {
		if err := s.choose(a); err != nil {
			return "", err
		}
	}
	if s.arm != nil {
		x, err := s.read.scores(ctx, good, a.identity, *s.arm)
		if err != nil {
			return "", err
		}
		y, err := s.read.scores(ctx, value, b.identity, *s.arm)
		if err != nil {
			return "", err
		}
		if len(y) == 0 || len(x) == 0 {
			return "its run has no answers of " + s.arm[1], nil
		}
		s.data[i].good.add(x)
		s.data[i].value.add(y)
		return "", nil
	}
	x, y := s.speed(a), s.speed(b)
	if math.IsNaN(x) || math.IsNaN(y) {
		return "its run gave no " + s.key.Metric, nil
	}
	s.data[i].ratios = append(s.data[i].ratios, y-x)
	return "", nil
}

// choose finds the series that is searched in the first run of the good end.
func (s *search) choose(d *digest) error {
	var found []string
	for _, m := range d.speeds {
		if matches(m.key, s.q.What) && !slices.Contains(found, m.key.String()) {
			found = append(found, m.key.String())
			k := m.key
			s.key, s.lower, s.arm = &k, m.lower, nil
		}
	}
	for _, a := range d.arms {
		if matches(a.key, s.q.What) {
			found = append(found, a.key.String())
			k := a.key
			s.key, s.arm = &k, &[2]string{a.suite, a.arm}
		}
	}
	if len(found) != 1 {
		s.key = nil
		if len(found) == 0 {
			found = keys(d)
		}
		return userErrorf("name one with --metric; the run gives: "+strings.Join(found, "; "), "%q does not name one series of the run", s.q.What)
	}
	s.out.Key = *s.key
	return nil
}

// speed is the logarithm of the number that is searched, turned so that more is
// better; engine and machine may differ, since they are what is varied.
func (s *search) speed(d *digest) float64 {
	var sum, n float64
	for _, m := range d.speeds {
		if k := m.key; k.Suite == s.key.Suite && k.Task == s.key.Task && k.Metric == s.key.Metric && k.Model == s.key.Model {
			sum += math.Log(m.value)
			n++
		}
	}
	if s.lower {
		sum = -sum
	}
	return sum / n
}

// decide looks at what was measured of a value. The bad end is bad where it is
// worse than the good one by what counts; another value is on the side of the end
// that it is not told from, once it is told from the other.
func (s *search) decide(i int) bool {
	if s.arm != nil {
		return s.decideScores(i)
	}
	return s.decideSpeeds(i)
}

func moments(x []float64) (mean, squares float64) {
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		squares += (v - mean) * (v - mean)
	}
	return mean, squares
}

// decideSpeeds tests means of log ratios by Student's t, with the variance pooled
// over all that was measured: the noise of a round does not depend on the value.
func (s *search) decideSpeeds(i int) bool {
	var squares, df float64
	for _, d := range s.data {
		if len(d.ratios) > 0 {
			_, sq := moments(d.ratios)
			squares, df = squares+sq, df+float64(len(d.ratios)-1)
		}
	}
	// Equal numbers still have the resolution of what measured them.
	variance := max(squares/df, 1e-10)
	v, last := &s.out.Values[i], len(s.data)-1
	n := float64(len(s.data[i].ratios))
	mean, _ := moments(s.data[i].ratios)
	se := math.Sqrt(variance / n)
	half := stat.TQuantile(0.975, df) * se
	p := 2 * stat.TTail(math.Abs(mean)/se, df)
	v.set(math.Expm1(mean), math.Expm1(mean-half), math.Expm1(mean+half), p)
	floor := math.Log1p(s.n.cfg.Schedule.Policy.WithDefaults().Floor)
	// The direction is known, so that the tests are one-sided.
	worse := mean <= -floor && p/2 <= s.alpha
	v.Reason = fmt.Sprintf("%+.1f %% against %s", 100*math.Expm1(mean), s.q.Values[0])
	if i == last {
		switch {
		case worse:
			v.Is = IsBad
		case mean > -floor && stat.TTail((mean+floor)/se, df) <= s.alpha: // a change that counts is ruled out
			v.Is = IsGood
		}
		return v.Is == IsBad || v.Is == IsGood
	}
	bad, _ := moments(s.data[last].ratios)
	fromBad := math.Sqrt(variance * (1/n + 1/float64(len(s.data[last].ratios))))
	better := mean > bad && stat.TTail((mean-bad)/fromBad, df) <= s.alpha
	return v.side(worse, better)
}

// decideScores compares the mean scores of the same questions: McNemar's test on
// which of them became better and worse.
func (s *search) decideScores(i int) bool {
	v, last := &s.out.Values[i], len(s.data)-1
	margin := s.n.cfg.Schedule.Policy.WithDefaults().Margin
	good := pair(s.data[i].value.mean(), s.data[i].good.mean())
	v.set(good.Diff, good.Lo, good.Hi, good.P)
	v.Reason = fmt.Sprintf("%+.2f points against %s on %d questions", 100*good.Diff, s.q.Values[0], good.Items)
	worse := good.Diff <= -margin && good.P/2 <= s.alpha
	if i == last {
		switch {
		case worse:
			v.Is = IsBad
		case good.Lo > -margin && good.Resolves <= margin:
			v.Is = IsGood
		}
		return v.Is == IsBad || v.Is == IsGood
	}
	bad := pair(s.data[i].value.mean(), s.data[last].value.mean())
	return v.side(worse, bad.Diff >= margin && bad.P/2 <= s.alpha)
}

func (v *Bisected) set(effect, lo, hi, p float64) {
	v.Effect, v.Lo, v.Hi, v.P = &effect, &lo, &hi, &p
}

// side is the side of a value that is worse than the good end, or better than the
// bad one. One that is both became worse in more than one step, and is bad.
func (v *Bisected) side(worse, better bool) bool {
	switch {
	case worse:
		v.Is = IsBad
		if better {
			v.Reason += ", and better than the bad end: there is more than one step"
		}
	case better:
		v.Is = IsGood
	}
	return worse || better
}
