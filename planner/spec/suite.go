package spec

// Suite is one benchmark over any number of arms.
type Suite struct {
	ID        string         `json:"id"`
	Name      string         `json:"name"`
	Kind      string         `json:"kind"`              // accuracy|throughput|checkpoint
	Variant   string         `json:"variant,omitempty"` // published way to put the questions
	Selected  bool           `json:"selected"`          // it is to be executed
	Dataset   SuiteDataset   `json:"dataset"`
	Questions int            `json:"questions,omitempty"` // asked: all of the data set, or the first of the order
	Repeats   int            `json:"repeats,omitempty"`   // answers to each question, or starts of each arm's server
	Seed      int64          `json:"seed,omitempty"`      // of the order of the questions and of sampling
	Sampling  map[string]any `json:"sampling,omitempty"`
	Grader    Grader         `json:"grader"`
	Arms      []Arm          `json:"arms"`
	Placing   string         `json:"placing,omitempty"` // of the arms' servers on a cluster: side_by_side|one_after_another; "" is side by side
	Compare   *Compare       `json:"compare,omitempty"`
	Load      *Load          `json:"load,omitempty"`
	Budget    Budget         `json:"budget"`
	Status    string         `json:"status,omitempty"` // auto|gated|blocked|…, as for a run
	Reasons   []string       `json:"reasons,omitempty"`
	Outlook   *Outlook       `json:"outlook,omitempty"`
	// Settings are how the arms are served, side by side, where they differ.
	Settings []Setting `json:"settings,omitempty"`
}

// Ways to place the servers of a suite's arms. Side by side, a pod has all of them,
// each on GPUs of its own; one after another it has one, so that a node has to
// hold one at a time.
const (
	SideBySide      = "side_by_side"
	OneAfterAnother = "one_after_another"
)

// Outlook is what a suite is expected to take and to tell, before anything is
// spent.
type Outlook struct {
	Answers       int     `json:"answers"` // over all arms, without an early stop
	PromptTokens  int64   `json:"prompt_tokens,omitempty"`
	OutputTokens  int64   `json:"output_tokens,omitempty"`
	StdErr        float64 `json:"stderr"`   // of the difference, as a fraction
	Resolves      float64 `json:"resolves"` // smallest difference shown with power 0.8, as a fraction
	Enough        bool    `json:"enough"`   // it resolves the margin
	RepeatsNeeded int     `json:"repeats_needed,omitempty"`
	Kind          Kind    `json:"kind"` // of the variance and token counts that this rests on
}

// Setting is one serving flag of all arms, by its canonical name.
type Setting struct {
	Setting string   `json:"setting"`
	Values  []string `json:"values"` // in the order of the arms; empty where an arm leaves it to the engine
	Class   string   `json:"class"`  // subject|harmless|unfair|unknown
	Moves   string   `json:"moves,omitempty"`
	Why     string   `json:"why,omitempty"`
}

// SuiteFile is one file of a data set.
type SuiteFile struct {
	Repo   string `json:"repo"`
	Commit string `json:"commit"` // 40 hex digits
	Path   string `json:"path"`
	SHA256 string `json:"sha256,omitempty"` // another content is refused
}

// SuiteDataset names the exact questions.
type SuiteDataset struct {
	Files    []SuiteFile `json:"files,omitempty"`
	Repo     string      `json:"repo,omitempty"`
	Revision string      `json:"revision,omitempty"`
	Split    string      `json:"split,omitempty"`
	Hash     string      `json:"hash,omitempty"`
}

// Grader names a versioned scoring rule.
type Grader struct {
	Rule    string `json:"rule,omitempty"`
	Version string `json:"version,omitempty"`
}

// Arm is one model in one format on one engine.
type Arm struct {
	Name          string   `json:"name"`
	Model         string   `json:"model"`
	Revision      string   `json:"revision,omitempty"`
	Format        string   `json:"format,omitempty"`
	Engine        string   `json:"engine,omitempty"`
	EngineVersion string   `json:"engine_version,omitempty"`
	Image         string   `json:"image,omitempty"`
	Flags         []string `json:"flags,omitempty"`
	Endpoint      string   `json:"endpoint,omitempty"`
	SKU           string   `json:"sku,omitempty"`
	GPUs          int      `json:"gpus,omitempty"`
	TP            int      `json:"tp,omitempty"`
	KVDtype       string   `json:"kv_dtype,omitempty"`
	Math          string   `json:"math,omitempty"` // w4a4|w4a16|fp8|bf16|mixed
}

// Compare says how the arms are compared and when to stop.
type Compare struct {
	Method string  `json:"method"`
	Margin float64 `json:"margin"` // as a fraction: 0.01 is one point
	Alpha  float64 `json:"alpha"`
	Stop   string  `json:"stop,omitempty"`
	// Look is how many questions lie between two looks of a method that may stop
	// early.
	Look     int  `json:"look,omitempty"`
	OneSided bool `json:"one_sided,omitempty"` // claim only that the candidate is not worse by the margin
}

// Load describes a throughput measurement.
type Load struct {
	Mode          string             `json:"mode"` // open|closed
	Arrivals      string             `json:"arrivals,omitempty"`
	Rates         []float64          `json:"rates,omitempty"`         // requests per second
	Concurrencies []int              `json:"concurrencies,omitempty"` // requests in flight
	ISL           []int              `json:"isl,omitempty"`           // input tokens
	OSL           []int              `json:"osl,omitempty"`           // output tokens
	SLO           map[string]float64 `json:"slo,omitempty"`
	Seed          int64              `json:"seed"`
	Warmup        int                `json:"warmup,omitempty"`
	Requests      int                `json:"requests,omitempty"` // measured ones of each cell; 0 is ten for each place, and at least 100
	Floors        []float64          `json:"floors,omitempty"`   // tokens per second and user, above which the best configurations are compared
	TP            []int              `json:"tp,omitempty"`       // tensor-parallel sizes to look for the best in, beside each arm's own
}

// Count is how many requests a cell measures that has so many places, which are
// its concurrency or its requests per second.
func (l *Load) Count(places int) int {
	if l.Requests > 0 {
		return l.Requests
	}
	return max(100, 10*places)
}

// Budget bounds what a suite may use; 0 is no bound.
type Budget struct {
	Tokens int64   `json:"tokens,omitempty"`
	USD    float64 `json:"usd,omitempty"`
}
