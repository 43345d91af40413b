package accuracy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/compare"
	"github.com/repromill/repromill/suites/data"
	"github.com/repromill/repromill/suites/endpoint"
	"github.com/repromill/repromill/suites/harness"
	"github.com/repromill/repromill/suites/servers"
)

// Bench carries out the suites of plans. Catalog and Hub are needed.
type Bench struct {
	Catalog suites.Catalog
	Hub     func() (*data.Hub, error)
	Getenv  func(string) string // for keys of endpoints
	Now     func() time.Time
	Hook    func(point string)
	// Check is how often the servers' identity is looked at; 0 is once a minute.
	Check time.Duration
}

// Serving is where the arms of a plan and its judge are served, as a request
// stores it. It holds no keys: they come from the environment.
type Serving struct {
	Endpoints map[string]string `json:"endpoints,omitempty"` // URL by the name of an arm or its model
	// Servers say how arms that have no endpoint are served by this program: vllm,
	// sglang, docker:IMAGE or a command template; by the name of an arm or its
	// model, "" for all others.
	Servers map[string]string `json:"servers,omitempty"`
	Judge   string            `json:"judge,omitempty"` // URL
	// JudgeModel is what the judge is called there; "" is the only model served.
	JudgeModel string `json:"judge_model,omitempty"`
	// Prices are USD per million tokens in and out, by arm.
	Prices map[string][2]float64 `json:"prices,omitempty"`
}

// URL is where an arm is served, "" if nobody says.
func (s Serving) URL(a spec.Arm) string {
	for _, name := range []string{a.Name, a.Model} {
		if u := s.Endpoints[name]; u != "" {
			return u
		}
	}
	return a.Endpoint
}

// How says how this program serves an arm, "" if it does not: it has an endpoint,
// or nobody says how.
func (s Serving) How(a spec.Arm) string {
	if s.URL(a) != "" {
		return ""
	}
	for _, name := range []string{a.Name, a.Model, ""} {
		if how := s.Servers[name]; how != "" {
			return how
		}
	}
	return ""
}

// Job is one suite of a plan with all that is needed to carry it out.
type Job struct {
	Suite    spec.Suite
	Serving  Serving
	Servers  map[string]servers.Server // of the arms that this program serves, by name
	Dir      string                    // of this suite's run, kept over a resume
	USD      float64
	Wall     time.Duration
	Progress func(harness.Progress)
	// Shard is the block of the order that is asked; the zero value is all.
	Shard harness.Shard
	// Only is the one arm that is asked, to be merged with the others; "" asks all.
	Only string
	// From are folders of shards whose answers are merged; nothing is asked then.
	From []string
}

// Refusal says why a suite is not attempted, "" if nothing stands against it.
func (b *Bench) Refusal(s spec.Suite, at Serving) string {
	d, err := b.Catalog.Find(s.Name)
	switch {
	case s.Kind != "accuracy":
		return "this program measures no " + s.Kind + " by a plan"
	case err != nil:
		return err.Error()
	case s.Status != "" && s.Status != "auto":
		return strings.Join(append([]string{"it cannot be run (" + s.Status + ")"}, s.Reasons...), ": ")
	}
	have := []suites.Need{suites.Tokenizer}
	if at.Judge != "" {
		have = append(have, suites.Judge)
	}
	if lacks := d.Lacks(have...); len(lacks) > 0 {
		return strings.Join(lacks, "; ")
	}
	return ""
}

// Missing is the error of a plan that needs endpoints which nobody named, nil if
// none is missing. Endpoints of arms that the plan lacks are an error too.
func (s Serving) Missing(list []spec.Suite) error {
	known := map[string]bool{}
	for _, x := range list {
		for _, a := range x.Arms {
			known[a.Name], known[a.Model] = true, true
		}
	}
	for name, url := range s.Endpoints {
		if !known[name] {
			return &UserError{fmt.Sprintf("there is no arm %q to be served at %s", name, url), "name an arm of the plan, or its model"}
		}
	}
	for name, how := range s.Servers {
		if !known[name] && name != "" {
			return &UserError{fmt.Sprintf("there is no arm %q to be served by %s", name, how), "name an arm of the plan, or its model"}
		}
	}
	for _, x := range list {
		for _, a := range x.Arms {
			if s.URL(a) == "" && s.How(a) == "" {
				return &UserError{fmt.Sprintf("no endpoint serves arm %s of suite %s, which is %s", a.Name, x.ID, a.Model),
					fmt.Sprintf("give --server vllm (or sglang, or a command with {port} and {model}) to have it started, or start it and give --endpoint %s=URL", a.Name)}
			}
		}
	}
	return nil
}

// Files are those of data sets that a suite reads, at their commits.
func (b *Bench) Files(s spec.Suite) ([]data.File, error) {
	d, err := b.Catalog.Find(s.Name)
	if err != nil {
		return nil, err
	}
	return pinned(d, s)
}

// pinned are the files of a suite as the plan has them, else as its definition
// does.
func pinned(d suites.Definition, s spec.Suite) (out []data.File, err error) {
	for _, f := range s.Dataset.Files {
		out = append(out, data.File{Repo: f.Repo, Commit: f.Commit, Path: f.Path, SHA256: f.SHA256})
	}
	if out == nil {
		out = d.Data
	}
	if len(out) != len(d.Data) {
		return nil, &UserError{fmt.Sprintf("the plan pins %d files of suite %s, which reads %d", len(out), s.ID, len(d.Data)), "plan again"}
	}
	return out, nil
}

// Run carries out a suite, or merges what its shards came to; see [harness.Run]
// and [harness.Merge].
func (b *Bench) Run(ctx context.Context, j Job) (harness.Result, error) {
	c, done, err := b.config(ctx, j)
	if err != nil {
		return harness.Result{}, err
	}
	defer done()
	var res harness.Result
	if len(j.From) > 0 {
		res, err = harness.Merge(ctx, c, j.From...)
	} else {
		res, err = harness.Run(ctx, c)
	}
	if err == nil {
		res.Warnings = append(res.Warnings, b.mismatches(j.Suite, res)...)
	}
	return res, err
}

// Answers calls f for every answer that a result rests on; see [harness.Answers].
func (b *Bench) Answers(ctx context.Context, j Job, res harness.Result, f func(harness.Answer) error) error {
	c, done, err := b.config(ctx, j)
	if err != nil {
		return err
	}
	defer done()
	return harness.Answers(ctx, c, res, f)
}

// mismatches warns of servers that say they serve another model than the plan's.
func (b *Bench) mismatches(s spec.Suite, res harness.Result) (out []string) {
	for _, a := range s.Arms {
		for _, k := range res.Looks {
			if k.Arm != a.Name || k.Void {
				continue
			}
			served := []string{k.Identity.Model, k.Identity.Root}
			if a.Model != "" && !slices.Contains(served, a.Model) {
				out = append(out, fmt.Sprintf("arm %s is to be %s, and its server says that it serves %s", a.Name, a.Model, strings.TrimSpace(strings.Join(served, " "))))
			}
			break
		}
	}
	return out
}

// config makes the harness's configuration for a job.
func (b *Bench) config(ctx context.Context, j Job) (c harness.Config, done func(), err error) {
	s := j.Suite
	d, err := b.Catalog.Find(s.Name)
	if err != nil {
		return c, nil, err
	}
	if d.Open == nil {
		return c, nil, &UserError{fmt.Sprintf("suite %s cannot be run: %s", s.Name, d.Later), "leave it out"}
	}
	variant, err := d.Variant(s.Variant)
	if err != nil {
		return c, nil, err
	}
	c = harness.Config{Name: s.Name, Variant: variant.Name, Repeats: s.Repeats, Seed: uint64(s.Seed), Limit: s.Questions, Dir: j.Dir,
		Budget: harness.Budget{Tokens: s.Budget.Tokens, USD: j.USD, Wall: j.Wall}, Check: b.Check, Now: b.Now, Hook: b.Hook, Progress: j.Progress, Shard: j.Shard, Only: j.Only, From: j.From}
	if s.Budget.USD > 0 && (c.Budget.USD == 0 || s.Budget.USD < c.Budget.USD) {
		c.Budget.USD = s.Budget.USD
	}
	raw, err := json.Marshal(s.Sampling)
	if err == nil {
		err = json.Unmarshal(raw, &c.Sampling)
	}
	if err != nil {
		return c, nil, &UserError{fmt.Sprintf("the sampling of suite %s cannot be read: %v", s.ID, err), "write temperature, top_p, top_k, max_tokens and extra"}
	}
	if m := s.Compare; m != nil {
		c.Terms = harness.Terms{Method: m.Method, Options: compare.Options{Margin: m.Margin, Alpha: m.Alpha, Look: m.Look, OneSided: m.OneSided, Seed: uint64(s.Seed)}}
	}
	done, err = b.connect(j, &c)
	if err != nil {
		return c, nil, err
	}
	dir := j.Dir
	if len(j.From) > 0 {
		dir = j.From[0] // what a suite made once for its shards lies with each of them
	}
	c.Suite, err = b.open(ctx, d, s, variant, c.Arms, dir)
	if err != nil {
		done()
		return c, nil, err
	}
	return c, done, checkRule(s, c.Suite)
}

// checkRule refuses to grade under another rule than the plan names.
func checkRule(s spec.Suite, opened suites.Suite) error {
	r := opened.Grader().Rule()
	if s.Grader.Rule != "" && (s.Grader.Rule != r.Name || s.Grader.Version != "" && s.Grader.Version != r.Version) {
		return &UserError{fmt.Sprintf("the plan grades %s under %s@%s, its variant %s goes with %s", s.ID, s.Grader.Rule, s.Grader.Version, s.Variant, r),
			"run it so, and grade the stored answers under other rules with: repromill grade"}
	}
	return nil
}

// connect makes the clients of the arms and of the judge.
func (b *Bench) connect(j Job, c *harness.Config) (done func(), err error) {
	var clients []*endpoint.Client
	getenv := b.Getenv
	if getenv == nil {
		getenv = func(string) string { return "" }
	}
	done = func() {
		for _, cl := range clients {
			cl.Close()
		}
	}
	dial := func(name, url, model string) (*endpoint.Client, error) {
		cl, err := endpoint.New(endpoint.Config{URL: url, Model: model, Key: endpoint.KeyFor(name, getenv), Now: b.Now})
		if err == nil {
			clients = append(clients, cl)
		}
		return cl, err
	}
	for _, a := range j.Suite.Arms {
		arm := harness.Arm{Name: a.Name}
		url, ours := j.Serving.URL(a), j.Servers[a.Name]
		if ours != nil {
			url = ours.Endpoint()
		}
		if url != "" {
			cl, err := dial(a.Name, url, "")
			if err != nil {
				done()
				return nil, err
			}
			arm.Server = &served{client: cl, want: a.Model, ours: ours, as: func(model string) (*endpoint.Client, error) { return dial(a.Name, url, model) }}
		}
		p := j.Serving.Prices[a.Name]
		arm.USDIn, arm.USDOut = p[0], p[1]
		c.Arms = append(c.Arms, arm)
	}
	if j.Serving.Judge != "" {
		cl, err := dial("judge", j.Serving.Judge, j.Serving.JudgeModel)
		if err != nil {
			done()
			return nil, err
		}
		zero := 0.0
		c.Judge, c.JudgeSampling = cl, suites.Sampling{Temperature: &zero, MaxTokens: 4096}
	}
	return done, nil
}

// open opens a suite over its data.
func (b *Bench) open(ctx context.Context, d suites.Definition, s spec.Suite, v suites.Variant, arms []harness.Arm, dir string) (suites.Suite, error) {
	hub, err := b.Hub()
	if err != nil {
		return nil, err
	}
	env := suites.Env{Hub: hub, Variant: v.Name, Seed: uint64(s.Seed), Dir: filepath.Join(dir, "made")}
	if env.Files, err = pinned(d, s); err != nil {
		return nil, err
	}
	if slices.Contains(d.Needs, suites.Tokenizer) {
		env.Count, env.Limit = tokenizer(arms)
	}
	if slices.Contains(d.Needs, suites.Tokenizer) {
		if err := os.MkdirAll(env.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("make folder of suite %s: %w", s.ID, err)
		}
	}
	return d.Open(ctx, env)
}

// served is an endpoint that may serve several models: the arm's own is asked,
// else the only one there is.
type served struct {
	client *endpoint.Client
	want   string
	ours   servers.Server // knows more of itself than the endpoint says; nil for others
	as     func(model string) (*endpoint.Client, error)
	mu     sync.Mutex
	chosen bool
}

// Identity implements [harness.Asker]. It is called before anything is asked.
func (s *served) Identity(ctx context.Context) (endpoint.Identity, error) {
	cl, err := s.choose(ctx)
	if err != nil {
		return endpoint.Identity{}, err
	}
	if s.ours != nil {
		return s.ours.Identity(ctx)
	}
	return cl.Identity(ctx)
}

// choose returns the client of the arm's own model.
func (s *served) choose(ctx context.Context) (*endpoint.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.chosen {
		names, err := s.client.Models(ctx)
		var e *endpoint.Error
		switch {
		case errors.As(err, &e) && (e.Kind == endpoint.Unknown || e.Status == http.StatusInternalServerError):
			names = []string{s.want} // it lists none, or fails to
		case err != nil:
			return nil, err
		}
		if slices.Contains(names, s.want) && s.want != "" {
			cl, err := s.as(s.want)
			if err != nil {
				return nil, err
			}
			s.client = cl
		} else if len(names) != 1 {
			return nil, &UserError{fmt.Sprintf("the endpoint %s serves %d models, and none is %s", s.client.URL(), len(names), s.want),
				"serve it under that name: --served-model-name " + s.want}
		}
		s.chosen = true
	}
	return s.client, nil
}

// Ask implements [harness.Asker].
func (s *served) Ask(ctx context.Context, r endpoint.Request) (endpoint.Answer, error) {
	cl, err := s.choose(ctx)
	if err != nil {
		return endpoint.Answer{}, err
	}
	return cl.Ask(ctx, r)
}

// tokenizer is how suites size their prompts: by the baseline's tokenizer, within
// what every arm can take.
func tokenizer(arms []harness.Arm) (count func(context.Context, string) (int, error), limit func(context.Context) (int, error)) {
	var at []*served
	for _, a := range arms {
		if s, ok := a.Server.(*served); ok {
			at = append(at, s)
		}
	}
	if len(at) == 0 {
		return nil, nil
	}
	count = func(ctx context.Context, text string) (int, error) {
		cl, err := at[0].choose(ctx)
		if err != nil {
			return 0, err
		}
		n, err := tokenize(ctx, cl, text)
		var e *endpoint.Error
		if errors.As(err, &e) && e.Kind == endpoint.Unknown {
			return 0, &UserError{fmt.Sprintf("the endpoint %s counts no tokens: it has no /tokenize", cl.URL()), "serve the model with vLLM, which has it, or leave out suites that size their prompts"}
		}
		return n, err
	}
	limit = func(ctx context.Context) (least int, err error) {
		for _, s := range at {
			id, err := s.Identity(ctx)
			if err != nil {
				return 0, err
			}
			if n := id.MaxModelLen; n > 0 && (least == 0 || n < least) {
				least = n
			}
		}
		return least, nil
	}
	return count, limit
}

// tokenize counts again where a server is down for a moment: prompts are sized by
// thousands of these, which must not all be lost for one.
func tokenize(ctx context.Context, cl *endpoint.Client, text string) (n int, err error) {
	for wait := 250 * time.Millisecond; ; wait *= 2 {
		n, err = cl.Tokenize(ctx, text)
		var e *endpoint.Error
		if err == nil || !errors.As(err, &e) || !e.Down() || wait > 4*time.Second {
			return n, err
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// CheckURL refuses an address that no endpoint can have, or that holds
// credentials.
func CheckURL(url string) error {
	cl, err := endpoint.New(endpoint.Config{URL: url})
	if err == nil {
		cl.Close()
	}
	return err
}
