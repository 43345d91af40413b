package nightly

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/repromill/repromill/results/regress"
)

// Reader reads what the nights committed, and keeps of every run the little that
// a history is made of: a year of nights is read once, and after that only what
// is new or was replaced. It is safe for concurrent use.
type Reader struct {
	src   Source
	limit int64

	mu    sync.Mutex
	runs  map[string]*digest
	used  int64 // bytes of all digests and pairs, about
	pairs map[pairKey]pairing
	words map[string]string // every text once
	hot   []scored          // the scores that were used last, newest first
	reads int               // of runs' rows, for tests
}

// digest is what a history needs of one run.
type digest struct {
	identity string
	speeds   []speed
	compared []comparison
	arms     []arm
	bytes    int64
}

type speed struct {
	key       regress.Key
	segment   string
	value     float64
	lower     bool
	simulated bool
}

type comparison struct {
	key       regress.Key
	segment   string
	paired    *regress.Paired
	simulated bool
}

type arm struct {
	suite, arm string
	key        regress.Key
	segment    string
	simulated  bool
}

// pairKey are two runs, as they were read, and the arm that is paired.
type pairKey struct{ run, ref, suite, arm string }

type pairing struct {
	run, ref string // identities
	paired   *regress.Paired
}

type scored struct {
	run, identity string
	scores        map[[2]string]map[string]float64
}

const (
	// defaultMemory is of a reader; a night of two hundred series takes some 50 kB.
	defaultMemory = 256 << 20
	hotRuns       = 4 // whose scores are kept: tonight's, and the night it is paired with
)

// NewReader returns a reader that keeps at most about so many bytes; 0 means
// 256 MiB. Beyond it, what is kept is dropped and read again.
func NewReader(src Source, limit int64) *Reader {
	return &Reader{src: src, limit: cmp.Or(limit, defaultMemory), runs: map[string]*digest{}, pairs: map[pairKey]pairing{}, words: map[string]string{}}
}

// digest returns what is kept of a run, or reads it.
func (r *Reader) digest(ctx context.Context, id string) (*digest, error) {
	identity := r.src.Identity(id)
	r.mu.Lock()
	d := r.runs[id]
	r.mu.Unlock()
	if d != nil && identity != "" && d.identity == identity {
		return d, nil
	}
	rows, err := r.rows(ctx, id, identity)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	d = r.condense(rows)
	d.identity = identity
	if identity != "" {
		r.keep(id, d)
	}
	return d, nil
}

// rows reads a run, and remembers its scores for pairing.
func (r *Reader) rows(ctx context.Context, id, identity string) (Rows, error) {
	rows, err := r.src.Rows(ctx, id)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads++
	if err == nil {
		r.hot = slices.DeleteFunc(r.hot, func(s scored) bool { return s.run == id })
		r.hot = slices.Insert(r.hot, 0, scored{id, identity, rows.Scores})
		r.hot = r.hot[:min(len(r.hot), hotRuns)]
	}
	return rows, err
}

// scores are those of one arm of a run.
func (r *Reader) scores(ctx context.Context, id, identity string, arm [2]string) (map[string]float64, error) {
	r.mu.Lock()
	if i := slices.IndexFunc(r.hot, func(s scored) bool { return s.run == id && s.identity == identity }); i >= 0 {
		s := r.hot[i]
		r.hot = slices.Insert(slices.Delete(r.hot, i, i+1), 0, s)
		r.mu.Unlock()
		return s.scores[arm], nil
	}
	r.mu.Unlock()
	rows, err := r.rows(ctx, id, identity)
	return rows.Scores[arm], err
}

// paired compares an arm's answers in two runs.
func (r *Reader) paired(ctx context.Context, run, ref string, arm [2]string) (*regress.Paired, error) {
	now, then := r.src.Identity(run), r.src.Identity(ref)
	key := pairKey{run, ref, arm[0], arm[1]}
	r.mu.Lock()
	have, ok := r.pairs[key]
	r.mu.Unlock()
	if ok && now != "" && then != "" && have.run == now && have.ref == then {
		return have.paired, nil
	}
	a, err := r.scores(ctx, run, now, arm)
	if err != nil {
		return nil, err
	}
	b, err := r.scores(ctx, ref, then, arm)
	if err != nil {
		return nil, err
	}
	p := pair(a, b)
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.pairs[key]; !ok {
		r.used += pairBytes
	}
	r.pairs[key] = pairing{now, then, p}
	r.bound()
	return p, nil
}

// keep stores a digest in place of an older one of the run.
func (r *Reader) keep(id string, d *digest) {
	if old := r.runs[id]; old != nil {
		r.used -= old.bytes
	}
	r.runs[id] = d
	r.used += d.bytes
	r.bound()
}

// bound drops everything once it is too much: histories are read from end to end,
// so that no part of them is used less than another.
func (r *Reader) bound() {
	if r.used > r.limit {
		clear(r.runs)
		clear(r.pairs)
		clear(r.words)
		r.used = 0
	}
}

// About the sizes of what is kept, with their places in maps.
const (
	speedBytes = 200
	pairBytes  = 200
	armBytes   = 240
)

// condense keeps of a run's rows what a history needs.
func (r *Reader) condense(rows Rows) *digest {
	d := &digest{bytes: 100}
	for _, m := range speeds(rows.Metrics) {
		srv := serverOf(rows.Servers, m.Arm)
		k := regress.Key{Suite: m.Suite, Task: m.Task, Metric: m.Metric, Model: cmp.Or(m.Model, m.Arm, m.PlanRun), Precision: cmp.Or(m.Precision, srv.Precision),
			SKU: cmp.Or(m.SKU, srv.SKU), Engine: major(srv)}
		d.speeds = append(d.speeds, speed{r.once(k), r.word(segment(srv)), m.Value.V, m.LowerIsBetter.V, m.Simulated})
	}
	for _, c := range rows.Comparisons {
		if !c.Final || !c.Paired || c.Unit != "fraction" {
			continue
		}
		srv := serverOf(rows.Servers, c.Arm)
		k := regress.Key{Suite: c.Suite, Task: c.Task, Metric: c.Metric + " against " + c.Baseline, Model: cmp.Or(c.Model, c.Arm), Precision: srv.Precision, SKU: srv.SKU, Engine: major(srv)}
		d.compared = append(d.compared, comparison{r.once(k), r.word(segment(srv)), compared(c), c.Simulated})
	}
	for _, key := range slices.SortedFunc(maps.Keys(rows.Scores), func(x, y [2]string) int { return cmp.Or(cmp.Compare(x[0], y[0]), cmp.Compare(x[1], y[1])) }) {
		srv := serverOf(rows.Servers, key[1])
		k := regress.Key{Suite: key[0], Metric: "score", Model: cmp.Or(srv.Model, key[1]), Precision: srv.Precision, SKU: srv.SKU, Engine: major(srv)}
		d.arms = append(d.arms, arm{r.word(key[0]), r.word(key[1]), r.once(k), r.word(segment(srv)), rows.Simulated[key]})
	}
	d.bytes += int64(len(d.speeds))*speedBytes + int64(len(d.compared))*(speedBytes+pairBytes) + int64(len(d.arms))*armBytes
	return d
}

// once is a key whose texts are shared with all others.
func (r *Reader) once(k regress.Key) regress.Key {
	for _, s := range []*string{&k.Suite, &k.Task, &k.Metric, &k.Model, &k.Precision, &k.SKU, &k.Engine, &k.Image} {
		*s = r.word(*s)
	}
	return k
}

func (r *Reader) word(s string) string {
	if w, ok := r.words[s]; ok {
		return w
	}
	r.words[s] = s
	r.used += int64(2*len(s)) + 50
	return s
}
