package load_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/repromill/repromill/suites/load"
	"github.com/repromill/repromill/suites/load/measure"
	"github.com/repromill/repromill/suites/load/simserver"
	"github.com/repromill/repromill/suites/load/wire"
)

// silent takes requests and answers when the cell ends them.
type silent struct{ sent atomic.Int64 }

func (s *silent) Do(ctx context.Context, _ []byte, _ func([]byte, int64) error) (wire.Answer, error) {
	s.sent.Add(1)
	<-ctx.Done()
	return wire.Answer{}, context.Cause(ctx)
}

// TestTooManyStreams: a closed loop that cannot have a file for each stream is
// refused before anything is sent.
func TestTooManyStreams(t *testing.T) {
	var s silent
	cfg := load.Config{Clock: wire.NewClock(), Endpoints: []load.Sender{&s}, Prompts: load.Words{}, Files: 256}
	_, err := load.Run(t.Context(), cfg, mustSchedule(t, load.Spec{Mode: load.Closed, Concurrency: 10_000, Requests: 10_000, ISL: load.Length{Mean: 1}, OSL: load.Length{Mean: 1}}))
	var files *load.FilesError
	if !errors.As(err, &files) || files.Streams != 10_000 || s.sent.Load() != 0 {
		t.Errorf("%v, %d sent", err, s.sent.Load())
	}
	cfg.MaxOpen = 300
	_, err = load.Run(t.Context(), cfg, mustSchedule(t, load.Spec{Mode: load.Open, Rate: 1000, Requests: 1000, ISL: load.Length{Mean: 1}, OSL: load.Length{Mean: 1}}))
	if !errors.As(err, &files) || s.sent.Load() != 0 {
		t.Errorf("--max-open above the limit: %v", err)
	}
}

// TestSlowerThanTheScheduleForEver: an open loop against a server that never
// answers has no more in flight than files allow, says so, and ends.
func TestSlowerThanTheScheduleForEver(t *testing.T) {
	t.Parallel()
	var s silent
	cfg := load.Config{Clock: wire.NewClock(), Endpoints: []load.Sender{&s}, Prompts: load.Words{}, Files: 100, Drain: 200 * time.Millisecond}
	res, err := load.Run(t.Context(), cfg, mustSchedule(t, load.Spec{Mode: load.Open, Rate: 4000, Requests: 2000, ISL: load.Length{Mean: 1}, OSL: load.Length{Mean: 1}}))
	if err != nil {
		t.Fatal(err)
	}
	if res.Peak > 100 || s.sent.Load() > 2000 || res.Waited < 1800 || len(res.Records) != 2000 {
		t.Errorf("peak %d, %d sent, %d waited, %d records", res.Peak, s.sent.Load(), res.Waited, len(res.Records))
	}
	flags := measure.Sum(res, measure.Config{}).Flags
	if !slices.ContainsFunc(flags, func(f measure.Flag) bool { return f.Code == measure.ClientLimited && f.Void }) {
		t.Errorf("%+v", flags)
	}
}

// TestSleep: the clock on the wall goes on while a laptop sleeps.
func TestSleep(t *testing.T) {
	t.Parallel()
	_, c, clock := serve(t, simserver.Config{StepBase: time.Millisecond})
	asked := 0
	now := func() time.Time {
		if asked++; asked > 1 {
			return time.Now().Add(time.Hour)
		}
		return time.Now()
	}
	res, err := load.Run(t.Context(), load.Config{Clock: clock, Endpoints: []load.Sender{c}, Prompts: load.Words{Model: "simulated", Chat: true}, Now: now},
		mustSchedule(t, load.Spec{Mode: load.Closed, Concurrency: 1, Requests: 2, ISL: load.Length{Mean: 8}, OSL: load.Length{Mean: 2}}))
	if err != nil || math.Abs(res.Slept.Minutes()-60) > 1 {
		t.Fatalf("slept %v, %v", res.Slept, err)
	}
	flags := measure.Sum(res, measure.Config{}).Flags
	if !slices.ContainsFunc(flags, func(f measure.Flag) bool { return f.Code == measure.Slept && f.Void }) {
		t.Errorf("%+v", flags)
	}
}

// TestStallHiddenByServiceTime: a server stands still for a second, and no more
// than two requests are in flight, as with a client's semaphore. From the moment
// of sending, two requests were slow; from the moment at which each was meant to
// be sent, everybody was who came meanwhile.
func TestStallHiddenByServiceTime(t *testing.T) {
	t.Parallel()
	const stall = time.Second
	_, c, clock := serve(t, simserver.Config{StepBase: time.Millisecond, Stalls: []simserver.Stall{{At: 500 * time.Millisecond, For: stall}}})
	res, err := load.Run(t.Context(), load.Config{Clock: clock, Endpoints: []load.Sender{c}, Prompts: load.Words{Model: "simulated", Chat: true}, MaxOpen: 2},
		mustSchedule(t, load.Spec{Mode: load.Open, Arrivals: load.Constant, Rate: 60, Requests: 150, ISL: load.Length{Mean: 8}, OSL: load.Length{Mean: 2}}))
	if err != nil {
		t.Fatal(err)
	}
	s := measure.Sum(res, measure.Config{}).Whole
	service, response := s.TTFT.P(90), s.TTFTIntended.P(90)
	t.Logf("TTFT p90 as service time %.1f ms, as response time %.1f ms", 1e3*service, 1e3*response)
	if service > 0.2 || response < 0.5 {
		t.Errorf("TTFT p90 is %.3f s as service time and %.3f s as response time", service, response)
	}
}

// TestMixedLineEndings: one answer may end its lines in three ways.
func TestMixedLineEndings(t *testing.T) {
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for i, end := range []string{"\n\n", "\r\n\r\n", "\r\r", "\r\n\n", "\n\r\n"} {
			fmt.Fprintf(w, "data: {\"choices\":[{\"delta\":{\"content\":\"w%d\"}}]}%s", i, end)
			_ = http.NewResponseController(w).Flush()
		}
		fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\r\n\r\n", "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5}}\n\n", "data: [DONE]\r\r")
	}))
	defer h.Close()
	clock := wire.NewClock()
	c, err := wire.New(wire.Config{URL: h.URL, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	res := cell(t, t.Context(), c, clock, mustSchedule(t, load.Spec{Mode: load.Closed, Concurrency: 1, Requests: 2, ISL: load.Length{Mean: 3}, OSL: load.Length{Mean: 5}}))
	for _, r := range res.Records {
		if r.Status != load.OK || r.Chunks != 5 || r.OSL != 5 {
			t.Errorf("%+v", r)
		}
	}
}

// instant answers at once.
type instant struct{ clock wire.Clock }

var oneToken = [][]byte{[]byte(`{"choices":[{"delta":{"content":"a"}}]}`), []byte(`{"choices":[{"delta":{},"finish_reason":"length"}]}`), []byte("[DONE]")}

func (s instant) Do(_ context.Context, _ []byte, event func([]byte, int64) error) (wire.Answer, error) {
	now := s.clock.Now()
	for _, e := range oneToken {
		if err := event(bytes.Clone(e), now); err != nil {
			return wire.Answer{}, err
		}
	}
	return wire.Answer{Start: now, Sent: now, Headers: now, FirstByte: now, End: now, Status: 200}, nil
}

// BenchmarkScheduling is how late requests begin at 2,000 a second.
func BenchmarkScheduling(b *testing.B) {
	clock := wire.NewClock()
	s := mustSchedule(b, load.Spec{Mode: load.Open, Rate: 2000, Requests: 8000, ISL: load.Length{Mean: 64}, OSL: load.Length{Mean: 1}, Seed: 1})
	for b.Loop() {
		res, err := load.Run(b.Context(), load.Config{Clock: clock, Endpoints: []load.Sender{instant{clock}}, Prompts: load.Words{Chat: true}}, s)
		if err != nil {
			b.Fatal(err)
		}
		late := make([]float64, len(res.Records))
		for i, r := range res.Records {
			late[i] = float64(r.SendLag) / 1e6
		}
		slices.Sort(late)
		b.ReportMetric(late[len(late)/2], "p50-ms-late")
		b.ReportMetric(late[len(late)*99/100], "p99-ms-late")
		b.ReportMetric(late[len(late)-1], "max-ms-late")
	}
}
