// Package kueue runs attempts as batch/v1 Jobs in the queues of a Kubernetes
// cluster with Kueue.
//
// An attempt is two things: a folder on a volume that the submitter's machine
// and the pods see at the same path (package pod says what is in it), and a
// Job named after the attempt's key. The folder decides what is true: an
// attempt has ended when its exit.json says so. The Job decides whether and
// where it runs, and [PhaseOf] says in words why it does not yet. Losing sight
// of the cluster changes nothing: an error of Observe is only that.
//
// Submitting is creating the folder, then the Job, each at most once by name;
// whoever submits the same key adopts both.
package kueue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/pod"
	"github.com/repromill/repromill/runner/sandbox"
)

// Executor submits attempts to one queue.
type Executor struct {
	cfg Config
	c   *client

	mu      sync.Mutex      // guards what is asked once
	found   bool            // Kueue is there
	cluster string          // see client.identity
	valid   map[string]bool // shapes of Jobs that the server has validated

	shared  shared
	gate    gate
	workers workers
}

var (
	_ runner.Executor = (*Executor)(nil)
	_ runner.Logger   = (*Executor)(nil)
)

// New returns an executor. It reads the kubeconfig and does not call the
// cluster.
func New(cfg Config) (*Executor, error) {
	for name, v := range map[string]string{"Queue": cfg.Queue, "Root": cfg.Root, "Dir": cfg.Dir, "Claim": cfg.Claim, "Image": cfg.Image, "Worker": cfg.Worker} {
		if v == "" {
			return nil, fmt.Errorf("new kueue executor: %s is required", name)
		}
	}
	if !filepath.IsAbs(cfg.Root) || !within(filepath.Clean(cfg.Dir), filepath.Clean(cfg.Root)) || filepath.Clean(cfg.Dir) == filepath.Clean(cfg.Root) {
		return nil, fmt.Errorf("new kueue executor: the attempts' folder %q must lie below the volume %q", cfg.Dir, cfg.Root)
	}
	cfg.Root, cfg.Dir = filepath.Clean(cfg.Root), filepath.Clean(cfg.Dir)
	c, err := connect(cfg.Kubeconfig, cfg.Context, cfg.Namespace)
	if err != nil {
		return nil, err
	}
	cfg.Namespace = c.namespace
	cfg.fill()
	return &Executor{cfg: cfg, c: c}, nil
}

// Queue is the LocalQueue that it submits to.
func (e *Executor) Queue() string { return e.cfg.Queue }

// user is who the pods of a run are: any number that no account of a node has
// will do.
func (e *Executor) user(runID string) (uid, gid int) {
	if e.cfg.UID != 0 {
		return e.cfg.UID, e.cfg.GID
	}
	h := fnv.New32a()
	io.WriteString(h, runID)
	uid = 1<<20 + int(h.Sum32()%(1<<20))
	return uid, uid
}

// userOf is who the pods of an attempt are. All seeds are one: they share a cache.
func (e *Executor) userOf(a runner.Attempt) (uid, gid int) {
	if a.Seed != nil {
		return e.user("seed")
	}
	return e.user(a.Key.RunID)
}

// made is job.json: that the Job was created, and in which cluster.
type made struct {
	Cluster string    `json:"cluster"` // UID of the namespace
	Job     types.UID `json:"job"`
}

const fileMade = "job.json"

func (e *Executor) folder(k runner.AttemptKey) pod.Folder {
	return pod.Folder(filepath.Join(e.cfg.Dir, k.Hash()))
}

// Submit creates the attempt's folder and its suspended Job, or adopts what is
// there.
func (e *Executor) Submit(ctx context.Context, a runner.Attempt) (runner.Handle, error) {
	a = e.filled(a)
	at := e.folder(a.Key)
	h := runner.Handle(e.cfg.Namespace + "/" + JobName(a.Key) + "/" + a.Key.Hash())
	_, ended, err := at.Exit()
	if err != nil {
		return "", fmt.Errorf("submit %s: %w", a.Key, err)
	}
	if _, err := os.Stat(filepath.Join(string(at), fileMade)); err == nil || ended {
		rec, err := at.Record()
		if err == nil && rec.Key != a.Key.String() {
			err = fmt.Errorf("submit %s: its folder %s holds %s", a.Key, at, rec.Key)
		}
		return h, err
	}
	if err := e.runnable(a); err != nil {
		return "", fmt.Errorf("submit %s: %w", a.Key, err)
	}
	job, err := e.render(at, a)
	if err != nil {
		return "", fmt.Errorf("submit %s: %w", a.Key, err)
	}
	if err := e.patiently(ctx, func() error { return e.Check(ctx, job) }); err != nil {
		return "", fmt.Errorf("submit %s: %w", a.Key, err)
	}
	if err := e.place(at, a); err != nil {
		return "", fmt.Errorf("submit %s: %w", a.Key, err)
	}
	err = e.patiently(ctx, func() error { return e.create(ctx, at, job) })
	if why := overQuota(err); why != "" {
		return h, e.hold(at, why)
	}
	if err != nil {
		return "", e.c.explain("submit "+a.Key.String(), err)
	}
	return h, nil
}

// filled is the attempt with the limits that it does not state.
func (e *Executor) filled(a runner.Attempt) runner.Attempt {
	if a.Shards != nil && a.Limits.Wall == 0 {
		a.Limits.Wall = shardWall
	}
	if a.Shards != nil && a.Shards.Alone && a.GPUs > 0 {
		a.GPUs = max(a.GPUs, e.cfg.NodeGPUs) // whoever keeps others off a GPU uses it
	}
	a.Limits = fill(a.Limits, e.cfg.Limits)
	return a
}

// runnable refuses a command that no pod could run.
func (e *Executor) runnable(a runner.Attempt) error {
	if a.Shards != nil || a.Seed != nil {
		return nil // what it runs is ours
	}
	spec := sandbox.Spec{Argv: a.Argv, Dir: a.Dir, Env: a.Env, Writable: a.Writable}
	for _, p := range a.ReadOnly {
		if within(p, e.cfg.Root) {
			spec.ReadOnly = append(spec.ReadOnly, p) // what is in the image cannot be looked at from here
		}
	}
	return spec.Validate()
}

// place writes the attempt's folder and hands over what pods may write.
func (e *Executor) place(at pod.Folder, a runner.Attempt) error {
	e.cfg.Hook("kueue:attempt.json:before")
	err := at.Create(pod.Record{Key: a.Key.String(), Submitted: e.cfg.Now().UTC(), Attempt: a, AllowPrivate: e.cfg.AllowPrivate})
	if err != nil {
		return err
	}
	e.cfg.Hook("kueue:attempt.json:after")
	if os.Geteuid() != 0 {
		return nil
	}
	uid, gid := e.userOf(a)
	for _, p := range append([]string{string(at)}, a.Writable...) {
		if err := sandbox.HandOver(p, uid, gid); err != nil {
			return err
		}
	}
	return nil
}

// create makes the Job, or adopts the one of the same name, and notes that.
func (e *Executor) create(ctx context.Context, at pod.Folder, job *batchv1.Job) error {
	cluster, err := e.identity(ctx)
	if err != nil {
		return err
	}
	e.cfg.Hook("kueue:create:before")
	jobs := e.c.kube.BatchV1().Jobs(e.cfg.Namespace)
	got, err := jobs.Create(ctx, job, metav1.CreateOptions{FieldManager: managedBy})
	if apierrors.IsAlreadyExists(err) {
		if got, err = jobs.Get(ctx, job.Name, metav1.GetOptions{}); err == nil && (got.Annotations[annotationKey] != job.Annotations[annotationKey] || got.Annotations[annotationAt] != job.Annotations[annotationAt]) {
			return &UserError{fmt.Sprintf("the Job %s/%s exists and is not this attempt's", job.Namespace, job.Name), "delete it, or use another namespace"}
		}
	}
	if err != nil {
		return err
	}
	e.cfg.Hook("kueue:create:after")
	b, err := json.Marshal(made{cluster, got.UID})
	if err != nil {
		return fmt.Errorf("encode %s: %w", fileMade, err)
	}
	return atomicfile.Write(filepath.Join(string(at), fileMade), b, atomicfile.Options{})
}

// Check has the API server and its webhooks look at a Job without making it,
// unless they have seen one that differs in names and folders only.
func (e *Executor) Check(ctx context.Context, job *batchv1.Job) error {
	if err := e.findKueue(ctx); err != nil {
		return err
	}
	like, err := shape(job)
	if err != nil {
		return err
	}
	e.mu.Lock()
	known := e.valid[like]
	e.mu.Unlock()
	if known {
		return nil
	}
	_, err = e.c.kube.BatchV1().Jobs(e.cfg.Namespace).Create(ctx, job, metav1.CreateOptions{FieldManager: managedBy, DryRun: []string{metav1.DryRunAll}})
	if overQuota(err) != "" {
		return nil // said before the Job was looked at; it is looked at when it is made
	}
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return e.c.explain("validate the Job", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.valid == nil {
		e.valid = map[string]bool{}
	}
	e.valid[like] = true
	return nil
}

// findKueue makes sure, once, that there is a Kueue to speak to.
func (e *Executor) findKueue(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.found {
		return nil
	}
	err := e.c.checkKueue(ctx)
	e.found = err == nil
	return e.c.explain("look for Kueue", err)
}

// identity is the cluster's, asked once.
func (e *Executor) identity(ctx context.Context) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cluster != "" {
		return e.cluster, nil
	}
	id, err := e.c.identity(ctx)
	e.cluster = id
	return id, err
}

// patience is how long a Submit waits for an API server or a webhook that is
// down.
const patience = 2 * time.Minute

// patiently calls the API again while its error may be gone in a moment.
func (e *Executor) patiently(ctx context.Context, call func() error) error {
	end := time.Now().Add(patience)
	for wait := 250 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		err := call()
		if err == nil || !temporary(unwrapped(err)) || time.Now().Add(wait).After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(wait):
		}
	}
}

// unwrapped is the API's own error inside of one of ours.
func unwrapped(err error) error {
	var status *apierrors.StatusError
	if errors.As(err, &status) {
		return status
	}
	return err
}

// Observe reads the volume first, since that decides, and the cluster where
// the volume does not.
func (e *Executor) Observe(ctx context.Context, h runner.Handle) (runner.Status, error) {
	st, _, err := e.Look(ctx, h)
	return st, err
}

// Look is Observe with what the cluster's objects say in detail.
func (e *Executor) Look(ctx context.Context, h runner.Handle) (runner.Status, Phase, error) {
	at, name, rec, err := e.open(h)
	if err != nil {
		return runner.Status{}, Phase{}, err
	}
	if st, ok, err := at.Exit(); ok || err != nil {
		return e.placed(ctx, at, name, rec.Attempt, st), Phase{}, err
	}
	b, err := os.ReadFile(filepath.Join(string(at), fileMade))
	if errors.Is(err, fs.ErrNotExist) {
		if _, ok := heldAt(at); !ok {
			return runner.Status{Phase: runner.Pending, Since: rec.Submitted, Message: "its submission was interrupted before the Job was made; submit it again"}, Phase{State: Queued}, nil
		}
		st, ok, e := e.release(ctx, at, rec)
		if !ok || e != nil {
			return st, Phase{State: Held, Message: st.Message, Since: st.Since}, e
		}
		b, err = os.ReadFile(filepath.Join(string(at), fileMade))
	}
	var m made
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return runner.Status{}, Phase{}, fmt.Errorf("observe %s: %w", rec.Key, err)
	}
	o, err := e.glance(ctx, name, m)
	if err != nil {
		return runner.Status{}, Phase{}, e.c.explain("observe "+rec.Key, err)
	}
	p := PhaseOf(o)
	e.notePlace(at, p)
	if st, ok, err := e.shards(at, rec); ok || err != nil {
		return e.placed(ctx, at, name, rec.Attempt, st), p, err
	}
	// A pod commits before its Job knows that it has ended.
	if st, ok, err := at.Exit(); ok || err != nil {
		return e.placed(ctx, at, name, rec.Attempt, st), p, err
	}
	st, err := e.status(ctx, at, rec, o, p)
	return st, p, err
}

// observe looks at the objects of a Job.
func (e *Executor) observe(ctx context.Context, name string, m made) (Observed, error) {
	o := Observed{Now: e.cfg.Now()}
	job, err := e.c.kube.BatchV1().Jobs(e.cfg.Namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		cluster, err := e.c.identity(ctx)
		if err != nil {
			return o, err
		}
		if cluster != m.Cluster {
			return o, &UserError{"this is not the cluster, or not the namespace, that the Job was submitted to", "use the kubeconfig and the namespace that it was submitted with"}
		}
	case err != nil:
		return o, err
	case job.UID == m.Job || m.Job == "":
		o.Job = job
	}
	if o.Pods, err = e.c.pods(ctx, name); err != nil || o.Job == nil {
		return o, err
	}
	if o.Workload, err = e.c.workload(ctx, string(job.UID)); err != nil || o.Workload == nil {
		return o, err
	}
	if c := e.elsewhere(o.Workload); c != nil {
		if pods, err := c.pods(ctx, name); err == nil {
			o.Pods = pods
		}
	}
	if overdue(o) {
		o.Refused = e.c.refusals(ctx, name)[name]
	}
	if o.Workload.is("QuotaReserved") == nil && o.Workload.is("Finished") == nil {
		o.Position = at(e.c.positions(ctx, e.cfg.Queue), o.Workload.Metadata.Name)
	}
	return o, nil
}

// Cancel deletes the Job, waits until its pods are gone, and settles the
// attempt as cancelled unless it ended otherwise before.
func (e *Executor) Cancel(ctx context.Context, h runner.Handle) error {
	at, name, rec, err := e.open(h)
	if err != nil {
		return err
	}
	if _, ok, err := at.Exit(); ok || err != nil {
		return err
	}
	e.cfg.Hook("kueue:cancel:before")
	if err := at.Cancel(); err != nil {
		return err
	}
	e.cfg.Hook("kueue:cancel:after")
	for {
		gone, err := e.remove(ctx, name)
		if err != nil && !temporary(err) {
			return e.c.explain("cancel "+rec.Key, err)
		}
		if gone {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cancel %s: it was asked to end and has not yet: %w", rec.Key, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
	_, err = at.Conclude(e.ended(runner.Cancelled, runner.ReasonCancelled, "cancelled"))
	return err
}

// remove deletes a Job with its pods; gone is true when nothing is left.
func (e *Executor) remove(ctx context.Context, name string) (gone bool, err error) {
	jobs := e.c.kube.BatchV1().Jobs(e.cfg.Namespace)
	err = jobs.Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: ptr(metav1.DeletePropagationForeground)})
	if err != nil && !apierrors.IsNotFound(err) {
		return false, err
	}
	if _, err := jobs.Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		return false, err
	}
	pods, err := e.c.pods(ctx, name)
	return err == nil && alive(pods) == nil, err
}

func (e *Executor) ended(phase runner.Phase, why runner.Reason, message string) runner.Status {
	now := e.cfg.Now().UTC()
	return runner.Status{Phase: phase, Reason: why, Message: message, Since: now, Finished: now, ExitCode: -1}
}

var handleRE = regexp.MustCompile(`^([a-z0-9.-]+)/(rm-[a-z0-9-]+)/([0-9a-f]{16})$`)

// IsHandle reports whether a handle is one of this package's.
func IsHandle(h string) bool { return handleRE.MatchString(h) }

// UnknownHandleError is a handle that names no attempt on this volume.
type UnknownHandleError struct{ Handle runner.Handle }

func (e *UnknownHandleError) Error() string {
	return fmt.Sprintf("no attempt %q on this cluster's volume; submit it first", string(e.Handle))
}

// open finds a submitted attempt.
func (e *Executor) open(h runner.Handle) (at pod.Folder, job string, rec pod.Record, err error) {
	m := handleRE.FindStringSubmatch(string(h))
	if m == nil {
		return "", "", rec, &UnknownHandleError{h}
	}
	if m[1] != e.cfg.Namespace {
		return "", "", rec, &UserError{"the attempt is in namespace " + m[1], "use the namespace that it was submitted to"}
	}
	at = pod.Folder(filepath.Join(e.cfg.Dir, m[3]))
	rec, err = at.Record()
	if errors.Is(err, fs.ErrNotExist) {
		return at, "", rec, &UnknownHandleError{h}
	}
	return at, m[2], rec, err
}

// Ready says why nothing can be submitted: no cluster, no Kueue, no permission.
// A queue that is missing or stopped is no reason: it may come.
func (e *Executor) Ready(ctx context.Context) error {
	if err := e.findKueue(ctx); err != nil {
		return err
	}
	_, err := e.c.identity(ctx)
	return e.c.explain("look for the namespace", err)
}
