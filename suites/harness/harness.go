// Package harness asks every question of a suite of every arm of a comparison: in
// an order that is declared before the first request, with arms interleaved, each
// answer durable before it counts, until the questions, the budget or the doubt
// are used up.
//
// A run may be killed at any moment and taken up again from its folder. No
// accepted answer is asked for twice; what was in flight is, and is counted.
package harness

import (
	"context"
	"fmt"
	"time"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/compare"
	"github.com/repromill/repromill/suites/endpoint"
)

// Asker is a model server; [*endpoint.Client] is one.
type Asker interface {
	Ask(ctx context.Context, r endpoint.Request) (endpoint.Answer, error)
	Identity(ctx context.Context) (endpoint.Identity, error)
}

// Arm is one model on one server.
type Arm struct {
	Name   string
	Server Asker
	// USD per million tokens, for the money budget; 0 where tokens cost nothing by
	// themselves.
	USDIn, USDOut float64
}

// Terms say how arms are compared. The zero value compares nothing.
type Terms struct {
	Method string `json:"method,omitempty"` // of compare.Methods
	compare.Options
}

// Budget bounds what is spent over all arms and resumes; 0 is no bound. What is
// in flight when it is reached is still waited for.
type Budget struct {
	Tokens int64   // of prompts, answers and judgements
	USD    float64 // at the arms' prices
	Wall   time.Duration
}

// Config says what is asked of whom. Name, Suite, Arms and Dir are needed.
type Config struct {
	Name     string // of the suite, as results have it
	Variant  string
	Suite    suites.Suite
	Arms     []Arm // the first is the baseline
	Repeats  int   // 0 is 1
	Seed     uint64
	Sampling suites.Sampling
	Limit    int // ask no more than this many questions, the first of the order; 0 is all
	Terms    Terms
	Shard    Shard
	// Only is the one arm that this folder is asked for, "" for all. Nothing is
	// decided then: [Merge] counts a question once the folders of all arms have it.
	Only   string
	Budget Budget

	Judge         Asker // of suites that are [suites.Judged]
	JudgeSampling suites.Sampling

	Dir      string // of this suite's run, kept over a resume
	Gate     endpoint.GateConfig
	Check    time.Duration // between looks at the servers' identity; 0 is a minute
	NoSync   bool          // answers survive the process but not the machine
	Now      func() time.Time
	Hook     func(point string)
	Progress func(Progress)

	// From are folders of answers that [Merge] and [Answers] read instead of Dir.
	From []string
}

// UserError is a mistake of the user's, with the fix.
type UserError struct{ Msg, Fix string }

func (e *UserError) Error() string { return e.Msg }

// UserError returns the fix.
func (e *UserError) UserError() string { return e.Fix }

// VoidError says that a server became another system: what it answered since it
// was last looked at is void. With the first server in its place again the run
// can be taken up.
type VoidError struct {
	Arm    string
	Change endpoint.Change
}

func (e *VoidError) Error() string {
	return fmt.Sprintf("arm %s is served by another system than before (%s): its answers since the last look are void", e.Arm, e.Change)
}

// UserError returns the fix.
func (e *VoidError) UserError() string {
	return "start the former server again and take the run up, or begin a new run"
}

// Progress is how far a run has come.
type Progress struct {
	Done, Total int // answers
	Questions   int // complete in all arms, from the beginning of the order on
	Rate        float64
	ETA         time.Duration // to the last question, without an early stop; 0 is not known
	Tokens      int64
	USD         float64
	InFlight    int
	Limits      []int // requests that each arm may have in flight
}

// Paid counts what was asked for, over all resumes.
type Paid struct {
	Requests int     `json:"requests"`     // sent, without the retries of one request
	Retries  int     `json:"retries"`      // of requests that were answered
	Repeated int     `json:"repeated"`     // sent again because they were in flight when the run was interrupted
	Overrun  int     `json:"overrun"`      // answers beyond the question that decided
	Void     int     `json:"void"`         // answers of a server that was another
	Tokens   int64   `json:"tokens"`       //
	USD      float64 `json:"usd,omitzero"` //
	Seconds  float64 `json:"seconds"`      // from the first look at the servers to the last, of every process
}

// ArmResult is what came of one arm over the questions used.
type ArmResult struct {
	Arm       string                 `json:"arm"`
	Answers   int                    `json:"answers"`
	Score     float64                `json:"score"` // avg@k: mean over questions of the mean over repeats
	MajAt     *float64               `json:"maj_at_k,omitempty"`
	PassAt    *float64               `json:"pass_at_k,omitempty"`
	Outcomes  map[suites.Outcome]int `json:"outcomes"`
	Prompt    int64                  `json:"prompt_tokens"`
	Output    int64                  `json:"output_tokens"`
	Reasoning int64                  `json:"reasoning_tokens"`
}

// Compared is a candidate against the baseline.
type Compared struct {
	Baseline  string         `json:"baseline"`
	Candidate string         `json:"candidate"`
	Result    compare.Result `json:"result"`
}

// Result is what came of a run. It depends on the answers alone, not on how often
// the run was interrupted.
type Result struct {
	Suite       string      `json:"suite"`
	Variant     string      `json:"variant,omitempty"`
	Rule        string      `json:"rule"`
	DatasetSHA  string      `json:"dataset_sha"` // of the items in their order
	Seed        uint64      `json:"seed"`
	Questions   int         `json:"questions"` // that there are
	Repeats     int         `json:"repeats"`
	Shard       Shard       `json:"shard,omitzero"` // of which this is the result, without comparisons
	Used        int         `json:"questions_used"` // complete in all arms, up to the one that decided
	Units       int         `json:"units_used"`     // questions times repeats, in the order asked
	Stopped     string      `json:"stopped,omitempty"`
	Arms        []ArmResult `json:"arms"`
	Comparisons []Compared  `json:"comparisons"`
	Paid        Paid        `json:"paid"`
	Looks       []Look      `json:"looks"`
	Warnings    []string    `json:"warnings,omitempty"`
}

func (c *Config) defaults() error {
	c.Repeats = max(c.Repeats, 1)
	if c.Check == 0 {
		c.Check = time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Hook == nil {
		c.Hook = func(string) {}
	}
	if c.Progress == nil {
		c.Progress = func(Progress) {}
	}
	if c.Gate.Now == nil {
		c.Gate.Now = c.Now
	}
	if c.Terms.Look == 0 {
		c.Terms.Look = 16
	}
	seen := map[string]bool{}
	for _, a := range c.Arms {
		if a.Name == "" || seen[a.Name] {
			return fmt.Errorf("run suite %s: arm %q has no name or shares it", c.Name, a.Name)
		}
		seen[a.Name] = true
	}
	if c.Only != "" && !seen[c.Only] {
		return fmt.Errorf("run suite %s: there is no arm %q", c.Name, c.Only)
	}
	if len(c.Arms) == 0 || len(c.Arms) > 64 {
		return fmt.Errorf("run suite %s: %d arms", c.Name, len(c.Arms))
	}
	return nil
}

// asks reports whether an arm is asked into this folder.
func (c *Config) asks(arm int) bool { return c.Only == "" || c.Arms[arm].Name == c.Only }

// Run asks what is left to ask and returns what all answers come to. The error is
// the context's when it ended, a [*VoidError], an [*endpoint.Error] when a server
// is not to be had, or a [*UserError]; whatever it is, the run can be taken up
// again. A budget that is used up is a result.
func Run(ctx context.Context, c Config) (Result, error) {
	if err := c.defaults(); err != nil {
		return Result{}, err
	}
	l, err := arrange(ctx, &c)
	if err != nil {
		return Result{}, err
	}
	s, err := open(&c, l)
	if err != nil {
		return Result{}, err
	}
	stopped, err := newEngine(&c, l, s).run(ctx)
	if cerr := s.close(); err == nil {
		err = cerr
	}
	if err != nil {
		return Result{}, err
	}
	return summarise(&c, l, stopped)
}
