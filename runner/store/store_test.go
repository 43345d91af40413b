package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain lets the test binary be one of several processes that write into
// the same database.
func TestMain(m *testing.M) {
	if path := os.Getenv("STORE_TEST_WRITER"); path != "" {
		if err := writer(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const writerEvents = 40

func writer(path string) error {
	ctx := context.Background()
	s, err := Open(ctx, path, Config{})
	if err != nil {
		return err
	}
	if _, _, err := s.CreateRun(ctx, NewRun{ID: "SHARED", Target: "t", Request: []byte("{}")}, Event{Kind: "run.created"}); err != nil {
		return err
	}
	for range writerEvents {
		if err := s.Append(ctx, "SHARED", Event{Kind: "log"}); err != nil {
			return err
		}
	}
	return s.Close()
}

func open(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "state #1?", "store.db"), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func create(t testing.TB, s *Store, id string) Run {
	t.Helper()
	r, created, err := s.CreateRun(t.Context(), NewRun{ID: id, Target: "arxiv:" + id, Request: []byte(`{}`)}, Event{Kind: "run.created"})
	if err != nil || !created {
		t.Fatalf("CreateRun(%s) = created %v, %v", id, created, err)
	}
	return r
}

func TestCreateIsIdempotent(t *testing.T) {
	s := open(t, Config{})
	ctx := t.Context()
	n := NewRun{ID: "A", Target: "x", IdempotencyKey: "k", Request: json.RawMessage(`{"a":1}`)}
	if _, created, err := s.CreateRun(ctx, n, Event{Kind: "run.created"}); err != nil || !created {
		t.Fatalf("first: %v %v", created, err)
	}
	n.ID = "B" // same key, other id
	r, created, err := s.CreateRun(ctx, n, Event{Kind: "run.created"})
	if err != nil || created || r.ID != "A" {
		t.Fatalf("second = %+v, %v, %v; want the run A", r, created, err)
	}
	if ev, _ := s.Events(ctx, "A", 0, 0); len(ev) != 1 {
		t.Errorf("%d events, want 1", len(ev))
	}
	if b, err := s.Document(ctx, "A", "request"); err != nil || string(b) != `{"a":1}` {
		t.Errorf("request = %s, %v", b, err)
	}
}

func TestLifeOfARun(t *testing.T) {
	s := open(t, Config{})
	ctx := t.Context()
	create(t, s, "R")
	if err := s.Approve(ctx, "R", "me"); err == nil {
		t.Error("a run without a plan was approved")
	}
	steps := []func() error{
		func() error { return s.SetState(ctx, "R", Planning, "") },
		func() error { return s.SavePlan(ctx, "R", []byte(`{"p":1}`), "hash") },
		func() error { return s.Approve(ctx, "R", "me", Event{Kind: "run.approved"}) },
		func() error { return s.Approve(ctx, "R", "you", Event{Kind: "run.approved"}) },
		func() error {
			return s.PutAttempt(ctx, Attempt{Key: "R/execute/a/0/0", RunID: "R", Stage: "execute", Arm: "a"})
		},
		func() error { return s.SetHandle(ctx, "R/execute/a/0/0", "h") },
		func() error {
			return s.SetStatus(ctx, "R", "R/execute/a/0/0", []byte(`{}`), true, Spend{WallSeconds: 2})
		},
		func() error { return s.FinishStage(ctx, "R", "execute", StageFinished, []byte(`1`)) },
		func() error {
			return s.Finish(ctx, "R", Done, "aligned", []byte(`{"o":1}`), Event{Kind: "run.finished"})
		},
		func() error {
			return s.Finish(ctx, "R", Done, "aligned", []byte(`{"o":2}`), Event{Kind: "run.finished"})
		},
	}
	for i, step := range steps {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	r, err := s.Run(ctx, "R")
	if err != nil || r.State != Done || r.ApprovedBy != "me" || r.Verdict != "aligned" || r.PlanHash != "hash" || r.Finished.IsZero() {
		t.Errorf("run = %+v, %v", r, err)
	}
	a, err := s.Attempts(ctx, "R")
	if err != nil || len(a) != 1 || a[0].Handle != "h" || !a[0].Final || a[0].Spend.WallSeconds != 2 {
		t.Errorf("attempts = %+v, %v", a, err)
	}
	if p, err := s.Check(ctx); err != nil || len(p) > 0 {
		t.Errorf("Check = %v, %v", p, err)
	}
}

func TestFinalStatesAreNeverLeft(t *testing.T) {
	ctx := t.Context()
	for _, final := range []State{Done, Cancelled} {
		s := open(t, Config{})
		create(t, s, "R")
		must(t, s.SavePlan(ctx, "R", []byte(`{}`), "h"))
		must(t, s.PutAttempt(ctx, Attempt{Key: "k", RunID: "R"}))
		must(t, s.SetStatus(ctx, "R", "k", nil, true, Spend{}))
		must(t, s.FinishStage(ctx, "R", "plan", StageFinished, nil))
		must(t, s.Finish(ctx, "R", final, "", []byte(`{}`)))
		before, _ := s.Events(ctx, "R", 0, 0)
		for name, err := range map[string]error{
			"SetState":      s.SetState(ctx, "R", Running, "", Event{Kind: "log"}),
			"Approve":       s.Approve(ctx, "R", "x", Event{Kind: "log"}),
			"RequestCancel": s.RequestCancel(ctx, "R", "x", Event{Kind: "log"}),
			"SavePlan":      s.SavePlan(ctx, "R", []byte(`{"other":1}`), "h2", Event{Kind: "log"}),
			"SetStatus":     s.SetStatus(ctx, "R", "k", nil, false, Spend{}, Event{Kind: "log"}),
			"FinishStage":   s.FinishStage(ctx, "R", "plan", StageSkipped, nil, Event{Kind: "log"}),
			"StartStage":    func() error { _, err := s.StartStage(ctx, "R", "plan", Event{Kind: "log"}); return err }(),
		} {
			if !errors.Is(err, ErrTerminal) {
				t.Errorf("%s after %s: %v, want ErrTerminal", name, final, err)
			}
		}
		for _, sql := range []string{"UPDATE runs SET state = 'running'", "DELETE FROM attempts; UPDATE events SET kind = 'x'", "UPDATE documents SET body = 'x'"} {
			if _, err := s.db.ExecContext(ctx, sql); err == nil {
				t.Errorf("the database allowed %q", sql)
			}
		}
		if r, _ := s.Run(ctx, "R"); r.State != final {
			t.Errorf("state = %s, want %s", r.State, final)
		}
		if after, _ := s.Events(ctx, "R", 0, 0); len(after) != len(before) {
			t.Errorf("refused changes left %d events", len(after)-len(before))
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestManyProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	const processes = 4
	var wg sync.WaitGroup
	for range processes {
		wg.Go(func() {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "STORE_TEST_WRITER="+path)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	s, err := Open(t.Context(), path, Config{})
	must(t, err)
	defer s.Close()
	ev, err := s.Events(t.Context(), "SHARED", 0, 1000)
	must(t, err)
	if want := processes*writerEvents + 1; len(ev) != want {
		t.Errorf("%d events, want %d", len(ev), want)
	}
	if p, err := s.Check(t.Context()); err != nil || len(p) > 0 {
		t.Errorf("Check = %v, %v", p, err)
	}
}

func TestFollow(t *testing.T) {
	s := open(t, Config{})
	ctx := t.Context()
	create(t, s, "R")
	other, err := Open(ctx, s.path, Config{})
	must(t, err)
	defer other.Close()
	go func() {
		for i := range 700 {
			from := s
			if i%2 == 0 {
				from = other
			}
			if err := from.Append(ctx, "R", Event{Kind: "log"}); err != nil {
				t.Error(err)
			}
		}
		if err := other.Finish(ctx, "R", Cancelled, "", []byte("{}"), Event{Kind: "run.cancelled"}); err != nil {
			t.Error(err)
		}
	}()
	var seqs []int64
	var last string
	must(t, s.Follow(ctx, "R", 0, nil, func(e Event) error {
		seqs, last = append(seqs, e.Seq), e.Kind
		return nil
	}))
	if len(seqs) != 702 || last != "run.cancelled" {
		t.Fatalf("%d events ending with %s, want 702 ending with run.cancelled", len(seqs), last)
	}
	for i, q := range seqs {
		if q != int64(i+1) {
			t.Fatalf("event %d has seq %d", i, q)
		}
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	create(t, s, "S")
	if err := s.Follow(short, "S", 0, nil, func(Event) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Follow of an open run = %v, want the context's error", err)
	}
}

func TestFilesThatAreNotOurs(t *testing.T) {
	ctx := t.Context()
	good := filepath.Join(t.TempDir(), "good.db")
	s, err := Open(ctx, good, Config{})
	must(t, err)
	create(t, s, "R")
	_, err = s.db.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	must(t, err)
	must(t, s.Close())
	whole, err := os.ReadFile(good)
	must(t, err)
	broken := append([]byte(nil), whole...)
	for i := 100; i < 4096; i++ {
		broken[i] = 0xff
	}
	newer := append([]byte(nil), whole...)
	newer[63] = 99 // user_version, big endian, at offset 60
	foreign := append([]byte(nil), whole...)
	foreign[68] = 1 // application_id, at offset 68
	for name, c := range map[string]struct {
		body []byte
		want string
	}{
		"text":    {[]byte(strings.Repeat("not a database\n", 100)), "not a database"},
		"broken":  {broken, "damaged"},
		"newer":   {newer, "newer than"},
		"foreign": {foreign, "another program"},
	} {
		p := filepath.Join(t.TempDir(), "store.db")
		must(t, os.WriteFile(p, c.body, 0o600))
		_, err := Open(ctx, p, Config{})
		var ue interface{ UserError() string }
		if !errors.As(err, &ue) || !strings.Contains(err.Error(), c.want) || ue.UserError() == "" {
			t.Errorf("%s: %v, want a user error with %q", name, err, c.want)
		}
		if after, _ := os.ReadFile(p); string(after) != string(c.body) {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

func TestFindAndList(t *testing.T) {
	now := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	s := open(t, Config{Now: func() time.Time { now = now.Add(time.Second); return now }})
	ctx := t.Context()
	for _, id := range []string{"01AB", "01AC", "02", "02X"} {
		create(t, s, id)
	}
	must(t, s.SetState(ctx, "02", Running, ""))
	for prefix, want := range map[string]string{"01ab": "01AB", "01A": "", "02": "02", "02x": "02X", "": "", "9": ""} {
		if r, err := s.Find(ctx, prefix); r.ID != want || (want == "") != errors.Is(err, ErrNotFound) {
			t.Errorf("Find(%q) = %q, %v", prefix, r.ID, err)
		}
	}
	ids := func(f Filter) string {
		t.Helper()
		runs, err := s.List(ctx, f)
		must(t, err)
		var out []string
		for _, r := range runs {
			out = append(out, r.ID)
		}
		return strings.Join(out, " ")
	}
	first, err := s.List(ctx, Filter{Limit: 2})
	must(t, err)
	for _, c := range []struct {
		f    Filter
		want string
	}{
		{Filter{}, "02X 02 01AC 01AB"},
		{Filter{Limit: 2}, "02X 02"},
		{Filter{Limit: 2, Before: &first[1]}, "01AC 01AB"},
		{Filter{States: []State{Running}}, "02"},
		{Filter{States: []State{Running, Created}, Limit: 3}, "02X 02 01AC"},
		{Filter{Target: "ARXIV:01"}, "01AC 01AB"},
	} {
		if got := ids(c.f); got != c.want {
			t.Errorf("List(%+v) = %q, want %q", c.f, got, c.want)
		}
	}
}

func TestHookPointsAreComplete(t *testing.T) {
	seen := map[string]bool{}
	s := open(t, Config{Hook: func(p string) { seen[p] = true }})
	ctx := t.Context()
	create(t, s, "R")
	must(t, s.SetState(ctx, "R", Planning, ""))
	must(t, s.SavePlan(ctx, "R", []byte("{}"), "h"))
	must(t, s.Approve(ctx, "R", "me"))
	must(t, s.Append(ctx, "R", Event{Kind: "log"}))
	must(t, s.AddKey(ctx, Key{ID: "k", Hash: []byte("h"), Grant: []byte("{}")}, Audit{Action: "key.create"}))
	must(t, s.Audit(ctx, Audit{Action: "test"}))
	_, err := s.StartStage(ctx, "R", "execute")
	must(t, err)
	must(t, s.PutAttempt(ctx, Attempt{Key: "k", RunID: "R"}))
	must(t, s.SetHandle(ctx, "k", "h"))
	must(t, s.SetStatus(ctx, "R", "k", nil, true, Spend{}))
	must(t, s.FinishStage(ctx, "R", "execute", StageFinished, nil))
	must(t, s.RequestCancel(ctx, "R", "me"))
	must(t, s.Finish(ctx, "R", Cancelled, "", []byte("{}")))
	for _, p := range HookPoints() {
		if !seen[p] {
			t.Errorf("%s was never hit", p)
		}
		delete(seen, p)
	}
	for p := range seen {
		t.Errorf("%s is not listed", p)
	}
}

func BenchmarkList100k(b *testing.B) {
	s := open(b, Config{})
	ctx := b.Context()
	tx, err := s.db.BeginTx(ctx, nil)
	must(b, err)
	for i := range 100_000 {
		st := Done
		if i%1000 == 0 {
			st = Running
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO runs (id, created_at, updated_at, target, state) VALUES (?, ?, ?, ?, ?)",
			fmt.Sprintf("%026d", i), i, i, "https://arxiv.org/abs/2604.08075", st)
		must(b, err)
	}
	must(b, tx.Commit())
	for name, f := range map[string]Filter{
		"newest":  {Limit: 50},
		"running": {States: []State{Running}, Limit: 50},
		"page":    {Limit: 50, Before: &Run{ID: "x", Created: time.UnixMicro(50_000)}},
		"states":  {States: []State{Running, Interrupted, Failed, Planned}, Limit: 50},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if runs, err := s.List(ctx, f); err != nil || len(runs) != 50 {
					b.Fatal(len(runs), err)
				}
			}
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	s := open(b, Config{})
	create(b, s, "R")
	for b.Loop() {
		must(b, s.Append(b.Context(), "R", Event{Kind: "log", Data: []byte(`{"line":"x"}`)}))
	}
}
