package runner

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/server"
	"github.com/repromill/repromill/runner/store"
	"github.com/repromill/repromill/suites/accuracy"
)

// Planner turns a request into a plan: the stages resolve, fetch and plan.
// The runner stores what it returns as one unit; after an interruption it is
// asked again.
type Planner interface {
	// Plan reports its progress through emit, with the stage that it is in. A
	// target without code or without a claim is a plan that says so.
	Plan(ctx context.Context, req PlanRequest, emit func(stage string, kind EventKind, data any)) (*spec.Plan, error)
}

// PlanRequest is what the planner needs of a [Request].
type PlanRequest struct {
	RunID  string
	Target string
	Repo   string // overrides the code links that are found
	Commit string
	Wishes Wishes
}

// Wishes are what a user asks of the plan itself.
type Wishes struct {
	Bind      []spec.Binding `json:"bind,omitempty"`      // with their hashes; see planner.Bind
	Seeds     int            `json:"seeds,omitempty"`     // executions of a stochastic run; 0 leaves what is planned
	SKU       string         `json:"sku,omitempty"`       // make the environment for this GPU model
	Preflight bool           `json:"preflight,omitempty"` // look at every address that the chosen runs need
	Compare   *accuracy.Wish `json:"compare,omitempty"`   // of a model: with what, on which suites
}

// Source gives the code of a plan as a folder that is only read.
type Source interface {
	Checkout(ctx context.Context, repo, commit string, submodules bool) (dir string, err error)
}

// Results takes what a run gave. Commit is idempotent by run id: committing a
// run again leaves one result.
type Results interface {
	Commit(ctx context.Context, rec *Record) (manifest string, err error)
}

// Request is what a user asks for; it is stored with the run as it is.
type Request struct {
	Target string     `json:"target,omitempty"`
	Plan   *spec.Plan `json:"plan,omitempty"` // given: nothing is planned
	Repo   string     `json:"repo,omitempty"`
	Commit string     `json:"commit,omitempty"`
	Mirror string     `json:"mirror,omitempty"` // kept for whoever resumes; the runner does not use it
	// Serving says where the arms of suites are served.
	Serving accuracy.Serving `json:"serving,omitzero"`
	// Answers are folders of shards by suite, whose answers are taken instead of
	// asking. Where it is set, suites without any are not attempted.
	Answers map[string][]string `json:"answers,omitempty"`
	// Sharding says how suites are cut where the executor asks them in pods.
	Sharding Sharding `json:"sharding,omitzero"`
	Wishes   Wishes   `json:"wishes,omitzero"` // of a target that is planned; a plan that is given holds them already

	Executor string `json:"executor,omitempty"` // a name of Config.Executors; empty means the default
	Yes      bool   `json:"yes,omitempty"`      // approved in advance
	By       string `json:"by,omitempty"`       // who asks, for the record
	Image    string `json:"image,omitempty"`    // run in this image as it is, and install nothing
	// Lock holds installing to the versions of an earlier run, one "name==version"
	// a line as in [Outcome.Packages].
	Lock      string `json:"lock,omitempty"`
	NoSandbox bool   `json:"no_sandbox,omitempty"`  // run untrusted code without isolation; recorded as a deviation
	KeepWork  bool   `json:"keep_work,omitempty"`   // leave the working folders
	Caps      Caps   `json:"caps,omitzero"`         // of the whole run, over all its attempts
	Key       string `json:"idempotency,omitempty"` // the same key is the same run
	// Submission hands the run to a queue, in one step with its creation.
	Submission *store.Submission `json:"-"`
}

// Caps bound what a run may use; 0 is no bound. They are measured while it
// runs and survive a resume.
type Caps struct {
	GPUHours float64       `json:"gpu_hours,omitempty"`
	USD      float64       `json:"usd,omitempty"`
	Wall     time.Duration `json:"wall,omitempty"` // summed over the attempts, in nanoseconds
}

// options are the wishes as a person would type them.
func (w Wishes) options() (out []string) {
	for _, b := range w.Bind {
		val := b.Value
		if b.Kind != "set" {
			val = b.Path + b.URL
		}
		out = append(out, "--"+b.Kind, word(b.Name+"="+val))
	}
	if w.Seeds > 0 {
		out = append(out, "--seeds", strconv.Itoa(w.Seeds))
	}
	if w.SKU != "" {
		out = append(out, "--sku", word(w.SKU))
	}
	return out
}

// Config is what a Runner works with. Store, Executors, Source, Results and
// Dir are needed; Planner only for requests without a plan.
type Config struct {
	Store     *store.Store
	Executors map[string]Executor
	Images    map[string]Images // by the name of the executor that needs them
	Default   string            // the executor of a request that names none; empty means "local"
	Planner   Planner
	Source    Source
	Results   Results
	Assets    Assets // nil: what is bound by URL is not fetched
	Suites    Suites // nil: no suite is carried out
	// Seeds fills the cache of a cluster from this machine, for what a mirror holds;
	// nil: pods do it in any case.
	Seeds Seeds
	// Throughput carries out throughput suites; nil: none is.
	Throughput Throughput
	Serving    accuracy.Serving // goes over what a request says
	// Servers says how servers of arms are started; without Self none is. Logs,
	// How, Now, Hook and Progress are the runner's own, and Dir where it is empty.
	Servers server.Config
	Dir     string // state folder; runs/<id>/ below it belongs to the runner
	// Places are what differs for runs of an executor, by its name, whose
	// attempts do not run on this machine.
	Places map[string]Place

	Now      func() time.Time
	Rand     io.Reader // entropy of run ids, such as crypto/rand.Reader; Create without an idempotency key needs it
	Sleep    func(context.Context, time.Duration) error
	Hook     func(point string) // see [HookPoints]
	Getenv   func(string) string
	LookPath func(string) (string, error)

	FreeBytes func(path string) (int64, error) // free disk space; nil asks the system

	GPUs               int                // how many the executors offer; runs that need more are not attempted
	PriceUSDPerGPUHour map[string]float64 // by SKU
	// Indexes are the package indexes (https URLs), the main one first; empty
	// means what PIP_INDEX_URL or UV_INDEX_URL say, else pypi.org.
	Indexes []string
	// IndexHosts are further host:port pairs that installing may reach.
	IndexHosts []string
	Limits     Limits        // for attempts that state none
	PollMin    time.Duration // between two observations; 0 means 20 ms, growing to PollMax
	PollMax    time.Duration // 0 means 1 s
	MaxTries   int           // of one piece of work that is lost again and again; 0 means 3
	Version    string        // of this program, for the record
}

// Place is where an executor's attempts run, when that is not this machine.
type Place struct {
	// Dir is in place of Config.Dir for the working folders of runs: a folder
	// that attempts see at the same path.
	Dir string
	// Python is the interpreter there; this machine's are of no use.
	Python Interpreter
	GPUs   int // in place of Config.GPUs
	// NodeGPUs is how many GPUs of a model one node has there, "" for a model that
	// nobody names; 0 is not known, and so is nil.
	NodeGPUs func(sku string) int
}

// at is the runner as runs of the named executor see it.
func (r *Runner) at(executor string) *Runner {
	p, ok := r.cfg.Places[executor]
	if !ok {
		return r
	}
	own := *r
	own.cfg.Dir, own.cfg.GPUs, own.python, own.nodeGPUs = p.Dir, p.GPUs, p.Python, p.NodeGPUs
	own.cfg.LookPath = func(name string) (string, error) { return "", &exec.Error{Name: name, Err: exec.ErrNotFound} }
	return &own
}

// Runner drives runs. It is safe for concurrent use by different runs.
type Runner struct {
	cfg    Config
	python Interpreter // the only one, where one is set

	nodeGPUs func(sku string) int // see Place
}

// UserError is a mistake of the user; the message contains the fix.
type UserError struct{ Msg, Fix string }

func (e *UserError) Error() string { return e.Msg + "; " + e.Fix }

// UserError returns the fix.
func (e *UserError) UserError() string { return e.Fix }

// New checks the configuration and fills in what it leaves out.
func New(cfg Config) (*Runner, error) {
	switch {
	case cfg.Store == nil:
		return nil, errors.New("runner: no store")
	case len(cfg.Executors) == 0:
		return nil, errors.New("runner: no executor")
	case cfg.Source == nil:
		return nil, errors.New("runner: no source")
	case cfg.Results == nil:
		return nil, errors.New("runner: no results")
	case !filepath.IsAbs(cfg.Dir):
		return nil, fmt.Errorf("runner: the state folder %q is not absolute", cfg.Dir)
	}
	if cfg.Default == "" {
		cfg.Default = "local"
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Sleep == nil {
		cfg.Sleep = sleep
	}
	if cfg.Hook == nil {
		cfg.Hook = func(string) {}
	}
	if cfg.Getenv == nil {
		cfg.Getenv = func(string) string { return "" }
	}
	if cfg.LookPath == nil {
		cfg.LookPath = exec.LookPath
	}
	if cfg.PollMin == 0 {
		cfg.PollMin = 20 * time.Millisecond
	}
	if cfg.PollMax == 0 {
		cfg.PollMax = time.Second
	}
	if cfg.MaxTries == 0 {
		cfg.MaxTries = 3
	}
	return &Runner{cfg: cfg}, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Create stores a run and returns it. With an idempotency key that was used
// before it returns that run, and created is false.
func (r *Runner) Create(ctx context.Context, req Request) (run store.Run, created bool, err error) {
	if req.Plan == nil && req.Target == "" {
		return run, false, &UserError{"there is nothing to run", "name a target or give a plan"}
	}
	if req.Plan == nil && r.cfg.Planner == nil {
		return run, false, errors.New("runner: a target without a plan needs a planner")
	}
	if _, err := r.executor(req); err != nil {
		return run, false, err
	}
	if req.Plan != nil {
		if err := req.Plan.Validate(); err != nil {
			return run, false, &UserError{"the plan cannot be run: " + err.Error(), "correct the plan"}
		}
		if req.Target == "" {
			req.Target = req.Plan.Target.Input
		}
	}
	id := ""
	if req.Key != "" {
		id = RunID(req.Key)
	} else {
		if r.cfg.Rand == nil {
			return run, false, errors.New("runner: no entropy for a run id")
		}
		u, err := ulid.New(ulid.Timestamp(r.cfg.Now()), r.cfg.Rand)
		if err != nil {
			return run, false, fmt.Errorf("make run id: %w", err)
		}
		id = u.String()
	}
	body, err := json.Marshal(req)
	if err != nil {
		return run, false, fmt.Errorf("encode request: %w", err)
	}
	return r.cfg.Store.CreateRun(ctx, store.NewRun{ID: id, Target: req.Target, IdempotencyKey: req.Key, Request: body, Submission: req.Submission},
		event("", RunCreated, map[string]any{"target": req.Target, "by": req.By}))
}

// RunID is the id of the run with an idempotency key. It has the length and the
// alphabet of a ULID, and begins with a K, which no ULID does, so that nobody
// reads a time from it.
func RunID(key string) string {
	sum := sha256.Sum256([]byte("repromill run " + key))
	return "K" + base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding).EncodeToString(sum[:])[:25]
}

func (r *Runner) executorName(req Request) string {
	if req.Executor == "" || req.Executor == "auto" {
		return r.cfg.Default
	}
	return req.Executor
}

func (r *Runner) executor(req Request) (Executor, error) {
	name := r.executorName(req)
	if e, ok := r.cfg.Executors[name]; ok {
		return e, nil
	}
	var known []string
	for k := range r.cfg.Executors {
		known = append(known, k)
	}
	slices.Sort(known)
	return nil, &UserError{fmt.Sprintf("there is no executor %q", name), fmt.Sprintf("use one of %v", known)}
}

// Request returns what was asked for.
func (r *Runner) Request(ctx context.Context, id string) (Request, error) {
	var req Request
	b, err := r.cfg.Store.Document(ctx, id, "request")
	if err == nil {
		err = json.Unmarshal(b, &req)
	}
	return req, err
}

// Plan returns the stored plan; its error wraps [store.ErrNotFound] while the
// run is not planned.
func (r *Runner) Plan(ctx context.Context, id string) (*spec.Plan, error) {
	b, err := r.cfg.Store.Document(ctx, id, "plan")
	if err != nil {
		return nil, err
	}
	var p spec.Plan
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("decode plan of run %s: %w", id, err)
	}
	return &p, nil
}

// Outcome returns what a finished run gave; its error wraps
// [store.ErrNotFound] while the run is not finished.
func (r *Runner) Outcome(ctx context.Context, id string) (Outcome, error) {
	var out Outcome
	b, err := r.cfg.Store.Document(ctx, id, "outcome")
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	return out, err
}

// Approve lets a planned run go on, whoever drives it.
func (r *Runner) Approve(ctx context.Context, id, by string) error {
	return r.cfg.Store.Approve(ctx, id, by, event("", RunApproved, map[string]any{"by": by}))
}

// ApproveWithin approves a run as Approve does, if limit, when positive, leaves
// room for its GPU-hours beside what its submitter used since the moment given
// and has set aside; see [store.Store.Reserve].
func (r *Runner) ApproveWithin(ctx context.Context, id, by string, gpuHours, limit float64, since time.Time) (used float64, err error) {
	return r.cfg.Store.Reserve(ctx, id, by, gpuHours, limit, since, event("", RunApproved, map[string]any{"by": by}))
}

// AttemptInfo is one attempt of a run with what was last seen of it.
type AttemptInfo struct {
	Key     string      `json:"key"`
	Stage   string      `json:"stage"`
	Arm     string      `json:"arm"`
	Shard   int         `json:"shard"`
	N       int         `json:"n"`
	Handle  Handle      `json:"handle,omitempty"`
	Status  Status      `json:"status"`
	Spend   store.Spend `json:"spend"`
	Created time.Time   `json:"created"`
}

// Attempts returns the attempts of a run in the order in which they were made.
func (r *Runner) Attempts(ctx context.Context, id string) ([]AttemptInfo, error) {
	list, err := r.cfg.Store.Attempts(ctx, id)
	if err != nil {
		return nil, err
	}
	out := make([]AttemptInfo, len(list))
	for i, a := range list {
		out[i] = AttemptInfo{a.Key, a.Stage, a.Arm, a.Shard, a.N, Handle(a.Handle), Status{Phase: Pending}, a.Spend, a.Created}
		if len(a.Status) > 0 {
			if out[i].Status, err = decodeStatus(a); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// Logs returns the combined output of an attempt from a byte on, as far as it
// is written; call it again to follow. Where the executor keeps no combined
// output it is the standard output.
func (r *Runner) Logs(ctx context.Context, id string, a AttemptInfo, from int64) (io.ReadCloser, error) {
	req, err := r.Request(ctx, id)
	if err != nil {
		return nil, err
	}
	ex, err := r.executor(req)
	if err != nil {
		return nil, err
	}
	if l, ok := ex.(Logger); ok && a.Handle != "" {
		return l.Logs(ctx, a.Handle, from)
	}
	if a.Status.Stdout == "" {
		return io.NopCloser(strings.NewReader("")), nil
	}
	f, err := os.Open(a.Status.Stdout)
	if err != nil {
		return nil, fmt.Errorf("read logs: %w", err)
	}
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return nil, errors.Join(fmt.Errorf("read logs: %w", err), f.Close())
	}
	return f, nil
}

// Events returns the events after a sequence number, at most limit (0: 1,000).
func (r *Runner) Events(ctx context.Context, id string, after int64, limit int) ([]Event, error) {
	list, err := r.cfg.Store.Events(ctx, id, after, limit)
	out := make([]Event, len(list))
	for i, e := range list {
		out[i] = fromStore(e)
	}
	return out, err
}

// Follow calls fn for every event after a sequence number until the run is
// final, or stop says so; see [store.Store.Follow].
func (r *Runner) Follow(ctx context.Context, id string, after int64, stop func(store.Run) bool, fn func(Event) error) error {
	return r.cfg.Store.Follow(ctx, id, after, stop, func(e store.Event) error { return fn(fromStore(e)) })
}

func fromStore(e store.Event) Event {
	return Event{Seq: e.Seq, RunID: e.RunID, Stage: e.Stage, Time: e.Time, Kind: EventKind(e.Kind), Data: e.Data}
}

// event makes an event for the store. Its data is made of maps, strings and
// finite numbers of ours, or of types whose fields are such.
func event(stage string, kind EventKind, data any) store.Event {
	e := store.Event{Stage: stage, Kind: string(kind)}
	if data == nil {
		return e
	}
	b, err := json.Marshal(data)
	if err != nil {
		b, _ = json.Marshal(map[string]string{"unencodable": err.Error()})
	}
	e.Data = b
	return e
}

// runDir is the folder of one run.
func (r *Runner) runDir(id string) string { return filepath.Join(r.cfg.Dir, "runs", id) }
