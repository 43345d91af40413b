package measure

import (
	"fmt"
	"time"

	"github.com/repromill/repromill/suites/load"
)

// Flag is a reason for which a cell's numbers are not what they seem.
type Flag struct {
	Code    string `json:"code"`
	Void    bool   `json:"void"` // the numbers must not be quoted as the server's
	Count   int    `json:"count,omitempty"`
	Message string `json:"message"`
}

// The flags of a cell. Those of the server's own counters are in package scrape.
const (
	ClientLimited   = "client_limited"  // the load generator was late
	ClientUnproven  = "client_unproven" // more events than its own lag was measured at
	RateMissed      = "rate_missed"     // fewer requests were begun than the schedule asked for
	OSLShort        = "osl_short"       // outputs stopped before the length asked for
	OSLLong         = "osl_long"
	ISLOff          = "isl_off"       // inputs have another length than asked for
	UsageMissing    = "usage_missing" // tokens were counted as chunks
	UsageWrong      = "usage_wrong"   // the server counts fewer tokens than chunks it sent
	Chunked         = "chunked"       // several tokens a chunk: gaps are no token latencies
	Errors          = "errors"
	Overloaded      = "overloaded" // requests piled up: no steady state
	Cached          = "prefix_cache_hits"
	DuplicatePrompt = "duplicate_prompts"
	Slept           = "machine_slept"
	StoppedEarly    = "stopped"
)

const (
	rateFloor   = 0.98 // achieved over requested
	lagOfTTFT   = 0.01 // sending lag, p99, over median TTFT
	lagOfITL    = 0.05 // reading lag, p99, over median ITL
	lagIgnored  = 0.001
	readIgnored = 0.0001 // of reading; far below what anybody sees of a token
	// A machine that has nothing else to do wakes goroutines up to this late: the
	// runtime waits for timers in whole milliseconds. A thread that sleeps in the
	// kernel would be finer, and would keep a processor from those that read.
	wakeIgnored = 0.0012
	sleepFloor  = 2 * time.Second
)

// Unproven is how many times the self-check's events may come before its finding
// says nothing of the cell.
const Unproven = 1.05

// flags applies the gates of the field's better tools.
func flags(res *load.Result, recs []*load.Record, s *Summary, cfg Config) []Flag {
	var out []Flag
	add := func(code string, void bool, n int, format string, args ...any) {
		out = append(out, Flag{code, void, n, fmt.Sprintf(format, args...)})
	}
	clientFlags(s, cfg, add)
	if res.Waited > 0 {
		add(ClientLimited, true, res.Waited, "%d requests waited because no more than %d files may be open beside others: raise `ulimit -n`", res.Waited, res.Files)
	}
	c := count(recs)
	part := func(n, of int) string { return fmt.Sprintf("%d of %d requests", n, of) }
	if c.short > 0 {
		add(OSLShort, c.short*100 > c.ok, c.short, "%s ended before the output length asked for (shortest %d of %d tokens): is ignore_eos honoured?", part(c.short, c.ok), c.shortest, c.shortestOf)
	}
	if c.long > 0 {
		add(OSLLong, false, c.long, "%s got more output than asked for", part(c.long, c.ok))
	}
	if c.isl > 0 {
		add(ISLOff, false, c.isl, "%s had an input length over 2 %% and 8 tokens off the one asked for", part(c.isl, c.ok))
	}
	if c.noUsage > 0 {
		add(UsageMissing, false, c.noUsage, "%s carry no usage: their tokens are counted as chunks", part(c.noUsage, c.ok))
	}
	if c.usage > 0 {
		add(UsageWrong, true, c.usage, "in %s the server counts fewer tokens than it sent chunks with text", part(c.usage, c.ok))
	}
	if c.chunked > 0 {
		add(Chunked, false, c.chunked, "%s bring several tokens in one chunk: ITL is spread evenly over a chunk's tokens", part(c.chunked, c.ok))
	}
	if c.cached > 0 {
		add(Cached, true, c.cached, "%s were answered partly from a prefix cache although every prompt is unique", part(c.cached, c.ok))
	}
	if c.same > 0 {
		add(DuplicatePrompt, true, c.same, "%d prompts were sent before in this cell", c.same)
	}
	if bad := len(recs) - c.ok; bad > 0 {
		add(Errors, bad*20 > len(recs), bad, "%s did not end well%s", part(bad, len(recs)), c.example)
	}
	if res.Schedule.Mode == load.Open && s.Steady == nil && len(recs) > 1 {
		add(Overloaded, false, 0, "no steady state: %s", s.SteadyWhy)
	}
	if res.Slept > sleepFloor {
		add(Slept, true, 0, "the machine slept or its clock was set by %s during the cell", res.Slept.Round(time.Second))
	}
	if res.Stopped {
		add(StoppedEarly, false, len(res.Schedule.Requests)-len(res.Records), "stopped by the user: %d requests were never sent", len(res.Schedule.Requests)-len(res.Records))
	}
	return out
}

func clientFlags(s *Summary, cfg Config, add func(code string, void bool, n int, format string, args ...any)) {
	ttft, itl := s.Whole.TTFT.P(50), s.Whole.ITL.P(50)
	if s.Achieved < rateFloor*s.Scheduled && s.Sent > 50 {
		add(RateMissed, true, 0, "%.4g requests/s were begun where the schedule asks for %.4g", s.Achieved, s.Scheduled)
	}
	if lag := s.SendLag.P(99); lag > lagIgnored && lag > lagOfTTFT*ttft {
		add(ClientLimited, true, 0, "requests were sent late: p99 %.2f ms, over 1 %% of the median TTFT of %.2f ms", 1e3*lag, 1e3*ttft)
	}
	if s.ReadLag != nil {
		if lag := s.ReadLag.P(99); lag > readIgnored && lag > lagOfITL*itl {
			add(ClientLimited, true, 0, "events were read late: p99 %.2f ms, over 5 %% of the median ITL of %.2f ms", 1e3*lag, 1e3*itl)
		}
	}
	if s.ClientWake > wakeIgnored && s.ClientWake > lagOfITL*itl {
		add(ClientLimited, true, 0, "the load generator had no processor to itself: it woke late by %.2f ms at p99, over 5 %% of the median ITL of %.2f ms", 1e3*s.ClientWake, 1e3*itl)
	}
	if lag := cfg.ProvenLag; lag > readIgnored && lag > lagOfITL*itl {
		add(ClientLimited, true, 0, "in the self-check events were read late: p99 %.2f ms, over 5 %% of the median ITL of %.2f ms", 1e3*lag, 1e3*itl)
	}
	if cfg.Proven > 0 && s.Events > Unproven*cfg.Proven {
		add(ClientUnproven, false, 0, "%.0f events/s came, and the self-check went to %.0f events/s only", s.Events, cfg.Proven)
	}
}

type counts struct {
	ok, short, long, isl, noUsage, usage, chunked, cached, same int
	shortest, shortestOf                                        int
	example                                                     string
}

func count(recs []*load.Record) counts {
	var c counts
	seen := map[string]bool{}
	for _, r := range recs {
		if r.PromptSHA != "" {
			if seen[r.PromptSHA] {
				c.same++
			}
			seen[r.PromptSHA] = true
		}
		if r.Status != load.OK {
			if c.example == "" && r.Error != "" {
				c.example = ", the first because: " + r.Error
			}
			continue
		}
		c.ok++
		if r.CachedInput > 64 { // templates share a block or two
			c.cached++
		}
		if off := abs(r.ISL - r.ISLTarget); r.ISL >= 0 && off > 8 && off*50 > r.ISLTarget {
			c.isl++
		}
		if r.OSL < 0 {
			c.noUsage++
			continue
		}
		switch {
		case r.OSL < r.OSLTarget-1:
			if c.short == 0 || r.OSL < c.shortest {
				c.shortest, c.shortestOf = r.OSL, r.OSLTarget
			}
			c.short++
		case r.OSL > r.OSLTarget+1:
			c.long++
		}
		switch {
		case r.Chunks > r.OSL+1:
			c.usage++
		case r.OSL > 1 && r.Chunks > 0 && float64(r.OSL) > 1.2*float64(r.Chunks):
			c.chunked++
		}
	}
	return c
}

func abs(a int) int { return max(a, -a) }
