package git

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Config says where checkouts go and what may be reached. Only CacheDir is
// required.
type Config struct {
	CacheDir string // shared by processes; checkouts lie in CacheDir/git
	Mirror   string // offline mirror, see [Cloner.AddToMirror]; when set nothing is dialled
	// Trees maps a repository's address to a folder, relative to Mirror, that
	// stands for it.
	Trees  map[string]string
	Limits Limits
	// Token returns the token for a host ("github.com"), or "". It is sent to
	// that host alone, as the password of HTTP basic authentication, and never
	// follows a redirect to another origin.
	Token func(host string) string
	// Endpoints maps a host to the base address that is dialled in its stead.
	Endpoints map[string]string
	// AllowHTTPHosts lists the host:ports of the user's own servers: they may
	// be spoken to over plain http and may have private addresses.
	AllowHTTPHosts []string
	// Transport replaces the built-in transport, DialControl only its check of
	// the address about to be dialled (see net.Dialer.Control). With neither,
	// only public addresses are dialled. The policy on schemes, hosts and ports
	// holds for all of them. A Transport must not cache, and must leave retries
	// to the Cloner.
	Transport   http.RoundTripper
	DialControl func(network, address string, c syscall.RawConn) error
	// Child is the command that calls [ChildMain]. Empty unpacks in this
	// process, without the protection of the child's limits.
	Child    []string
	Progress func(Progress) // called at most ten times a second, from one goroutine at a time
	Now      func() time.Time
	Sleep    func(context.Context, time.Duration) error
	Hook     func(point string)
}

// Progress is how far a checkout is.
type Progress struct {
	Repo    string `json:"repo"`
	Phase   string `json:"phase"`             // resolve, receive, write
	Bytes   int64  `json:"bytes,omitempty"`   // received so far, over all transfers
	Objects int    `json:"objects,omitempty"` // unpacked of this pack
	Total   int    `json:"total,omitempty"`   // objects in this pack
	Files   int    `json:"files,omitempty"`   // written of this tree
}

// Request names what to check out.
type Request struct {
	Repo       string // https address, or an absolute folder
	Ref        string // branch, tag, full ref name or commit id; "" is the default branch
	Submodules bool
	// MaxAge is how old the knowledge of where Ref points may be; 0 asks the
	// server in any case. A commit that is known by its id is never asked for.
	MaxAge time.Duration
}

// Checkout is a folder of read-only files in the cache. Callers copy it before
// they write: whatever differs from the commit has it fetched again.
type Checkout struct {
	Dir        string      `json:"dir"`
	Repo       string      `json:"repo"`                 // canonical
	Ref        string      `json:"ref"`                  // the name that was resolved; the default branch's when none was given
	Commit     string      `json:"commit"`               // 40 hex digits
	CommitDate time.Time   `json:"commit_date,omitzero"` // the committer's; zero for a plain folder
	Skipped    []Skipped   `json:"skipped,omitempty"`    // not materialised
	Copied     []Copied    `json:"copied,omitempty"`     // symbolic links written as copies
	LFS        []Pointer   `json:"lfs,omitempty"`        // pointers whose content was not fetched
	Submodules []Submodule `json:"submodules,omitempty"` // whose files are in Dir
	Files      int         `json:"files"`
	Bytes      int64       `json:"bytes"`              // of all files
	Received   int64       `json:"received,omitempty"` // bytes from the network for this call
	Plain      bool        `json:"plain,omitempty"`    // Repo is a plain folder; Commit follows from its content
	Dirty      bool        `json:"dirty,omitempty"`    // tracked files of the local worktree differ from Commit
	FromCache  bool        `json:"from_cache,omitempty"`
}

// Cloner checks out repositories. It is safe for concurrent use, and any
// number of processes may share a cache.
type Cloner struct {
	cfg       Config
	dir       string // CacheDir/git
	transport http.RoundTripper
	exempt    map[string]bool   // host:port
	trees     map[string]string // folder by canonical address
}

// New checks the configuration. It touches neither disk nor network.
func New(cfg Config) (*Cloner, error) {
	if cfg.CacheDir == "" {
		return nil, errors.New("git: no cache folder configured")
	}
	dir, err := filepath.Abs(filepath.Join(cfg.CacheDir, "git"))
	if err != nil {
		return nil, fmt.Errorf("locate cache: %w", err)
	}
	cfg.Limits = cfg.Limits.withDefaults()
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Sleep == nil {
		cfg.Sleep = sleep
	}
	if len(cfg.Child) > 0 && strings.ContainsRune(cfg.Child[0], filepath.Separator) {
		program, err := filepath.Abs(cfg.Child[0]) // it is started in another folder
		if err != nil {
			return nil, fmt.Errorf("locate unpacker: %w", err)
		}
		cfg.Child = append([]string{program}, cfg.Child[1:]...)
	}
	c := &Cloner{cfg: cfg, dir: dir, exempt: map[string]bool{}, trees: map[string]string{}}
	for _, h := range cfg.AllowHTTPHosts {
		c.exempt[strings.ToLower(h)] = true
	}
	for host, base := range cfg.Endpoints {
		u, err := url.Parse(base)
		if err != nil || u.Host == "" {
			return nil, &RepoError{Repo: base, Why: "the endpoint configured for " + host + " is not an address",
				Fix: "give it as http://host:port or https://host"}
		}
		c.exempt[hostPort(u)] = true
	}
	for repo, folder := range cfg.Trees {
		r, err := c.parseRemote(repo)
		if err != nil {
			return nil, fmt.Errorf("read mirror trees: %w", err)
		}
		c.trees[r.name] = folder
	}
	c.transport = cfg.Transport
	if c.transport == nil {
		c.transport = c.defaultTransport()
	}
	return c, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

func (c *Cloner) hook(point string) {
	if c.cfg.Hook != nil {
		c.cfg.Hook(point)
	}
}

func (c *Cloner) path(elem ...string) string {
	return filepath.Join(append([]string{c.dir}, elem...)...)
}

// source is a place commits come from.
type source interface {
	name() string // canonical address or folder: half of the cache key
	resolve(ctx context.Context, ref string) (resolved, error)
	// extract writes the tree of a commit at prefix below the stage's tree.
	extract(ctx context.Context, r resolved, st *stage, prefix string) (*workResult, error)
}

// resolved is a ref that was looked up.
type resolved struct {
	want   string // the id to ask for: of a commit, or of the annotated tag that leads to it
	commit string // the id of the commit; half of the cache key
	ref    string // as a person writes it
	full   string // refs/…, where known
	head   bool   // it is the default branch
	dirty  bool
}

// Checkout materialises one commit. Errors that implement UserError are the
// user's to mend: [LimitError], [RepoError], [RefError], [NotInMirrorError].
func (c *Cloner) Checkout(ctx context.Context, req Request) (*Checkout, error) {
	limits := c.cfg.Limits
	ctx, cancel := context.WithTimeoutCause(ctx, limits.Time,
		&LimitError{Repo: redact(req.Repo), Cap: CapTime, Limit: int64(limits.Time)})
	defer cancel()
	j := c.newJob()
	co, err := j.checkout(ctx, req)
	return co, j.explain(ctx, req.Repo, err)
}

// job is one checkout: its budget, its progress, and what it has opened.
type job struct {
	c        *Cloner
	budget   *budget
	progress *meter
	visits   int // submodules, found or not
}

func (c *Cloner) newJob() *job {
	return &job{c: c, budget: &budget{limits: c.cfg.Limits}, progress: newMeter(c.cfg.Progress, c.cfg.Now)}
}

// explain names the repository in an error, and puts the end of the context
// before whatever it caused.
func (j *job) explain(ctx context.Context, repo string, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	var limit *LimitError
	if errors.As(err, &limit) {
		if limit.Repo == "" {
			limit.Repo = redact(repo)
		}
		return limit
	}
	var user interface{ UserError() string }
	if errors.As(err, &user) {
		return err
	}
	return fmt.Errorf("check out %s: %w", redact(repo), err)
}

func (j *job) checkout(ctx context.Context, req Request) (*Checkout, error) {
	c := j.c
	src, err := j.locate(req.Repo)
	if err != nil {
		return nil, err
	}
	if isCommitID(req.Ref) {
		id := strings.ToLower(req.Ref)
		pinned := resolved{want: id, commit: id, ref: req.Ref}
		if co, err := j.adopt(src, pinned, req.Submodules); co != nil || err != nil {
			return co, err
		}
	}
	if r, ok := c.recall(src, req.Ref, req.MaxAge); ok {
		if co, err := j.adopt(src, r, req.Submodules); co != nil || err != nil {
			return co, err
		}
	}
	j.progress.report(Progress{Repo: src.name(), Phase: "resolve"})
	r, err := src.resolve(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	co, err := j.obtain(ctx, src, r, req)
	if err != nil {
		return nil, err
	}
	return co, c.remember(src, req.Ref, r)
}

// obtain gets a commit from the cache or, as the only one at it, from its
// source.
func (j *job) obtain(ctx context.Context, src source, r resolved, req Request) (*Checkout, error) {
	c := j.c
	if co, err := j.adopt(src, r, req.Submodules); co != nil || err != nil {
		return co, err
	}
	key := cacheKey(src.name(), r.commit, req.Submodules)
	if err := os.MkdirAll(c.path("locks"), 0o700); err != nil {
		return nil, fmt.Errorf("create cache: %w", err)
	}
	lock, err := lockFile(ctx, c.path("locks", key), true)
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Close() }()
	if co, err := j.adopt(src, r, req.Submodules); co != nil || err != nil {
		return co, err
	}
	return j.fetch(ctx, src, r, req, key)
}

// adopt returns a cached checkout, if it is there, sound, and within limits.
func (j *job) adopt(src source, r resolved, submodules bool) (*Checkout, error) {
	key := cacheKey(src.name(), r.commit, submodules)
	m, err := j.c.cached(key)
	if m == nil || err != nil {
		return nil, err
	}
	l := j.budget.limits
	switch {
	case m.Files > l.Files:
		return nil, &LimitError{Cap: CapFiles, Limit: int64(l.Files), Got: int64(m.Files)}
	case m.Bytes > l.TotalBytes:
		return nil, &LimitError{Cap: CapTotal, Limit: l.TotalBytes, Got: m.Bytes}
	}
	j.c.touch(key)
	co := j.result(key, m, r)
	co.FromCache = true
	return co, nil
}

func (j *job) result(key string, m *meta, r resolved) *Checkout {
	co := &Checkout{
		Dir: j.c.path(key, "tree"), Repo: m.Repo, Ref: r.ref, Commit: m.Commit, CommitDate: m.CommitDate,
		Skipped: m.Skipped, Copied: m.Copied, LFS: m.LFS, Submodules: m.Modules,
		Files: m.Files, Bytes: m.Bytes, Plain: m.Plain, Dirty: r.dirty, Received: j.budget.received.Load(),
	}
	return co
}

// fetch fills a stage and publishes it. The caller holds the key's lock and has
// found no sound checkout under the key.
func (j *job) fetch(ctx context.Context, src source, r resolved, req Request, key string) (_ *Checkout, err error) {
	c := j.c
	if err := sweep(c.path("tmp")); err != nil {
		return nil, err
	}
	c.hook("git:stage:before")
	s, err := newStage(c.path("tmp"))
	if err != nil {
		return nil, err
	}
	defer func() {
		if rerr := s.remove(); err == nil && rerr != nil {
			err = fmt.Errorf("remove staging folder: %w", rerr)
		}
	}()
	c.hook("git:stage:after")
	m, files, err := j.fill(ctx, src, r, req, s)
	if err != nil {
		return nil, err
	}
	if err := c.discard(key, s.dir); err != nil {
		return nil, err
	}
	if err := c.publish(s, c.path(key), m, files); err != nil {
		return nil, err
	}
	return j.result(key, m, r), nil
}

// discard moves a damaged checkout into the stage's neighbourhood, to be
// removed with it.
func (c *Cloner) discard(key, stage string) error {
	old := c.path(key)
	if _, err := os.Lstat(old); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	trash := stage + ".damaged"
	if err := os.Rename(old, trash); err != nil {
		return fmt.Errorf("move damaged checkout away: %w", err)
	}
	return os.RemoveAll(trash)
}

// fill writes the tree and its submodules into the stage.
func (j *job) fill(ctx context.Context, src source, r resolved, req Request, st *stage) (*meta, []fileEntry, error) {
	if err := os.Mkdir(filepath.Join(st.dir, "tree"), 0o755); err != nil {
		return nil, nil, fmt.Errorf("create tree: %w", err)
	}
	res, err := src.extract(ctx, r, st, "")
	if err != nil {
		return nil, nil, err
	}
	if r.commit != r.want && res.Commit != r.commit {
		return nil, nil, &damagedError{fmt.Errorf("%s is commit %s, the server said %s", r.ref, res.Commit, r.commit)}
	}
	j.spend(&res.Tree)
	m := &meta{Repo: src.name(), Commit: res.Commit, CommitDate: res.Date.UTC(), Plain: res.Plain,
		Submodules: req.Submodules, FetchedAt: j.c.cfg.Now().UTC()}
	all := res.Tree
	subs := &submodules{job: j, stage: st, wanted: req.Submodules}
	if err := subs.add(ctx, src.name(), []string{src.name()}, res.Tree.Modules, &all); err != nil {
		return nil, nil, err
	}
	m.Files, m.Bytes = len(all.Files), all.Bytes
	m.Skipped, m.Copied, m.LFS, m.Modules = all.Skipped, all.Copied, all.LFS, subs.done
	return m, all.Files, nil
}

// spend takes a written tree off the budget.
func (j *job) spend(t *treeResult) {
	j.budget.files += len(t.Files)
	j.budget.bytes += t.Bytes
}

// isCommitID reports 40 hex digits.
func isCommitID(s string) bool {
	return len(s) == 40 && strings.Trim(s, "0123456789abcdefABCDEF") == ""
}
