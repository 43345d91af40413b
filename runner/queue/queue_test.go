package queue

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/store"
)

// driver does to runs what the test says.
type driver struct {
	st    *store.Store
	do    func(ctx context.Context, id string) error
	mu    sync.Mutex
	order []string
	now   int
	most  int
}

func (d *driver) Drive(ctx context.Context, id string) (runner.Outcome, error) {
	d.mu.Lock()
	d.order = append(d.order, id)
	d.now++
	d.most = max(d.most, d.now)
	d.mu.Unlock()
	defer func() { d.mu.Lock(); d.now--; d.mu.Unlock() }()
	return runner.Outcome{}, d.do(ctx, id)
}

func (d *driver) finish(_ context.Context, id string) error {
	return d.st.Finish(context.Background(), id, store.Done, "aligned", []byte("{}"))
}

type fixture struct {
	*Queue
	st   *store.Store
	d    *driver
	stop func()
}

func start(t *testing.T, cfg Config, n int, do func(*driver) func(context.Context, string) error) *fixture {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "store.db"), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{st: st, d: &driver{st: st}}
	f.d.do = do(f.d)
	for i := range n {
		if _, _, err := st.CreateRun(t.Context(), store.NewRun{ID: fmt.Sprintf("R%02d", i), Target: "t", Request: []byte("{}"), Submission: &store.Submission{Queue: "q", By: "me"}}); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Store, cfg.Driver, cfg.Poll = st, f.d, 5*time.Millisecond
	f.Queue = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	f.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(func() { f.stop(); st.Close() })
	return f
}

func (f *fixture) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

func (f *fixture) all(t *testing.T, state store.State, n int64) func() bool {
	return func() bool {
		c, err := f.st.Counts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c[state] == n
	}
}

func TestEveryRunOnceInOrder(t *testing.T) {
	f := start(t, Config{Planning: 1}, 8, func(d *driver) func(context.Context, string) error { return d.finish })
	f.until(t, "not all were driven", f.all(t, store.Done, 8))
	f.stop()
	if fmt.Sprint(f.d.order) != "[R00 R01 R02 R03 R04 R05 R06 R07]" || f.d.most != 1 {
		t.Errorf("driven %v, %d at once", f.d.order, f.d.most)
	}
}

func TestPlanningAndExecutingHavePlacesOfTheirOwn(t *testing.T) {
	block := make(chan struct{})
	f := start(t, Config{Planning: 2, Executing: map[string]int{"q": 1}}, 5, func(d *driver) func(context.Context, string) error {
		return func(ctx context.Context, id string) error {
			<-block
			return d.finish(ctx, id)
		}
	})
	f.until(t, "two are not planned at once", func() bool { return f.Driving() == 2 })
	if err := f.st.SavePlan(t.Context(), "R04", []byte("{}"), "h"); err != nil {
		t.Fatal(err)
	}
	if err := f.st.Approve(t.Context(), "R04", "me"); err != nil {
		t.Fatal(err)
	}
	f.until(t, "an approved run waits behind planning", func() bool { return f.Driving() == 3 })
	close(block)
	f.until(t, "not all were driven", f.all(t, store.Done, 5))
}

func TestADefectFailsItsRunAlone(t *testing.T) {
	f := start(t, Config{}, 3, func(d *driver) func(context.Context, string) error {
		return func(ctx context.Context, id string) error {
			if id == "R01" {
				panic("index out of range")
			}
			return d.finish(ctx, id)
		}
	})
	f.until(t, "the others were not driven", f.all(t, store.Done, 2))
	f.until(t, "the defect is not told", f.all(t, store.Failed, 1))
}

func TestADrivenRunIsLeftToItsDriver(t *testing.T) {
	f := start(t, Config{}, 1, func(*driver) func(context.Context, string) error {
		return func(_ context.Context, id string) error { return &runner.DrivenError{RunID: id} }
	})
	f.until(t, "it was not tried", func() bool { f.d.mu.Lock(); defer f.d.mu.Unlock(); return len(f.d.order) > 0 })
	time.Sleep(50 * time.Millisecond)
	f.stop()
	if len(f.d.order) != 1 {
		t.Errorf("it was tried %d times in a moment", len(f.d.order))
	}
}

func TestTheEndLeavesWhatRuns(t *testing.T) {
	left := make(chan error, 1)
	f := start(t, Config{}, 1, func(*driver) func(context.Context, string) error {
		return func(ctx context.Context, _ string) error {
			<-ctx.Done()
			left <- context.Cause(ctx)
			return ctx.Err()
		}
	})
	f.until(t, "it was not driven", func() bool { return f.Driving() == 1 })
	f.stop()
	if err := <-left; !errors.Is(err, runner.ErrLeave) {
		t.Errorf("the driver ended by %v", err)
	}
}
