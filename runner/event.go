package runner

import (
	"encoding/json"
	"time"
)

// Event is the one envelope for the store, `watch --json`, the worker's
// standard output and server-sent events (id = Seq).
type Event struct {
	Seq   int64           `json:"seq"` // rises by one within a run, from 1
	RunID string          `json:"run_id"`
	Stage string          `json:"stage,omitempty"`
	Time  time.Time       `json:"time"`
	Kind  EventKind       `json:"kind"`
	Data  json.RawMessage `json:"data,omitempty"`
}

// EventKind is the closed vocabulary of events.
type EventKind string

// The kinds of event.
const (
	RunCreated    EventKind = "run.created"
	RunApproved   EventKind = "run.approved"
	RunFinished   EventKind = "run.finished"
	RunCancelled  EventKind = "run.cancelled"
	StageStarted  EventKind = "stage.started"
	StageFinished EventKind = "stage.finished"
	StageSkipped  EventKind = "stage.skipped"
	StageRetried  EventKind = "stage.retried"
	PhaseChanged  EventKind = "phase.changed"
	Progress      EventKind = "progress"
	Log           EventKind = "log"
	MetricRead    EventKind = "metric"
	DeviationSeen EventKind = "deviation"
	CostSeen      EventKind = "cost"
	VerdictGiven  EventKind = "verdict"
)

// The stages of a run, in order. Resolve, fetch and plan are the planner's;
// the others are the runner's own.
const (
	StageResolve = "resolve"
	StageFetch   = "fetch"
	StagePlan    = "plan"
	StagePrepare = "prepare"
	StageExecute = "execute"
	StageCollect = "collect"
	StageCommit  = "commit"
)

// Stages lists the stages in their order.
func Stages() []string {
	return []string{StageResolve, StageFetch, StagePlan, StagePrepare, StageExecute, StageCollect, StageCommit}
}
