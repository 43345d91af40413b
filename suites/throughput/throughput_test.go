package throughput

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/suites/endpoint"
	"github.com/repromill/repromill/suites/load"
	"github.com/repromill/repromill/suites/load/bench"
	"github.com/repromill/repromill/suites/load/simserver"
	"github.com/repromill/repromill/suites/servers"
)

// arms are those of most tests; the second is twice as fast.
var arms = []spec.Arm{{Name: "fp8", SKU: "H200", TP: 1}, {Name: "nvfp4", SKU: "H200", TP: 1}}

func suite(t *testing.T, rounds int) spec.Suite {
	t.Helper()
	s, err := Propose(Wish{ISL: []int{16}, OSL: []int{6}, Concurrencies: []int{2}, Requests: 8, Rounds: rounds, Floors: []float64{1}}, arms, 7, true)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// simulated starts servers without a model, which say that they have one GPU.
type simulated struct {
	t      testing.TB
	starts atomic.Int32
	up     atomic.Int32
	change func(start int, c *simserver.Config)
	other  func(start, asked int) bool // the server says that it is another
}

type server struct {
	*simulated
	name  string
	start int
	http  *httptest.Server
	end   context.CancelFunc
	asked int
}

// Start implements servers.Starter.
func (s *simulated) Start(_ context.Context, a spec.Arm) (servers.Server, error) {
	n := int(s.starts.Add(1))
	cfg := simserver.Config{StepBase: 4 * time.Millisecond, Model: a.Name}
	if a.Name == "nvfp4" {
		cfg.StepBase /= 2
	}
	if s.change != nil {
		s.change(n, &cfg)
	}
	h := simserver.New(cfg)
	ctx, end := context.WithCancel(context.Background())
	go h.Run(ctx)
	s.up.Add(1)
	return &server{simulated: s, name: a.Name, start: n, http: httptest.NewServer(h), end: end}, nil
}

func (s *server) Endpoint() string { return s.http.URL + "/v1" }
func (s *server) Identity(context.Context) (endpoint.Identity, error) {
	s.asked++
	id := endpoint.Identity{Engine: "vllm", Version: "0.0.0+simulated", Model: s.name, StartTime: time.Unix(1e9, 0), GPUUUIDs: []string{"GPU-1"}}
	if s.other != nil && s.other(s.start, s.asked) {
		id.StartTime = id.StartTime.Add(time.Minute)
	}
	return id, nil
}
func (s *server) Facts() servers.Facts          { return servers.Facts{ReadyS: 1.5} }
func (s *server) Restart(context.Context) error { return errors.New("not asked for") }
func (s *server) Stop(context.Context) error {
	s.http.CloseClientConnections()
	s.http.Close()
	s.end()
	s.up.Add(-1)
	return nil
}

func job(t *testing.T, s spec.Suite, from *simulated) Job {
	t.Cleanup(func() {
		if n := from.up.Load(); n != 0 {
			t.Errorf("%d servers are left running", n)
		}
	})
	return Job{Suite: s, URL: func(spec.Arm) string { return "" }, Starter: from, Dir: t.TempDir()}
}

// TestRun starts each arm in each round, and takes up again after any round what
// was interrupted in the next, without measuring twice.
func TestRun(t *testing.T) {
	from := &simulated{t: t}
	j := job(t, suite(t, 3), from)
	ctx, interrupt := context.WithCancelCause(t.Context())
	cause := errors.New("interrupted")
	b := &Bench{}
	j.Progress = func(what string, done, total int) {
		if strings.HasPrefix(what, "round 2 of 2, nvfp4") || strings.HasPrefix(what, "round 2 of 2, fp8") {
			interrupt(cause)
		}
	}
	if _, err := b.Run(ctx, j); !errors.Is(err, cause) {
		t.Fatalf("an interrupted suite ends with %v", err)
	}
	begun := from.starts.Load()
	if _, have, err := readRound(j.Dir, 0); !have || err != nil {
		t.Fatalf("round 1 was complete and is not there (%v)", err)
	}
	if _, have, _ := readRound(j.Dir, 1); have {
		t.Error("the round that was interrupted is kept")
	}
	j.Progress = nil
	res, err := b.Run(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	if res.Rounds != 3 || res.Planned != 3 || res.Stopped != "" || len(res.Blocks) != 6 || len(res.Servers) != 6 || !res.Simulated {
		t.Errorf("%d of %d rounds, %q, %d blocks, %d servers, simulated %v", res.Rounds, res.Planned, res.Stopped, len(res.Blocks), len(res.Servers), res.Simulated)
	}
	if n := from.starts.Load() - begun; n != 4 {
		t.Errorf("%d servers were started for the two rounds that were left, want 4", n)
	}
	if res.GPUSeconds <= 0 || res.GPUSeconds > res.Seconds {
		t.Errorf("%g GPU seconds in %g s: one GPU was in use at a time", res.GPUSeconds, res.Seconds)
	}
	if len(res.Comparisons) == 0 {
		t.Error("nothing was compared")
	}
	requests, ready := 0, 0
	if err := b.Rows(j, res, func(r Rows) error {
		requests += len(r.Requests)
		for _, s := range r.Servers {
			if s.ReadyS.Valid && s.ReadyS.V == 1.5 {
				ready++
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if requests < 6*8 || ready == 0 {
		t.Errorf("%d requests, %d servers with the time of their start", requests, ready)
	}
	// All of it again costs nothing.
	again, err := b.Run(t.Context(), j)
	if err != nil || again.Rounds != 3 || again.Spend != res.Spend || from.starts.Load() != begun+4 {
		t.Errorf("a complete suite was measured again: %+v %v", again.Spend, err)
	}
}

// TestOther has a server be another between the beginning and the end of a cell:
// that cell is void, and the others are not for this reason.
func TestOther(t *testing.T) {
	from := &simulated{t: t, other: func(start, asked int) bool { return start == 2 && asked > 3 }}
	res, err := (&Bench{}).Run(t.Context(), job(t, suite(t, 2), from))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, b := range bench.Blocks(res.Blocks) {
		if b.Void && strings.Contains(b.Why, "start") {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d cells are void because their server was another, want 1: %+v", n, res.Blocks)
	}
}

// TestDies ends a suite with the reason, when a server cannot be had.
func TestDies(t *testing.T) {
	j := job(t, suite(t, 2), &simulated{t: t})
	j.Starter = failing{}
	if _, err := (&Bench{}).Run(t.Context(), j); err == nil || !strings.Contains(err.Error(), "no GPU is free") {
		t.Errorf("%v", err)
	}
	j.Starter = nil
	var user interface{ UserError() string }
	if _, err := (&Bench{}).Run(t.Context(), j); !errors.As(err, &user) || !strings.Contains(user.UserError(), "--server") {
		t.Errorf("%v", err)
	}
}

type failing struct{}

func (failing) Start(context.Context, spec.Arm) (servers.Server, error) {
	return nil, errors.New("no GPU is free")
}

// TestBounds ends a suite before a round that the caps cannot hold, or within one,
// and a resume does not spend more.
func TestBounds(t *testing.T) {
	price := func(spec.Arm) float64 { return 3600 } // a dollar a second
	for name, c := range map[string]struct {
		bounds Bounds
		want   string
	}{
		"within, wall":      {Bounds{Wall: 50 * time.Millisecond}, "wall time"},
		"within, GPU-hours": {Bounds{GPUHours: 0.05 / 3600}, "GPU-hours"},
		"within, USD":       {Bounds{USD: 0.05, Price: price}, "USD"},
	} {
		t.Run(name, func(t *testing.T) {
			s := suite(t, 2)
			s.Load.Requests = 400
			from := &simulated{t: t}
			j := job(t, s, from)
			j.Bounds = c.bounds
			began := time.Now()
			res, err := (&Bench{}).Run(t.Context(), j)
			if err != nil || res.Rounds != 0 || !strings.Contains(res.Stopped, c.want) || !strings.Contains(res.Stopped, "round 1, which is not counted") {
				t.Fatalf("%d rounds, %q, %v", res.Rounds, res.Stopped, err)
			}
			if res.Spend.Seconds <= 0 || time.Since(began) > 20*time.Second {
				t.Errorf("spent %+v in %s", res.Spend, time.Since(began))
			}
			starts := from.starts.Load()
			again, err := (&Bench{}).Run(t.Context(), j)
			if err != nil || again.Stopped != res.Stopped || from.starts.Load() != starts {
				t.Errorf("taken up again: %q, %v, %d starts more", again.Stopped, err, from.starts.Load()-starts)
			}
		})
	}
	t.Run("before a round", func(t *testing.T) {
		b := Bounds{GPUHours: 1, USD: 10, Wall: time.Hour}
		for _, c := range []struct {
			s      Spend
			rounds int
			stop   string
		}{
			{Spend{}, 0, ""},
			{Spend{Seconds: 600, GPUSeconds: 600, USD: 1}, 1, ""},
			{Spend{Seconds: 600, GPUSeconds: 600, USD: 6}, 1, "another round like the 1 before"},
			{Spend{Seconds: 3000, GPUSeconds: 600, USD: 1}, 2, "another round"},
			{Spend{Seconds: 600, GPUSeconds: 2500, USD: 1}, 2, "another round"},
			{Spend{Seconds: 600, GPUSeconds: 3600, USD: 1}, 5, "GPU-hours is used up"},
			{Spend{Seconds: 3600, GPUSeconds: 1, USD: 1}, 0, "wall time is used up"},
		} {
			if got := b.next(c.s, c.rounds); (got == "") != (c.stop == "") || !strings.Contains(got, c.stop) {
				t.Errorf("after %+v in %d rounds: %q, want %q", c.s, c.rounds, got, c.stop)
			}
		}
		if got := (Bounds{}).next(Spend{Seconds: 1e9, GPUSeconds: 1e9, USD: 1e9}, 9); got != "" {
			t.Errorf("without bounds: %q", got)
		}
	})
}

// TestKilled leaves a round as it was before or after it is written, at every
// moment in between.
func TestKilled(t *testing.T) {
	s := suite(t, 1)
	for _, point := range []string{"throughput:round:before", "throughput:round:after"} {
		from := &simulated{t: t}
		j := job(t, s, from)
		func() {
			defer func() { _ = recover() }()
			b := &Bench{Hook: func(p string) {
				if p == point {
					panic("killed")
				}
			}}
			_, _ = b.Run(t.Context(), j)
			t.Errorf("%s was not passed", point)
		}()
		res, err := (&Bench{}).Run(t.Context(), j)
		if err != nil || res.Rounds != 1 || len(res.Blocks) != 2 {
			t.Errorf("killed %s: %d rounds, %d blocks, %v", point, res.Rounds, len(res.Blocks), err)
		}
		if want := map[bool]int32{true: 2, false: 4}[strings.HasSuffix(point, "after")]; from.starts.Load() != want {
			t.Errorf("killed %s: %d starts, want %d", point, from.starts.Load(), want)
		}
	}
}

// TestDamaged names the round whose file cannot be read.
func TestDamaged(t *testing.T) {
	from := &simulated{t: t}
	j := job(t, suite(t, 1), from)
	if _, err := (&Bench{}).Run(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(roundFile(j.Dir, 0))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"empty": nil, "cut": whole[:len(whole)/2], "no gzip": []byte("{}")} {
		if err := os.WriteFile(filepath.Join(j.Dir, "round-000.json.gz"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := (&Bench{}).Run(t.Context(), j); err == nil || !strings.Contains(err.Error(), "read round 1") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestForeign measures servers that are not ours, and refuses claims on restarts.
func TestForeign(t *testing.T) {
	from := &simulated{t: t}
	srv, err := from.Start(t.Context(), arms[0])
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Stop(t.Context())
	j := Job{Suite: suite(t, 1), URL: func(spec.Arm) string { return srv.Endpoint() }, Dir: t.TempDir()}
	res, err := (&Bench{}).Run(t.Context(), j)
	if err != nil || res.Rounds != 1 || len(res.Servers) != 0 {
		t.Fatalf("%+v %v", res, err)
	}
	if got := strings.Join(res.Warnings, "\n"); strings.Count(got, "a claim that rests on restarts is refused") != 2 {
		t.Errorf("warnings %s", got)
	}
}

func TestPropose(t *testing.T) {
	s, err := Propose(Wish{}, arms, 0, true)
	if err != nil || s.Repeats != 3 || s.Seed != 1 || s.Load.Mode != load.Closed || s.Status != "auto" {
		t.Errorf("%+v %v", s, err)
	}
	specs, err := Specs(s)
	if err != nil || len(specs) != 6 {
		t.Errorf("%d cells by default, want 2 lengths at 3 concurrencies (%v)", len(specs), err)
	}
	if s, err := Propose(Wish{Rates: []float64{0.5, 4}, ISL: []int{8}, OSL: []int{8}}, arms, 1, true); err != nil || s.Load.Mode != load.Open {
		t.Errorf("rates: %+v %v", s.Load, err)
	}
	if s, err := Propose(Wish{}, arms[:1], 1, true); err != nil || s.Status != "blocked" {
		t.Errorf("one arm: %q %v", s.Status, err)
	}
	for name, w := range map[string]Wish{
		"both loops":   {Rates: []float64{1}, Concurrencies: []int{1}},
		"lengths":      {ISL: []int{1, 2}, OSL: []int{1}},
		"no output":    {ISL: []int{10}, OSL: []int{0}},
		"concurrency":  {Concurrencies: []int{-1}},
		"rate of none": {Rates: []float64{0}},
	} {
		if _, err := Propose(w, arms, 1, true); err == nil {
			t.Errorf("%s: %+v is accepted", name, w)
		}
	}
}

func TestRefusal(t *testing.T) {
	b := &Bench{}
	good := suite(t, 1)
	if why := b.Refusal(good); why != "" {
		t.Errorf("a good suite is refused: %s", why)
	}
	blocked, lone, empty := good, good, good
	blocked.Status, blocked.Reasons = "blocked", []string{"no GPU"}
	lone.Arms = arms[:1]
	empty.Load = nil
	for want, s := range map[string]spec.Suite{"(blocked): no GPU": blocked, "nothing to compare": lone, "says nothing of a load": empty} {
		if why := b.Refusal(s); !strings.Contains(why, want) {
			t.Errorf("%q, want %q", why, want)
		}
	}
}

func TestSetups(t *testing.T) {
	s := suite(t, 1)
	s.Load.TP = []int{1, 2, 2, 4, 0}
	var got []string
	for _, a := range setups(s, spec.Arm{Name: "fp8", TP: 2, GPUs: 2}) {
		got = append(got, fmt.Sprintf("%d/%d", a.TP, a.GPUs))
	}
	if want := "2/2 1/0 4/0"; strings.Join(got, " ") != want {
		t.Errorf("configurations %v, want %s", got, want)
	}
}
