package spec

// Suite is one benchmark over any number of arms.
type Suite struct {
	ID        string         `json:"id"`
	Name      string         `json:"name"`
	Kind      string         `json:"kind"` // accuracy|throughput|checkpoint
	Dataset   SuiteDataset   `json:"dataset"`
	Questions int            `json:"questions,omitempty"`
	Repeats   int            `json:"repeats,omitempty"`
	Sampling  map[string]any `json:"sampling,omitempty"`
	Grader    Grader         `json:"grader"`
	Arms      []Arm          `json:"arms"`
	Compare   *Compare       `json:"compare,omitempty"`
	Load      *Load          `json:"load,omitempty"`
	Budget    Budget         `json:"budget"`
	Status    string         `json:"status,omitempty"` // auto|gated|blocked|…, as for a run
	Reasons   []string       `json:"reasons,omitempty"`
}

// SuiteDataset names the exact questions.
type SuiteDataset struct {
	Repo     string `json:"repo,omitempty"`
	Revision string `json:"revision,omitempty"`
	Split    string `json:"split,omitempty"`
	Hash     string `json:"hash,omitempty"`
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
}

// Budget bounds what a suite may use; 0 is no bound.
type Budget struct {
	Tokens int64   `json:"tokens,omitempty"`
	USD    float64 `json:"usd,omitempty"`
}
