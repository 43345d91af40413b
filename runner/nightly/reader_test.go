package nightly_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/regress"
	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/runner/nightly"
)

// site is a schedule of one series whose nights commit to a results folder.
type site struct {
	*world
	s    *nightly.Schedule
	n    *nightly.Nightly
	data *dataset.Dataset
	// each is the speed and the share of right answers of a night.
	each  func(night int) (speed, right float64)
	items int
	night int
}

const single = `version: 1
name: main
series:
  - name: b
    at: "0 4 * * *"
    run: [y]
`

func newSite(t testing.TB) *site {
	t.Helper()
	d, err := dataset.Open(filepath.Join(t.TempDir(), "results"), dataset.Config{})
	if err != nil {
		t.Fatal(err)
	}
	w := &site{world: &world{now: at(t, "2026-03-02T04:00:30Z")}, s: parse(t, single), data: d, items: 40,
		each: func(int) (float64, float64) { return 1000, .8 }}
	w.n = w.open(t, w.s, t.TempDir(), nil)
	return w
}

// commit writes the rows of a run.
func (w *site) commit(t testing.TB, id string, speed, right float64) {
	t.Helper()
	common := schema.Common{RunID: id, Kind: schema.Measured, Simulated: true, SchemaVersion: schema.Version}
	tx := w.data.Begin(id, w.now)
	m := metric(speed)
	m.Common = common
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(dataset.Add(tx, m))
	must(dataset.Add(tx, schema.ServerRow{Common: common, Arm: "m", Engine: "vllm", EngineVersion: "0.11.0", ServerID: "s", ObservedAt: w.now}))
	rows := make([]schema.SampleRow, w.items)
	for i := range rows {
		ok := float64(i) < right*float64(w.items)
		rows[i] = schema.SampleRow{Common: common, Suite: "aime", DatasetSHA: "d", ItemID: fmt.Sprint(i), Arm: "m", Outcome: map[bool]string{true: "correct", false: "wrong"}[ok], Score: schema.Float(map[bool]float64{true: 1}[ok])}
	}
	if len(rows) > 0 {
		must(dataset.Add(tx, rows...))
	}
	_, err := tx.Commit(context.Background())
	must(err)
}

// run goes through so many nights.
func (w *site) run(t testing.TB, nights int) {
	t.Helper()
	for range nights {
		if _, err := w.n.Once(context.Background()); err != nil {
			t.Fatal(err)
		}
		list := w.n.Nights("b")
		speed, right := w.each(w.night)
		w.commit(t, list[len(list)-1].Runs[0].ID, speed, right)
		w.night++
		w.now = w.now.Add(24 * time.Hour)
	}
	w.now = w.now.Add(-24 * time.Hour)
}

func (w *site) Launch(ctx context.Context, key string, args []string, left nightly.Budget) (nightly.Run, error) {
	r, err := w.world.Launch(ctx, key, args, left)
	r.ID = strings.NewReplacer(" ", "-", "/", "-", ":", "").Replace(r.ID)
	return r, err
}

func (w *site) open(t testing.TB, s *nightly.Schedule, dir string, hook func(string)) *nightly.Nightly {
	t.Helper()
	n, err := nightly.Open(nightly.Config{Schedule: s, Dir: dir, Launcher: w, Now: func() time.Time { return w.now }, Hook: hook, Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestReaderIsAsGoodAsReading compares what is kept with what is read, after
// nights are added, accepted, replaced and damaged.
func TestReaderIsAsGoodAsReading(t *testing.T) {
	w := newSite(t)
	src := nightly.FromDataset(w.data)
	kept := nightly.NewReader(src, 0)
	fresh := func() []regress.Series {
		t.Helper()
		s, err := w.n.History(t.Context(), nightly.NewReader(nightly.FromDataset(w.data), 0))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	prints := map[string]string{}
	same := func(what string, reads int) {
		t.Helper()
		before := kept.Reads()
		s, err := w.n.History(t.Context(), kept)
		if err != nil {
			t.Fatal(err)
		}
		if want := fresh(); !reflect.DeepEqual(s, want) {
			t.Errorf("%s: kept %+v\nread %+v", what, s, want)
		}
		if got := kept.Reads() - before; got != reads {
			t.Errorf("%s: %d runs were read, want %d", what, got, reads)
		}
		p, err := w.n.Fingerprint(src)
		if err != nil {
			t.Fatal(err)
		}
		if old, ok := prints[p]; ok && reads > 0 {
			t.Errorf("%s has the fingerprint of %s", what, old)
		}
		prints[p] = what
	}
	w.run(t, 8)
	same("eight nights", 8)
	same("again", 0)
	w.now = w.now.Add(24 * time.Hour)
	w.run(t, 1)
	same("one more", 1)
	w.commit(t, "beside", 1, 1)
	if rep, err := w.data.Compact(t.Context(), dataset.CompactConfig{}); err != nil || rep.Merged == 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	same("merged", 1)
	same("merged, again", 0)
	if err := w.n.Accept("b", w.n.Nights("b")[4].Slot); err != nil {
		t.Fatal(err)
	}
	same("accepted", 0)
	// Another content under the same run.
	id := w.n.Nights("b")[3].Runs[0].ID
	m, err := w.data.Manifest(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(w.data.Root(), "_runs", id)); err != nil {
		t.Fatal(err)
	}
	for _, f := range m.Files {
		if err := os.Remove(filepath.Join(w.data.Root(), f.Path)); err != nil {
			t.Fatal(err)
		}
	}
	w.commit(t, id, 700, .5)
	same("replaced", 1)
	// A damaged file is a night that is missing, whatever was kept of it.
	if m, err = w.data.Manifest(id); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(w.data.Root(), m.Files[0].Path)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	same("damaged", 1)
	if s := fresh(); s[0].Nights[3].Missing == "" {
		t.Errorf("%+v", s[0].Nights[3])
	}
	// With no room nothing is kept, and nothing is wrong.
	small := nightly.NewReader(nightly.FromDataset(w.data), 1)
	for range 2 {
		s, err := w.n.History(t.Context(), small)
		if err != nil || !reflect.DeepEqual(s, fresh()) || small.Used() > 1000 {
			t.Errorf("with %d bytes: %v", small.Used(), err)
		}
	}
}

// TestRecord makes rows of the verdicts, once, and tells of alarms once.
func TestRecord(t *testing.T) {
	w := newSite(t)
	w.each = func(night int) (float64, float64) {
		speed := []float64{1000, 1003, 998, 1001, 999}[night%5]
		if night >= 8 {
			speed *= .9
		}
		return speed, .8
	}
	record := func() (int, *regress.Report) {
		t.Helper()
		series, err := w.n.History(t.Context(), nightly.NewReader(nightly.FromDataset(w.data), 0))
		if err != nil {
			t.Fatal(err)
		}
		verdicts, err := regress.Evaluate(series, w.s.Policy)
		if err != nil {
			t.Fatal(err)
		}
		n, err := w.n.Record(t.Context(), w.data, series, verdicts)
		if err != nil {
			t.Fatal(err)
		}
		return n, regress.Summarise("main", series, verdicts, w.s.Policy)
	}
	w.run(t, 10)
	if n, _ := record(); n != 10 {
		t.Errorf("%d slots were recorded", n)
	}
	if n, _ := record(); n != 0 {
		t.Errorf("%d slots were recorded a second time", n)
	}
	// A night that nobody runs is a row once it cannot be run any more.
	w.now = w.now.Add(24 * time.Hour)
	if n, _ := record(); n != 0 {
		t.Error("a slot that is due was recorded")
	}
	w.now = w.now.Add(3 * time.Hour)
	if n, _ := record(); n != 1 {
		t.Error("a missing night was not recorded")
	}
	var all []schema.VerdictRow
	for _, v := range append(w.n.Nights("b"), nightly.Night{Slot: at(t, "2026-03-12T04:00:00Z")}) {
		rows, err := dataset.Read[schema.VerdictRow](t.Context(), w.data, w.n.VerdictsID(v.Slot))
		if err != nil {
			t.Fatal(err)
		}
		m, err := w.data.Manifest(w.n.VerdictsID(v.Slot))
		if err != nil || m.Files[0].Partition["date"] != v.Slot.Format("2006-01-02") {
			t.Errorf("%+v, %v", m, err)
		}
		all = append(all, rows...)
	}
	if len(all) != 22 {
		t.Fatalf("%d rows", len(all))
	}
	alarms := 0
	for _, r := range all {
		var p struct {
			Slot, Since time.Time
			RunID       string `json:"run_id"`
			Alarm       bool
			P           float64
		}
		if err := json.Unmarshal([]byte(r.Params), &p); err != nil {
			t.Fatal(err)
		}
		if r.Subject != "series" || r.Kind != schema.Derived || p.Slot.IsZero() {
			t.Errorf("%+v", r)
		}
		if r.Verdict == "missing" && (r.Measured.Valid || p.RunID != "") || r.Verdict != "missing" && (p.RunID == "" || !r.Simulated) {
			t.Errorf("%s: %+v", r.Verdict, r)
		}
		if p.Alarm {
			alarms++
			if r.Metric != "output_tok_per_s" || r.Verdict != "regression" || !(r.Measured.V < -.08 && r.MeasuredLo.V < r.Measured.V) || p.Since.Format("01-02") != "03-10" || !(p.P < 5e-4) {
				t.Errorf("%+v, %+v", r, p)
			}
		}
	}
	if alarms != 1 {
		t.Errorf("%d alarms", alarms)
	}
	// Whoever is told of alarms hears of each night once.
	_, rep := record()
	news := w.n.Untold()
	text := func(slots []time.Time) string {
		return rep.AlarmText(func(s time.Time) bool {
			for _, x := range slots {
				if x.Equal(s) {
					return true
				}
			}
			return false
		})
	}
	if len(news) != 1 || !strings.Contains(text(news), "% worse since 2026-03-10") {
		t.Errorf("untold %v: %q", news, text(news))
	}
	if err := w.n.Told(news); err != nil {
		t.Fatal(err)
	}
	if again := w.n.Untold(); len(again) != 0 || text(nil) != "" {
		t.Errorf("%v are told again", again)
	}
}

// BenchmarkHistoryOfAYear reads a year of nights: anew, and with one night more.
func BenchmarkHistoryOfAYear(b *testing.B) {
	w := newSite(b)
	w.items = 500
	w.run(b, 365)
	b.Run("anew", func(b *testing.B) {
		for b.Loop() {
			if _, err := w.n.History(b.Context(), nightly.NewReader(nightly.FromDataset(w.data), 0)); err != nil {
				b.Fatal(err)
			}
		}
	})
	src := nightly.FromDataset(w.data)
	kept := nightly.NewReader(src, 0)
	b.Run("kept", func(b *testing.B) {
		if _, err := w.n.History(b.Context(), kept); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, err := w.n.History(b.Context(), kept); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(kept.Used())/1e6, "MB")
	})
	b.Run("fingerprint", func(b *testing.B) {
		for b.Loop() {
			if _, err := w.n.Fingerprint(src); err != nil {
				b.Fatal(err)
			}
		}
	})
}
