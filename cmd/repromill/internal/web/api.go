package web

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/repromill/repromill/estimators/sku"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/planner/target"
	"github.com/repromill/repromill/results/report"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/access"
	"github.com/repromill/repromill/runner/store"
)

// route is one entry of the API: what the server does with it and what the
// OpenAPI document says of it are the same value.
type route struct {
	method, path string
	scope        string
	summary      string
	params       []param
	body         any            // an example of the request's type; nil is none
	answers      map[int]any    // an example of the type for each status of success; nil is no JSON
	kinds        map[int]string // media types of answers that are no JSON
	handle       func(*call) (status int, body any, err error)
}

// Method, Path and Summary are for the page about the API.
func (r route) Method() string  { return r.method }
func (r route) Path() string    { return r.path }
func (r route) Summary() string { return r.summary }
func (r route) Scope() string   { return r.scope }

type param struct {
	name, in, kind, doc string
}

// apiRun is a run as the API gives it.
type apiRun struct {
	store.Run
	Queue         string      `json:"queue,omitempty"`
	By            string      `json:"submitted_by,omitempty"`
	NeedsApproval bool        `json:"needs_approval"`
	Spend         store.Spend `json:"spend"`
	Links         apiLinks    `json:"links"`
}

type apiLinks struct {
	Self     string `json:"self"`
	HTML     string `json:"html"`
	Events   string `json:"events"`
	Plan     string `json:"plan,omitempty"`
	Report   string `json:"report,omitempty"`
	Card     string `json:"card,omitempty"`
	Parquet  string `json:"parquet,omitempty"`
	Notebook string `json:"notebook,omitempty"`
	Bundle   string `json:"bundle,omitempty"`
}

type apiDetail struct {
	apiRun
	Attempts []apiAttempt `json:"attempts"`
	Figures  []string     `json:"figures"`
}

type apiAttempt struct {
	Key     string      `json:"key"`
	Stage   string      `json:"stage"`
	Arm     string      `json:"arm"`
	Phase   string      `json:"phase"`
	Reason  string      `json:"reason,omitempty"`
	Spend   store.Spend `json:"spend"`
	Created time.Time   `json:"created"`
}

type apiRuns struct {
	Runs []apiRun `json:"runs"`
	Next string   `json:"next,omitempty"`
}

type apiEvents struct {
	Events []runner.Event `json:"events"`
	Last   int64          `json:"last"` // number of the newest of them; ask for what comes after it
}

type apiLog struct {
	Text string `json:"text"`
	Next int64  `json:"next"`
}

type apiTarget struct {
	Target spec.Target `json:"target"`
	Runs   []apiRun    `json:"runs"`
}

type apiSKUs struct {
	SKUs []*sku.SKU `json:"skus"`
}

type apiQueue struct {
	Queues  []string `json:"queues"`
	Waiting int      `json:"waiting"`
	Running int      `json:"running"`
}

type apiKey struct {
	ID           string    `json:"id"`
	Name         string    `json:"name"`
	Scopes       []string  `json:"scopes"`
	Queues       []string  `json:"queues,omitempty"`
	Expires      time.Time `json:"expires,omitzero"`
	GPUHoursUsed float64   `json:"gpu_hours_used_24h"`
	GPUHoursDay  float64   `json:"gpu_hours_per_day,omitempty"`
}

type apiAudit struct {
	Lines []store.Audit `json:"lines"`
}

type apiHealth struct {
	Status string `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// api lists every route.
func (s *Server) api() []route {
	id := param{"id", "path", "string", "Id of the run, or a beginning of it that only one has."}
	one := map[int]any{200: apiRun{}}
	return []route{
		{"POST", "/v1/runs", access.Submit, "Submit a run. With an Idempotency-Key the same request again gives the same run.",
			[]param{{"Idempotency-Key", "header", "string", "Any text; the same key is the same run."}}, submission{}, map[int]any{201: apiRun{}, 200: apiRun{}}, nil, (*call).apiSubmit},
		{"GET", "/v1/runs", access.Read, "List runs, newest first.",
			[]param{{"state", "query", "string", "Only runs in this state."}, {"q", "query", "string", "Part of the target."}, {"subject", "query", "string", "What the plan is about, as in Run.subject."},
				{"before", "query", "string", "Only runs that come after this one in the list."}, {"limit", "query", "integer", "At most so many, up to 500."}}, nil, map[int]any{200: apiRuns{}}, nil, (*call).apiList},
		{"GET", "/v1/runs/{id}", access.Read, "One run with its attempts and links.", []param{id}, nil, map[int]any{200: apiDetail{}}, nil, (*call).apiGet},
		{"GET", "/v1/runs/{id}/plan", access.Read, "The plan document.", []param{id}, nil, map[int]any{200: spec.Plan{}}, nil, (*call).apiPlan},
		{"GET", "/v1/runs/{id}/report", access.Read, "The report of a finished run.", []param{id}, nil, map[int]any{200: report.Report{}}, nil, (*call).apiReport},
		{"GET", "/v1/runs/{id}/bundle", access.Read, "Everything that a finished run left, as one ZIP archive without secrets; `repromill rerun` repeats it.", []param{id}, nil, map[int]any{200: nil}, map[int]string{200: "application/zip"}, (*call).apiBundle},
		{"GET", "/v1/runs/{id}/events", access.Read, "The events of a run: as JSON, or with Accept: text/event-stream as a stream that goes on until the run ends.",
			[]param{id, {"after", "query", "integer", "Only events after this number."}, {"Last-Event-ID", "header", "string", "The same, for streams."}, {"limit", "query", "integer", "At most so many, up to 1000; not for streams."}}, nil,
			map[int]any{200: apiEvents{}}, map[int]string{200: "text/event-stream"}, (*call).apiEvents},
		{"GET", "/v1/runs/{id}/log", access.Read, "The output of the last attempt, from a byte on.",
			[]param{id, {"from", "query", "integer", "The first byte; negative is near the end."}, {"attempt", "query", "string", "Key of another attempt."}}, nil, map[int]any{200: apiLog{}}, nil, (*call).apiLog},
		{"POST", "/v1/runs/{id}/approve", access.Approve, "Approve a planned run.", []param{id}, nil, one, nil, (*call).apiApprove},
		{"POST", "/v1/runs/{id}/cancel", access.Submit, "Cancel a run.", []param{id}, nil, one, nil, (*call).apiCancel},
		{"POST", "/v1/runs/{id}/retry", access.Submit, "Take a failed run up again where it stood.", []param{id}, nil, one, nil, (*call).apiRetry},
		{"GET", "/v1/target", access.Read, "What a pasted text is, and the runs about it. Nothing outside is contacted.", []param{{"target", "query", "string", "Any URL or id."}}, nil, map[int]any{200: apiTarget{}}, nil, (*call).apiTarget},
		{"GET", "/v1/skus", access.Read, "The catalogue of GPUs; every number with its source.", nil, nil, map[int]any{200: apiSKUs{}}, nil, (*call).apiSKUs},
		{"GET", "/v1/nightly", access.Read, "The newest nights of every series of the schedule.", nil, nil, map[int]any{200: apiNightly{}}, nil, (*call).apiNightly},
		{"GET", "/v1/queue", access.Read, "How much waits and runs.", nil, nil, map[int]any{200: apiQueue{}}, nil, (*call).apiQueue},
		{"GET", "/v1/key", access.Read, "The key that asks: what it may do and has used.", nil, nil, map[int]any{200: apiKey{}}, nil, (*call).apiKey},
		{"GET", "/v1/audit", access.Admin, "The newest lines of the audit log.", []param{{"subject", "query", "string", "Only about this run or key."}, {"before", "query", "integer", "Only lines before this one."}}, nil, map[int]any{200: apiAudit{}}, nil, (*call).apiAudit},
		{"GET", "/v1/openapi.json", access.Read, "This document.", nil, nil, map[int]any{200: map[string]any{}}, nil, (*call).apiDocument},
		{"GET", "/v1/schemas/plan", access.Read, "The JSON Schema of plan documents.", nil, nil, map[int]any{200: map[string]any{}}, nil, (*call).apiPlanSchema},
		{"GET", "/healthz", "", "The process answers.", nil, nil, map[int]any{200: apiHealth{}}, nil, (*call).apiHealth},
		{"GET", "/readyz", "", "The store answers and the server takes work; 503 while it drains.", nil, nil, map[int]any{200: apiHealth{}, 503: apiHealth{}}, nil, (*call).apiReady},
		{"GET", "/metrics", access.Read, "Metrics in Prometheus' text format.", nil, nil, map[int]any{200: nil}, map[int]string{200: "text/plain; version=0.0.4; charset=utf-8"}, (*call).apiMetrics},
	}
}

// view is a run for the API.
func (c *call) view(run store.Run) (apiRun, error) {
	base := "/v1/runs/" + run.ID
	out := apiRun{Run: run, Links: apiLinks{Self: base, HTML: "/runs/" + run.ID, Events: base + "/events"}}
	switch sub, err := c.s.cfg.Store.Submission(c.r.Context(), run.ID); {
	case err == nil:
		out.Queue, out.By = sub.Queue, sub.By
	case !errors.Is(err, store.ErrNotFound):
		return out, err
	}
	out.NeedsApproval = run.State == store.Planned && run.ApprovedBy == ""
	out.IdempotencyKey = "" // it holds the name of the key's owner and is his alone
	if run.PlanHash != "" {
		out.Links.Plan = base + "/plan"
	}
	if run.State == store.Done {
		page := "/runs/" + run.ID
		out.Links.Report, out.Links.Card, out.Links.Parquet, out.Links.Notebook = base+"/report", page+"/figures/card.png", page+"/parquet", page+"/notebook.ipynb"
		out.Links.Bundle = base + "/bundle"
	}
	return out, nil
}

// spent is view with what the run used.
func (c *call) spent(run store.Run) (apiRun, []runner.AttemptInfo, error) {
	out, err := c.view(run)
	if err != nil {
		return out, nil, err
	}
	list, err := c.s.cfg.Runner.Attempts(c.r.Context(), run.ID)
	for _, a := range list {
		out.Spend.WallSeconds += a.Spend.WallSeconds
		out.Spend.GPUHours += a.Spend.GPUHours
		out.Spend.USD += a.Spend.USD
	}
	return out, list, err
}

func (c *call) apiSubmit() (int, any, error) {
	var sub submission
	if err := c.decode(&sub); err != nil {
		return 0, nil, err
	}
	run, created, err := c.create(&sub, c.r.Header.Get("Idempotency-Key"))
	if err != nil {
		return 0, nil, err
	}
	out, _, err := c.spent(run)
	c.w.Header().Set("Location", out.Links.Self)
	if created {
		return http.StatusCreated, out, err
	}
	return http.StatusOK, out, err
}

func (c *call) limit(most, def int) (int, error) {
	v := c.r.URL.Query().Get("limit")
	if v == "" {
		return def, nil
	}
	var n int
	if _, err := fmt.Sscanf(v, "%d", &n); err != nil || n < 1 || n > most {
		return 0, problemf(http.StatusBadRequest, fmt.Sprintf("give a number from 1 to %d", most), "limit is %q", v)
	}
	return n, nil
}

func (c *call) apiList() (int, any, error) {
	n, err := c.limit(500, 50)
	if err != nil {
		return 0, nil, err
	}
	f, err := c.filter(n)
	if err != nil {
		return 0, nil, err
	}
	runs, err := c.s.cfg.Store.List(c.r.Context(), f)
	if err != nil {
		return 0, nil, err
	}
	out := apiRuns{Runs: []apiRun{}}
	for _, r := range runs {
		v, _, err := c.spent(r)
		if err != nil {
			return 0, nil, err
		}
		out.Runs = append(out.Runs, v)
	}
	if len(runs) == n {
		q := c.r.URL.Query()
		q.Set("before", runs[n-1].ID)
		out.Next = "/v1/runs?" + q.Encode()
	}
	return http.StatusOK, out, nil
}

func (c *call) apiGet() (int, any, error) {
	run, err := c.run()
	if err != nil {
		return 0, nil, err
	}
	out := apiDetail{Attempts: []apiAttempt{}, Figures: []string{}}
	var list []runner.AttemptInfo
	if out.apiRun, list, err = c.spent(run); err != nil {
		return 0, nil, err
	}
	for _, a := range list {
		out.Attempts = append(out.Attempts, apiAttempt{a.Key, a.Stage, a.Arm, string(a.Status.Phase), string(a.Status.Reason), a.Spend, a.Created})
	}
	if run.State == store.Done {
		if rep, err := c.s.cfg.Runner.Report(c.r.Context(), run.ID); err == nil {
			names, _ := rep.Figures()
			out.Figures = append(out.Figures, names...)
		}
	}
	return http.StatusOK, out, nil
}

func (c *call) apiPlan() (int, any, error) {
	_, p, err := c.runPlan()
	if errors.Is(err, store.ErrNotFound) {
		err = problemf(http.StatusNotFound, "wait until the run is planned", "there is no such run, or it has no plan yet")
	}
	return http.StatusOK, p, err
}

func (c *call) apiReport() (int, any, error) {
	rep, err := c.report()
	return http.StatusOK, rep, err
}

func (c *call) apiBundle() (int, any, error) { return 0, nil, c.bundle() }

func (c *call) apiEvents() (int, any, error) {
	run, err := c.run()
	if err != nil {
		return 0, nil, err
	}
	after, err := lastEvent(c.r)
	if err != nil {
		return 0, nil, err
	}
	if strings.Contains(c.r.Header.Get("Accept"), "text/event-stream") {
		return 0, nil, c.stream(run, after)
	}
	n, err := c.limit(1000, 1000)
	if err != nil {
		return 0, nil, err
	}
	list, err := c.s.cfg.Runner.Events(c.r.Context(), run.ID, after, n)
	out := apiEvents{Events: append([]runner.Event{}, list...), Last: after}
	if len(list) > 0 {
		out.Last = list[len(list)-1].Seq
	}
	return http.StatusOK, out, err
}

func (c *call) apiLog() (int, any, error) {
	text, next, err := c.output()
	return http.StatusOK, apiLog{text, next}, err
}

func (c *call) change(do func(store.Run) error) (int, any, error) {
	run, err := c.run()
	if err == nil {
		err = do(run)
	}
	if err != nil {
		return 0, nil, err
	}
	if run, err = c.s.cfg.Store.Run(c.r.Context(), run.ID); err != nil {
		return 0, nil, err
	}
	out, _, err := c.spent(run)
	return http.StatusOK, out, err
}

func (c *call) apiApprove() (int, any, error) { return c.change(c.approveRun) }
func (c *call) apiCancel() (int, any, error)  { return c.change(c.cancelRun) }
func (c *call) apiRetry() (int, any, error)   { return c.change(c.retryRun) }

func (c *call) apiTarget() (int, any, error) {
	t, err := target.Parse(c.r.URL.Query().Get("target"))
	if err != nil {
		return 0, nil, err
	}
	runs, err := c.s.cfg.Store.List(c.r.Context(), store.Filter{Subject: t.Kind + ":" + t.ID, Limit: 50})
	if err != nil {
		return 0, nil, err
	}
	out := apiTarget{Target: t, Runs: []apiRun{}}
	for _, r := range runs {
		v, _, err := c.spent(r)
		if err != nil {
			return 0, nil, err
		}
		out.Runs = append(out.Runs, v)
	}
	return http.StatusOK, out, nil
}

func (c *call) apiSKUs() (int, any, error) { return http.StatusOK, apiSKUs{sku.Catalogue()}, nil }

func (c *call) apiQueue() (int, any, error) {
	v, err := c.submitView()
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, apiQueue{append([]string{}, v.Queues...), v.Waiting, int(v.Running)}, nil
}

func (c *call) apiKey() (int, any, error) {
	used, err := c.s.cfg.Store.GPUHours(c.r.Context(), c.id.ID, c.s.cfg.Now().Add(-24*time.Hour))
	return http.StatusOK, apiKey{c.id.ID, c.id.Name, append([]string{}, c.id.Scopes...), c.id.Queues, c.id.Expires, used, c.id.GPUHoursPerDay}, err
}

func (c *call) apiAudit() (int, any, error) {
	var before int64
	if v := c.r.URL.Query().Get("before"); v != "" {
		if _, err := fmt.Sscanf(v, "%d", &before); err != nil {
			return 0, nil, problemf(http.StatusBadRequest, "give a line's number", "before is %q", v)
		}
	}
	list, err := c.s.cfg.Store.AuditLog(c.r.Context(), c.r.URL.Query().Get("subject"), before, 200)
	return http.StatusOK, apiAudit{append([]store.Audit{}, list...)}, err
}

func (c *call) apiHealth() (int, any, error) { return http.StatusOK, apiHealth{Status: "ok"}, nil }

func (c *call) apiReady() (int, any, error) {
	if err := c.s.ready(c.r.Context()); err != nil {
		return http.StatusServiceUnavailable, apiHealth{"unavailable", err.Error()}, nil
	}
	return http.StatusOK, apiHealth{Status: "ok"}, nil
}

func (c *call) apiMetrics() (int, any, error) {
	var b bytes.Buffer
	c.s.metrics.write(&b)
	counts, err := c.s.counted(c.r.Context())
	if err != nil {
		return 0, nil, err
	}
	g := gauge{name: "repromill_runs", help: "Runs in the store, by state.", kind: "gauge"}
	for _, st := range states {
		g.labels, g.values = append(g.labels, `state="`+string(st)+`"`), append(g.values, float64(counts[st]))
	}
	writeGauge(&b, g)
	waiting, err := c.s.cfg.Store.Waiting(c.r.Context(), c.s.cfg.MaxWaiting)
	if err != nil {
		return 0, nil, err
	}
	writeGauge(&b, gauge{"repromill_submissions_open", "Submissions that are driven or wait to be.", "gauge", nil, []float64{float64(len(waiting))}})
	writeGauge(&b, gauge{"repromill_watchers", "Open event streams.", "gauge", nil, []float64{float64(c.s.hub.watchers())}})
	writeGauge(&b, gauge{"repromill_start_time_seconds", "When the process began to serve.", "gauge", nil, []float64{float64(c.s.started.Unix())}})
	c.w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = c.w.Write(b.Bytes())
	return 0, nil, nil
}
