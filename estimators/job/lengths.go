package job

import (
	"fmt"
	"math"
	"strings"

	"github.com/repromill/repromill/estimators"
	"github.com/repromill/repromill/estimators/calibrate"
)

// Length is how long the requests of a suite are.
type Length struct {
	In   float64             // tokens of a prompt
	Out  estimators.Interval // mean tokens of an answer, over models that think and models that do not
	Note string              // what it rests on
}

// Answers of models that think are five to twenty times as long as those of
// models that do not; nobody states which a plan's model is, so the intervals
// span both. They are assumptions until a run has measured them.
const assumedLength = "output lengths are assumed, over models that think and models that do not"

func lengthOf(suite string) Length {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		}
		return -1
	}, suite)
	best := ""
	for k := range lengths {
		if strings.HasPrefix(name, k) && len(k) > len(best) {
			best = k
		}
	}
	if best == "" {
		return Length{1000, estimators.Interval{P10: 200, P50: 1500, P90: 12000}, "prompts and answers of this suite are not known: " + assumedLength}
	}
	l := lengths[best]
	l.Note = assumedLength
	return l
}

// measured is the length of a model's answers to a suite as this site saw it: the
// mean with its standard error, and a little more, since prompts and budgets
// change between runs.
func measured(cal *calibrate.Calibration, suite, model string) (Length, bool) {
	for i := range cal.Lengths {
		l := &cal.Lengths[i]
		if l.N < 5 || l.Out < 1 || !strings.EqualFold(l.Suite, suite) || !strings.EqualFold(l.Model, model) {
			continue
		}
		const drift = 0.05
		rel := 1.28 * math.Hypot(l.Error()/l.Out, drift)
		return Length{In: math.Max(1, l.In), Out: estimators.Interval{P10: l.Out * math.Exp(-rel), P50: l.Out, P90: l.Out * math.Exp(rel)},
			Note: fmt.Sprintf("answers of %.0f tokens, measured on %.0f of them", l.Out, l.N)}, true
	}
	return Length{}, false
}

// lengths are keyed by the beginning of a suite's name in lower case. The upper
// ends are budgets that model cards run with.
var lengths = map[string]Length{
	"mmlupro":       {In: 250, Out: estimators.Interval{P10: 350, P50: 1800, P90: 6000}},
	"aime":          {In: 150, Out: estimators.Interval{P10: 1500, P50: 12000, P90: 30000}},
	"gpqa":          {In: 300, Out: estimators.Interval{P10: 600, P50: 6000, P90: 18000}},
	"hle":           {In: 350, Out: estimators.Interval{P10: 800, P50: 8000, P90: 25000}},
	"ifbench":       {In: 250, Out: estimators.Interval{P10: 300, P50: 1500, P90: 6000}},
	"ifeval":        {In: 100, Out: estimators.Interval{P10: 250, P50: 700, P90: 3000}},
	"aalcr":         {In: 100_000, Out: estimators.Interval{P10: 300, P50: 1500, P90: 6000}},
	"ruler":         {In: 32_000, Out: estimators.Interval{P10: 30, P50: 60, P90: 128}},
	"longbench":     {In: 60_000, Out: estimators.Interval{P10: 50, P50: 800, P90: 4000}},
	"niah":          {In: 32_000, Out: estimators.Interval{P10: 20, P50: 60, P90: 200}},
	"tau2":          {In: 6_000, Out: estimators.Interval{P10: 1500, P50: 5000, P90: 15000}},
	"scicode":       {In: 2_500, Out: estimators.Interval{P10: 600, P50: 3000, P90: 12000}},
	"livecodebench": {In: 600, Out: estimators.Interval{P10: 500, P50: 8000, P90: 20000}},
	"mmmupro":       {In: 1_500, Out: estimators.Interval{P10: 300, P50: 2000, P90: 8000}},
	"gsm8k":         {In: 900, Out: estimators.Interval{P10: 120, P50: 300, P90: 2000}},
	"humaneval":     {In: 200, Out: estimators.Interval{P10: 150, P50: 500, P90: 4000}},
	"math":          {In: 150, Out: estimators.Interval{P10: 500, P50: 3000, P90: 12000}},
	"bfcl":          {In: 1_200, Out: estimators.Interval{P10: 60, P50: 250, P90: 2000}},
}
