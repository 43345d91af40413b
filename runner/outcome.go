package runner

import (
	"context"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/collect"
	"github.com/repromill/repromill/runner/store"
	"github.com/repromill/repromill/runner/verdict"
	"github.com/repromill/repromill/suites/harness"
	"github.com/repromill/repromill/suites/throughput"
)

// Outcome is what Drive returns, and what is stored of a finished run.
type Outcome struct {
	RunID     string          `json:"run_id"`
	State     store.State     `json:"state"`
	PlanHash  string          `json:"plan_hash,omitempty"`
	Verdict   verdict.Verdict `json:"verdict,omitempty"`
	Reason    string          `json:"reason,omitempty"`
	Stopped   string          `json:"stopped,omitempty"` // the cap that ended the run early
	Simulated bool            `json:"simulated,omitempty"`
	Claims    []verdict.Row   `json:"claims,omitempty"`
	Metrics   []Measured      `json:"metrics,omitempty"`
	Missing   []Missing       `json:"missing,omitempty"`
	Units     []Unit          `json:"units,omitempty"`
	Suites    []SuiteOutcome  `json:"suites,omitempty"`
	Refused   []Refusal       `json:"refused,omitempty"`
	// Endpoints are where the arms of suites were served.
	Endpoints map[string]string `json:"endpoints,omitempty"`
	// Servers say how the others were served; see accuracy.Serving.
	Servers map[string]string `json:"servers,omitempty"`
	// InstallFailed says why the environment could not be made.
	InstallFailed string           `json:"install_failed,omitempty"`
	Deviations    []spec.Deviation `json:"deviations,omitempty"`
	Spend         store.Spend      `json:"spend"`
	Placement     Placement        `json:"placement,omitzero"` // of the last attempt
	Started       time.Time        `json:"started,omitzero"`   // of the run's creation
	Finished      time.Time        `json:"finished,omitzero"`
	Executor      string           `json:"executor,omitempty"`
	Python        string           `json:"python,omitempty"`   // version used, "3.11"
	Image         *Image           `json:"image,omitempty"`    // that the commands ran in
	Lock          string           `json:"lock,omitempty"`     // what was installed where there was no image, one "name==version" a line
	Manifest      string           `json:"manifest,omitempty"` // where the committed results are listed
	WorkDir       string           `json:"work_dir,omitempty"` // with Request.KeepWork
}

// Packages is what was installed for the commands, in the image or beside it;
// empty where nothing was.
func (o *Outcome) Packages() string {
	if o.Image != nil {
		return o.Image.Lock
	}
	return o.Lock
}

// Unit is one execution: one run of the plan with one seed.
type Unit struct {
	Run       string   `json:"run"`
	Seed      int64    `json:"seed"`
	SeedIndex int      `json:"seed_index"`
	Tries     int      `json:"tries"`            // how often it was started
	Causes    []string `json:"causes,omitempty"` // why it was started again
	Key       string   `json:"key"`              // of the last attempt
	Status    Status   `json:"status"`           // of the last attempt
	Reason    string   `json:"reason,omitempty"` // why it did not end well; empty after success
	Dir       string   `json:"dir"`              // its tree, below the run's folder
}

// Refusal says why a run of the plan was not attempted.
type Refusal struct {
	Run    string `json:"run"`
	Reason string `json:"reason"`
}

// Measured is one number read from one unit.
type Measured struct {
	Run       string `json:"run"`
	Seed      int64  `json:"seed"`
	SeedIndex int    `json:"seed_index"`
	Attempt   string `json:"attempt"` // key of the attempt it came from
	collect.Value
}

// Missing is one number that was not found in one unit.
type Missing struct {
	Run       string `json:"run"`
	SeedIndex int    `json:"seed_index"`
	Metric    string `json:"metric"`
	Reason    string `json:"reason"`
}

// Prepared is what the stage prepare leaves for the others.
type Prepared struct {
	Python        Interpreter      `json:"python,omitzero"`
	Venv          bool             `json:"venv,omitempty"`
	Image         *Image           `json:"image,omitempty"` // where attempts run in one
	Deviations    []spec.Deviation `json:"deviations,omitempty"`
	Refused       []Refusal        `json:"refused,omitempty"`
	InstallFailed string           `json:"install_failed,omitempty"` // why no run could be started
	Inputs        []Input          `json:"inputs,omitempty"`         // where what is bound lies
	Shared        []spec.Patch     `json:"shared_patches,omitempty"` // applied to the source itself
	Lock          string           `json:"lock,omitempty"`           // what was installed without an image, one "name==version" a line
}

// python is the version of Python that the commands had.
func (p *Prepared) python() string {
	if p.Image != nil {
		return p.Image.Python
	}
	return p.Python.Version
}

// Executed is what the stage execute leaves.
type Executed struct {
	Units   []Unit    `json:"units"`
	Refused []Refusal `json:"refused,omitempty"` // runs that a cap left no room for
	Stopped string    `json:"stopped,omitempty"`
}

// Collected is what the stage collect leaves.
type Collected struct {
	Metrics []Measured `json:"metrics"`
	Missing []Missing  `json:"missing,omitempty"`
}

// Record is everything about a run that is committed.
type Record struct {
	Run      store.Run
	Request  Request
	Plan     *spec.Plan
	Outcome  Outcome
	Attempts []store.Attempt
	Events   []Event
	// Logs are the ends of the captured streams by name, "main-s0.out".
	Logs    map[string][]byte
	Version string // of this program
	// answers calls f for every answer that a suite's result rests on.
	answers func(ctx context.Context, o SuiteOutcome, f func(harness.Answer) error) error
	// throughput calls f for the rows of a throughput suite.
	throughput func(o SuiteOutcome, f func(throughput.Rows) error) error
}
