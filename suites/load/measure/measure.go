// Package measure turns the records of a cell into the numbers that people
// compare: TTFT, TPOT, ITL, end-to-end latency, throughput and goodput, each
// with an interval, and says where a number must not be believed.
//
// Latencies are in seconds and come twice: as service time, from the moment the
// request was sent, and as response time, from the moment it was meant to be
// sent. The latter is what a user waits and is free of coordinated omission.
package measure

import (
	"cmp"
	"slices"
	"time"

	"github.com/repromill/repromill/suites/load"
)

// Request is what follows from one record; seconds and counts, NaN or -1 where
// it cannot be known.
type Request struct {
	TTFT         float64 // from sent to the first token, reasoning or content
	TTFTIntended float64 // from intended
	TPOT         float64 // (E2E - TTFT) / (OSL - 1)
	E2E          float64 // from sent to the last token
	E2EIntended  float64
	OSL          int       // as the server counted, else chunks with text
	ITL          []float64 // per token: a chunk's gap is spread over its tokens
	SLOMet       bool
}

// Derive derives one request's numbers from its record.
func Derive(r *load.Record, slo SLO) Request {
	s := func(from, to int64) float64 {
		if from < 0 || to < 0 {
			return nan
		}
		return float64(to-from) / 1e9
	}
	q := Request{TTFT: s(r.Sent, r.FirstText), TTFTIntended: s(r.Intended, r.FirstText), E2E: s(r.Sent, r.LastText), E2EIntended: s(r.Intended, r.LastText), OSL: r.OSL, TPOT: nan}
	if r.FirstText < 0 {
		// Without text there is no token to time; the answer's end is what was waited for.
		q.E2E, q.E2EIntended = s(r.Sent, r.End), s(r.Intended, r.End)
	}
	if q.OSL < 0 {
		q.OSL = r.Chunks
	}
	if q.OSL > 1 && r.Chunks > 1 {
		q.TPOT = s(r.FirstText, r.LastText) / float64(q.OSL-1)
	}
	q.ITL = itl(r)
	q.SLOMet = r.Status == load.OK && slo.met(q)
	return q
}

// itl spreads each gap over the tokens that it brought.
func itl(r *load.Record) []float64 {
	out := make([]float64, 0, len(r.Gaps))
	counted := len(r.Tokens) == len(r.Gaps)+1
	for i, g := range r.Gaps {
		n := 1
		if counted {
			n = int(r.Tokens[i+1])
		}
		for range n {
			out = append(out, float64(g)/1e6/float64(n))
		}
	}
	return out
}

// SLO is what a request must keep to count towards goodput; seconds, 0 for no
// bound. TTFT and E2E are bounds on response time.
type SLO struct {
	TTFT, TPOT, E2E float64
}

func (s SLO) met(q Request) bool {
	ok := func(bound, v float64) bool { return bound == 0 || v <= bound } // a NaN is over any bound
	return ok(s.TTFT, q.TTFTIntended) && (ok(s.TPOT, q.TPOT) || q.OSL <= 1) && ok(s.E2E, q.E2EIntended)
}

// Summary is a cell in numbers.
type Summary struct {
	Sent       int            `json:"sent"` // measured ones: warm-up is left out everywhere
	Statuses   map[string]int `json:"statuses"`
	Whole      Part           `json:"whole_run"`        // ramp and drain included, as most tools report
	Steady     *Part          `json:"steady,omitempty"` // the window in which load was even; nil when there was none
	SteadyWhy  string         `json:"steady_why"`       // how the window was found, or why there is none
	Requested  float64        `json:"requested_rate,omitempty"`
	Scheduled  float64        `json:"scheduled_rate,omitempty"` // that the schedule came to: a short Poisson one is off by its nature
	Achieved   float64        `json:"achieved_rate,omitempty"`  // of sending, open loop
	SendLag    Dist           `json:"send_lag_s"`
	ReadLag    *Dist          `json:"read_lag_s,omitempty"`
	Tools      []Column       `json:"tools"`
	Flags      []Flag         `json:"flags,omitempty"`
	Peak       int            `json:"peak_concurrency"`
	Events     float64        `json:"events_per_s"` // chunks with text
	ClientCPU  float64        `json:"client_cpu_share"`
	ClientWake float64        `json:"client_wake_p99_s"`
	GCPauseMax float64        `json:"client_gc_pause_max_s"`
}

// Part is what was measured in one stretch of a cell.
type Part struct {
	From         float64 `json:"from_s"` // after the cell's start
	To           float64 `json:"to_s"`
	Requests     int     `json:"requests"` // finished well within it
	RequestRate  Rate    `json:"requests_per_s"`
	OutputRate   Rate    `json:"output_tokens_per_s"`
	TotalRate    Rate    `json:"total_tokens_per_s"` // input and output
	Goodput      Rate    `json:"goodput_requests_per_s"`
	SLOFraction  float64 `json:"slo_fraction"`
	TTFT         Dist    `json:"ttft_s"`
	TTFTIntended Dist    `json:"ttft_intended_s"`
	TPOT         Dist    `json:"tpot_s"`
	ITL          Dist    `json:"itl_s"`
	E2E          Dist    `json:"e2e_s"`
	E2EIntended  Dist    `json:"e2e_intended_s"`
	Interactive  float64 `json:"tokens_per_s_per_user"` // 1 / median TPOT
}

// Config says how a cell is summed up.
type Config struct {
	SLO         SLO
	Percentiles []float64 // 0 to 100; nil for 50, 90, 95, 99
	Seed        uint64    // of the bootstrap
	Proven      float64   // events per second at which the client's own lag was measured; 0 when it was not
	ProvenLag   float64   // that lag, p99 over events, seconds
}

// Sum sums up a cell.
func Sum(res *load.Result, cfg Config) Summary {
	if cfg.Percentiles == nil {
		cfg.Percentiles = []float64{50, 90, 95, 99}
	}
	recs := make([]*load.Record, 0, len(res.Records))
	for _, r := range res.Records {
		if !r.Warmup {
			recs = append(recs, r)
		}
	}
	out := Summary{Sent: len(recs), Statuses: map[string]int{}, Peak: res.Peak, Requested: res.Schedule.Rate,
		ClientCPU: res.Client.CPUShare, ClientWake: res.Client.WakeP99.Seconds(), GCPauseMax: res.Client.GCPauseMax.Seconds()}
	var lag, read []float64
	var events int
	last := int64(0)
	for _, r := range recs {
		out.Statuses[r.Status]++
		events += r.Chunks
		if r.Start >= 0 {
			lag = append(lag, float64(max(0, r.SendLag))/1e9)
		}
		if r.ReadLag >= 0 {
			read = append(read, float64(r.ReadLag)/1e9)
		}
		last = max(last, r.End)
	}
	first := int64(0)
	if len(recs) > 0 {
		first = recs[0].Intended
	}
	span := max(1e-9, float64(last-first)/1e9)
	out.Events = float64(events) / span
	out.SendLag = newDist(lag, cfg)
	if len(read) > 0 {
		d := newDist(read, cfg)
		out.ReadLag = &d
	}
	out.Achieved = rateOf(recs, func(r *load.Record) int64 { return r.Start })
	if res.Schedule.Mode == load.Open {
		out.Scheduled = rateOf(recs, func(r *load.Record) int64 { return r.Intended })
	}
	out.Whole = part(recs, first, last, cfg)
	from, to, why, ok := steady(res, recs)
	out.SteadyWhy = why
	if ok {
		p := part(recs, from, to, cfg)
		out.Steady = &p
	}
	out.Tools = tools(recs, span, cfg)
	out.Flags = flags(res, recs, &out, cfg)
	return out
}

// rateOf is the rate of moments by the rule of arrivals: gaps over time. It is
// over the requests that were begun.
func rateOf(recs []*load.Record, at func(*load.Record) int64) float64 {
	var all []int64
	for _, r := range recs {
		if r.Start >= 0 {
			all = append(all, at(r))
		}
	}
	if len(all) < 2 {
		return 0
	}
	slices.Sort(all)
	return float64(len(all)-1) / max(1e-9, float64(all[len(all)-1]-all[0])/1e9)
}

// part sums up the requests that ended well between two moments, and all tokens
// that came in it, whosever they are.
func part(recs []*load.Record, from, to int64, cfg Config) Part {
	p := Part{From: float64(from) / 1e9, To: float64(to) / 1e9}
	in := slices.Clone(recs)
	slices.SortStableFunc(in, func(a, b *load.Record) int { return cmp.Compare(a.End, b.End) })
	in = slices.DeleteFunc(in, func(r *load.Record) bool { return r.Status != load.OK || r.End < from || r.End > to })
	p.Requests = len(in)
	var ttft, ttftI, tpot, e2e, e2eI, itls []float64
	good := 0
	b := newBins(from, to)
	for _, r := range in {
		q := Derive(r, cfg.SLO)
		ttft, ttftI = keep(ttft, q.TTFT), keep(ttftI, q.TTFTIntended)
		tpot, e2e, e2eI = keep(tpot, q.TPOT), keep(e2e, q.E2E), keep(e2eI, q.E2EIntended)
		itls = append(itls, q.ITL...)
		b.add(b.requests, r.End, 1)
		if q.SLOMet {
			good++
			b.add(b.good, r.End, 1)
		}
	}
	for _, r := range recs {
		b.tokens(r)
	}
	p.TTFT, p.TTFTIntended, p.TPOT = newDist(ttft, cfg), newDist(ttftI, cfg), newDist(tpot, cfg)
	p.E2E, p.E2EIntended, p.ITL = newDist(e2e, cfg), newDist(e2eI, cfg), newDist(itls, cfg)
	p.RequestRate, p.OutputRate, p.TotalRate, p.Goodput = b.rate(b.requests, cfg), b.rate(b.output, cfg), b.rate(b.total, cfg), b.rate(b.good, cfg)
	if p.Requests > 0 {
		p.SLOFraction = float64(good) / float64(p.Requests)
	}
	if m := p.TPOT.P(50); m > 0 {
		p.Interactive = 1 / m
	}
	return p
}

func keep(all []float64, v float64) []float64 {
	if v != v { // NaN
		return all
	}
	return append(all, v)
}

// Duration is a part's length.
func (p Part) Duration() time.Duration { return time.Duration((p.To - p.From) * 1e9) }
