package load_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/suites/load"
	"github.com/repromill/repromill/suites/load/simserver"
	"github.com/repromill/repromill/suites/load/wire"
)

// serve starts a simulated server and returns a client of its chat endpoint.
func serve(t testing.TB, cfg simserver.Config) (*simserver.Server, *wire.Client, wire.Clock) {
	t.Helper()
	s := simserver.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.Run(ctx); close(done) }()
	h := httptest.NewServer(s)
	clock := wire.NewClock()
	c, err := wire.New(wire.Config{URL: h.URL + "/v1/chat/completions", Clock: clock, IdleTimeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		cancel()
		<-done
		h.CloseClientConnections()
		h.Close()
	})
	return s, c, clock
}

func mustSchedule(t testing.TB, s load.Spec) load.Schedule {
	t.Helper()
	out, err := load.NewSchedule(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func cell(t testing.TB, ctx context.Context, c *wire.Client, clock wire.Clock, s load.Schedule) *load.Result {
	t.Helper()
	res, err := load.Run(ctx, load.Config{Clock: clock, Endpoints: []load.Sender{c}, Prompts: load.Words{Model: "simulated", Chat: true}, Timeout: time.Minute}, s)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestScheduleIsFixedBySeed(t *testing.T) {
	spec := load.Spec{Mode: load.Open, Rate: 100, Requests: 1000, ISL: load.Length{Mean: 100, Spread: 0.5}, OSL: load.Length{Mean: 10}, Seed: 7}
	a, b := mustSchedule(t, spec), mustSchedule(t, spec)
	if !slices.Equal(a.Requests, b.Requests) {
		t.Error("one seed gave two schedules")
	}
	spec.OSL.Mean = 20
	for i, r := range mustSchedule(t, spec).Requests {
		if r.At != a.Requests[i].At {
			t.Fatal("other lengths moved the arrivals")
		}
	}
	spec.Seed = 8
	if slices.Equal(mustSchedule(t, spec).Requests, a.Requests) {
		t.Error("another seed gave the same schedule")
	}
}

// TestArrivals checks mean and squared coefficient of variation of the gaps: 1
// for Poisson, 1/shape for gamma, 0 for constant.
func TestArrivals(t *testing.T) {
	for _, c := range []struct {
		arrivals string
		shape    float64
		cv2      float64
	}{{load.Poisson, 0, 1}, {load.Gamma, 1, 1}, {load.Gamma, 0.25, 4}, {load.Gamma, 4, 0.25}, {load.Constant, 0, 0}} {
		const n = 200_000
		s := mustSchedule(t, load.Spec{Mode: load.Open, Arrivals: c.arrivals, Burstiness: c.shape, Rate: 50, Requests: n, ISL: load.Length{Mean: 1}, OSL: load.Length{Mean: 1}, Seed: 1})
		var sum, sq float64
		last := time.Duration(0)
		for _, r := range s.Requests {
			g := (r.At - last).Seconds()
			last = r.At
			sum += g
			sq += g * g
		}
		mean := sum / n
		cv2 := (sq/n - mean*mean) / (mean * mean)
		if math.Abs(mean*50-1) > 0.02 || math.Abs(cv2-c.cv2) > 0.05*max(1, c.cv2) {
			t.Errorf("%s %g: rate %.2f, cv² %.3f, want 50 and %.3f", c.arrivals, c.shape, 1/mean, cv2, c.cv2)
		}
	}
}

func TestBadSpecs(t *testing.T) {
	good := load.Spec{Mode: load.Open, Rate: 1, Requests: 1, ISL: load.Length{Mean: 1}, OSL: load.Length{Mean: 1}}
	for name, change := range map[string]func(*load.Spec){
		"mode":        func(s *load.Spec) { s.Mode = "ajar" },
		"rate":        func(s *load.Spec) { s.Rate = 0 },
		"NaN":         func(s *load.Spec) { s.Rate = math.NaN() },
		"arrivals":    func(s *load.Spec) { s.Arrivals = "weekly" },
		"requests":    func(s *load.Spec) { s.Requests = 0 },
		"lengths":     func(s *load.Spec) { s.ISL.Mean = 0 },
		"spread":      func(s *load.Spec) { s.OSL.Spread = 1 },
		"burstiness":  func(s *load.Spec) { s.Arrivals, s.Burstiness = load.Gamma, -1 },
		"empty trace": func(s *load.Spec) { s.Arrivals = load.Trace },
		"closed":      func(s *load.Spec) { s.Mode = load.Closed },
		"unsorted": func(s *load.Spec) {
			s.Arrivals, s.Trace = load.Trace, []load.Request{{At: 2, ISL: 1, OSL: 1}, {At: 1, ISL: 1, OSL: 1}}
		},
	} {
		s := good
		change(&s)
		_, err := load.NewSchedule(s)
		var user interface{ UserError() string }
		if !errors.As(err, &user) || user.UserError() == "" {
			t.Errorf("%s: %v is no user error with a fix", name, err)
		}
	}
	if _, err := load.NewSchedule(good); err != nil {
		t.Error(err)
	}
}

func TestClosedLoop(t *testing.T) {
	s, c, clock := serve(t, simserver.Config{StepBase: 2 * time.Millisecond})
	res := cell(t, t.Context(), c, clock, mustSchedule(t, load.Spec{Mode: load.Closed, Concurrency: 8, Requests: 60, Warmup: 4, ISL: load.Length{Mean: 64}, OSL: load.Length{Mean: 16}, Seed: 3}))
	if len(res.Records) != 64 || res.Peak != 8 {
		t.Fatalf("%d records, peak %d; want 64 and 8", len(res.Records), res.Peak)
	}
	for _, r := range res.Records {
		if r.Status != load.OK || r.OSL != 16 || r.Chunks != 16 || len(r.Gaps) != 15 || r.Finish != "length" || r.ISL != 64+4 {
			t.Fatalf("request %d: %+v", r.Index, r)
		}
		order := []int64{r.Intended, r.Start, r.Sent, r.Headers, r.FirstByte, r.FirstRole, r.FirstContent, r.LastText, r.End}
		if !slices.IsSorted(order) {
			t.Fatalf("request %d: times are out of order: %v", r.Index, order)
		}
		var gaps int64
		for _, g := range r.Gaps {
			gaps += int64(g)
		}
		if d := (r.LastText-r.FirstText)/1000 - gaps; d < 0 || d > 15 {
			t.Fatalf("gaps sum up to %d µs, first to last is %d µs", gaps, (r.LastText-r.FirstText)/1000)
		}
		if r.Warmup != (r.Index < 4) {
			t.Fatalf("request %d: warm-up is %v", r.Index, r.Warmup)
		}
	}
	if st := s.Stats(); st.OutputTokens != 64*16 || st.PrefixHits != 0 {
		t.Errorf("the server counts %+v", st)
	}
}

// TestStall: a server that stands still for a second. The closed loop sees one
// slow round and forgets; the open loop's response times show everybody who
// would have waited.
func TestStall(t *testing.T) {
	const stall = 600 * time.Millisecond
	_, c, clock := serve(t, simserver.Config{StepBase: time.Millisecond, MaxBatch: 2, Stalls: []simserver.Stall{{At: 300 * time.Millisecond, For: stall}}})
	res := cell(t, t.Context(), c, clock, mustSchedule(t, load.Spec{Mode: load.Open, Arrivals: load.Constant, Rate: 100, Requests: 120, ISL: load.Length{Mean: 8}, OSL: load.Length{Mean: 4}, Seed: 3}))
	slow := 0
	for _, r := range res.Records {
		if r.Status != load.OK {
			t.Fatalf("%+v", r)
		}
		if r.FirstText-r.Intended > int64(stall/4) {
			slow++
		}
	}
	if slow < 30 {
		t.Errorf("%d of 120 requests waited for the stall, want at least the 45 that arrived in its first three quarters, or nearly", slow)
	}
}

func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		faults simserver.Faults
		status string
		error  string
	}{
		"refused":        {simserver.Faults{Refuse: 1}, load.Failed, "HTTP 500"},
		"too many":       {simserver.Faults{TooMany: 1}, load.Failed, "HTTP 429"},
		"closed":         {simserver.Faults{CloseMid: 1}, load.Incomplete, "EOF"},
		"malformed":      {simserver.Faults{Malformed: 1}, load.Failed, "no chunk"},
		"error inside":   {simserver.Faults{ErrorMid: 1}, load.Failed, "simulated failure"},
		"no done":        {simserver.Faults{NoDone: true}, load.OK, ""},
		"html":           {simserver.Faults{HTML: true}, load.Failed, "HTTP 502"},
		"CRLF":           {simserver.Faults{CRLF: true}, load.OK, ""},
		"8 MB line":      {simserver.Faults{BigLine: 8 << 20}, load.OK, ""},
		"no role":        {simserver.Faults{NoRole: true}, load.OK, ""},
		"many per chunk": {simserver.Faults{PerChunk: 3}, load.OK, ""},
		"reasoning":      {simserver.Faults{Reasoning: 0.5}, load.OK, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, cl, clock := serve(t, simserver.Config{StepBase: time.Millisecond, Faults: c.faults})
			res := cell(t, t.Context(), cl, clock, mustSchedule(t, load.Spec{Mode: load.Closed, Concurrency: 2, Requests: 4, ISL: load.Length{Mean: 8}, OSL: load.Length{Mean: 10}, Seed: 3}))
			for _, r := range res.Records {
				if r.Status != c.status || !strings.Contains(r.Error, c.error) {
					t.Errorf("status %s (%s), want %s (%s)", r.Status, r.Error, c.status, c.error)
				}
				switch {
				case name == "many per chunk" && (r.Chunks != 4 || r.OSL != 10):
					t.Errorf("%d chunks of %d tokens", r.Chunks, r.OSL)
				case name == "reasoning" && (r.FirstReasoning < 0 || r.FirstContent < r.FirstReasoning || r.Reasoning != 5 || r.FirstText != r.FirstReasoning):
					t.Errorf("%+v", r)
				case name == "no role" && r.FirstRole >= 0:
					t.Error("a role that was never sent")
				}
			}
		})
	}
}

// TestStop: what was measured before the user stops is kept.
func TestStop(t *testing.T) {
	_, c, clock := serve(t, simserver.Config{StepBase: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := mustSchedule(t, load.Spec{Mode: load.Open, Rate: 50, Requests: 5000, ISL: load.Length{Mean: 8}, OSL: load.Length{Mean: 4}})
	time.AfterFunc(700*time.Millisecond, cancel)
	res := cell(t, ctx, c, clock, s)
	if !res.Stopped || len(res.Records) == 0 || len(res.Records) > 1000 {
		t.Errorf("stopped %v with %d records", res.Stopped, len(res.Records))
	}
	if ok := slices.IndexFunc(res.Records, func(r *load.Record) bool { return r.Status == load.OK }); ok < 0 {
		t.Error("nothing was kept")
	}
}

// TestNeverAnswers: a server that never says anything does not hold a cell up
// beyond its drain.
func TestNeverAnswers(t *testing.T) {
	quit := make(chan struct{})
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-quit }))
	defer h.Close()
	defer close(quit)
	clock := wire.NewClock()
	c, err := wire.New(wire.Config{URL: h.URL, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	res, err := load.Run(t.Context(), load.Config{Clock: clock, Endpoints: []load.Sender{c}, Prompts: load.Words{}, Drain: 300 * time.Millisecond},
		mustSchedule(t, load.Spec{Mode: load.Open, Rate: 100, Requests: 5, ISL: load.Length{Mean: 8}, OSL: load.Length{Mean: 4}}))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range res.Records {
		if r.Status != load.Cancelled {
			t.Errorf("status %s: %s", r.Status, r.Error)
		}
	}
}

// TestPreemption: a cache too small for what runs makes the engine preempt, and
// no token is lost or doubled by it.
func TestPreemption(t *testing.T) {
	s, c, clock := serve(t, simserver.Config{StepBase: 500 * time.Microsecond, KVTokens: 640})
	res := cell(t, t.Context(), c, clock, mustSchedule(t, load.Spec{Mode: load.Closed, Concurrency: 8, Requests: 16, ISL: load.Length{Mean: 60}, OSL: load.Length{Mean: 80}}))
	for _, r := range res.Records {
		if r.Status != load.OK || r.OSL != 80 || r.Chunks != 80 {
			t.Errorf("%+v", r)
		}
	}
	if s.Stats().Preemptions == 0 {
		t.Error("nothing was preempted")
	}
}

func TestCalibrate(t *testing.T) {
	_, c, _ := serve(t, simserver.Config{StepBase: time.Millisecond})
	w, err := load.Words{Model: "simulated", Chat: true}.Calibrate(t.Context(), c, 1)
	if err != nil || w.PerWord != 1 || w.Overhead != 4 {
		t.Errorf("%+v, %v", w, err)
	}
	_, c, _ = serve(t, simserver.Config{Faults: simserver.Faults{NoUsage: true}})
	if _, err := (load.Words{Model: "simulated", Chat: true}).Calibrate(t.Context(), c, 1); err == nil || !strings.Contains(err.Error(), "usage") {
		t.Errorf("%v", err)
	}
}

func TestSplit(t *testing.T) {
	s := &load.Split{Threshold: 100, ShortPool: []int{0, 1}, LongPool: []int{2}, Percentile: 90}
	r := load.Request{ISL: 20, OSL: 500, Class: "chat"}
	if e, p := s.Route(r); e != 2 || p != load.Long {
		t.Errorf("before anything is known: %d %s", e, p)
	}
	for range 50 {
		s.Done(r, &load.Record{Status: load.OK, OSL: 10})
	}
	var got []int
	for range 4 {
		e, _ := s.Route(r)
		got = append(got, e)
	}
	if !slices.Equal(got, []int{0, 1, 0, 1}) {
		t.Errorf("routed to %v", got)
	}
	for range 3000 {
		s.Done(r, &load.Record{Status: load.OK, OSL: 400})
	}
	if e := s.Expect(r); e != 420 {
		t.Errorf("expects %d tokens", e)
	}
}

func FuzzParseTrace(f *testing.F) {
	f.Add([]byte(`{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [1,2]}
{"timestamp": 30535, "input_length": 6472, "output_length": 26}`))
	f.Add([]byte(`{"timestamp": 1e300, "input_length": -1}`))
	f.Add([]byte(`{"timestamp": null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		reqs, err := load.ParseTrace(b, time.Millisecond)
		if err != nil {
			return
		}
		_, _ = load.NewSchedule(load.Spec{Mode: load.Open, Arrivals: load.Trace, Trace: reqs})
	})
}

// TestTruth: a null server says how its streams were paced, and what is measured
// on it is that.
func TestTruth(t *testing.T) {
	s := simserver.New(simserver.Config{Null: true, TTFT: 50 * time.Millisecond, ITL: 10 * time.Millisecond})
	h := httptest.NewServer(s)
	defer h.Close()
	clock := wire.NewClock()
	c, err := wire.New(wire.Config{URL: h.URL + "/v1/chat/completions", Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cell(t, t.Context(), c, clock, mustSchedule(t, load.Spec{Mode: load.Closed, Concurrency: 2, Requests: 4, ISL: load.Length{Mean: 8}, OSL: load.Length{Mean: 10}}))
	var p simserver.Pace
	for range 2 { // asking begins anew
		res, err := http.Get(h.URL + "/truth")
		if err != nil {
			t.Fatal(err)
		}
		if p.Requests == 0 {
			if err := json.NewDecoder(res.Body).Decode(&p); err != nil || p.Requests != 4 || p.Events != 40 || p.TTFT.P50 < 50 || p.Mean.P50 < 8 || p.Gap.Max < 10 || p.Streams != 2 || p.EventsPerS <= 0 {
				t.Errorf("%+v, %v", p, err)
			}
		} else if err := json.NewDecoder(res.Body).Decode(&p); err != nil || p.Requests != 0 {
			t.Errorf("asked again: %+v, %v", p, err)
		}
		res.Body.Close()
	}
}
