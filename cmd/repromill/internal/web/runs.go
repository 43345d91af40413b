package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/repromill/repromill/results/report"
	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/access"
	"github.com/repromill/repromill/runner/store"
)

// submitView is the page with the paste box.
type submitView struct {
	Typed   string
	Token   string
	Queues  []string
	SKUs    []string
	Recent  []store.Run
	Waiting int
	Running int64
	Form    url.Values
	Problem *problem
	Now     time.Time
	Mirror  bool
}

func (c *call) submitView() (*submitView, error) {
	ctx := c.r.Context()
	v := &submitView{Token: c.s.token(), Now: c.s.cfg.Now(), Form: url.Values{}, SKUs: skuIDs(), Mirror: c.s.cfg.Mirror != ""}
	for _, q := range c.s.cfg.Queues {
		if c.id.Queue(q) {
			v.Queues = append(v.Queues, q)
		}
	}
	var err error
	if v.Recent, err = c.s.cfg.Store.List(ctx, store.Filter{Limit: 8}); err != nil {
		return nil, err
	}
	waiting, err := c.s.cfg.Store.Waiting(ctx, c.s.cfg.MaxWaiting)
	if err != nil {
		return nil, err
	}
	for _, w := range waiting {
		if w.State == store.Running || w.State == store.Planning {
			v.Running++
		} else {
			v.Waiting++
		}
	}
	return v, nil
}

func (s *Server) submitPage(c *call) error {
	v, err := c.submitView()
	if err != nil {
		return err
	}
	v.Typed = c.r.URL.Query().Get("target")
	return c.render(http.StatusOK, "submit.html", "Check a claim", "submit", v)
}

// runsView is one page of the list of runs.
type runsView struct {
	Runs   []store.Run
	State  string
	Query  string
	Next   string
	Counts []stateCount
	Now    time.Time
}

type stateCount struct {
	State store.State
	N     int64
}

var states = []store.State{store.Created, store.Planning, store.Planned, store.Approved, store.Running, store.Interrupted, store.Failed, store.Done, store.Cancelled}

// filter reads which runs a list is asked for.
func (c *call) filter(page int) (f store.Filter, err error) {
	q := c.r.URL.Query()
	f.Limit = page
	if st := store.State(q.Get("state")); st != "" {
		if !slices.Contains(states, st) {
			return f, problemf(http.StatusBadRequest, "use one of created, planning, planned, approved, running, interrupted, failed, done, cancelled", "there is no state %q", st)
		}
		f.States = []store.State{st}
	}
	f.Target, f.Subject = strings.TrimSpace(q.Get("q")), q.Get("subject")
	if len(f.Target) > 300 {
		return f, problemf(http.StatusBadRequest, "search for less", "the search is too long")
	}
	if id := q.Get("before"); id != "" {
		run, err := c.s.cfg.Store.Run(c.r.Context(), id)
		if err != nil {
			return f, err
		}
		f.Before = &run
	}
	return f, nil
}

const runsPerPage = 50

func (s *Server) runsPage(c *call) error {
	f, err := c.filter(runsPerPage)
	if err != nil {
		return err
	}
	v := &runsView{State: c.r.URL.Query().Get("state"), Query: f.Target, Now: s.cfg.Now()}
	if v.Runs, err = s.cfg.Store.List(c.r.Context(), f); err != nil {
		return err
	}
	if len(v.Runs) == runsPerPage {
		q := c.r.URL.Query()
		q.Set("before", v.Runs[len(v.Runs)-1].ID)
		v.Next = "/runs?" + q.Encode()
	}
	counts, err := s.counted(c.r.Context())
	if err != nil {
		return err
	}
	for _, st := range states {
		if counts[st] > 0 {
			v.Counts = append(v.Counts, stateCount{st, counts[st]})
		}
	}
	return c.render(http.StatusOK, "runs.html", "Runs", "runs", v)
}

// stageView is one stage on the timeline.
type stageView struct {
	Name    string
	State   string // waiting|started|finished|skipped
	Message string
	Started time.Time
	Seconds float64
	Timed   bool
}

// runView is everything of one run.
type runView struct {
	store.Run
	Submission *store.Submission
	Stages     []stageView
	Story      []string // what happened that is no stage
	Plan       *planView
	Report     template.HTML
	Attempts   []runner.AttemptInfo
	Spend      store.Spend
	Caps       runner.Caps
	Log        string
	LastSeq    int64
	Reason     string // why nothing happens at this moment
	MayApprove bool
	MaySubmit  bool
	Now        time.Time
	Wall       *wallBar
}

// wallBar is how long a run runs, beside how long it was expected to.
type wallBar struct {
	Used, Expected, Text string
	Percent, Lo, Width   int
}

// Live reports whether the page is to be loaded again.
func (v *runView) Live() bool {
	switch v.State {
	case store.Created, store.Planning, store.Approved, store.Running, store.Interrupted:
		return true
	}
	return false
}

// Open reports whether the run can still be cancelled.
func (v *runView) Open() bool { return !v.State.Final() }

// Failed reports whether it can be tried again.
func (v *runView) Failed() bool { return v.State == store.Failed }

func (s *Server) runPage(c *call) error {
	run, err := c.run()
	if errors.Is(err, store.ErrNotFound) {
		if m, bad := s.cfg.Data.Manifest(c.r.PathValue("id")); bad == nil && m.Rows(schema.Requests) > 0 {
			return c.redirect("/loads/" + m.RunID)
		}
	}
	if err != nil {
		return err
	}
	if run.ID != c.r.PathValue("id") {
		return c.redirect("/runs/" + run.ID)
	}
	v, err := c.viewRun(run)
	if err != nil {
		return err
	}
	name := "run.html"
	if c.r.URL.Query().Get("part") == "live" {
		name = "run-live"
	}
	return c.render(http.StatusOK, name, firstOf(run.Title, run.Target), "runs", v)
}

func (c *call) viewRun(run store.Run) (*runView, error) {
	s, ctx := c.s, c.r.Context()
	if v := s.rendered.over(c, run); v != nil {
		return v, nil
	}
	v := &runView{Run: run, Now: s.cfg.Now(), MayApprove: c.id.May(access.Approve), MaySubmit: c.id.May(access.Submit)}
	if sub, err := s.cfg.Store.Submission(ctx, run.ID); err == nil {
		v.Submission = &sub
	} else if !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	story, err := s.cfg.Store.Story(ctx, run.ID, 200, string(runner.Progress), string(runner.Log), string(runner.MetricRead))
	if err != nil {
		return nil, err
	}
	if v.LastSeq, err = s.cfg.Store.LastSeq(ctx, run.ID); err != nil {
		return nil, err
	}
	v.stages(story)
	if v.Attempts, err = s.cfg.Runner.Attempts(ctx, run.ID); err != nil {
		return nil, err
	}
	for _, a := range v.Attempts {
		v.Spend.WallSeconds += a.Spend.WallSeconds
		v.Spend.GPUHours += a.Spend.GPUHours
		v.Spend.USD += a.Spend.USD
	}
	if v.Plan, v.Report, err = s.rendered.of(c, run); err != nil {
		return nil, err
	}
	if req, err := s.cfg.Runner.Request(ctx, run.ID); err == nil {
		v.Caps = req.Caps
	}
	if v.Report == "" && len(v.Attempts) > 0 {
		v.Log = c.tail(run.ID, v.Attempts[len(v.Attempts)-1])
		v.wall()
	}
	v.reason()
	s.rendered.finished(v)
	return v, nil
}

// stages makes the timeline of the events.
func (v *runView) stages(story []store.Event) {
	at := map[string]int{}
	for i, name := range runner.Stages() {
		v.Stages, at[name] = append(v.Stages, stageView{Name: name, State: "waiting"}), i
	}
	for _, e := range story {
		var d struct {
			Message, Reason, Cause, What, Run, Phase, Arm string
			Seconds                                       float64
		}
		_ = json.Unmarshal(e.Data, &d)
		i, known := at[e.Stage]
		if e.Stage != "" && !known { // a suite's
			v.Stages, at[e.Stage] = append(v.Stages, stageView{Name: e.Stage, State: "waiting"}), len(v.Stages)
			i, known = at[e.Stage], true
		}
		switch runner.EventKind(e.Kind) {
		case runner.StageStarted:
			if known {
				v.Stages[i].State, v.Stages[i].Started, v.Stages[i].Message = "started", e.Time, ""
			}
		case runner.StageFinished, runner.StageSkipped:
			if known {
				st := &v.Stages[i]
				st.State, st.Message = map[bool]string{true: "finished", false: "skipped"}[e.Kind == string(runner.StageFinished)], clean(firstOf(d.Message, d.Reason))
				if st.Seconds, st.Timed = d.Seconds, d.Seconds > 0; !st.Timed && !st.Started.IsZero() {
					st.Seconds, st.Timed = e.Time.Sub(st.Started).Seconds(), true
				}
			}
		case runner.StageRetried:
			v.Story = append(v.Story, clean(e.Stage+" is tried again: "+firstOf(d.Cause, d.Reason, d.Message)))
		case runner.DeviationSeen:
			v.Story = append(v.Story, clean("deviation: "+firstOf(d.What, d.Message)+" "+d.Reason))
		case runner.PhaseChanged:
			if known && d.Arm != "" && v.Stages[i].State == "started" {
				v.Stages[i].Message = clean(strings.TrimSpace(d.Arm + " " + d.Phase + " " + firstOf(d.Message, d.Reason)))
			}
		}
	}
	slices.SortStableFunc(v.Stages, func(a, b stageView) int {
		return order(a.Name) - order(b.Name)
	})
	if n := len(v.Story); n > 8 {
		v.Story = append([]string{fmt.Sprintf("%d earlier", n-7)}, v.Story[n-7:]...)
	}
}

// order puts suites between execute and commit.
func order(stage string) int {
	i := slices.Index(runner.Stages(), stage)
	switch {
	case i < 0:
		return 2*len(runner.Stages()) - 3
	default:
		return 2 * i
	}
}

// wall is the time of running against the estimate.
func (v *runView) wall() {
	if v.Plan == nil {
		return
	}
	e := chosenEstimate(v.Plan.Plan)
	used := v.Spend.WallSeconds
	last := v.Attempts[len(v.Attempts)-1]
	if st := last.Status; !st.Phase.Final() && !st.Started.IsZero() {
		used = max(used, v.Now.Sub(st.Started).Seconds())
	}
	b := &wallBar{Used: report.Seconds(used), Text: "no estimate to compare with"}
	if e != nil && e.WallS != nil {
		most := max(e.WallS.P90, used)
		b.Percent, b.Lo = percentOf(used, most), percentOf(e.WallS.P10, most)
		b.Width = percentOf(e.WallS.P90, most) - b.Lo
		b.Expected, b.Text = report.Seconds(e.WallS.P50), secondsInterval(e.WallS)
	}
	v.Wall = b
}

// reason says what a run waits for.
func (v *runView) reason() {
	switch v.State {
	case store.Created:
		v.Reason = "It waits for a free place to be planned."
	case store.Approved:
		v.Reason = "It waits for a free place in the queue."
	case store.Interrupted:
		v.Reason = "It was interrupted and goes on by itself as soon as there is a place."
	case store.Running:
		if n := len(v.Attempts); n > 0 && v.Attempts[n-1].Status.Phase == runner.Pending {
			v.Reason = clean(firstOf(v.Attempts[n-1].Status.Message, "The command waits to be started."))
		}
	}
	if v.Submission == nil && v.Live() {
		v.Reason = "It was started from the command line, which drives it."
	}
	if v.CancelRequested != "" && !v.State.Final() {
		v.Reason = "It is being cancelled."
	}
}

// maxLog bounds how much of an output is sent at once.
const maxLog = 64 << 10

// tail is the end of an attempt's output.
func (c *call) tail(run string, a runner.AttemptInfo) string {
	text, _, _ := c.log(run, a, -1)
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}

// log reads an attempt's output from a byte on; a negative one is near the end.
func (c *call) log(run string, a runner.AttemptInfo, from int64) (text string, next int64, err error) {
	if from < 0 {
		from = 0
		if r, err := c.s.cfg.Runner.Logs(c.r.Context(), run, a, 0); err == nil {
			if seeker, ok := r.(io.Seeker); ok {
				if end, err := seeker.Seek(0, io.SeekEnd); err == nil {
					from = max(0, end-8<<10)
				}
			}
			_ = r.Close()
		}
	}
	r, err := c.s.cfg.Runner.Logs(c.r.Context(), run, a, from)
	if err != nil {
		return "", from, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxLog))
	return cleanLog(b), from + int64(len(b)), err
}

// cleanLog keeps lines and takes out what steers a terminal.
func cleanLog(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		if r == '\r' {
			return '\n'
		}
		if r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0) || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) {
			return '\uFFFD'
		}
		return r
	}, string(bytes.ToValidUTF8(b, []byte("\uFFFD"))))
}

func (s *Server) approveForm(c *call) error {
	run, err := c.run()
	if err == nil {
		err = c.approveRun(run)
	}
	if err != nil {
		return err
	}
	return c.redirect("/runs/" + run.ID)
}

func (c *call) approveRun(run store.Run) error {
	if run.ApprovedBy != "" {
		return nil
	}
	if err := c.s.approve(c.r.Context(), c.id, run.ID); err != nil {
		return err
	}
	return c.audit("run.approve", run.ID, "")
}

// own refuses to touch the runs of another key, unless one may do everything.
func (c *call) own(run store.Run) error {
	sub, err := c.s.cfg.Store.Submission(c.r.Context(), run.ID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if sub.By != c.id.ID && !c.id.May(access.Admin) {
		return problemf(http.StatusForbidden, "use the key that submitted it, or one with the scope admin", "the run was submitted by another key")
	}
	return nil
}

func (c *call) cancelRun(run store.Run) error {
	if err := c.own(run); err != nil {
		return err
	}
	if _, err := c.s.cfg.Runner.Cancel(c.r.Context(), run.ID, c.id.ID); err != nil {
		return err
	}
	return c.audit("run.cancel", run.ID, "")
}

func (s *Server) cancelForm(c *call) error {
	run, err := c.run()
	if err == nil {
		err = c.cancelRun(run)
	}
	if err != nil {
		return err
	}
	return c.redirect("/runs/" + run.ID)
}

// retryRun puts a failed run back into its queue, where it goes on from what is
// finished.
func (c *call) retryRun(run store.Run) error {
	if err := c.own(run); err != nil {
		return err
	}
	if run.State != store.Failed {
		return problemf(http.StatusConflict, "only a failed run is tried again", "the run is %s", run.State)
	}
	if _, err := c.s.cfg.Store.Submission(c.r.Context(), run.ID); err != nil {
		return problemf(http.StatusConflict, "go on with: repromill run --resume "+run.ID, "the run was not submitted to this server")
	}
	why := "tried again by " + c.id.ID
	if err := c.s.cfg.Store.SetState(c.r.Context(), run.ID, store.Interrupted, why, store.Event{Kind: string(runner.PhaseChanged), Data: phase(store.Interrupted, why)}); err != nil {
		return err
	}
	c.s.cfg.Queue.Kick()
	return c.audit("run.retry", run.ID, "")
}

func (s *Server) retryForm(c *call) error {
	run, err := c.run()
	if err == nil {
		err = c.retryRun(run)
	}
	if err != nil {
		return err
	}
	return c.redirect("/runs/" + run.ID)
}
