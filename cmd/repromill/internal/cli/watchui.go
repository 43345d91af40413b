package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/store"
)

// progressData is the data of a progress event, where it has any of these.
type progressData struct {
	Done    int64   `json:"done"`
	Total   int64   `json:"total"`
	Unit    string  `json:"unit"`
	Message string  `json:"message"`
	Reason  string  `json:"reason"`
	Cause   string  `json:"cause"`
	Seconds float64 `json:"seconds"`
	Run     string  `json:"run"`
	Phase   string  `json:"phase"`
}

// driveWatched drives a run and shows its events on the way.
func (a *app) driveWatched(ctx context.Context, st *stack, ui *ui, id string) (runner.Outcome, error) {
	after := int64(0)
	if list, err := st.runner.Events(ctx, id, 0, 1<<20); err == nil && len(list) > 1 {
		after = list[len(list)-1].Seq
	}
	watch, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = st.runner.Follow(watch, id, after, func(store.Run) bool { return false }, func(e runner.Event) error {
			after = e.Seq
			ui.event(e)
			return nil
		})
	}()
	out, err := st.runner.Drive(ctx, id)
	stop()
	<-done
	if rest, e := st.runner.Events(context.WithoutCancel(ctx), id, after, 0); e == nil {
		for _, e := range rest {
			ui.event(e)
		}
	}
	ui.abandon()
	return out, err
}

// event shows one event of a run.
func (u *ui) event(e runner.Event) {
	var d progressData
	_ = json.Unmarshal(e.Data, &d)
	switch e.Kind {
	case runner.StageStarted:
		u.startAt(u.when(e), e.Stage)
	case runner.StageFinished:
		u.finishAt(u.when(e), firstOf(d.Message, "done"))
	case runner.StageSkipped:
		u.start(e.Stage)
		u.finish(firstOf(d.Reason, "nothing to do"))
	case runner.StageRetried:
		u.note(fmt.Sprintf("%s is tried again: %s", e.Stage, strings.Join(slices.DeleteFunc([]string{firstOf(d.Cause, d.Reason), d.Message}, func(s string) bool { return s == "" }), ": ")))
	case runner.PhaseChanged:
		var p struct{ Arm, Phase, Message string }
		if json.Unmarshal(e.Data, &p) != nil || p.Phase == "" {
			break
		}
		who := firstOf(p.Arm, e.Stage) // a suite's shards are of all arms
		switch {
		case p.Message != "" && !runner.Phase(p.Phase).Final(): // why it waits, as in a queue, or where it runs
			u.note("  " + who + ": " + p.Message)
		case p.Arm == "":
			u.progress(0, 0, "", p.Phase)
		default:
			u.progress(0, 0, "", p.Arm+" "+p.Phase)
		}
	case runner.Progress:
		u.progress(d.Done, d.Total, d.Unit, d.Message)
	case runner.Log:
		u.note("  " + d.Message)
	case runner.DeviationSeen:
		var dev struct{ What, Declared, Used, Reason string }
		if json.Unmarshal(e.Data, &dev) == nil && dev.What != "" {
			u.note(fmt.Sprintf("  changed: %s %s → %s (%s)", dev.What, firstOf(dev.Declared, "-"), firstOf(dev.Used, "-"), dev.Reason))
		}
	case runner.MetricRead:
		var m struct {
			Metric string   `json:"metric"`
			Value  *float64 `json:"value"`
			Unit   string   `json:"unit"`
		}
		if json.Unmarshal(e.Data, &m) == nil && m.Value != nil {
			u.note(strings.TrimRight(fmt.Sprintf("  %s = %g %s", m.Metric, *m.Value, m.Unit), " "))
		}
	}
}

// when is the time of an event: now, where it is not stored.
func (u *ui) when(e runner.Event) time.Time {
	if e.Time.IsZero() {
		return u.now()
	}
	return e.Time
}

// emit shows what a planner reports, for commands that plan without a run.
func (u *ui) emit(stage string, kind runner.EventKind, data any) {
	b, err := json.Marshal(data)
	if err != nil {
		b = nil
	}
	u.event(runner.Event{Stage: stage, Kind: kind, Data: b})
}
