package nightly_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/runner/nightly"
)

// lab runs values of a list, of which those from a place on are worse.
type lab struct {
	rnd    *rand.Rand
	worse  int     // index of the first that is
	slow   float64 // factor of its speed
	wrong  float64 // share of questions that it loses
	noise  float64 // of a run, relative
	drift  float64 // of the machine from run to run
	broken map[int]bool
	at     float64
	rows   map[string]nightly.Rows
	made   []string
	die    func(step int) bool
	silent bool // it answers no questions
}

const questions = 400

func (l *lab) Launch(_ context.Context, key string, args []string, _ nightly.Budget) (nightly.Run, error) {
	if l.die != nil && l.die(len(l.made)) {
		panic(errKilled)
	}
	r := nightly.Run{ID: key, GPUHours: 1}
	if _, ok := l.rows[key]; ok {
		return r, nil // the same run
	}
	l.made = append(l.made, key)
	i, err := strconv.Atoi(strings.TrimPrefix(args[len(args)-1], "v"))
	if err != nil {
		return r, err
	}
	if l.broken[i] {
		return r, errors.New("it does not build")
	}
	l.at += l.drift
	speed := 1000 * math.Exp(l.at+l.noise*l.rnd.NormFloat64())
	lost := 0.0
	if i >= l.worse {
		speed *= l.slow
		lost = l.wrong
	}
	scores := map[string]float64{}
	for q := range questions {
		if l.silent {
			break
		}
		ok := float64((q*37)%questions) < (.8-lost)*questions
		if l.rnd.Float64() < .02 { // an answer is not always the same
			ok = !ok
		}
		scores[fmt.Sprint(q)] = map[bool]float64{true: 1}[ok]
	}
	m := metric(speed)
	if l.silent {
		l.rows[key] = nightly.Rows{Metrics: []schema.MetricRow{m}}
		return r, nil
	}
	other := metric(speed)
	other.Metric, other.LowerIsBetter = "ttft_s", schema.Bool(true)
	other.Value.V = 1 / speed
	l.rows[key] = nightly.Rows{Metrics: []schema.MetricRow{m, other}, Scores: map[[2]string]map[string]float64{{"aime", "m"}: scores}}
	return r, nil
}

func (l *lab) Rows(_ context.Context, id string) (nightly.Rows, error) {
	rows, ok := l.rows[id]
	if !ok {
		return rows, fs.ErrNotExist
	}
	return rows, nil
}

func (l *lab) Identity(id string) string { return id }

func values(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprint("v", i))
	}
	return out
}

func (l *lab) bisect(t testing.TB, dir string, q nightly.BisectRequest) (*nightly.Bisection, error) {
	t.Helper()
	n, err := nightly.Open(nightly.Config{Schedule: parse(t, single), Dir: dir, Launcher: l, Now: time.Now, Log: func(string, ...any) {}})
	if err != nil {
		t.Fatal(err)
	}
	q.Series, q.Vary = "b", "commit"
	if q.Values == nil {
		q.Values = values(16)
	}
	q.Args = func(v string) []string { return []string{"y", "--commit", v} }
	return n.Bisect(t.Context(), q, nightly.NewReader(l, 0))
}

func newLab(seed uint64) *lab {
	return &lab{rnd: rand.New(rand.NewPCG(seed, 1)), worse: 11, slow: .9, noise: .01, rows: map[string]nightly.Rows{}}
}

func TestBisect(t *testing.T) {
	for name, c := range map[string]struct {
		edit    func(*lab)
		what    string
		q       nightly.BisectRequest
		outcome string
		bad     string
		open    int
	}{
		"a slowdown":               {nil, "output_tok", nightly.BisectRequest{}, "found", "v11", 0},
		"lower is better":          {nil, "ttft", nightly.BisectRequest{}, "found", "v11", 0},
		"at the end":               {func(l *lab) { l.worse = 15 }, "tok", nightly.BisectRequest{}, "found", "v15", 0},
		"at the beginning":         {func(l *lab) { l.worse = 1 }, "tok", nightly.BisectRequest{}, "found", "v1", 0},
		"two values":               {func(l *lab) { l.worse = 1 }, "tok", nightly.BisectRequest{Values: values(2)}, "found", "v1", 0},
		"an accuracy fall":         {func(l *lab) { l.wrong = .1 }, "aime/score", nightly.BisectRequest{}, "found", "v11", 0},
		"a machine that slows":     {func(l *lab) { l.drift = -.02 }, "tok", nightly.BisectRequest{}, "found", "v11", 0},
		"no difference":            {func(l *lab) { l.slow, l.noise = 1, .003 }, "tok", nightly.BisectRequest{}, "no_difference", "", 0},
		"an improvement":           {func(l *lab) { l.slow = 1.1 }, "tok", nightly.BisectRequest{}, "no_difference", "", 0},
		"noise that hides it":      {func(l *lab) { l.slow, l.noise = .95, .3 }, "tok", nightly.BisectRequest{Rounds: 4}, "undecided", "", 0},
		"broken beside the change": {func(l *lab) { l.broken = map[int]bool{10: true, 9: true} }, "tok", nightly.BisectRequest{}, "undecided", "v11", 2},
		"broken elsewhere":         {func(l *lab) { l.broken = map[int]bool{7: true, 3: true} }, "tok", nightly.BisectRequest{}, "found", "v11", 0},
		"few runs":                 {nil, "tok", nightly.BisectRequest{Runs: 14}, "undecided", "v15", 0},
		"a small budget":           {nil, "tok", nightly.BisectRequest{Budget: nightly.Budget{GPUHours: 14}}, "undecided", "v15", 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(1)
			if c.edit != nil {
				c.edit(l)
			}
			c.q.What = c.what
			b, err := l.bisect(t, t.TempDir(), c.q)
			if err != nil {
				t.Fatal(err)
			}
			if b.Outcome != c.outcome || b.FirstBad != c.bad || c.open > 0 && len(b.Open) != c.open {
				t.Errorf("%s: %s: first bad %s, open %v\n%+v", b.Outcome, b.Reason, b.FirstBad, b.Open, b.Values)
			}
			if b.Runs != len(l.made) || b.GPUHours != float64(b.Runs) {
				t.Errorf("%d runs, %g GPU-hours, %d were made", b.Runs, b.GPUHours, len(l.made))
			}
			if c.q.Runs > 0 && b.Runs > c.q.Runs || c.q.Budget.GPUHours > 0 && b.GPUHours > c.q.Budget.GPUHours+1 {
				t.Errorf("%d runs", b.Runs)
			}
		})
	}
}

// TestBisectIsSeldomWrong counts wrong answers over many searches in noise.
func TestBisectIsSeldomWrong(t *testing.T) {
	wrong, found, runs := 0, 0, 0
	const searches = 12
	for seed := range uint64(searches) {
		l := newLab(seed)
		l.silent = true
		l.worse, l.slow, l.noise = 1+int(seed%15), .95, .02
		b, err := l.bisect(t, t.TempDir(), nightly.BisectRequest{What: "tok"})
		if err != nil {
			t.Fatal(err)
		}
		runs += b.Runs
		right := fmt.Sprint("v", l.worse)
		switch {
		case b.Outcome == "found" && b.FirstBad == right:
			found++
		case b.Outcome == "found", b.Outcome == "no_difference", b.FirstBad != "" && b.FirstBad != right && !slices.Contains(b.Open, right):
			wrong++
		}
	}
	t.Logf("5 %% slower in noise of 2 %%: %d of %d found, %d wrong, %.1f runs each", found, searches, wrong, float64(runs)/searches)
	if wrong > 2 || found < searches/2 {
		t.Errorf("%d found, %d wrong", found, wrong)
	}
}

// TestBisectKilled dies in every launch and at every durable step, and goes on.
func TestBisectKilled(t *testing.T) {
	whole := newLab(3)
	want, err := whole.bisect(t, t.TempDir(), nightly.BisectRequest{What: "tok"})
	if err != nil {
		t.Fatal(err)
	}
	l, dir := newLab(3), t.TempDir()
	deaths := 0
	for range 10 * len(whole.made) {
		last := len(l.made)
		l.die = func(made int) bool { return made > last }
		died := func() (died bool) {
			defer func() { died = recover() != nil }()
			b, err := l.bisect(t, dir, nightly.BisectRequest{What: "tok"})
			if err != nil || b.FirstBad != want.FirstBad || b.Runs != want.Runs {
				t.Errorf("%+v, %v, want %+v", b, err, want)
			}
			return false
		}()
		if !died {
			if deaths < 5 || len(l.made) != len(whole.made) {
				t.Errorf("%d deaths, %d runs, want %d", deaths, len(l.made), len(whole.made))
			}
			return
		}
		deaths++
	}
	t.Error("it never came to an end")
}

func TestBisectMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		q    nightly.BisectRequest
		edit func(*lab)
		want string
	}{
		"one value":        {nightly.BisectRequest{Values: []string{"v1"}}, nil, "cannot be searched"},
		"twice":            {nightly.BisectRequest{Values: []string{"v1", "v1"}}, nil, "stands twice"},
		"several series":   {nightly.BisectRequest{}, nil, "does not name one series"},
		"no such series":   {nightly.BisectRequest{What: "latency"}, nil, "does not name one series"},
		"a good end fails": {nightly.BisectRequest{What: "tok"}, func(l *lab) { l.broken = map[int]bool{0: true} }, "it does not build"},
		"alpha":            {nightly.BisectRequest{What: "tok", Alpha: 2}, nil, "chance"},
	} {
		l := newLab(1)
		if c.edit != nil {
			c.edit(l)
		}
		_, err := l.bisect(t, t.TempDir(), c.q)
		var user *nightly.UserError
		if !errors.As(err, &user) || !strings.Contains(err.Error(), c.want) || user.Fix == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A state that was cut is not searched over.
	l, dir := newLab(1), t.TempDir()
	if _, err := l.bisect(t, dir, nightly.BisectRequest{What: "tok", Values: values(2)}); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.HasSuffix(f.Name(), ".json") {
			if err := os.WriteFile(dir+"/"+f.Name(), []byte(`{"version":1,`), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := l.bisect(t, dir, nightly.BisectRequest{What: "tok", Values: values(2)}); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("a cut state: %v", err)
	}
}
