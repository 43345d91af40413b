package kueue

import (
	"cmp"
	"container/heap"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/spec"
)

// Wait is how long something is expected to take from now, in seconds: a point
// and the interval that is meant to hold the truth four times out of five.
type Wait struct {
	P10    float64   `json:"p10_s"`
	P50    float64   `json:"p50_s"`
	P90    float64   `json:"p90_s"`
	Kind   spec.Kind `json:"kind"` // estimated, or assumed where nothing but limits is known
	Source string    `json:"source"`
}

// line is a queue as a forecast sees it.
type line struct {
	room   map[string]float64 // by resource, what its Jobs may hold together; one that is missing is not counted
	strict bool               // StrictFIFO: nothing passes what does not fit
	tasks  []task             // those that hold quota, then those that wait, in their order
	others int                // that wait too and cannot be seen, at unknown places
	like   []task             // what others and newcomers may be: Jobs of the last time
	rate   float64            // newcomers a second, who pass what does not fit
	record history
	basis  string // where room comes from, for the source

	free    []float64   // room, by the order of its names
	classes [][]float64 // what tasks need, each once
}

// task is one Job of a line.
type task struct {
	name     string
	need     map[string]float64
	runs     bool
	elapsed  float64        // seconds since it was admitted
	lag      float64        // of these, until its command began; 0 while that is not known
	expected *spec.Interval // seconds that it runs, by the plan's estimate
	limit    float64        // seconds after which it is stopped; 0 is unknown
	class    int            // the same for the same need
}

// history is what became of Jobs that ended.
type history struct {
	ratios []float64 // measured over expected seconds (P50)
	took   []float64 // seconds from admission to end
	lags   []float64 // seconds from admission until the command began
	gaps   []float64 // seconds from the end of a Job until another is admitted in its place
}

// Weights of what is believed before anything has been measured: as much as
// that many measurements.
const (
	trustEstimate = 4.0
	trustNothing  = 1.0
)

// Standard deviations on a logarithmic scale that are believed before anything
// has been measured: of what all estimates of a queue are wrong by together,
// and of what each is wrong by beside that.
const (
	commonSpread = 0.3
	ownSpread    = 0.35
)

// course is a history with what a possible future has in common for all Jobs:
// estimates that are all too short make the end of a long queue late, and no
// averaging over its Jobs takes that away.
type course struct {
	*history
	mean    float64 // of the logarithms of the ratios
	bias    float64 // of all estimates, logarithm
	another float64 // of Jobs without one against those that ended
	lag     float64 // mean seconds
	gap     float64 // likewise
}

// course draws what is common: the bias from its posterior distribution, for a
// normal prior and errors of a normal distribution beside it.
func (h *history) course(rng *rand.Rand) course {
	c := course{history: h}
	n := float64(len(h.ratios))
	mean, spread := moments(h.ratios)
	variance := 1 / (1/(commonSpread*commonSpread) + n/(spread*spread))
	c.mean = mean
	c.bias = variance*n*mean/(spread*spread) + math.Sqrt(variance)*rng.NormFloat64()
	c.lag, c.gap = delay(h.lags, usualLag, rng), delay(h.gaps, usualGap, rng)
	_, spread = moments(h.took)
	c.another = spread / math.Sqrt(float64(len(h.took))+1) * rng.NormFloat64()
	return c
}

// What delays of a site are believed to be, in seconds, and as much as how many
// measurements: a start with the image on its node, and a step of Kueue's.
const (
	usualLag, usualGap = 5.0, 1.0
	trustDelay         = 2
	mostDelays         = 64 // the last ones
)

// delay draws the mean of a site's delays, which are taken for exponential, from
// its posterior distribution: the gamma distribution of their rate is conjugate.
// Beside hours of work they are nothing; in a sweep of short Jobs each waits for the
// delays of all before it.
func delay(seen []float64, usual float64, rng *rand.Rand) float64 {
	seen = seen[max(0, len(seen)-mostDelays):]
	sum, gamma := trustDelay*usual, 0.0
	for _, v := range seen {
		sum += v
	}
	for range trustDelay + len(seen) {
		gamma += rng.ExpFloat64()
	}
	return sum / gamma
}

// moments are the mean and the standard deviation of logarithms, the latter
// drawn towards ownSpread while there are few.
func moments(v []float64) (mean, spread float64) {
	n := float64(len(v))
	for _, x := range v {
		mean += math.Log(x) / max(1, n)
	}
	sum := trustEstimate * ownSpread * ownSpread
	for _, x := range v {
		d := math.Log(x) - mean
		sum += d * d
	}
	return mean, math.Sqrt(sum / (trustEstimate + n))
}

// draw is one possible duration of a task, given that it has run for as long as
// it has. An estimate is of the command alone: what it takes until that begins comes
// before it. It is corrected by the common bias; with n measured beside
// it, n times in n+4 it is further off as one of those was, and else as its own
// interval says. Without an estimate it is that of a Job that ended here;
// without those, anything up to its limit.
func (c *course) draw(t *task, rng *rand.Rand) float64 {
	for range 16 {
		if d := c.once(t, rng); d > t.elapsed {
			return d
		}
	}
	// Longer than anything known: what has lasted long lasts long.
	return t.elapsed * (1 + 0.5*rng.ExpFloat64())
}

func (c *course) once(t *task, rng *rand.Rand) float64 {
	if e := t.expected; e != nil && e.P50 > 0 {
		lag := t.lag
		if lag == 0 {
			lag = c.lag * rng.ExpFloat64()
		}
		n := float64(len(c.ratios))
		if rng.Float64()*(n+trustEstimate) < n {
			return lag + e.P50*math.Exp(c.bias-c.mean+smooth(len(c.ratios))*rng.NormFloat64())*c.ratios[rng.IntN(len(c.ratios))]
		}
		return lag + math.Exp(c.bias)*between(e, rng)
	}
	n := float64(len(c.took))
	if rng.Float64()*(n+trustNothing) < n {
		return c.took[rng.IntN(len(c.took))] * math.Exp(c.another+smooth(len(c.took))*rng.NormFloat64())
	}
	top := cmp.Or(t.limit, 24*3600)
	return math.Exp(rng.Float64()*math.Log(top/60)) * 60
}

// smooth is the width of the kernel around a measured value, on a logarithmic
// scale: few values say little about those between them (Silverman's rule with
// a spread of a quarter).
func smooth(n int) float64 { return 0.25 * math.Pow(float64(n), -0.2) }

// z90 is the 0.9 quantile of the standard normal distribution.
const z90 = 1.2815515655446004

// between draws from the two-piece log-normal distribution whose quantiles are
// those of an interval.
func between(e *spec.Interval, rng *rand.Rand) float64 {
	z := rng.NormFloat64()
	if z < 0 && e.P10 > 0 {
		return e.P50 * math.Exp(z/z90*math.Log(e.P50/min(e.P10, e.P50)))
	}
	if z >= 0 && e.P90 > e.P50 {
		return e.P50 * math.Exp(z/z90*math.Log(e.P90/e.P50))
	}
	return e.P50
}

// stay is when a Job came, was admitted and ended, in seconds; 0 is not yet.
type stay struct{ created, admitted, ended float64 }

// farGap is after which time an admission has nothing to do with an end before it.
const farGap = 60

// handovers are the times between an end and the admission of a Job that had waited
// for it.
func handovers(stays []stay) (gaps []float64) {
	var ends []float64
	for _, s := range stays {
		if s.ended > 0 {
			ends = append(ends, s.ended)
		}
	}
	slices.Sort(ends)
	stays = slices.Clone(stays)
	slices.SortFunc(stays, func(a, b stay) int { return cmp.Compare(a.admitted, b.admitted) })
	for _, s := range stays {
		k, _ := slices.BinarySearch(ends, math.Nextafter(s.admitted, math.Inf(1)))
		if s.admitted > 0 && k > 0 && ends[k-1] > s.created && s.admitted-ends[k-1] < farGap {
			gaps = append(gaps, s.admitted-ends[k-1])
		}
	}
	return gaps
}

// forecast is when each task of a line starts and when all have ended.
type forecast struct {
	start map[string]Wait // of those that wait, by name
	end   map[string]Wait
	done  Wait
}

// Bounds of a forecast's work.
const (
	fewestDraws = 25
	mostDraws   = 200
	drawTasks   = 150_000 // draws times tasks
	// passed is how many that do not fit are passed over in search of one that
	// does.
	passed = 64
)

// foresee plays the queue many times, with durations drawn anew each time, as
// Kueue admits without preemption: in order, into what is free.
func foresee(l line, seed uint64) forecast {
	l.classify()
	l.like = slices.Clone(l.like)
	l.tasks = slices.Clone(l.tasks)
	l.classify()
	n := min(mostDraws, max(fewestDraws, drawTasks/max(1, len(l.tasks)+l.others)))
	rng := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	starts, ends := make([][]float64, len(l.tasks)), make([][]float64, len(l.tasks))
	var done []float64
	for range n {
		last := 0.0
		l.play(rng, func(i int, start, end float64) {
			starts[i], ends[i] = append(starts[i], start), append(ends[i], end)
			last = max(last, end)
		})
		done = append(done, last)
	}
	kind, source := l.source()
	wait := func(v []float64) Wait {
		slices.Sort(v)
		at := func(q float64) float64 { return v[min(len(v)-1, int(q*float64(len(v))))] }
		return Wait{at(0.1), at(0.5), at(0.9), kind, source}
	}
	out := forecast{start: map[string]Wait{}, end: map[string]Wait{}, done: wait(done)}
	for i := range l.tasks {
		if t := &l.tasks[i]; len(ends[i]) == n { // one that fits never is not foreseen
			out.end[t.name] = wait(ends[i])
			if !t.runs {
				out.start[t.name] = wait(starts[i])
			}
		}
	}
	return out
}

// source names what a forecast rests on.
func (l *line) source() (spec.Kind, string) {
	var estimated, unknown int
	for i := range l.tasks {
		if e := l.tasks[i].expected; e != nil && e.P50 > 0 {
			estimated++
		} else {
			unknown++
		}
	}
	var parts []string
	if estimated > 0 {
		s := fmt.Sprintf("the estimates of %d Jobs", estimated)
		if n := len(l.record.ratios); n > 0 {
			s += fmt.Sprintf(" corrected by %d that ended", n)
		}
		parts = append(parts, s)
	}
	kind := spec.Estimated
	if unknown > 0 {
		if n := len(l.record.took); n > 0 {
			parts = append(parts, fmt.Sprintf("%d without one as long as the %d that ended here", unknown, n))
		} else {
			parts = append(parts, fmt.Sprintf("%d without one and no history: anything up to their limits", unknown))
			kind = spec.Assumed
		}
	}
	if l.others > 0 {
		parts = append(parts, fmt.Sprintf("%d of other queues at unknown places", l.others))
	}
	if l.basis != "" {
		parts = append(parts, l.basis)
	}
	return kind, strings.Join(parts, "; ")
}

// endings is a heap of the tasks that run.
type endings []leaver

type leaver struct {
	at   float64 // when its place can be taken
	task int
}

func (h endings) Len() int           { return len(h) }
func (h endings) Less(i, j int) bool { return h[i].at < h[j].at }
func (h endings) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push is part of heap.Interface.
func (h *endings) Push(x any) { *h = append(*h, x.(leaver)) }

// Pop is part of heap.Interface.
func (h *endings) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// play is one course that the queue may take.
func (l *line) play(rng *rand.Rand, ended func(i int, start, end float64)) {
	free, course := slices.Clone(l.free), l.record.course(rng)
	var running endings
	var queue []int
	for i := range l.tasks {
		t := &l.tasks[i]
		if !t.runs {
			queue = append(queue, i)
			continue
		}
		take(free, l.classes[t.class], 1)
		end := max(0, course.draw(t, rng)-t.elapsed)
		running = append(running, leaver{end + course.gap*rng.ExpFloat64(), i})
		ended(i, 0, end)
	}
	left := len(queue)
	if len(l.like) > 0 {
		for range l.others {
			queue = slices.Insert(queue, rng.IntN(len(queue)+1), len(l.tasks)+rng.IntN(len(l.like)))
		}
	}
	comes := l.next(0, rng)
	heap.Init(&running)
	for now := 0.0; ; {
		queue = l.admit(queue, free, func(i int) {
			t := l.task(i)
			end := now + course.draw(t, rng)
			heap.Push(&running, leaver{end + course.gap*rng.ExpFloat64(), i})
			if i < len(l.tasks) {
				left--
				ended(i, now, end)
			}
		})
		if left == 0 || len(running) == 0 {
			return
		}
		if comes < running[0].at {
			now, comes = comes, l.next(comes, rng)
			queue = append(queue, len(l.tasks)+rng.IntN(len(l.like)))
			continue
		}
		e := heap.Pop(&running).(leaver)
		now = e.at
		take(free, l.classes[l.task(e.task).class], -1)
	}
}

// task is one of the line's, or, beyond them, one that is like others.
func (l *line) task(i int) *task {
	if i < len(l.tasks) {
		return &l.tasks[i]
	}
	return &l.like[i-len(l.tasks)]
}

// farthest is how far newcomers are foreseen, in seconds.
const farthest = 7 * 24 * 3600

// next is when another Job comes that could pass what waits.
func (l *line) next(now float64, rng *rand.Rand) float64 {
	if l.strict || l.rate <= 0 || len(l.like) == 0 || now > farthest {
		return math.Inf(1)
	}
	return now + rng.ExpFloat64()/l.rate
}

// admit starts what fits and returns what goes on waiting. What asks for the
// same as one that does not fit does not either.
func (l *line) admit(queue []int, free []float64, start func(int)) []int {
	var missed, kept []int // classes, and tasks passed over
	k := 0
	for ; k < len(queue) && len(missed) < len(l.classes) && len(kept) < passed; k++ {
		i := queue[k]
		t := l.task(i)
		if slices.Contains(missed, t.class) {
			kept = append(kept, i)
			continue
		}
		if !fitsInto(free, l.classes[t.class]) {
			missed, kept = append(missed, t.class), append(kept, i)
			if l.strict {
				k++
				break
			}
			continue
		}
		take(free, l.classes[t.class], 1)
		start(i)
	}
	copy(queue[k-len(kept):], kept)
	return queue[k-len(kept):]
}

// classify numbers what tasks ask for, and the resources.
func (l *line) classify() {
	names := slices.Sorted(maps.Keys(l.room))
	l.free, l.classes = nil, nil
	for _, name := range names {
		l.free = append(l.free, l.room[name])
	}
	known := map[string]int{}
	for i := range len(l.tasks) + len(l.like) {
		t := l.task(i)
		need := make([]float64, len(names))
		for k, name := range names {
			need[k] = t.need[name]
		}
		key := fmt.Sprint(need)
		c, ok := known[key]
		if !ok {
			c, known[key], l.classes = len(l.classes), len(l.classes), append(l.classes, need)
		}
		t.class = c
	}
}

func fitsInto(free, need []float64) bool {
	for k, n := range need {
		if n > free[k]+1e-9 {
			return false
		}
	}
	return true
}

func take(free, need []float64, sign float64) {
	for k, n := range need {
		free[k] -= sign * n
	}
}
