package kueue

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/repromill/repromill/planner/spec"
)

// worldJob is a Job of a simulated cluster, with what only the world knows.
type worldJob struct {
	task
	arrives, lasts float64
	lag            float64 // from its admission until its command begins
	gap            float64 // from its end until another is let in, in its place
	priority       int
	start, end     float64 // once known; -1 before
}

// site is what the queues of a cluster are like.
type site struct {
	every, lasts float64 // seconds, between two Jobs and of a Job in the middle
	lag, gap     float64 // means over sites of what their means are
}

// world plays a queue second by second, by rules written down here once more:
// at every arrival and end, the waiting Jobs in order of priority and arrival
// are admitted while they fit.
type world struct {
	room   map[string]float64
	strict bool
	jobs   []*worldJob // by arrival
}

// snapshot is what could be seen at a moment, and which Jobs waited then.
type snapshot struct {
	at      float64
	line    line
	waiting []*worldJob
}

func (w *world) ordered(now float64) (running, waiting []*worldJob) {
	for _, j := range w.jobs {
		switch {
		case j.arrives > now || j.end >= 0 && j.end+j.gap <= now:
		case j.start >= 0 && j.start <= now:
			running = append(running, j)
		default:
			waiting = append(waiting, j)
		}
	}
	slices.SortStableFunc(waiting, func(a, b *worldJob) int { return b.priority - a.priority })
	return running, waiting
}

func (w *world) run(every float64) (seen []snapshot) {
	next := every
	for now := 0.0; ; {
		running, waiting := w.ordered(now)
		used := map[string]float64{}
		for _, j := range running {
			for name, n := range j.need {
				used[name] += n
			}
		}
		for _, j := range waiting {
			fit := true
			for name, n := range j.need {
				fit = fit && used[name]+n <= w.room[name]
			}
			if !fit && w.strict {
				break
			}
			if fit {
				j.start, j.end = now, now+j.lag+j.lasts
				for name, n := range j.need {
					used[name] += n
				}
			}
		}
		if now >= next {
			next += every
			seen = append(seen, w.look(now))
		}
		soonest := math.Inf(1)
		for _, j := range w.jobs {
			if j.arrives > now {
				soonest = min(soonest, j.arrives)
			}
			if j.end >= 0 && j.end+j.gap > now {
				soonest = min(soonest, j.end+j.gap)
			}
		}
		if math.IsInf(soonest, 1) {
			return seen
		}
		now = soonest
	}
}

// look is what a submitter can see at a moment.
func (w *world) look(now float64) snapshot {
	running, waiting := w.ordered(now)
	window := min(now, 6*3600)
	s := snapshot{at: now, line: line{room: w.room, strict: w.strict}, waiting: waiting}
	for _, j := range running {
		if j.end <= now {
			continue // its place is free and not taken yet
		}
		t := j.task
		t.runs, t.elapsed = true, now-j.start
		if t.elapsed > j.lag {
			t.lag = j.lag
			s.line.record.lags = append(s.line.record.lags, j.lag)
		}
		s.line.tasks = append(s.line.tasks, t)
	}
	for _, j := range waiting {
		s.line.tasks = append(s.line.tasks, j.task)
	}
	var stays []stay
	for _, j := range w.jobs {
		if j.arrives <= now {
			at := stay{created: j.arrives}
			if j.start >= 0 && j.start <= now {
				at.admitted = j.start
			}
			if j.end >= 0 && j.end <= now {
				at.ended = j.end
			}
			stays = append(stays, at)
		}
		if j.end >= 0 && j.end <= now {
			s.line.record.lags = append(s.line.record.lags, j.lag)
			s.line.record.took = append(s.line.record.took, j.lag+j.lasts)
			if j.expected != nil {
				s.line.record.ratios = append(s.line.record.ratios, j.lasts/j.expected.P50)
			}
		}
		if j.arrives <= now && j.arrives > now-window {
			s.line.like = append(s.line.like, j.task)
		}
	}
	s.line.record.gaps = handovers(stays)
	s.line.rate = float64(len(s.line.like)) / window
	return s
}

// randomWorld is a week of a busy queue. Estimates are wrong by a factor that
// nobody knows, and by chance beside it; a part of the Jobs have none.
func randomWorld(rng *rand.Rand, strict bool, at site) *world {
	w := &world{room: map[string]float64{"nvidia.com/gpu": 16, "cpu": 128}, strict: strict}
	bias := math.Exp(0.4 * rng.NormFloat64())
	lag, gap := at.lag*rng.ExpFloat64(), at.gap*rng.ExpFloat64()
	now := 0.0
	for i := range 400 {
		now += at.every * rng.ExpFloat64()
		gpus := []float64{1, 1, 2, 4, 8}[rng.IntN(5)]
		median := at.lasts * math.Exp(1.2*rng.NormFloat64())
		j := &worldJob{task: task{name: fmt.Sprint(i), need: map[string]float64{"nvidia.com/gpu": gpus, "cpu": 4 * gpus}}, arrives: now, start: -1, end: -1}
		j.lag, j.gap = lag*math.Exp(0.6*rng.NormFloat64()-0.18), gap*rng.ExpFloat64()
		j.lasts = median * bias * math.Exp(0.35*rng.NormFloat64())
		if rng.IntN(4) > 0 {
			j.expected = &spec.Interval{P10: median / 1.8, P50: median, P90: median * 1.8}
		}
		if rng.IntN(20) == 0 {
			j.priority = 1
		}
		w.jobs = append(w.jobs, j)
	}
	return w
}

// score is how forecasts compare with what happened.
type score struct {
	n, held  int
	relative []float64 // |predicted - real| / real
	naive    []float64 // the same of "Jobs ahead times the usual length"
}

func (s *score) add(got Wait, real, naive float64) {
	s.n++
	if got.P10-1 <= real && real <= got.P90+1 {
		s.held++
	}
	s.relative, s.naive = append(s.relative, math.Abs(got.P50-real)/max(real, 10)), append(s.naive, math.Abs(naive-real)/max(real, 10))
}

// TestHandovers: a place counts as handed over to who had waited for it.
func TestHandovers(t *testing.T) {
	got := handovers([]stay{
		{created: 0, admitted: 1, ended: 100},
		{created: 2, admitted: 103},                // waited for the first
		{created: 101, admitted: 104},              // came after its end
		{created: 3, admitted: 500},                // much later: something else kept it
		{created: 4},                               // waits
		{created: 5, admitted: 210, ended: 300},    // follows an end long ago
		{created: 6, admitted: 300.5, ended: 1000}, // follows that one
	})
	if fmt.Sprint(got) != "[3 0.5]" {
		t.Errorf("they are %v", got)
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// burst is a sweep that somebody submits at once to an empty queue.
func burst(rng *rand.Rand, at site) *world {
	w := &world{room: map[string]float64{"cpu": 4}}
	bias, lag, gap := math.Exp(0.3*rng.NormFloat64()), at.lag*rng.ExpFloat64(), at.gap*rng.ExpFloat64()
	for i := range 24 {
		median := at.lasts * math.Exp(0.4*rng.NormFloat64())
		j := &worldJob{task: task{name: fmt.Sprint(i), need: map[string]float64{"cpu": 1}, expected: &spec.Interval{P10: 0.7 * median, P50: median, P90: median / 0.7}}, start: -1, end: -1}
		j.lag, j.gap, j.lasts = lag*math.Exp(0.6*rng.NormFloat64()-0.18), gap*rng.ExpFloat64(), median*bias*math.Exp(0.28*rng.NormFloat64())
		w.jobs = append(w.jobs, j)
	}
	return w
}

// TestForecastsAreScored: on queues played by other code, with seeds that nothing was
// fitted to, the intervals hold about as often as they say and the points beat what
// is usually done.
func TestForecastsAreScored(t *testing.T) {
	usual := site{every: 160, lasts: 300, lag: 10, gap: 1}
	for name, tc := range map[string]struct {
		score func() score
		most  float64 // of the median error
	}{
		"BestEffortFIFO":       {func() score { return scored(false, usual, 5) }, 0.5},
		"StrictFIFO":           {func() score { return scored(true, usual, 5) }, 0.5},
		"sweeps":               {func() score { return sweeps(usual, 150) }, 0.3},
		"sweeps of short Jobs": {func() score { return sweeps(site{lasts: 8, lag: 4, gap: 1.5}, 150) }, 0.3},
	} {
		t.Run(name, func(t *testing.T) {
			s := tc.score()
			coverage, rel, naive := float64(s.held)/float64(s.n), median(s.relative), median(s.naive)
			t.Logf("%d waits foreseen: the 80 %% interval held %.0f %%, median error %.0f %% of the wait; Jobs ahead times the usual length: %.0f %%", s.n, 100*coverage, 100*rel, 100*naive)
			if s.n < 80 {
				t.Errorf("only %d forecasts; the queues are not busy enough", s.n)
			}
			if coverage < 0.68 || coverage > 0.93 {
				t.Errorf("an interval of 80 %% held %.0f %%", 100*coverage)
			}
			if rel > tc.most || rel > 0.75*naive {
				t.Errorf("the median error is %.0f %%, and %.0f %% without any of this", 100*rel, 100*naive)
			}
		})
	}
}

// sweeps foresees one wait in each of some sweeps, after two of its Jobs have ended.
func sweeps(at site, n uint64) (s score) {
	for seed := range n {
		rng := rand.New(rand.NewPCG(seed, 7))
		w := burst(rng, at)
		w.run(1)
		ends := make([]float64, len(w.jobs))
		for i, j := range w.jobs {
			ends[i] = j.end
		}
		slices.Sort(ends)
		shot := w.look(ends[1])
		fc := foresee(shot.line, seed)
		j := shot.waiting[rng.IntN(len(shot.waiting))]
		s.add(fc.start[j.name], j.start-shot.at, float64(len(shot.waiting))/4*at.lasts)
	}
	return s
}

// scored foresees waits in some random queues.
func scored(strict bool, at site, worlds uint64) (s score) {
	for seed := range worlds {
		w := randomWorld(rand.New(rand.NewPCG(seed, 1)), strict, at)
		for i, shot := range w.run(15 * at.every) {
			if len(shot.waiting) == 0 {
				continue
			}
			fc := foresee(shot.line, seed*1000+uint64(i))
			k := rand.New(rand.NewPCG(seed, uint64(i))).IntN(len(shot.waiting))
			usual := at.lasts
			if n := len(shot.line.record.took); n > 0 {
				usual = median(slices.Clone(shot.line.record.took))
			}
			j := shot.waiting[k]
			s.add(fc.start[j.name], j.start-shot.at, float64(k+1)*usual)
		}
	}
	return s
}
