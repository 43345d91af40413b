// Package load measures the throughput of OpenAI-compatible servers.
//
// A [Schedule] says when which request is to be sent; it is made from a seed
// before anything is sent and does not depend on the server. [Run] sends it, in
// open loop (at the scheduled times, come what may) or closed loop (a new
// request when one is done), and returns one [Record] per request: the moments
// at which everything happened, from which package measure derives what people
// call TTFT, TPOT and ITL.
package load

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// The modes of a cell.
const (
	Open   = "open"   // requests are sent at scheduled times
	Closed = "closed" // a fixed number of requests is in flight
)

// The arrival processes of the open loop.
const (
	Poisson  = "poisson"  // exponential gaps
	Gamma    = "gamma"    // gamma gaps; burstiness is the shape, as in vLLM's bench serve: 1 is Poisson, less is burstier
	Constant = "constant" // equal gaps
	Trace    = "trace"    // the times are given
)

// Request is one entry of a schedule.
type Request struct {
	At    time.Duration `json:"at"`  // after the cell's start; open loop only
	ISL   int           `json:"isl"` // input tokens asked for
	OSL   int           `json:"osl"` // output tokens asked for
	Seed  uint64        `json:"seed"`
	Class string        `json:"class,omitempty"` // of prompts, for routing by past lengths
}

// Schedule is what a cell sends. It never changes once made.
type Schedule struct {
	Mode        string    `json:"mode"`
	Arrivals    string    `json:"arrivals,omitempty"`
	Rate        float64   `json:"rate,omitempty"`        // requests per second, open loop
	Burstiness  float64   `json:"burstiness,omitempty"`  // of gamma arrivals
	Concurrency int       `json:"concurrency,omitempty"` // requests in flight, closed loop
	Seed        uint64    `json:"seed"`
	Warmup      int       `json:"warmup"` // the first so many requests are not measured
	Requests    []Request `json:"requests"`
}

// Spec describes a schedule to be made.
type Spec struct {
	Mode        string
	Arrivals    string  // open loop, "" for Poisson
	Rate        float64 // open loop, requests per second
	Burstiness  float64 // gamma, 0 for 1
	Concurrency int     // closed loop
	Requests    int     // measured ones
	Warmup      int     // sent before them, not measured
	ISL, OSL    Length
	Mix         []Share // of several kinds of requests, instead of ISL and OSL
	Seed        uint64
	Trace       []Request // for trace arrivals: times and lengths
}

// Length draws a number of tokens uniformly from [Mean·(1-Spread), Mean·(1+Spread)].
type Length struct {
	Mean   int
	Spread float64 // 0 for always Mean, below 1
}

func (l Length) draw(r *rand.Rand) int {
	d := int(l.Spread * float64(l.Mean))
	return max(1, l.Mean-d+r.IntN(2*d+1))
}

// BadSpecError says what is wrong with a spec; it is the user's to correct.
type BadSpecError struct{ Problem, Fix string }

func (e *BadSpecError) Error() string { return e.Problem }

// UserError returns the fix.
func (e *BadSpecError) UserError() string { return e.Fix }

// NewSchedule makes a schedule. The same spec gives the same one. Errors are
// [*BadSpecError].
func NewSchedule(s Spec) (Schedule, error) {
	if s.Arrivals == "" && s.Mode == Open {
		s.Arrivals = Poisson
	}
	if s.Burstiness == 0 {
		s.Burstiness = 1
	}
	if err := s.check(); err != nil {
		return Schedule{}, err
	}
	out := Schedule{Mode: s.Mode, Seed: s.Seed, Warmup: s.Warmup}
	// Two streams, so that other lengths leave the arrivals as they are.
	when := rand.New(rand.NewPCG(s.Seed, 1))
	what := rand.New(rand.NewPCG(s.Seed, 2))
	if s.Arrivals == Trace {
		out.Arrivals, out.Requests = Trace, slices.Clone(s.Trace)
		for i := range out.Requests {
			if out.Requests[i].Seed == 0 {
				out.Requests[i].Seed = what.Uint64()
			}
		}
		return out, nil
	}
	n := s.Requests + s.Warmup
	out.Requests = make([]Request, n)
	pick := s.picker(what)
	var at float64
	for i := range out.Requests {
		kind := pick()
		r := Request{ISL: kind.ISL.draw(what), OSL: kind.OSL.draw(what), Seed: what.Uint64(), Class: kind.Class}
		if s.Mode == Open {
			at += gap(when, s)
			r.At = time.Duration(at * float64(time.Second))
		}
		out.Requests[i] = r
	}
	if s.Mode == Open {
		out.Arrivals, out.Rate = s.Arrivals, s.Rate
		if s.Arrivals == Gamma {
			out.Burstiness = s.Burstiness
		}
	} else {
		out.Concurrency = s.Concurrency
	}
	return out, nil
}

func (s Spec) check() error {
	bad := func(fix, format string, args ...any) error { return &BadSpecError{fmt.Sprintf(format, args...), fix} }
	switch {
	case s.Mode != Open && s.Mode != Closed:
		return bad("choose open or closed", "mode %q is not known", s.Mode)
	case s.Mode == Open && !slices.Contains([]string{Poisson, Gamma, Constant, Trace}, s.Arrivals):
		return bad("choose poisson, gamma, constant or trace", "arrivals %q are not known", s.Arrivals)
	case s.Mode == Closed && s.Arrivals != "":
		return bad("leave arrivals out, or give a rate for open loop", "a closed loop has no arrivals")
	case s.Arrivals == Trace && len(s.Trace) == 0:
		return bad("give a trace file with at least one request", "the trace is empty")
	case s.Arrivals == Trace:
		return s.checkTrace(bad)
	case s.Mode == Open && !(s.Rate > 0 && s.Rate <= 1e6):
		return bad("give a rate above 0, in requests per second", "rate %g is out of range", s.Rate)
	case s.Mode == Closed && (s.Concurrency < 1 || s.Concurrency > 1e6):
		return bad("give a number of requests in flight from 1", "concurrency %d is out of range", s.Concurrency)
	case s.Requests < 1 || s.Requests > 50e6 || s.Warmup < 0 || s.Warmup > 50e6:
		return bad("give a number of requests from 1", "%d requests after %d of warm-up is out of range", s.Requests, s.Warmup)
	case s.Arrivals == Gamma && !(s.Burstiness > 0 && s.Burstiness <= 1e6):
		return bad("give a burstiness above 0; 1 is Poisson", "burstiness %g is out of range", s.Burstiness)
	case s.Mix != nil && s.checkMix() != "":
		return bad("write shares with their lengths, such as 0.8:256x64,0.2:4096x256", "the mix is out of range: %s", s.checkMix())
	case s.Mix != nil:
		return nil
	case s.ISL.Mean < 1 || s.OSL.Mean < 1 || s.ISL.Mean > 16<<20 || s.OSL.Mean > 16<<20:
		return bad("give lengths in tokens from 1", "ISL %d and OSL %d are out of range", s.ISL.Mean, s.OSL.Mean)
	case s.ISL.Spread < 0 || s.ISL.Spread >= 1 || s.OSL.Spread < 0 || s.OSL.Spread >= 1:
		return bad("give a spread from 0 to below 1", "length spread is out of range")
	}
	return nil
}

func (s Spec) checkTrace(bad func(fix, format string, args ...any) error) error {
	if s.Warmup >= len(s.Trace) {
		return bad("give fewer requests of warm-up than the trace has", "the trace has %d requests, all of them warm-up", len(s.Trace))
	}
	for i, r := range s.Trace {
		switch {
		case r.At < 0 || i > 0 && r.At < s.Trace[i-1].At:
			return bad("sort the trace by time", "request %d of the trace comes before its predecessor", i)
		case r.ISL < 1 || r.OSL < 1:
			return bad("give lengths in tokens from 1", "request %d of the trace asks for ISL %d, OSL %d", i, r.ISL, r.OSL)
		}
	}
	return nil
}

// gap draws the seconds to the next arrival.
func gap(r *rand.Rand, s Spec) float64 {
	switch s.Arrivals {
	case Constant:
		return 1 / s.Rate
	case Gamma:
		return gamma(r, s.Burstiness) / (s.Burstiness * s.Rate)
	default:
		return r.ExpFloat64() / s.Rate
	}
}

// gamma draws from the gamma distribution of this shape and scale 1.
//
// Source: G. Marsaglia, W. W. Tsang, "A simple method for generating gamma
// variables", ACM TOMS 26(3), 2000; shapes below 1 by the note at its end.
func gamma(r *rand.Rand, shape float64) float64 {
	if shape < 1 {
		return gamma(r, shape+1) * math.Pow(1-r.Float64(), 1/shape)
	}
	d := shape - 1.0/3
	c := 1 / math.Sqrt(9*d)
	for {
		x := r.NormFloat64()
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v = v * v * v
		if u := 1 - r.Float64(); math.Log(u) < x*x/2+d-d*v+d*math.Log(v) {
			return d * v
		}
	}
}

// ParseTrace reads a trace: JSON lines with timestamp, input_length and
// output_length, as Mooncake's (whose unit is a millisecond) and Azure's traces
// have them. The first request comes at 0. Errors are [*BadSpecError].
func ParseTrace(b []byte, unit time.Duration) ([]Request, error) {
	const fix = `write one JSON object per line, sorted by time: {"timestamp": 250, "input_length": 512, "output_length": 128}`
	var out []Request
	first := 0.0
	dec := json.NewDecoder(bytes.NewReader(b))
	for i := 1; ; i++ {
		var row struct {
			Timestamp *float64 `json:"timestamp"`
			Input     int      `json:"input_length"`
			Output    int      `json:"output_length"`
			Class     string   `json:"class"`
		}
		if err := dec.Decode(&row); err == io.EOF {
			return out, nil
		} else if err != nil {
			return nil, &BadSpecError{fmt.Sprintf("entry %d of the trace: %v", i, err), fix}
		}
		if row.Timestamp == nil {
			return nil, &BadSpecError{fmt.Sprintf("entry %d of the trace has no timestamp", i), fix}
		}
		if i == 1 {
			first = *row.Timestamp
		}
		at := (*row.Timestamp - first) * float64(unit)
		if !(at >= 0 && at <= float64(maxTrace)) {
			return nil, &BadSpecError{fmt.Sprintf("entry %d of the trace is at %g, the first at %g", i, *row.Timestamp, first), fix}
		}
		out = append(out, Request{At: time.Duration(at), ISL: row.Input, OSL: row.Output, Class: row.Class})
	}
}

// maxTrace bounds how long a trace may be.
const maxTrace = 30 * 24 * time.Hour
