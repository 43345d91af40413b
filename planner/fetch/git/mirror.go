package git

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// inMirror finds a repository in the offline mirror: the folder that
// Config.Trees names for it, else <host>/<path>.git, else <host>/<path>. Each
// may be a bare repository, a normal one, or a plain folder.
func (j *job) inMirror(r *remote) (source, error) {
	mirror := j.c.cfg.Mirror
	looked := []string{r.host + "/" + r.path + ".git", r.host + "/" + r.path}
	if folder, ok := j.c.trees[r.name]; ok {
		looked = []string{folder}
	}
	for _, l := range looked {
		dir := filepath.Join(mirror, filepath.FromSlash(l))
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			abs, err := filepath.Abs(dir)
			if err != nil {
				return nil, fmt.Errorf("locate mirror: %w", err)
			}
			return j.openFolder(abs, r.name)
		}
	}
	return nil, &NotInMirrorError{Repo: r.name, Mirror: mirror, Looked: looked}
}

// MirrorEntry is a commit that was added to a mirror.
type MirrorEntry struct {
	Repo     string    `json:"repo"`
	Ref      string    `json:"ref"`
	Commit   string    `json:"commit"`
	Dir      string    `json:"dir"` // the bare repository
	Files    int       `json:"files"`
	Bytes    int64     `json:"bytes"`             // of the files
	Received int64     `json:"received"`          // from the network, submodules included
	Skipped  []Skipped `json:"skipped,omitempty"` // submodules that are not to be had
	// Submodules are added under their own addresses.
	Submodules []MirrorEntry `json:"submodules,omitempty"`
}

// AddToMirror fetches one commit from the network, within the limits, into a
// bare repository <mirror>/<host>/<path>.git: depth 1, the commit's own id. A
// repository that is there already gains the commit and the ref. The mirror is
// complete after every step, however the process ends.
func (c *Cloner) AddToMirror(ctx context.Context, mirror string, req Request) (*MirrorEntry, error) {
	limits := c.cfg.Limits
	ctx, cancel := context.WithTimeoutCause(ctx, limits.Time,
		&LimitError{Repo: redact(req.Repo), Cap: CapTime, Limit: int64(limits.Time)})
	defer cancel()
	j := c.newJob()
	e, err := j.addToMirror(ctx, mirror, req, nil)
	if err != nil {
		return nil, j.explain(ctx, req.Repo, err)
	}
	e.Received = j.budget.received.Load()
	return e, nil
}

func (j *job) addToMirror(ctx context.Context, mirror string, req Request, chain []string) (_ *MirrorEntry, err error) {
	r, err := j.c.parseRemote(req.Repo)
	if err != nil {
		return nil, err
	}
	src := &remoteSource{job: j, remote: r}
	at, err := src.resolve(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	tmp := filepath.Join(mirror, ".tmp")
	if err := sweep(tmp); err != nil {
		return nil, err
	}
	st, err := newStage(tmp)
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, st.remove())
		_ = os.Remove(tmp) // unless somebody else is at work
	}()
	res, err := src.unpack(ctx, at, &workRequest{Op: opUnpack, stage: st, Dir: st.dir, Keep: true})
	if err != nil {
		return nil, err
	}
	j.spend(&res.Tree)
	dst := filepath.Join(mirror, filepath.FromSlash(r.host), filepath.FromSlash(r.path)+".git")
	if err := j.install(ctx, st, dst, at, res, src.shallow); err != nil {
		return nil, err
	}
	e := &MirrorEntry{Repo: r.name, Ref: at.ref, Commit: res.Commit, Dir: dst, Files: len(res.Tree.Files), Bytes: res.Tree.Bytes}
	if req.Submodules {
		err = j.mirrorSubmodules(ctx, mirror, e, res.Tree.Modules, append(slices.Clone(chain), r.name))
	}
	return e, err
}

// mirrorSubmodules adds the submodules of an entry.
func (j *job) mirrorSubmodules(ctx context.Context, mirror string, e *MirrorEntry, links []gitlink, chain []string) error {
	for _, l := range links {
		at, why := submoduleURL(e.Repo, l.URL)
		if j.visits++; why == "" && j.visits > maxSubmodules {
			why = fmt.Sprintf("more than %d submodules", maxSubmodules)
		}
		if why == "" && len(chain) > j.budget.limits.SubmoduleDepth {
			why = fmt.Sprintf("nested deeper than %d", j.budget.limits.SubmoduleDepth)
		}
		if r, err := j.c.parseRemote(at); why == "" && err == nil && slices.Contains(chain, r.name) {
			why = "submodule loop"
		}
		if why == "" {
			sub, err := j.addToMirror(ctx, mirror, Request{Repo: at, Ref: l.Commit, Submodules: true}, chain)
			if why = absent(err); why == "" && err != nil {
				return fmt.Errorf("submodule %q: %w", l.Path, err)
			} else if err == nil {
				e.Submodules = append(e.Submodules, *sub)
			}
		}
		if why != "" {
			e.Skipped = append(e.Skipped, Skipped{Path: l.Path, Why: fmt.Sprintf("submodule of %q: %s", l.URL, why)})
		}
	}
	return nil
}

// install puts a kept pack into the bare repository at dst, which it makes
// where there is none. Objects come before the names that need them.
func (j *job) install(ctx context.Context, st *stage, dst string, at resolved, res *workResult, shallow []string) error {
	locks := j.c.path("locks")
	if err := os.MkdirAll(locks, 0o700); err != nil {
		return fmt.Errorf("create cache: %w", err)
	}
	sum := sha256.Sum256([]byte("mirror\n" + dst))
	lock, err := lockFile(ctx, filepath.Join(locks, hex.EncodeToString(sum[:16])), true)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if isGitDir(dst, dst) {
		return j.fillBare(st, dst, at, res, shallow)
	}
	bare := filepath.Join(st.dir, "bare")
	for _, d := range []string{"objects/pack", "objects/info", "refs/heads", "refs/tags"} {
		if err := os.MkdirAll(filepath.Join(bare, filepath.FromSlash(d)), 0o755); err != nil {
			return fmt.Errorf("create bare repository: %w", err)
		}
	}
	head := res.Commit // detached, for a commit without a branch
	if strings.HasPrefix(at.full, "refs/heads/") {
		head = "ref: " + at.full
	}
	for name, text := range map[string]string{
		"HEAD":   head,
		"config": "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true",
	} {
		if err := os.WriteFile(filepath.Join(bare, name), []byte(text+"\n"), 0o644); err != nil {
			return fmt.Errorf("create bare repository: %w", err)
		}
	}
	if err := j.fillBare(st, bare, at, res, shallow); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return fmt.Errorf("create mirror folder: %w", err)
	}
	j.c.hook("git:mirror:before")
	if err := os.Rename(bare, dst); err != nil {
		return fmt.Errorf("publish mirror entry: %w", err)
	}
	j.c.hook("git:mirror:after")
	return nil
}

// fillBare adds pack, shallow boundary and ref to a bare repository.
func (j *job) fillBare(st *stage, bare string, at resolved, res *workResult, shallow []string) error {
	base := filepath.Join(bare, "objects", "pack", "pack-"+res.Pack)
	for _, ext := range []string{"pack", "idx"} { // a pack is looked for once its index is there
		if err := os.Rename(filepath.Join(st.dir, ext), base+"."+ext); err != nil {
			return fmt.Errorf("add pack: %w", err)
		}
	}
	old, err := os.ReadFile(filepath.Join(bare, "shallow"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read shallow: %w", err)
	}
	lines := append(strings.Fields(string(old)), shallow...)
	slices.Sort(lines)
	if lines = slices.Compact(lines); len(lines) > 0 {
		if err := replace(st, filepath.Join(bare, "shallow"), strings.Join(lines, "\n")+"\n"); err != nil {
			return err
		}
	}
	if !strings.HasPrefix(at.full, "refs/") || unsafePath(at.full) != "" {
		return nil // a commit id alone: it is found by its id
	}
	ref := filepath.Join(bare, filepath.FromSlash(path.Clean(at.full)))
	if err := os.MkdirAll(filepath.Dir(ref), 0o755); err != nil {
		return fmt.Errorf("create ref: %w", err)
	}
	if err := replace(st, ref, at.want+"\n"); err != nil || !at.head {
		return err
	}
	return replace(st, filepath.Join(bare, "HEAD"), "ref: "+at.full+"\n")
}

// replace writes a file by rename.
func replace(st *stage, dst, text string) error {
	tmp := filepath.Join(st.dir, "text")
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(dst), err)
	}
	if err := os.Rename(tmp, dst); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(dst), err)
	}
	return nil
}
