package nightly

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/results/regress"
)

// BisectRequest asks at which of a list a series became worse.
type BisectRequest struct {
	Series string // of the schedule: its run: is what is measured
	// What is a part of the key of the measured series, as reports show it; it may be
	// empty where the run gives only one.
	What string
	// Values are the list, the good one first and the bad one last, and Args are the
	// arguments of a run of each.
	Values []string
	Args   func(value string) []string
	Vary   string // what the values are, for the state's name and the report

	Rounds int     // measured of each at most: 10
	Runs   int     // in all, at most: 100
	Alpha  float64 // chance that any of the decisions is wrong: 0.05
	Budget Budget  // of all runs; zero fields are no bound
}

// Standing of one of the values.
type Standing string

// The standings. Only the first two are decided.
const (
	IsGood    Standing = "good"
	IsBad     Standing = "bad"
	Undecided Standing = "undecided" // the rounds or the budget did not suffice
	Broken    Standing = "failed"    // it gave no such number
	Unneeded  Standing = "not_run"
)

// Bisected is one of the values. Effects are as in [regress.Verdict], against the
// good end.
type Bisected struct {
	Value  string   `json:"value"`
	Is     Standing `json:"is"`
	Rounds int      `json:"rounds"`
	Effect *float64 `json:"effect,omitempty"`
	Lo     *float64 `json:"lo,omitempty"`
	Hi     *float64 `json:"hi,omitempty"`
	P      *float64 `json:"p,omitempty"` // of no difference from the good end
	Reason string   `json:"reason,omitzero"`
	Runs   []string `json:"runs,omitempty"`
}

// Bisection is what came of a search.
type Bisection struct {
	Schedule string      `json:"schedule"`
	Series   string      `json:"series"`
	Key      regress.Key `json:"key"`
	Vary     string      `json:"vary"`
	Outcome  string      `json:"outcome"` // found, no_difference or undecided
	Reason   string      `json:"reason"`
	LastGood string      `json:"last_good,omitzero"`
	FirstBad string      `json:"first_bad,omitzero"`
	// Open are those between LastGood and FirstBad of which it is not known which
	// side they are on.
	Open     []string   `json:"open,omitempty"`
	Values   []Bisected `json:"values"`
	Runs     int        `json:"runs"` // that the search rests on
	GPUHours float64    `json:"gpu_hours"`
	USD      float64    `json:"usd"`
}

// bisectState is the file of a search: its runs by key, of any series they give.
type bisectState struct {
	Version int            `json:"version"`
	Runs    map[string]Run `json:"runs"`
}

// search is a bisection at work.
type search struct {
	n     *Nightly
	q     BisectRequest
	read  *Reader
	id    string
	state bisectState
	out   *Bisection
	left  Budget
	alpha float64 // of one test
	data  []sample
	key   *regress.Key
	lower bool
	arm   *[2]string // of scores
}

// look reports whether a value is looked at after so many rounds: often while they
// are few, since every look makes all others stricter.
func look(rounds int) bool { return rounds >= minRounds && (rounds <= 4 || rounds%2 == 0) }

// minRounds are measured before anything is decided, so that noise is known.
const minRounds = 3

// Bisect measures values between the good and the bad end until it is known where
// the series became worse, or the rounds, runs and budget are used up. Every round
// measures the good end anew beside the value, so that drift of the machine does
// not count. Each run is made once, however often the search is killed and begun
// again, and never beside a night of the schedule.
func (n *Nightly) Bisect(ctx context.Context, q BisectRequest, read *Reader) (*Bisection, error) {
	q.Rounds, q.Runs, q.Alpha = max(cmp.Or(q.Rounds, 10), minRounds), cmp.Or(q.Runs, 100), cmp.Or(q.Alpha, 0.05)
	s := &search{n: n, q: q, read: read, left: q.Budget}
	if err := s.check(); err != nil {
		return nil, err
	}
	release, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer func() { _ = release() }()
	if err := s.load(); err != nil {
		return nil, err
	}
	// Every look at every value is two tests.
	looks := 0
	for r := range q.Rounds + 1 {
		if look(r) {
			looks++
		}
	}
	tests := 2 * looks * (1 + bits.Len(uint(len(q.Values))))
	s.alpha = q.Alpha / float64(tests)
	s.out = &Bisection{Schedule: n.cfg.Schedule.Name, Series: q.Series, Vary: q.Vary, Values: make([]Bisected, len(q.Values))}
	s.data = make([]sample, len(q.Values))
	for i, v := range q.Values {
		s.out.Values[i] = Bisected{Value: v, Is: Unneeded}
	}
	if err := s.run(ctx); err != nil {
		return nil, err
	}
	return s.out, nil
}

func (s *search) check() error {
	q := &s.q
	if s.n.cfg.Schedule.Find(q.Series) == nil {
		return userErrorf(fmt.Sprintf("series are %v", s.n.names()), "there is no series %q", q.Series)
	}
	if len(q.Values) < 2 || len(q.Values) > 10_000 {
		return userErrorf("list the good one first, the bad one last, and what lies between in order", "%d values cannot be searched", len(q.Values))
	}
	if slices.Contains(flagsOfOurs, "--"+q.Vary) {
		return userErrorf("vary what a run is of: commit, image, server, …", "--%s cannot be varied", q.Vary)
	}
	seen := map[string]bool{}
	for _, v := range q.Values {
		if v == "" || seen[v] {
			return userErrorf("list each once, in order", "%q stands twice in the list, or is empty", v)
		}
		seen[v] = true
	}
	if !(q.Alpha > 0 && q.Alpha < 0.5) {
		return userErrorf("use a chance such as 0.05", "a chance of %g for a wrong decision cannot be kept", q.Alpha)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%q\x00%q", q.Series, q.Vary, q.Values, q.Args(q.Values[0])))
	s.id = hex.EncodeToString(sum[:6])
	return nil
}

func (s *search) path() string {
	return filepath.Join(s.n.cfg.Dir, s.n.cfg.Schedule.Name+".bisect-"+s.id+".json")
}

// lock makes this the only process that searches the list.
func (s *search) lock() (func() error, error) {
	if err := os.MkdirAll(s.n.cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("lock search: %w", err)
	}
	l := flock.New(s.path() + ".lock")
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock search: %w", err)
	}
	if !ok {
		return nil, userErrorf("wait for it, or stop it", "another process searches this list already")
	}
	return l.Unlock, nil
}

func (s *search) load() error {
	s.state = bisectState{Version: 1, Runs: map[string]Run{}}
	b, err := os.ReadFile(s.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read search: %w", err)
	}
	if err := json.Unmarshal(b, &s.state); err != nil || s.state.Version != 1 || s.state.Runs == nil {
		return userErrorf("restore the file, or remove it to search anew", "the state %s cannot be read: %v", s.path(), err)
	}
	// What failed may have been the machine's fault; a run that stands is taken up.
	maps.DeleteFunc(s.state.Runs, func(_ string, r Run) bool { return r.Failed != "" })
	return nil
}

func (s *search) save() error {
	b, err := json.MarshalIndent(s.state, "", " ")
	if err != nil {
		return fmt.Errorf("encode search: %w", err)
	}
	return atomicfile.Write(s.path(), append(b, '\n'), atomicfile.Options{Temp: s.path() + ".tmp", Hook: s.n.cfg.Hook, Point: "nightly:bisect"})
}

// run goes from the ends to the middle.
func (s *search) run(ctx context.Context) error {
	last := len(s.q.Values) - 1
	s.out.Values[0].Is, s.out.Values[0].Reason = IsGood, "given as good"
	is, err := s.settle(ctx, last)
	if err != nil {
		return err
	}
	if is != IsBad {
		s.out.Outcome, s.out.Reason = "undecided", "the bad end is not told from the good one: "+s.out.Values[last].Reason
		if is == IsGood {
			s.out.Outcome, s.out.Reason = "no_difference", "the ends do not differ by what counts: "+s.out.Values[last].Reason
		}
		return nil
	}
	lo, hi := 0, last
	for {
		i, ok := s.next(lo, hi)
		if !ok {
			break
		}
		is, err := s.settle(ctx, i)
		if err != nil {
			return err
		}
		switch is {
		case IsGood:
			lo = i
		case IsBad:
			hi = i
		}
	}
	s.out.LastGood, s.out.FirstBad = s.q.Values[lo], s.q.Values[hi]
	for i := lo + 1; i < hi; i++ {
		s.out.Open = append(s.out.Open, s.q.Values[i])
	}
	s.out.Outcome, s.out.Reason = "found", fmt.Sprintf("%s is the first that is worse", s.out.FirstBad)
	if len(s.out.Open) > 0 {
		s.out.Outcome = "undecided"
		s.out.Reason = fmt.Sprintf("the first that is worse comes after %s, and is %s or one of %d before it that could not be decided", s.out.LastGood, s.out.FirstBad, len(s.out.Open))
	}
	return nil
}

// next is the value nearest to the middle of those that were not looked at.
func (s *search) next(lo, hi int) (best int, ok bool) {
	for i := lo + 1; i < hi; i++ {
		off := func(j int) int { return max(2*j-lo-hi, lo+hi-2*j) }
		if s.out.Values[i].Is == Unneeded && (!ok || off(i) < off(best)) {
			best, ok = i, true
		}
	}
	return best, ok
}

// settle measures a value round by round until it is decided.
func (s *search) settle(ctx context.Context, i int) (Standing, error) {
	v := &s.out.Values[i]
	for round := range s.q.Rounds {
		if why := s.spent(); why != "" {
			v.Is, v.Reason = Undecided, why
			return v.Is, nil
		}
		why, err := s.round(ctx, i, round)
		if err != nil {
			return "", err
		}
		if why != "" {
			v.Is, v.Reason = Broken, why
			return v.Is, nil
		}
		v.Rounds++
		if look(v.Rounds) || v.Rounds == s.q.Rounds {
			if s.decide(i) {
				s.n.cfg.Log("%s: %s after %d rounds: %s", v.Value, v.Is, v.Rounds, v.Reason)
				return v.Is, nil
			}
		}
	}
	v.Is = Undecided
	v.Reason = fmt.Sprintf("%d rounds do not tell it from both ends: %s", v.Rounds, v.Reason)
	s.n.cfg.Log("%s: %s", v.Value, v.Reason)
	return v.Is, nil
}

// spent says which bound of the search is used up; empty while none is.
func (s *search) spent() string {
	switch {
	case s.out.Runs+2 > s.q.Runs:
		return fmt.Sprintf("the %d runs of the search are used", s.q.Runs)
	case s.q.Budget.GPUHours > 0 && s.left.GPUHours <= 0:
		return fmt.Sprintf("the search's budget of %g GPU-hours is used", s.q.Budget.GPUHours)
	case s.q.Budget.USD > 0 && s.left.USD <= 0:
		return fmt.Sprintf("the search's budget of %g USD is used", s.q.Budget.USD)
	}
	return ""
}

// round measures the good end and a value, the one that comes first by turns. It
// says why there is no number, where that is the value's fault.
func (s *search) round(ctx context.Context, i, round int) (why string, err error) {
	release, err := s.n.work(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, release()) }()
	order := []int{0, i}
	if round%2 == 1 {
		order = []int{i, 0}
	}
	ids := map[int]string{}
	for _, j := range order {
		r, err := s.launch(ctx, fmt.Sprintf("%s/%d/%s", s.q.Values[i], round, map[bool]string{true: "good", false: "value"}[j == 0]), s.q.Values[j])
		if err != nil {
			return "", err
		}
		if r.Failed != "" && j == 0 {
			return "", userErrorf("name a good end that runs", "the good end %s gave no result: %s", s.q.Values[0], r.Failed)
		}
		if r.Failed != "" {
			return r.Failed, nil
		}
		ids[j] = r.ID
	}
	s.out.Values[i].Runs = append(s.out.Values[i].Runs, ids[i])
	return s.take(ctx, i, ids[0], ids[i])
}

// launch makes a run, or finds the one that was made.
func (s *search) launch(ctx context.Context, name, value string) (Run, error) {
	r, ok := s.state.Runs[name]
	if !ok {
		var err error
		key := fmt.Sprintf("nightly/%s/bisect/%s/%s", s.n.cfg.Schedule.Name, s.id, name)
		s.n.cfg.Log("bisect %s: run of %s", name, value)
		r, err = s.n.cfg.Launcher.Launch(ctx, key, s.q.Args(value), s.left)
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		if err != nil {
			r.Failed = err.Error()
		}
		s.state.Runs[name] = r
		if err := s.save(); err != nil {
			return r, err
		}
	}
	s.out.Runs++
	s.out.GPUHours += r.GPUHours
	s.out.USD += r.USD
	s.left.GPUHours -= r.GPUHours
	s.left.USD -= r.USD
	return r, nil
}

// workPoll is how often it is looked whether the machine is free.
const workPoll = time.Second

// work waits until nothing else of the schedule measures: a night beside a search
// would be slow, and so would the search.
func (n *Nightly) work(ctx context.Context) (release func() error, err error) {
	if err := os.MkdirAll(n.cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("wait for the schedule: %w", err)
	}
	l := flock.New(filepath.Join(n.cfg.Dir, n.cfg.Schedule.Name+".work.lock"))
	if _, err := l.TryLockContext(ctx, workPoll); err != nil {
		return nil, fmt.Errorf("wait for the schedule: %w", err)
	}
	return l.Unlock, nil
}

// keys lists the series that a run gave, as reports show them.
func keys(d *digest) (out []string) {
	for _, m := range d.speeds {
		out = append(out, m.key.String())
	}
	for _, a := range d.arms {
		out = append(out, a.key.String())
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func matches(k regress.Key, what string) bool {
	return what == "" || strings.Contains(strings.ToLower(k.String()), strings.ToLower(what))
}
