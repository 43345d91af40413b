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
	priority       int
	start, end     float64 // once known; -1 before
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
		case j.arrives > now || j.end >= 0 && j.end <= now:
		case j.start >= 0:
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
				j.start, j.end = now, now+j.lasts
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
			if j.end > now {
				soonest = min(soonest, j.end)
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
		t := j.task
		t.runs, t.elapsed = true, now-j.start
		s.line.tasks = append(s.line.tasks, t)
	}
	for _, j := range waiting {
		s.line.tasks = append(s.line.tasks, j.task)
	}
	for _, j := range w.jobs {
		if j.end >= 0 && j.end <= now {
			s.line.record.took = append(s.line.record.took, j.lasts)
			if j.expected != nil {
				s.line.record.ratios = append(s.line.record.ratios, j.lasts/j.expected.P50)
			}
		}
		if j.arrives <= now && j.arrives > now-window {
			s.line.like = append(s.line.like, j.task)
		}
	}
	s.line.rate = float64(len(s.line.like)) / window
	return s
}

// randomWorld is a week of a busy queue. Estimates are wrong by a factor that
// nobody knows, and by chance beside it; a part of the Jobs have none.
func randomWorld(rng *rand.Rand, strict bool) *world {
	w := &world{room: map[string]float64{"nvidia.com/gpu": 16, "cpu": 128}, strict: strict}
	bias := math.Exp(0.4 * rng.NormFloat64())
	now := 0.0
	for i := range 400 {
		now += 160 * rng.ExpFloat64()
		gpus := []float64{1, 1, 2, 4, 8}[rng.IntN(5)]
		median := 300 * math.Exp(1.2*rng.NormFloat64())
		j := &worldJob{task: task{name: fmt.Sprint(i), need: map[string]float64{"nvidia.com/gpu": gpus, "cpu": 4 * gpus}}, arrives: now, start: -1, end: -1}
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
	s.relative, s.naive = append(s.relative, math.Abs(got.P50-real)/max(real, 60)), append(s.naive, math.Abs(naive-real)/max(real, 60))
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// TestForecastsAreScored: on queues played by other code, the intervals hold
// about as often as they say and the points beat what is usually done.
func TestForecastsAreScored(t *testing.T) {
	for _, strict := range []bool{false, true} {
		name := map[bool]string{false: "BestEffortFIFO", true: "StrictFIFO"}[strict]
		t.Run(name, func(t *testing.T) {
			var s score
			for seed := range uint64(5) {
				w := randomWorld(rand.New(rand.NewPCG(seed, 1)), strict)
				for i, shot := range w.run(2400) {
					if len(shot.waiting) == 0 {
						continue
					}
					fc := foresee(shot.line, seed*1000+uint64(i))
					k := rand.New(rand.NewPCG(seed, uint64(i))).IntN(len(shot.waiting))
					usual := 300.0
					if n := len(shot.line.record.took); n > 0 {
						usual = median(slices.Clone(shot.line.record.took))
					}
					j := shot.waiting[k]
					s.add(fc.start[j.name], j.start-shot.at, float64(k+1)*usual)
				}
			}
			coverage, rel, naive := float64(s.held)/float64(s.n), median(s.relative), median(s.naive)
			t.Logf("%d waits foreseen: the 80 %% interval held %.0f %%, median error %.0f %% of the wait; Jobs ahead times the usual length: %.0f %%", s.n, 100*coverage, 100*rel, 100*naive)
			if s.n < 100 {
				t.Errorf("only %d forecasts; the queues are not busy enough", s.n)
			}
			if coverage < 0.7 || coverage > 0.95 {
				t.Errorf("an interval of 80 %% held %.0f %%", 100*coverage)
			}
			if rel > 0.5 || rel > 0.75*naive {
				t.Errorf("the median error is %.0f %%, and %.0f %% without any of this", 100*rel, 100*naive)
			}
		})
	}
}
