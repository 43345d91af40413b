package nightly_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/results/regress"
	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/runner/nightly"
)

const text = `version: 1
name: main
zone: Europe/Berlin
catchup: 30h
series:
  - name: a
    at: "30 2 * * *"
    run: [x, --endpoint, "a=http://h/v1"]
  - name: b
    at: "0 4 * * *"
    repeats: 2
    run: [y]
    canary: [z]
`

func parse(t testing.TB, text string) *nightly.Schedule {
	t.Helper()
	s, err := nightly.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// world is a clock and a launcher that records what it was asked for.
type world struct {
	now   time.Time
	keys  []string
	fail  error
	usage nightly.Run
	stop  func(key string) bool // the process dies in this launch
}

var errKilled = errors.New("killed")

func (w *world) Launch(_ context.Context, key string, _ []string, _ nightly.Budget) (nightly.Run, error) {
	w.keys = append(w.keys, key)
	if w.stop != nil && w.stop(key) {
		panic(errKilled)
	}
	r := w.usage
	r.ID = "run of " + key
	return r, w.fail
}

func (w *world) open(t testing.TB, s *nightly.Schedule, dir string, hook func(string)) *nightly.Nightly {
	t.Helper()
	n, err := nightly.Open(nightly.Config{Schedule: s, Dir: dir, Launcher: w, Now: func() time.Time { return w.now }, Hook: hook, Log: t.Logf,
		Sleep: func(context.Context, time.Duration) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Lock(); err != nil {
		t.Fatal(err)
	}
	return n
}

func at(t testing.TB, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSlotsFireOnce(t *testing.T) {
	s, w, dir := parse(t, text), &world{now: at(t, "2026-03-02T03:05:00Z")}, t.TempDir()
	n, err := nightly.Open(nightly.Config{Schedule: s, Dir: dir, Launcher: w, Now: func() time.Time { return w.now }, Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Once(context.Background()); err != nil {
		t.Fatal(err)
	}
	// 02:30 and 04:00 in Berlin are 01:30 and 03:00 UTC.
	expect := []string{
		"nightly/main/a/2026-03-02T01:30Z/candidate/0",
		"nightly/main/b/2026-03-02T03:00Z/canary/0", "nightly/main/b/2026-03-02T03:00Z/candidate/0",
		"nightly/main/b/2026-03-02T03:00Z/canary/1", "nightly/main/b/2026-03-02T03:00Z/candidate/1",
	}
	if !slices.Equal(w.keys, expect) {
		t.Fatalf("ran %q, want %q", w.keys, expect)
	}
	// A restart an hour later runs nothing, and the next day one slot of each.
	for _, c := range []struct {
		now  string
		runs int
	}{{"2026-03-02T04:05:00Z", 0}, {"2026-03-03T01:31:00Z", 1}, {"2026-03-03T09:00:00Z", 4}} {
		w.now, w.keys = at(t, c.now), nil
		again, err := nightly.Open(nightly.Config{Schedule: s, Dir: dir, Launcher: w, Now: func() time.Time { return w.now }, Log: t.Logf})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := again.Once(context.Background()); err != nil || len(w.keys) != c.runs {
			t.Fatalf("at %s: %q, %v, want %d runs", c.now, w.keys, err, c.runs)
		}
	}
}

// TestCatchUp makes up for the last missed slot and for no other.
func TestCatchUp(t *testing.T) {
	s, w := parse(t, text), &world{now: at(t, "2026-03-10T00:30:00Z")}
	n := w.open(t, s, t.TempDir(), nil)
	if _, err := n.Once(context.Background()); err != nil {
		t.Fatal(err)
	}
	if len(w.keys) != 5 || !strings.Contains(w.keys[0], "2026-03-09T01:30Z") {
		t.Errorf("ran %q", w.keys)
	}
	none := parse(t, strings.Replace(text, "catchup: 30h\n", "", 1))
	w.keys = nil
	if _, err := w.open(t, none, t.TempDir(), nil).Once(context.Background()); err != nil || len(w.keys) != 0 {
		t.Errorf("without catching up: %q, %v", w.keys, err)
	}
}

// TestDaylightSaving: the hour that a night in spring lacks, and the one that a
// night in autumn has twice, give one slot each at most.
func TestDaylightSaving(t *testing.T) {
	s := parse(t, text)
	for _, day := range []string{"2026-03-29", "2026-10-25"} {
		from := at(t, day+"T00:00:00Z").Add(-3 * time.Hour)
		if got := s.Between(s.Find("a"), from, from.Add(24*time.Hour), 10); len(got) > 1 {
			t.Errorf("%s: slots %v", day, got)
		}
	}
	year := s.Between(s.Find("a"), at(t, "2026-01-01T00:00:00Z"), at(t, "2027-01-01T00:00:00Z"), 1000)
	if len(year) < 364 || len(year) > 365 {
		t.Errorf("%d slots in a year", len(year))
	}
}

func TestJitter(t *testing.T) {
	s := parse(t, strings.Replace(text, "catchup", "jitter: 20m\ncatchup", 1))
	e := s.Find("a")
	seen := map[time.Duration]bool{}
	for _, slot := range s.Between(e, at(t, "2026-01-01T00:00:00Z"), at(t, "2026-01-20T00:00:00Z"), 100) {
		d := slot.Start.Sub(slot.At)
		if d < 0 || d >= 20*time.Minute {
			t.Errorf("jitter %s", d)
		}
		seen[d] = true
	}
	if len(seen) < 10 {
		t.Errorf("%d different jitters", len(seen))
	}
	// Until the jitter is over nothing is due, and a slot is not passed over for it.
	slot := s.Next(e, at(t, "2026-02-01T12:00:00Z"))
	w := &world{now: slot.Start.Add(-time.Second)}
	dir := t.TempDir()
	n := w.open(t, s, dir, nil)
	for _, d := range n.Due() {
		if d.Entry.Name == "a" && d.At.Equal(slot.At) {
			t.Error("due before its jitter is over")
		}
	}
	w.now = slot.Start
	if due := n.Due(); !slices.ContainsFunc(due, func(d nightly.Slot) bool { return d.Entry.Name == "a" && d.At.Equal(slot.At) }) {
		t.Errorf("not due at its start: %v", due)
	}
}

// TestKilled stops the process in a launch, and at every durable step: the same
// keys are used again, and the slot ends once.
func TestKilled(t *testing.T) {
	s := parse(t, text)
	for point := 0; ; point++ {
		w, dir := &world{now: at(t, "2026-03-02T03:05:00Z")}, t.TempDir()
		died := func() (died bool) {
			defer func() { died = recover() != nil }()
			steps := 0
			n := w.open(t, s, dir, func(string) {
				if steps++; steps == point+1 {
					panic(errKilled)
				}
			})
			if _, err := n.Once(context.Background()); err != nil {
				t.Fatal(err)
			}
			return false
		}()
		if !died {
			if point < 10 {
				t.Errorf("only %d durable steps", point)
			}
			return
		}
		first := len(w.keys)
		// The next process finds no lock of the dead one: it is the same process here,
		// so the schedule gets a name of its own state folder only.
		n, err := nightly.Open(nightly.Config{Schedule: s, Dir: dir, Launcher: w, Now: func() time.Time { return w.now }, Log: t.Logf})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Once(context.Background()); err != nil {
			t.Fatal(err)
		}
		unique := map[string]bool{}
		for _, k := range w.keys {
			unique[k] = true
		}
		if len(unique) != 5 {
			t.Errorf("step %d: %d before and %d after, keys %q", point, first, len(w.keys)-first, w.keys)
		}
		for _, e := range []string{"a", "b"} {
			if nights := n.Nights(e); len(nights) != 1 || nights[0].Finished.IsZero() {
				t.Errorf("step %d: nights of %s are %+v", point, e, nights)
			}
		}
	}
}

// TestThreeStarts gives up a slot that kills whoever runs it.
func TestThreeStarts(t *testing.T) {
	s := parse(t, text)
	w, dir := &world{now: at(t, "2026-03-02T01:35:00Z"), stop: func(string) bool { return true }}, t.TempDir()
	for range 4 {
		func() {
			defer func() { _ = recover() }()
			n, err := nightly.Open(nightly.Config{Schedule: s, Dir: dir, Launcher: w, Now: func() time.Time { return w.now }, Log: t.Logf})
			if err != nil {
				t.Fatal(err)
			}
			_, _ = n.Once(context.Background())
		}()
	}
	n, err := nightly.Open(nightly.Config{Schedule: s, Dir: dir, Now: func() time.Time { return w.now }})
	if err != nil {
		t.Fatal(err)
	}
	got := slices.Concat(n.Nights("a"), n.Nights("b"))
	skipped := slices.ContainsFunc(got, func(v nightly.Night) bool { return strings.Contains(v.Skipped, "3 times") })
	if !skipped {
		t.Errorf("nights %+v", got)
	}
}

func TestBudget(t *testing.T) {
	s := parse(t, strings.Replace(text, "catchup: 30h", "catchup: 30h\nbudget: {gpu_hours: 5}", 1))
	w, dir := &world{now: at(t, "2026-03-02T03:05:00Z"), usage: nightly.Run{GPUHours: 3}}, t.TempDir()
	n := w.open(t, s, dir, nil)
	if _, err := n.Once(context.Background()); err != nil {
		t.Fatal(err)
	}
	// a takes 3, the first of b's takes 3 more, and then the night has no more.
	if len(w.keys) != 2 {
		t.Errorf("ran %q", w.keys)
	}
	b := n.Nights("b")[0]
	if len(b.Runs) != 4 || !strings.Contains(b.Runs[1].Failed, "budget of 5 GPU-hours") {
		t.Errorf("%+v", b)
	}
}

func TestOneAtATime(t *testing.T) {
	s, w, dir := parse(t, text), &world{now: at(t, "2026-03-02T03:05:00Z")}, t.TempDir()
	w.open(t, s, dir, nil)
	other, err := nightly.Open(nightly.Config{Schedule: s, Dir: dir, Now: func() time.Time { return w.now }})
	if err != nil {
		t.Fatal(err)
	}
	var user *nightly.UserError
	if _, err := other.Lock(); !errors.As(err, &user) {
		t.Errorf("a second process got the lock: %v", err)
	}
}

func TestBadSchedules(t *testing.T) {
	for name, c := range map[string][2]string{
		"unknown field":  {"catchup: 30h", "catchupp: 30h"},
		"version":        {"version: 1", "version: 2"},
		"zone":           {"Europe/Berlin", "Europe/Nowhere"},
		"cron":           {"30 2 * * *", "61 2 * * *"},
		"zone in cron":   {"30 2 * * *", "TZ=UTC 30 2 * * *"},
		"duration":       {"30h", "-3h"},
		"name":           {"name: main", "name: ../x"},
		"twice":          {"name: b", "name: a"},
		"nothing to run": {"run: [y]", "run: []"},
		"our flags":      {"run: [y]", "run: [y, --key, k]"},
		"repeats":        {"repeats: 2", "repeats: -1"},
		"two documents":  {"version: 1", "---\nversion: 1\n---\nversion: 1"},
		"policy":         {"catchup: 30h", "policy: {fdr: 3}"},
		"webhook":        {"catchup: 30h", "webhook: {format: xml}"},
	} {
		_, err := nightly.Parse(strings.NewReader(strings.Replace(text, c[0], c[1], 1)))
		var user *nightly.UserError
		if !errors.As(err, &user) || user.Fix == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := nightly.Parse(strings.NewReader("")); err == nil {
		t.Error("an empty schedule was read")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(text)
	f.Add("version: 1\nname: a\nseries: [{name: a, at: '@daily', run: [x]}]")
	f.Add("a: &a [*a, *a]")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := nightly.Parse(strings.NewReader(text))
		if err != nil {
			return
		}
		now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
		for i := range s.Series {
			if slot := s.Next(&s.Series[i], now); !slot.At.IsZero() && (!slot.At.After(now) || slot.Start.Before(slot.At)) {
				t.Errorf("slot %+v after %s", slot, now)
			}
		}
	})
}

// results are the committed rows by run.
type results map[string]nightly.Rows

func (r results) Rows(_ context.Context, id string) (nightly.Rows, error) {
	rows, ok := r[id]
	if !ok {
		return rows, fmt.Errorf("run %s: %w", id, fs.ErrNotExist)
	}
	return rows, nil
}

func (r results) Identity(string) string { return "" }

func metric(v float64) schema.MetricRow {
	return schema.MetricRow{Suite: "load", Task: "c16", Arm: "m", Model: "org/m", Metric: "output_tok_per_s", Repetition: -1, Value: schema.Float(v), LowerIsBetter: schema.Bool(false), Status: "ok"}
}

// TestHistory goes from nights to verdicts: a slowdown that the canary shares is
// none, one of the candidate's own is, and nights without a run are missing.
func TestHistory(t *testing.T) {
	one := strings.Replace(text, "  - name: a\n    at: \"30 2 * * *\"\n    run: [x, --endpoint, \"a=http://h/v1\"]\n", "", 1)
	s := parse(t, strings.Replace(one, "repeats: 2", "repeats: 1", 1))
	w, dir := &world{now: at(t, "2026-03-02T03:05:00Z")}, t.TempDir()
	n := w.open(t, s, dir, nil)
	rows := results{}
	wobble := []float64{1, 1.003, .998, 1.001, .999}
	for day := range 16 {
		if day == 7 { // nobody was there
			w.now = w.now.Add(24 * time.Hour)
			continue
		}
		if _, err := n.Once(context.Background()); err != nil {
			t.Fatal(err)
		}
		drift, slow := 1.0, 1.0
		if day == 9 {
			drift = .9
		}
		if day >= 12 {
			slow = .93
		}
		for _, r := range n.Nights("b")[len(n.Nights("b"))-1].Runs {
			v := 1000 * drift * wobble[day%5]
			if r.Role == "candidate" {
				v *= slow * wobble[(day+2)%5]
			}
			rows[r.ID] = nightly.Rows{Metrics: []schema.MetricRow{metric(v)}, Servers: []schema.ServerRow{{Arm: "m", Engine: "vllm", EngineVersion: "0.11.0"}}}
		}
		w.now = w.now.Add(24 * time.Hour)
	}
	series, err := n.History(context.Background(), nightly.NewReader(rows, 0))
	if err != nil || len(series) != 1 {
		t.Fatalf("%d series, %v", len(series), err)
	}
	if k := series[0].Key; k.Engine != "vllm 0.11" || k.Model != "org/m" || k.Task != "c16" {
		t.Errorf("key %+v", k)
	}
	verdicts, err := regress.Evaluate(series, s.Policy)
	if err != nil {
		t.Fatal(err)
	}
	var alarms, missing int
	for i, v := range verdicts[0] {
		t.Logf("%s %-18s %s", v.Slot.Format("01-02"), v.Status, v.Reason)
		if v.Alarm {
			alarms++
			if v.Since.Format("01-02") != "03-14" {
				t.Errorf("alarm %+v", v)
			}
		}
		if v.Status == regress.Missing {
			missing++
			if i != 7 {
				t.Errorf("night %d is missing", i)
			}
		}
	}
	if alarms != 1 || missing != 1 {
		t.Errorf("%d alarms, %d missing", alarms, missing)
	}
	report, err := regress.NewReport("main", series, s.Policy)
	if err != nil || len(report.Lines) != 1 || report.Lines[0].Status != regress.Regression {
		t.Errorf("%+v, %v", report, err)
	}
}
