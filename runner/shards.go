package runner

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/seed"
	"github.com/repromill/repromill/runner/server"
	"github.com/repromill/repromill/runner/shard"
	"github.com/repromill/repromill/runner/store"
	"github.com/repromill/repromill/suites/accuracy"
	"github.com/repromill/repromill/suites/harness"
)

// Sharder is an [Executor] that runs the suites of a plan in shards: each in a pod
// with the servers of all arms, beside a client that asks one block of the
// questions.
type Sharder interface {
	// Stop ends an attempt of which no more is needed: what is complete counts, and
	// the attempt succeeds. It is idempotent.
	Stop(ctx context.Context, h Handle, why string) error
}

// Shards are the blocks of a suite; Attempt.Dir is their [shard.Folder].
type Shards struct {
	Of       int // blocks
	Parallel int // at a time
	Servers  []Sidecar
	// Alone asks for nodes on which nothing else uses a GPU meanwhile, since speed is
	// measured.
	Alone bool `json:",omitempty"`
}

// Sidecar is the server of an arm in every pod.
type Sidecar struct {
	Arm    string
	Engine string // vllm, sglang, …; "" is not known
	Image  string // "" is the executor's own for the engine
	Argv   []string
	Env    map[string]string
	Port   int
	GPUs   int
}

// Sharding is what a request says of suites on a cluster. The zero value leaves
// all to the plan's size.
type Sharding struct {
	Of       int `json:"of,omitempty"`       // blocks; 0 is one for some 250 questions
	Parallel int `json:"parallel,omitempty"` // blocks asked at a time; 0 is 1
}

const (
	questionsPerShard = 250
	maxShards         = 256
	firstPort         = 8000
	serverHost        = "0.0.0.0" // probes come from the node
)

// of is how many blocks a suite is asked in.
func (s Sharding) of(x spec.Suite) int {
	n := s.Of
	if n == 0 {
		n = (x.Questions*max(1, x.Repeats) + questionsPerShard - 1) / questionsPerShard
	}
	if x.Questions > 0 {
		n = min(n, x.Questions)
	}
	return min(max(n, 1), maxShards)
}

// perPart is how many answers a block is of whose every arm starts a server anew.
const perPart = 1000

// apart is in how many blocks a suite is asked whose arms are served one after
// another.
func (s Sharding) apart(x spec.Suite) int {
	if s.Of == 0 {
		s.Of = (x.Questions*max(1, x.Repeats) + perPart - 1) / perPart
	}
	return Sharding{Of: max(1, s.Of)}.of(x)
}

// sharded reports whether a suite is asked by pods: it is, where the run's
// executor can and nobody says where the arms are served already.
func (d *drive) sharded(s spec.Suite) bool {
	if _, ok := d.exec.(Sharder); !ok || s.Kind == "checkpoint" || d.req.Answers != nil {
		return false
	}
	at := d.serving()
	for _, a := range s.Arms {
		if at.URL(a) != "" {
			return false
		}
	}
	return true
}

// sidecars are the servers of a suite's arms.
func sidecars(s spec.Suite, at accuracy.Serving) (out []Sidecar, err error) {
	for i, a := range s.Arms {
		c, err := server.Compose(at.How(a), a, serverHost, firstPort+i)
		if err != nil {
			return nil, err
		}
		out = append(out, Sidecar{Arm: a.Name, Engine: c.Engine, Image: c.Image, Argv: c.Argv, Env: c.Env, Port: firstPort + i, GPUs: c.GPUs})
	}
	return out, nil
}

// ArmOf is the arm that a server of a suite serves.
func ArmOf(s spec.Suite, srv Sidecar) spec.Arm {
	for _, a := range s.Arms {
		if a.Name == srv.Arm {
			return a
		}
	}
	return spec.Arm{Name: srv.Arm}
}

// OverNodes says which arm's server is more than a node holds, and what to do about
// it; "" where there is none. sku is the GPU model of arms that name none.
func OverNodes(s spec.Suite, servers []Sidecar, sku string, nodeGPUs func(sku string) int) string {
	for _, srv := range servers {
		if n := nodeGPUs(cmp.Or(ArmOf(s, srv).SKU, sku)); n > 0 && srv.GPUs > n {
			return fmt.Sprintf("the server of arm %s takes %d GPUs and a node has %d, so no pod holds it: serve it over %d nodes, as the JobSet does that `repromill submit --dry-run` prints, and give --endpoint %s=URL",
				srv.Arm, srv.GPUs, n, (srv.GPUs+n-1)/n, srv.Arm)
		}
	}
	return ""
}

// Attempt is how the blocks of a suite are submitted; folder is their place on the
// volume.
func (s Sharding) Attempt(key AttemptKey, x spec.Suite, at accuracy.Serving, folder string) (Attempt, error) {
	servers, err := sidecars(x, defaultServing(at))
	if err != nil {
		return Attempt{}, err
	}
	of, gpus := s.of(x), 0
	for _, srv := range servers {
		gpus += srv.GPUs
	}
	parallel := min(max(1, s.Parallel), of)
	return Attempt{Key: key, Dir: folder, Writable: []string{folder}, GPUs: gpus * parallel, SKU: armSKU(x), Shards: &Shards{Of: of, Parallel: parallel, Servers: servers}}, nil
}

// defaultServing has vLLM serve what nobody else says how to.
func defaultServing(at accuracy.Serving) accuracy.Serving {
	at.Servers = merged(at.Servers, nil)
	if at.Servers[""] == "" {
		at.Servers[""] = server.VLLM
	}
	return at
}

// shardFolder is where the blocks of a suite are.
func (d *drive) shardFolder(s spec.Suite) shard.Folder {
	return shard.Folder(filepath.Join(d.answers(), safeName(s.ID), "shards"))
}

// asked are the answers of a suite that pods asked, nil if none did.
func (d *drive) asked(s spec.Suite) []string {
	if !d.sharded(s) {
		return nil
	}
	var f blocks = d.shardFolder(s)
	n := 0
	if Apart(s) {
		f, n = d.halves(s), d.blocksApart(s)*len(s.Arms)
	} else if decl, err := d.shardFolder(s).Declared(); err == nil {
		n = decl.Of
	}
	list, err := f.Answers(n, true)
	if err != nil {
		return nil
	}
	return list
}

// declareShards fixes in how many blocks a suite is asked, once for a run.
func (d *drive) declareShards(s spec.Suite, shards *Shards) (shard.Suite, error) {
	return d.shardFolder(s).Declare(shard.Suite{Suite: s, Of: shards.Of, Endpoints: endpointsOf(shards.Servers), Data: seed.Hub(d.shared())})
}

// endpointsOf is where the clients find the servers.
func endpointsOf(list []Sidecar) map[string]string {
	out := map[string]string{}
	for _, x := range list {
		out[x.Arm] = fmt.Sprintf("http://127.0.0.1:%d/v1", x.Port)
	}
	return out
}

// askShards has the blocks of a suite asked, until the verdict is in.
func (d *drive) askShards(ctx context.Context, s spec.Suite) (res harness.Result, of int, err error) {
	folder := d.shardFolder(s)
	sharding := d.req.Sharding
	if was, err := folder.Declared(); err == nil {
		sharding.Of = was.Of
	}
	a, err := sharding.Attempt(AttemptKey{RunID: d.run.ID, Stage: StageSuite(s.ID)}, s, d.serving(), string(folder))
	if err != nil {
		return res, 0, err
	}
	decl, err := d.declareShards(s, a.Shards)
	if err != nil {
		return res, 0, err
	}
	if err := d.seed(ctx, s, a.Shards.Servers); err != nil {
		return res, decl.Of, err
	}
	w := &shardWatch{drive: d, suite: s, folder: folder, of: decl.Of}
	st, err := d.shardAttempt(ctx, a, w.look)
	if err != nil {
		return res, decl.Of, err
	}
	res, err = w.conclude(ctx, st)
	return res, decl.Of, err
}

// shardAttempt has the blocks of an attempt done by pods, by another attempt where
// those before are over, and returns how the last of them ended.
func (d *drive) shardAttempt(ctx context.Context, a Attempt, look func(context.Context) (string, error)) (Status, error) {
	for ; ; a.Key.N++ {
		key := a.Key
		if rec, known := d.attempts[key.String()]; known && rec.Final && d.inherited[key.String()] {
			st, err := decodeStatus(rec)
			if err != nil {
				return st, err
			}
			if st.Phase != Succeeded && st.Reason != ReasonWrongSKU {
				continue // somebody has taken the run up again: so is the suite
			}
		}
		a.Limits.Wall = d.wallLimit(0, a.GPUs)
		st, err := d.attemptUntil(ctx, a, look)
		if err != nil {
			return st, err
		}
		if st.Reason != ReasonLost || key.N+1 >= d.cfg.MaxTries {
			return st, nil
		}
		next := key
		next.N++
		if err := d.retried(ctx, next, st); err != nil {
			return st, err
		}
	}
}

// armSKU is the GPU model that the arms are for, "" where they differ or name none.
func armSKU(s spec.Suite) string {
	for _, a := range s.Arms {
		if a.SKU != s.Arms[0].SKU {
			return ""
		}
	}
	return s.Arms[0].SKU
}

// blocks are those of a suite on the volume; [shard.Folder] are those of all arms.
type blocks interface {
	Ends(n int) (map[int]shard.End, error)
	Answers(n int, parts bool) ([]string, error)
	Stopped() string
}

// shardWatch decides between shards whether more of them are needed.
type shardWatch struct {
	*drive
	suite  spec.Suite
	folder blocks
	of     int
	seen   int // complete blocks when it was last decided
}

// merged is what the answers so far come to, nil while there are none.
func (w *shardWatch) merged(ctx context.Context, parts bool) (*harness.Result, error) {
	dirs, err := w.folder.Answers(w.of, parts)
	if err != nil || len(dirs) == 0 {
		return nil, err
	}
	j := w.job(w.suite)
	j.From = dirs
	res, err := w.cfg.Suites.Run(ctx, j)
	if err != nil {
		return nil, err
	}
	return &res, nil
}

// look is called between two looks at the attempt; a reason to stop it is one not
// to ask any more.
func (w *shardWatch) look(ctx context.Context) (stop string, err error) {
	ends, err := w.folder.Ends(w.of)
	if err != nil || len(ends) == w.seen {
		return "", nil //nolint:nilerr // a volume that cannot be read now can be later
	}
	res, err := w.merged(ctx, false)
	if err != nil || res == nil {
		return "", err
	}
	w.seen = len(ends)
	data := map[string]any{"done": len(ends), "total": w.of, "unit": "shards", "message": fmt.Sprintf("%d questions complete in all arms", res.Used), "questions": res.Used, "tokens": res.Paid.Tokens, "usd": res.Paid.USD}
	if err := w.cfg.Store.Append(ctx, w.run.ID, event(StageSuite(w.suite.ID), Progress, data)); err != nil {
		return "", err
	}
	if len(ends) == w.of {
		return "", nil // it ends by itself
	}
	return w.enough(res), nil
}

// enough says why no more blocks are needed, "" while they are.
func (w *shardWatch) enough(res *harness.Result) string {
	b := w.suite.Budget
	switch {
	case res.Decided():
		return fmt.Sprintf("the comparison is decided after %d questions", res.Used)
	case b.Tokens > 0 && res.Paid.Tokens >= b.Tokens:
		return fmt.Sprintf("the budget of %d tokens is used up", b.Tokens)
	case b.USD > 0 && res.Paid.USD >= b.USD:
		return fmt.Sprintf("the budget of %g USD is used up", b.USD)
	}
	return ""
}

// conclude is the result of an attempt that has ended. One that failed is an
// error, and the run can be taken up again; what was answered is kept.
func (w *shardWatch) conclude(ctx context.Context, st Status) (harness.Result, error) {
	if st.Reason == ReasonWrongSKU {
		return harness.Result{}, &voidSuite{failure(st)}
	}
	ends, err := w.folder.Ends(w.of)
	if err != nil {
		return harness.Result{}, err
	}
	res, err := w.merged(ctx, true)
	if err != nil {
		return harness.Result{}, err
	}
	stopped := w.folder.Stopped()
	if stopped == "" {
		stopped = w.capReached()
	}
	switch {
	case res != nil && (res.Complete() || res.Decided()):
	case res != nil && stopped != "":
		res.Stopped = stopped
	default:
		why := failure(st)
		if st.Reason == ReasonStart { // of shards it says all
			why = st.Message
		}
		if why == "" {
			why = "answers of shards that were complete are void"
			if res != nil && len(res.Warnings) > 0 {
				why = res.Warnings[0]
			}
		}
		return harness.Result{}, &UserError{fmt.Sprintf("suite %s is incomplete: %d of %d shards are there, and none of it is counted; %s", w.suite.ID, len(ends), w.of, why),
			"remove the cause and take the run up again, with: repromill run --resume " + w.run.ID + "; no answer is asked for twice"}
	}
	if res.Stopped == "" && !res.Complete() {
		res.Stopped = "the comparison is decided"
	}
	for i := range w.of {
		if e, ok := ends[i]; ok && e.Restarts > 0 {
			res.Warnings = append(res.Warnings, fmt.Sprintf("shard %d: a model server was started again %d times; accuracy does not depend on that", i+1, e.Restarts))
		}
	}
	return *res, nil
}

// voidSuite says that nothing which a suite gave counts.
type voidSuite struct{ why string }

func (e *voidSuite) Error() string { return "void: " + e.why }

// attemptUntil is attempt, with a look between two observations that may end it.
func (d *drive) attemptUntil(ctx context.Context, a Attempt, look func(context.Context) (string, error)) (Status, error) {
	d.looks = look
	defer func() { d.looks = nil }()
	return d.attempt(ctx, a)
}

// between looks at what a running attempt has given so far, and stops it when no
// more is needed.
func (d *drive) between(ctx context.Context, rec *store.Attempt) error {
	if d.looks == nil {
		return nil
	}
	why, err := d.looks(ctx)
	if err != nil || why == "" {
		return err
	}
	if err := d.cfg.Store.Append(ctx, d.run.ID, event(rec.Stage, Progress, map[string]any{"message": "stopped: " + why})); err != nil {
		return err
	}
	return d.step(stepCancel, func() error { return d.exec.(Sharder).Stop(ctx, Handle(rec.Handle), why) })
}
