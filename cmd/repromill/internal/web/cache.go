package web

import (
	"bytes"
	"context"
	"errors"
	"html/template"
	"sync"
	"time"

	"github.com/repromill/repromill/runner/access"
	"github.com/repromill/repromill/runner/store"
)

// rendered keeps what does not change any more: stored plans as they are shown,
// and all of runs that are over.
type rendered struct {
	mu   sync.Mutex
	runs map[string]*renderedRun
}

type renderedRun struct {
	plan   *planView
	report template.HTML
	whole  *runView // of a run that is over
}

// maxRendered bounds what is kept; beyond it any is dropped.
const maxRendered = 256

// of returns the plan and the report of a run, as far as there are any.
func (x *rendered) of(c *call, run store.Run) (*planView, template.HTML, error) {
	x.mu.Lock()
	var have renderedRun
	if known := x.runs[run.ID]; known != nil {
		have = *known
	}
	x.mu.Unlock()
	ctx, changed := c.r.Context(), false
	if have.plan == nil && run.PlanHash != "" {
		plan, err := c.s.cfg.Runner.Plan(ctx, run.ID)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, "", err
		}
		if err == nil {
			have.plan, changed = viewPlan(plan), true
		}
	}
	if have.report == "" && run.State == store.Done {
		if rep, err := c.s.cfg.Runner.Report(ctx, run.ID); err == nil {
			var b bytes.Buffer
			if err := rep.Body(&b); err != nil {
				return nil, "", err
			}
			have.report, changed = template.HTML(b.String()), true // written by html/template
		}
	}
	if changed {
		x.keep(run.ID, &have)
	}
	return have.plan, have.report, nil
}

// over returns the view of a run that is over, as whoever asks may see it; nil
// where none is kept.
func (x *rendered) over(c *call, run store.Run) *runView {
	x.mu.Lock()
	defer x.mu.Unlock()
	known := x.runs[run.ID]
	if !run.State.Final() || known == nil || known.whole == nil {
		return nil
	}
	v := *known.whole
	v.Now, v.MayApprove, v.MaySubmit = c.s.cfg.Now(), c.id.May(access.Approve), c.id.May(access.Submit)
	return &v
}

// finished keeps the view of a run that is over, once its report can be read.
func (x *rendered) finished(v *runView) {
	if !v.State.Final() || v.State == store.Done && v.Report == "" {
		return
	}
	whole := *v
	x.keep(v.ID, &renderedRun{v.Plan, v.Report, &whole})
}

func (x *rendered) keep(id string, r *renderedRun) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.runs == nil {
		x.runs = map[string]*renderedRun{}
	}
	for other := range x.runs {
		if len(x.runs) < maxRendered {
			break
		}
		delete(x.runs, other)
	}
	x.runs[id] = r
}

// counts are the numbers of runs by state, a moment old: counting walks all of
// an index.
type counts struct {
	mu sync.Mutex
	at time.Time
	by map[store.State]int64
}

// countsAge is how old they may be.
const countsAge = 5 * time.Second

func (s *Server) counted(ctx context.Context) (map[store.State]int64, error) {
	s.counts.mu.Lock()
	defer s.counts.mu.Unlock()
	now := s.cfg.Now()
	if age := now.Sub(s.counts.at); s.counts.by != nil && age >= 0 && age < countsAge {
		return s.counts.by, nil
	}
	by, err := s.cfg.Store.Counts(ctx)
	if err == nil {
		s.counts.at, s.counts.by = now, by
	}
	return by, err
}
