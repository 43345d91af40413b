package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/repromill/repromill/suites/load"
	"github.com/repromill/repromill/suites/load/measure"
	"github.com/repromill/repromill/suites/load/wire"
)

// Check is what the load generator can do on this machine, measured on a null
// server whose events carry the moment at which they were written.
type Check struct {
	Requests   int     `json:"requests"`
	Events     int64   `json:"events"`
	EventsPerS float64 `json:"events_per_s"`
	Streams    int     `json:"peak_streams"`
	LagP50     float64 `json:"lag_p50_s"` // from the server's write to our read
	LagP99     float64 `json:"lag_p99_s"`
	LagMax     float64 `json:"lag_max_s"`
	SendP99    float64 `json:"send_lag_p99_s"` // from the scheduled moment to the request's begin
	ClientCPU  float64 `json:"client_cpu_share"`
	ClientRSS  int64   `json:"client_peak_rss_bytes"` // of the process, since it started
}

// The self-check replays so much of a schedule at most.
const (
	checkTime   = 3 * time.Second       // of arrivals, or of one stream
	checkRounds = 3                     // closed loop: requests of each worker
	fastest     = 50 * time.Microsecond // between two tokens of a stream: nobody is faster for long
)

// check replays the beginning of a schedule against the null server, whose
// streams give a token every itl.
func (b *Bench) check(ctx context.Context, s load.Schedule, itl time.Duration) (*Check, error) {
	most := max(8, int(checkTime/itl)) // tokens of one stream
	short := s
	short.Requests = nil
	for i, r := range s.Requests {
		if s.Mode == load.Open && r.At > checkTime || s.Mode == load.Closed && i >= checkRounds*s.Concurrency {
			break
		}
		r.OSL = min(r.OSL, most)
		short.Requests = append(short.Requests, r)
	}
	short.Warmup = 0
	return replay(ctx, b.clock, b.cfg.NullURL, short, itl)
}

// Prove measures what the load generator can do at so many streams and events
// per second, for about the given time.
func Prove(ctx context.Context, nullURL string, streams int, eventsPerS float64, seed uint64, d time.Duration) (*Check, error) {
	itl := time.Duration(float64(streams) / eventsPerS * float64(time.Second))
	s, err := load.NewSchedule(load.Spec{Mode: load.Closed, Concurrency: streams, Requests: streams, ISL: load.Length{Mean: 32}, OSL: load.Length{Mean: max(2, int(d/itl))}, Seed: seed})
	if err != nil {
		return nil, err
	}
	return replay(ctx, wire.NewClock(), nullURL, s, itl)
}

func replay(ctx context.Context, clock wire.Clock, nullURL string, s load.Schedule, itl time.Duration) (*Check, error) {
	c, err := wire.New(wire.Config{URL: nullURL + "/v1/chat/completions", Clock: clock, MaxIdle: len(s.Requests)})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	lag := load.NewLag()
	res, err := load.Run(ctx, load.Config{Clock: clock, Endpoints: []load.Sender{c}, Prompts: load.Words{Chat: true, Extra: map[string]any{"null_itl_ns": int64(itl)}}, Timeout: 2 * time.Minute, Lag: lag}, s)
	if err != nil {
		return nil, err
	}
	sum := measure.Sum(res, measure.Config{})
	if n := sum.Statuses[load.OK]; n < len(s.Requests) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("%d of %d requests to the null server failed", len(s.Requests)-n, len(s.Requests))
	}
	out := &Check{Requests: len(s.Requests), Events: lag.N(), EventsPerS: sum.Events, Streams: res.Peak, ClientCPU: res.Client.CPUShare, ClientRSS: res.Client.PeakRSS,
		LagP50: lag.At(50).Seconds(), LagP99: lag.At(99).Seconds(), LagMax: lag.At(100).Seconds()}
	// Whatever the sample supports: here it is our own figure, not the server's.
	lags := make([]float64, 0, len(res.Records))
	for _, r := range res.Records {
		lags = append(lags, float64(max(0, r.SendLag))/1e9)
	}
	out.SendP99 = measure.Percentile(lags, 99)
	return out, nil
}
