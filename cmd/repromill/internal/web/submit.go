package web

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/planner/target"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/access"
	"github.com/repromill/repromill/runner/store"
	"github.com/repromill/repromill/suites/accuracy"
)

// submission is what POST /v1/runs takes. One of Target and Plan is needed.
type submission struct {
	Target string          `json:"target,omitempty" doc:"What to check: an arXiv URL or id, a hub model, a git URL."`
	Plan   json.RawMessage `json:"plan,omitempty" doc:"A whole plan document, instead of a target."`
	Repo   string          `json:"repo,omitempty" doc:"Use the code at this git URL instead of the links that are found."`
	Commit string          `json:"commit,omitempty" doc:"Commit, branch or tag of the code."`
	Queue  string          `json:"queue,omitempty" doc:"Where to run; empty is the server's default."`
	SKU    string          `json:"sku,omitempty" doc:"Make the environment for this GPU model."`
	Seeds  int             `json:"seeds,omitempty" doc:"Executions of a run that depends on a seed."`
	// Compare is of a model: with what, on which suites.
	Compare *accuracy.Wish `json:"compare,omitempty" doc:"Of a model: with what, and on which suites."`
	Approve bool           `json:"approve,omitempty" doc:"Approve the plan in advance; needs the scope approve, and the limits of the key hold."`
	Caps    caps           `json:"caps,omitzero" doc:"What the run may use."`
	// Supersedes is a run whose plan this one was edited from; it is cancelled.
	Supersedes string `json:"supersedes,omitempty" doc:"Id of the run whose plan was edited; it is cancelled."`
}

type caps struct {
	GPUHours float64 `json:"gpu_hours,omitempty"`
	USD      float64 `json:"usd,omitempty"`
	WallS    float64 `json:"wall_s,omitempty"`
}

// request turns a submission into what the runner takes, or refuses it.
func (c *call) request(sub *submission, key string) (runner.Request, error) {
	s := c.s
	if sub.Queue == "" {
		sub.Queue = s.defaultQueue(c.id)
	}
	req := runner.Request{
		Target: strings.TrimSpace(sub.Target), Repo: strings.TrimSpace(sub.Repo), Commit: strings.TrimSpace(sub.Commit), Mirror: s.cfg.Mirror,
		Wishes:   runner.Wishes{Seeds: sub.Seeds, SKU: sub.SKU, Preflight: true, Compare: sub.Compare},
		Executor: sub.Queue, By: c.id.ID, Submission: &store.Submission{Queue: sub.Queue, By: c.id.ID},
		Caps: runner.Caps{GPUHours: bound(sub.Caps.GPUHours, c.id.MaxGPUHours), USD: bound(sub.Caps.USD, c.id.MaxUSD), Wall: time.Duration(sub.Caps.WallS * float64(time.Second))},
	}
	if key != "" {
		if len(key) > 255 {
			return req, problemf(http.StatusBadRequest, "use a key of at most 255 characters, such as a UUID", "the idempotency key is too long")
		}
		req.Key = "serve/" + c.id.ID + "/" + key
	}
	switch {
	case !slices.Contains(s.cfg.Queues, sub.Queue):
		return req, problemf(http.StatusUnprocessableEntity, "use one of "+strings.Join(s.cfg.Queues, ", "), "there is no queue %q", sub.Queue)
	case !c.id.Queue(sub.Queue):
		return req, problemf(http.StatusForbidden, "use one of "+strings.Join(c.id.Queues, ", "), "the key may not submit to %q", sub.Queue)
	case sub.Caps.GPUHours < 0 || sub.Caps.USD < 0 || sub.Caps.WallS < 0 || sub.Caps.WallS > 1e8:
		return req, problemf(http.StatusUnprocessableEntity, "give positive numbers", "a cap cannot be negative or beyond years")
	case sub.Approve && !c.id.May(access.Approve):
		return req, problemf(http.StatusForbidden, "leave approve out, or use a key with the scope approve", "the key may not approve")
	case sub.Approve && s.cfg.TwoKeys:
		return req, problemf(http.StatusForbidden, "leave approve out and have somebody approve it", "on this server another key approves")
	case sub.Approve:
		req.Submission.AutoApprove = c.id.ID
	}
	var err error
	if len(sub.Plan) > 0 && string(sub.Plan) != "null" {
		if req.Plan, err = c.givenPlan(sub); err != nil {
			return req, err
		}
		req.Target, req.Wishes = req.Plan.Target.Input, runner.Wishes{}
		return req, nil
	}
	if req.Target, err = remoteTarget(req.Target, ""); err != nil {
		return req, err
	}
	if req.Repo != "" {
		if req.Repo, err = remoteTarget(req.Repo, target.Git); err != nil {
			return req, err
		}
	}
	if sub.Compare != nil {
		for _, b := range sub.Compare.Baselines {
			if _, err := remoteTarget(b, ""); err != nil {
				return req, err
			}
		}
	}
	return req, nil
}

func bound(asked, most float64) float64 {
	if most > 0 && (asked == 0 || asked > most) {
		return most
	}
	return asked
}

func (s *Server) defaultQueue(id access.Identity) string {
	for _, q := range s.cfg.Queues {
		if id.Queue(q) {
			return q
		}
	}
	return s.cfg.Queues[0]
}

// remoteTarget refuses what lies on the server's own machine: whoever may
// submit a run may not read its files.
func remoteTarget(text, kind string) (string, error) {
	t, err := target.Parse(text)
	if err != nil {
		return "", err
	}
	if t.Kind == target.Local {
		return "", problemf(http.StatusUnprocessableEntity, "give a URL; folders are for the command line: repromill run DIR", "%q is a folder of the server", text)
	}
	if kind != "" && t.Kind != kind {
		return "", problemf(http.StatusUnprocessableEntity, "give a git URL", "%q is no code repository", text)
	}
	return text, nil
}

// givenPlan reads a plan that somebody sends. What it may contact or read of
// this machine must stand in the plan that it was edited from.
func (c *call) givenPlan(sub *submission) (*spec.Plan, error) {
	p, err := spec.Decode(bytes.NewReader(sub.Plan))
	if err == nil {
		err = p.Validate()
	}
	if err != nil {
		return nil, problemf(http.StatusUnprocessableEntity, "its JSON Schema is at /v1/schemas/plan", "the plan cannot be run: %v", err)
	}
	base := &spec.Plan{}
	if sub.Supersedes != "" {
		run, err := c.s.cfg.Store.Find(c.r.Context(), sub.Supersedes)
		if err != nil {
			return nil, err
		}
		sub.Supersedes = run.ID
		if base, err = c.s.cfg.Runner.Plan(c.r.Context(), run.ID); err != nil {
			return nil, err
		}
	}
	if p.Source.Repo != base.Source.Repo && p.Source.Repo != "" {
		if _, err := remoteTarget(p.Source.Repo, target.Git); err != nil {
			return nil, err
		}
	}
	known := map[string]bool{}
	for _, b := range base.Bindings {
		known[b.Path] = true
	}
	for _, b := range p.Bindings {
		if b.Path != "" && !known[b.Path] {
			return nil, problemf(http.StatusUnprocessableEntity, "bind a URL, or use the command line", "the plan binds %q, which is a path of the server", b.Path)
		}
	}
	for _, x := range base.Suites {
		for _, a := range x.Arms {
			known[a.Endpoint], known[a.Model] = true, true
		}
	}
	for _, x := range p.Suites {
		for _, a := range x.Arms {
			if a.Endpoint != "" && !known[a.Endpoint] {
				return nil, problemf(http.StatusUnprocessableEntity, "leave the endpoint out; the server's operator says with --endpoint where arms are served", "the plan names the endpoint %q", a.Endpoint)
			}
			if strings.HasPrefix(a.Model, "/") || strings.HasPrefix(a.Model, ".") || strings.HasPrefix(a.Model, "~") {
				if !known[a.Model] {
					return nil, problemf(http.StatusUnprocessableEntity, "name models of the hub; folders are for the command line", "the plan serves %q, which is a folder of the server", a.Model)
				}
			}
		}
	}
	return p, nil
}

// create stores a submission. created is false for one that was made before
// with the same key.
func (c *call) create(sub *submission, key string) (run store.Run, created bool, err error) {
	ctx := c.r.Context()
	req, err := c.request(sub, key)
	if err != nil {
		return run, false, err
	}
	waiting, err := c.s.cfg.Store.Waiting(ctx, c.s.cfg.MaxWaiting)
	if err != nil {
		return run, false, err
	}
	if len(waiting) >= c.s.cfg.MaxWaiting {
		return run, false, tooMany(time.Minute, "%d submissions wait already", len(waiting))
	}
	run, created, err = c.s.cfg.Runner.Create(ctx, req)
	if err != nil {
		return run, false, err
	}
	if !created {
		return run, false, c.sameRequest(run, req)
	}
	c.s.metrics.submitted.Add(1)
	if err := c.audit("run.submit", run.ID, run.Target); err != nil {
		return run, true, err
	}
	c.s.cfg.Queue.Kick()
	if sub.Supersedes != "" && len(sub.Plan) > 0 {
		if _, err := c.s.cfg.Runner.Cancel(ctx, sub.Supersedes, c.id.ID); err != nil {
			c.s.cfg.Log.Warn("the run that was superseded goes on", "run", sub.Supersedes, "error", err)
		}
	}
	return run, true, nil
}

// sameRequest refuses a key that was used for something else.
func (c *call) sameRequest(run store.Run, req runner.Request) error {
	before, err := c.s.cfg.Store.Document(c.r.Context(), run.ID, "request")
	if err != nil {
		return err
	}
	now, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	if !bytes.Equal(before, now) {
		return problemf(http.StatusUnprocessableEntity, "use a new key for another request", "the idempotency key was used for another request, which is run %s", run.ID)
	}
	return nil
}

// token is random text, for forms whose second sending must do nothing.
func (s *Server) token() string {
	var b [16]byte
	if _, err := io.ReadFull(s.cfg.Rand, b[:]); err != nil {
		return ""
	}
	return hex.EncodeToString(b[:])
}

// submitForm takes the paste box.
func (s *Server) submitForm(c *call) error {
	if err := c.r.ParseForm(); err != nil {
		return badForm(err)
	}
	f := c.r.PostForm
	sub := submission{Target: f.Get("target"), Repo: f.Get("repo"), Commit: f.Get("commit"), Queue: f.Get("queue"), SKU: f.Get("sku")}
	if v := f.Get("seeds"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 1000 {
			return problemf(http.StatusUnprocessableEntity, "give a whole number from 1 to 1000", "seeds is %q", v)
		}
		sub.Seeds = n
	}
	for name, p := range map[string]*float64{"max_gpu_hours": &sub.Caps.GPUHours, "max_usd": &sub.Caps.USD} {
		if v := f.Get(name); v != "" {
			n, err := strconv.ParseFloat(v, 64)
			if err != nil || n < 0 || n > 1e9 {
				return problemf(http.StatusUnprocessableEntity, "give a number", "%s is %q", strings.ReplaceAll(name, "_", " "), v)
			}
			*p = n
		}
	}
	if list := strings.Fields(strings.ReplaceAll(f.Get("baseline"), ",", " ")); len(list) > 0 {
		sub.Compare = &accuracy.Wish{Baselines: list}
	}
	run, _, err := c.create(&sub, f.Get("token"))
	if err != nil {
		return c.submitProblem(&sub, f, err)
	}
	return c.redirect("/runs/" + run.ID)
}

// submitProblem shows the form again with what was typed and what is wrong.
func (c *call) submitProblem(sub *submission, f url.Values, err error) error {
	p := c.s.explain(c.r, err)
	if p.Status != http.StatusUnprocessableEntity {
		return p
	}
	v, verr := c.submitView()
	if verr != nil {
		return verr
	}
	v.Typed, v.Problem, v.Form = sub.Target, p, f
	return c.render(p.Status, "submit.html", "Check a claim", "submit", v)
}

// approve lets a run go on, within what the key of its submitter may use.
func (s *Server) approve(ctx context.Context, id access.Identity, runID string) error {
	now := s.cfg.Now()
	sub, err := s.cfg.Store.Submission(ctx, runID)
	if err != nil {
		return problemf(http.StatusConflict, "go on with: repromill run --resume "+runID+" --yes", "the run was not submitted to this server")
	}
	if s.cfg.TwoKeys && sub.By == id.ID {
		return problemf(http.StatusForbidden, "have somebody with another key approve it", "whoever submitted a run does not approve it on this server")
	}
	if !id.Queue(sub.Queue) {
		return problemf(http.StatusForbidden, "use a key for that queue", "the key may not approve runs in %q", sub.Queue)
	}
	plan, err := s.cfg.Runner.Plan(ctx, runID)
	if err != nil {
		return problemf(http.StatusConflict, "wait until it is planned", "the run has no plan yet")
	}
	grant := access.Local().Grant
	if sub.By != access.Local().ID {
		k, err := s.cfg.Store.Key(ctx, sub.By)
		if err != nil {
			return err
		}
		owner, err := access.Of(k, now)
		if err != nil {
			return problemf(http.StatusForbidden, "submit it again with a valid key", "the key that submitted the run has ended")
		}
		grant = owner.Grant
	}
	hours, usd := expected(plan)
	if err := within(grant, hours, usd); err != nil {
		return err
	}
	used, err := s.cfg.Runner.ApproveWithin(ctx, runID, id.ID, hours, grant.GPUHoursPerDay, now.Add(-24*time.Hour))
	if err != nil {
		return overLimit(err, used, hours, grant.GPUHoursPerDay)
	}
	s.cfg.Queue.Kick()
	return nil
}

// AutoApprove approves a run that its submitter approved in advance; what
// stands against that is a failure of the run.
func (s *Server) AutoApprove(ctx context.Context, w store.Waiting) error {
	id := access.Identity{ID: w.AutoApprove, Grant: access.Grant{Scopes: []string{access.Approve}}}
	err := s.approve(ctx, id, w.RunID)
	if err == nil {
		return s.cfg.Store.Audit(ctx, store.Audit{Actor: w.AutoApprove, Action: "run.approve", Subject: w.RunID, Detail: "in advance"})
	}
	if ctx.Err() != nil {
		return err
	}
	return s.cfg.Store.SetState(ctx, w.RunID, store.Failed, err.Error(), store.Event{Kind: string(runner.PhaseChanged), Data: phase(store.Failed, err.Error())})
}

func phase(to store.State, why string) json.RawMessage {
	b, _ := json.Marshal(map[string]string{"run": string(to), "reason": why})
	return b
}
