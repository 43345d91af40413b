package spec

// Run is one thing that could be executed. Smoke, minimal and full are always
// separate runs.
type Run struct {
	ID           string            `json:"id"`
	Kind         string            `json:"kind"`                   // smoke|minimal|full
	Route        string            `json:"route"`                  // eval_checkpoint|stored_result|short_schedule|reduced_training|recompute|demo
	ClaimIDs     []string          `json:"claim_ids,omitempty"`    // claims this run can speak to
	Command      string            `json:"command"`                // as a person would type it; for display only
	Argv         []string          `json:"argv,omitempty"`         // what is executed; empty when Script is set
	Script       *Script           `json:"script,omitempty"`       // only when a shell is unavoidable
	Cwd          string            `json:"cwd"`                    // below the checkout, "." for its root
	Setup        []Step            `json:"setup,omitempty"`        // executed in order before Argv
	Env          map[string]string `json:"env,omitempty"`          // added to the sandbox's own
	Patches      []Patch           `json:"patches,omitempty"`      // recorded changes to source or data
	Evidence     []Evidence        `json:"evidence,omitempty"`     // where the command stands
	Quoted       bool              `json:"quoted"`                 // the command stands in the repository as it is
	Placeholders []string          `json:"placeholders,omitempty"` // unbound; a run with any is refused
	Assets       []Asset           `json:"assets,omitempty"`
	Secrets      []string          `json:"secrets,omitempty"` // names of environment variables the code asks for
	GPUs         GPUNeed           `json:"gpus"`
	Work         []Fact            `json:"work,omitempty"` // what an estimate rests on: parameters, epochs, items, …
	Expects      *Expectation      `json:"expects,omitempty"`
	Collect      []Collect         `json:"collect,omitempty"`
	TimeoutS     int               `json:"timeout_s"`
	Seeds        []int64           `json:"seeds,omitempty"`   // one execution each; "{seed}" in the command is the seed; none means one execution
	Seeding      *Seeding          `json:"seeding,omitempty"` // how they reach the code
	Status       string            `json:"status"`            // auto|manual_data|gated|smoke_only|legacy_env|external_evaluator|judge_needed|blocked
	Reasons      []string          `json:"reasons,omitempty"`
	Needs        []Need            `json:"needs,omitempty"`    // what stands against running it as it is
	Selected     bool              `json:"selected,omitempty"` // the runner executes the selected runs, in order
}

// Script is a shell text that could not be reduced to an argv. It is shown in
// the plan and written to a file; the runner itself never builds a shell line.
type Script struct {
	Interpreter string `json:"interpreter"` // bash|sh|python
	Text        string `json:"text"`
	SHA256      string `json:"sha256"` // of Text, lower-case hex; the runner refuses another text, and checks nothing when it is empty
}

// Step is one command before the main one.
type Step struct {
	Argv    []string `json:"argv"`
	Cwd     string   `json:"cwd,omitempty"`
	Network bool     `json:"network,omitempty"` // needs more than the package index; refused by the local executor
}

// Patch is a recorded edit of one line.
type Patch struct {
	Kind   string `json:"kind"` // source|data|flag|env
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Before string `json:"before"`
	After  string `json:"after"`
	Reason string `json:"reason"`
}

// Asset is data or weights that a run needs.
type Asset struct {
	Kind   string `json:"kind"` // dataset|checkpoint
	Name   string `json:"name"`
	URL    string `json:"url,omitempty"`
	Access string `json:"access"` // in_repo|auto|bound|manual|gated|missing
	Bytes  int64  `json:"bytes,omitempty"`
}

// GPUNeed is how many GPUs a run needs at least. Min 0 means it runs on a CPU.
type GPUNeed struct {
	Min      int        `json:"min"`
	Hint     string     `json:"hint,omitempty"`
	Evidence []Evidence `json:"evidence,omitempty"`
}

// Expectation is the value that the repository or paper states for this run.
type Expectation struct {
	Metric    string     `json:"metric"`
	Value     float64    `json:"value"`
	Unit      string     `json:"unit,omitempty"`
	Dataset   string     `json:"dataset,omitempty"`
	Direction string     `json:"direction,omitempty"` // higher|lower: which way is better
	Tolerance *Tolerance `json:"tolerance,omitempty"`
}

// Tolerance is how far a measured value may lie from the stated one.
type Tolerance struct {
	Value  float64 `json:"value"`
	Kind   string  `json:"kind"`   // absolute|relative
	Source string  `json:"source"` // stated|gold_runs|binomial|rounding|default, with the place where stated
}

// Collect says how one number gets out of foreign code. A metric that no rule
// finds is inconclusive, never a guess.
type Collect struct {
	Metric  string  `json:"metric"`
	Kind    string  `json:"kind"`              // stdout_regex|json|jsonl|csv|notebook|file_exists
	Path    string  `json:"path,omitempty"`    // below the run's cwd; for all kinds but stdout_regex
	Pattern string  `json:"pattern,omitempty"` // RE2; the first group, or the group named "value", is the number
	Pointer string  `json:"pointer,omitempty"` // RFC 6901 for json, jsonl and notebook; column name for csv
	Select  string  `json:"select,omitempty"`  // last|first|min|max; empty means last
	Scale   float64 `json:"scale,omitempty"`   // multiplied with what was read; 0 means 1
	Unit    string  `json:"unit,omitempty"`
}

// Claim is one checkable statement of the paper or its repository.
type Claim struct {
	ID        string     `json:"id"`
	Text      string     `json:"text"`
	Metric    string     `json:"metric,omitempty"`
	Value     *float64   `json:"value,omitempty"`
	ValueLo   *float64   `json:"value_lo,omitempty"` // "31–42 % less"
	ValueHi   *float64   `json:"value_hi,omitempty"`
	Unit      string     `json:"unit,omitempty"`
	Relation  string     `json:"relation,omitempty"` // absolute|ratio|difference
	Baseline  string     `json:"baseline,omitempty"` // what a ratio or difference is against
	Dataset   string     `json:"dataset,omitempty"`
	Direction string     `json:"direction,omitempty"` // higher|lower
	Tolerance *Tolerance `json:"tolerance,omitempty"`
	Where     Where      `json:"where"`
	Checkable string     `json:"checkable"` // numeric|paper_only|figure_only|judge_needed|none
	Route     string     `json:"route,omitempty"`
}

// Where is the place of a claim: a section of the paper, or a line of a file.
type Where struct {
	Paper string `json:"paper,omitempty"` // abstract, "table 2", …
	File  string `json:"file,omitempty"`
	Line  int    `json:"line,omitempty"`
}

// Estimate is what the plan, or a part of it, takes on one GPU model. GPU-hours
// are reserved ones. A quantity that cannot be said is null, and Reason says
// why; it is never a guess.
type Estimate struct {
	SKU         string         `json:"sku"`             // id of estimators/sku; cpu where no GPU is used
	Scope       string         `json:"scope,omitempty"` // run/<id> or suite/<id>; empty is the whole job
	GPUs        int            `json:"gpus"`
	Fits        string         `json:"fits,omitempty"` // yes|no|unknown
	WallS       *Interval      `json:"wall_s,omitempty"`
	GPUHours    *Interval      `json:"gpu_hours"`
	BusyHours   *Interval      `json:"busy_gpu_hours,omitempty"` // the part of gpu_hours in which GPUs compute
	USD         *Interval      `json:"usd"`                      // at on-demand prices; null where none is known
	OwnedUSD    *Interval      `json:"owned_usd,omitempty"`      // at the cost of ownership, which is another thing
	HostedUSD   *Interval      `json:"hosted_usd,omitempty"`     // the same tokens from a host that bills by token
	PriceAsOf   string         `json:"price_as_of,omitempty"`    // month of the on-demand price
	Method      string         `json:"method,omitempty"`         // serving|operations|stated|step|none
	Reason      string         `json:"reason,omitempty"`         // why a quantity is null, or it does not fit
	Dominant    string         `json:"dominant,omitempty"`       // what takes most of the time
	Parts       []EstimatePart `json:"parts,omitempty"`
	SupportedBy []string       `json:"supported_by,omitempty"`
	Assumptions []string       `json:"assumptions,omitempty"`
	Kind        Kind           `json:"kind"`
}

// EstimatePart is a share of an estimate.
type EstimatePart struct {
	Name     string    `json:"name"` // suite/<id>/<arm>, run/<id>, startup/<arm>, …
	GPUs     int       `json:"gpus,omitempty"`
	GPUHours *Interval `json:"gpu_hours,omitempty"`
	Note     string    `json:"note,omitempty"`
}

// Interval is a distribution by three of its quantiles.
type Interval struct {
	P10 float64 `json:"p10"`
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
}
