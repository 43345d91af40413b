package throughput

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/suites/load/bench"
)

// pods measures turns as pods do: each in a folder of its own, once.
type pods struct {
	t     *testing.T
	suite spec.Suite
	from  *simulated
	dir   string
	asked []string
	lost  int
	fail  func(Turn) error
	stop  func(Turn) string
}

func (p *pods) turn(ctx context.Context, t Turn) (Turned, error) {
	p.asked = append(p.asked, fmt.Sprintf("%d %s", t.Round, t.Name))
	if p.fail != nil {
		if err := p.fail(t); err != nil {
			return Turned{}, err
		}
	}
	out := Turned{Dir: filepath.Join(p.dir, fmt.Sprintf("%d-%d", t.Round, t.N)), Spend: Spend{Seconds: 2, GPUSeconds: 4, USD: 1}, Lost: p.lost}
	if p.stop != nil {
		if out.Stopped = p.stop(t); out.Stopped != "" {
			return out, nil
		}
	}
	if _, err := os.Stat(filepath.Join(out.Dir, fileTurn)); err == nil {
		return out, nil
	}
	n, err := (&Bench{}).Turn(ctx, p.job(out.Dir), t)
	if err == nil && (n.Cells != 1 || n.Requests < 8 || n.Server.Arm != t.Arm.Name) {
		p.t.Errorf("%s counts %+v", t.Name, n)
	}
	return out, err
}

// job is that of a pod, which knows nothing of the others.
func (p *pods) job(dir string) Job {
	return Job{Suite: p.suite, URL: func(spec.Arm) string { return "" }, Starter: p.from, Dir: dir, Host: "node-1"}
}

func newPods(t *testing.T, rounds int) (*pods, Job) {
	p := &pods{t: t, suite: suite(t, rounds), from: &simulated{t: t}, dir: t.TempDir()}
	j := job(t, p.suite, p.from)
	j.Starter, j.Elsewhere = nil, p.turn
	return p, j
}

// TestElsewhere: turns that others measured come to what a run by itself comes to.
func TestElsewhere(t *testing.T) {
	p, j := newPods(t, 2)
	p.lost = 1
	res, err := (&Bench{}).Run(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	if want := "0 fp8, 0 nvfp4, 1 nvfp4, 1 fp8"; strings.Join(p.asked, ", ") != want {
		t.Errorf("asked for %v, want %s", p.asked, want)
	}
	if res.Rounds != 2 || len(res.Blocks) != 4 || len(res.Servers) != 4 || !res.Simulated || p.from.starts.Load() != 4 || res.Lost != 4 {
		t.Errorf("%d rounds, %d blocks, %d servers, %d starts, %d lost", res.Rounds, len(res.Blocks), len(res.Servers), p.from.starts.Load(), res.Lost)
	}
	if want := (Spend{Seconds: 8, GPUSeconds: 16, USD: 4}); res.Spend != want {
		t.Errorf("spent %+v, want %+v", res.Spend, want)
	}
	if text := strings.Join(res.Warnings, "\n"); !strings.Contains(text, "round 2 of nvfp4: 1 starts ended in the middle") {
		t.Errorf("warnings %s", text)
	}
	local, err := (&Bench{}).Run(t.Context(), job(t, p.suite, p.from))
	if err != nil || len(res.Comparisons) == 0 {
		t.Fatalf("%d comparisons, %v", len(res.Comparisons), err)
	}
	for i, b := range bench.Blocks(res.Blocks) {
		if want := bench.Blocks(local.Blocks)[i]; b.Arm != want.Arm || b.Round != want.Round || b.Process != want.Process || b.Cell != want.Cell {
			t.Errorf("block %d is %+v, and %+v of a run by itself", i, b, want)
		}
	}
	var at []string
	err = (&Bench{}).Rows(j, res, func(r Rows) error {
		for _, s := range r.Servers {
			at = append(at, s.Endpoint)
			if !s.ReadyS.Valid {
				t.Errorf("the row of %s lacks what is known of its start", s.Arm)
			}
		}
		return nil
	})
	if err != nil || len(at) == 0 || !strings.HasPrefix(at[0], "http://node-1:") {
		t.Errorf("servers at %v, %v", at, err)
	}
	n := len(p.asked)
	if again, err := (&Bench{}).Run(t.Context(), j); err != nil || again.Spend != res.Spend || again.Lost != 4 || len(p.asked) != n {
		t.Errorf("a complete suite was asked for again: %v, %v", p.asked[n:], err)
	}
}

// TestElsewhereInterrupted: turns that are there are kept, whatever became of the
// others of their round.
func TestElsewhereInterrupted(t *testing.T) {
	p, j := newPods(t, 1)
	ours := errors.New("interrupted")
	p.fail = func(t Turn) error {
		if t.Name == "nvfp4" {
			return ours
		}
		return nil
	}
	if _, err := (&Bench{}).Run(t.Context(), j); !errors.Is(err, ours) {
		t.Fatal(err)
	}
	if _, have, _ := readRound(j.Dir, 0); have {
		t.Error("half a round is kept")
	}
	p.fail = nil
	if res, err := (&Bench{}).Run(t.Context(), j); err != nil || res.Rounds != 1 || p.from.starts.Load() != 2 {
		t.Errorf("%+v, %v, %d starts", res, err, p.from.starts.Load())
	}
	// A folder of something else is none of it.
	p, j = newPods(t, 1)
	j.Elsewhere = func(ctx context.Context, turn Turn) (Turned, error) {
		first := Turns(p.suite, 0)[0]
		return p.turn(ctx, first)
	}
	if _, err := (&Bench{}).Run(t.Context(), j); err == nil || !strings.Contains(err.Error(), "another turn") {
		t.Errorf("another turn is taken for it: %v", err)
	}
}

// TestElsewhereBounds: a round of which a bound cut off a turn is not counted, nor
// is one whose first turn used up what was left.
func TestElsewhereBounds(t *testing.T) {
	p, j := newPods(t, 2)
	p.stop = func(t Turn) string {
		if t.Round == 1 {
			return "the cap of 1 GPU-hours is used up"
		}
		return ""
	}
	res, err := (&Bench{}).Run(t.Context(), j)
	if err != nil || res.Rounds != 1 || res.Stopped != "the cap of 1 GPU-hours is used up in round 2, which is not counted" || res.GPUSeconds != 12 {
		t.Errorf("%d rounds, %q, %+v, %v", res.Rounds, res.Stopped, res.Spend, err)
	}
	p, j = newPods(t, 2)
	j.Bounds = Bounds{GPUHours: 3.0 / 3600}
	res, err = (&Bench{}).Run(t.Context(), j)
	if err != nil || res.Rounds != 0 || len(p.asked) != 1 || !strings.Contains(res.Stopped, "round 1, which is not counted") {
		t.Errorf("%d rounds of %v, %q, %v", res.Rounds, p.asked, res.Stopped, err)
	}
}

// TestTurnOfAnother: nothing is kept of a turn whose server was started again, in a
// cell or after the last one, or is gone.
func TestTurnOfAnother(t *testing.T) {
	for asked := 3; asked < 7; asked++ {
		p, _ := newPods(t, 1)
		seen := 0
		p.from.other = func(_, n int) bool { seen = n; return n > asked }
		dir := t.TempDir()
		_, err := (&Bench{}).Turn(t.Context(), p.job(dir), Turns(p.suite, 0)[0])
		_, none := os.Stat(filepath.Join(dir, fileTurn))
		if seen <= asked { // it stayed the same as long as anybody looked
			if err != nil || none != nil || asked < 5 {
				t.Errorf("looked %d times, other after %d: %v", seen, asked, err)
			}
			continue
		}
		var another *AnotherError
		if !errors.As(err, &another) || none == nil || !strings.Contains(err.Error(), "start_time") {
			t.Errorf("other after %d looks: %v, kept %v", asked, err, none == nil)
		}
	}
}

// TestTurnKilled leaves a turn as it was before or after it is written.
func TestTurnKilled(t *testing.T) {
	for point, want := range map[string]int32{"throughput:turn:before": 2, "throughput:turn:after": 1} {
		p, _ := newPods(t, 1)
		first := Turns(p.suite, 0)[0]
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s was not passed", point)
				}
			}()
			b := &Bench{Hook: func(at string) {
				if at == point {
					panic("killed")
				}
			}}
			_, _ = b.Turn(t.Context(), p.job(filepath.Join(p.dir, "0-0")), first)
		}()
		if got, err := p.turn(t.Context(), first); err != nil || p.from.starts.Load() != want {
			t.Errorf("killed %s: %+v, %v, %d starts", point, got, err, p.from.starts.Load())
		}
	}
}

func TestTurns(t *testing.T) {
	s := suite(t, 2)
	s.Load.TP = []int{2}
	var got []string
	for n := range 2 {
		for _, x := range Turns(s, n) {
			got = append(got, fmt.Sprintf("%d/%d %s tp%d", x.Round, x.N, x.Name, x.Arm.TP))
		}
	}
	if want := "0/0 fp8 tp1, 0/1 fp8-tp2 tp2, 0/2 nvfp4 tp1, 0/3 nvfp4-tp2 tp2, 1/3 nvfp4-tp2 tp2, 1/2 nvfp4 tp1, 1/1 fp8-tp2 tp2, 1/0 fp8 tp1"; strings.Join(got, ", ") != want {
		t.Errorf("turns %s", strings.Join(got, ", "))
	}
}
