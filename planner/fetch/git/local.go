package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/filesystem/dotgit"
)

const (
	maxAlternates  = 8
	objectCache    = 32 << 20 // bytes of delta bases kept while reading
	streamedObject = 1 << 20  // larger blobs are not read into memory
)

// folderRepo is a git repository on disk (gitrepository-layout(5)).
type folderRepo struct {
	Name       string   `json:"name"`               // for messages
	Worktree   string   `json:"worktree,omitempty"` // "" for a bare one
	GitDir     string   `json:"git_dir"`
	CommonDir  string   `json:"common_dir"`           // GitDir, but for a linked worktree
	Alternates []string `json:"alternates,omitempty"` // object folders
}

// folders lists all that is read.
func (f *folderRepo) folders() []string {
	dirs := []string{f.GitDir, f.CommonDir}
	if f.Worktree != "" {
		dirs = append(dirs, f.Worktree)
	}
	return append(dirs, f.Alternates...)
}

// openFolder finds out what a folder is. name is its canonical name, "" for
// its own path.
func (j *job) openFolder(path, name string) (source, error) {
	wrong := func(why, fix string) error { return &RepoError{Repo: path, Why: why, Fix: fix} }
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, wrong("there is no such folder", "check the path")
	case err != nil:
		return nil, fmt.Errorf("look at folder: %w", err)
	case !info.IsDir():
		return nil, wrong("it is not a folder", "give the folder that holds the files")
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, fmt.Errorf("look at folder: %w", err)
	}
	if name == "" {
		name = path
	}
	repo, err := findRepo(path)
	if err != nil {
		return nil, wrong(err.Error(), "repair the repository, or give a folder without .git")
	}
	if repo == nil {
		return &plainSource{job: j, dir: path, label: name}, nil
	}
	repo.Name = name
	return &folderSource{job: j, repo: repo}, nil
}

// findRepo returns the repository whose top is dir, or nil for a plain folder.
// A folder within a worktree is a plain folder.
func findRepo(dir string) (*folderRepo, error) {
	dot := filepath.Join(dir, ".git")
	info, err := os.Stat(dot)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if !isGitDir(dir, dir) {
			return nil, nil
		}
		return complete(&folderRepo{GitDir: dir, CommonDir: dir})
	case err != nil:
		return nil, fmt.Errorf("look at .git: %w", err)
	case info.IsDir():
		return complete(&folderRepo{Worktree: dir, GitDir: dot, CommonDir: dot})
	}
	b, err := readSmall(dot)
	if err != nil {
		return nil, err
	}
	target, ok := strings.CutPrefix(b, "gitdir:")
	if !ok {
		return nil, errors.New(".git is a file that names no repository")
	}
	git := against(dir, strings.TrimSpace(target))
	return complete(&folderRepo{Worktree: dir, GitDir: git, CommonDir: git})
}

// complete follows commondir and alternates.
func complete(r *folderRepo) (*folderRepo, error) {
	if b, err := readSmall(filepath.Join(r.GitDir, "commondir")); err == nil {
		r.CommonDir = against(r.GitDir, strings.TrimSpace(b))
	}
	if !isGitDir(r.GitDir, r.CommonDir) {
		return nil, fmt.Errorf("%s is not a git repository", r.GitDir)
	}
	queue := []string{filepath.Join(r.CommonDir, "objects")}
	for len(queue) > 0 && len(r.Alternates) < maxAlternates {
		b, err := readSmall(filepath.Join(queue[0], "info", "alternates"))
		if err == nil {
			for line := range strings.Lines(b) {
				alt := against(queue[0], strings.TrimSpace(line))
				if line != "\n" && !slices.Contains(r.Alternates, alt) {
					r.Alternates = append(r.Alternates, alt)
					queue = append(queue, alt)
				}
			}
		}
		queue = queue[1:]
	}
	return r, nil
}

func isGitDir(git, common string) bool {
	if _, err := os.Stat(filepath.Join(git, "HEAD")); err != nil {
		return false
	}
	for _, d := range []string{"objects", "refs"} {
		if info, err := os.Stat(filepath.Join(common, d)); err != nil || !info.IsDir() {
			return false
		}
	}
	return true
}

func against(dir, p string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(dir, p)
}

// readSmall reads one of git's one-line files.
func readSmall(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	return string(b), err
}

// folderSource is a repository on disk. Its objects are read by a worker.
type folderSource struct {
	job  *job
	repo *folderRepo
}

func (s *folderSource) name() string { return s.repo.Name }

func (s *folderSource) resolve(ctx context.Context, ref string) (resolved, error) {
	res, err := s.job.c.work(ctx, &workRequest{Op: opResolve, Repo: s.repo, Ref: ref}, nil, s.job.progress.report)
	if err != nil {
		return resolved{}, err
	}
	return resolved{want: res.Want, commit: res.Commit, ref: res.Ref, dirty: res.Dirty}, nil
}

func (s *folderSource) extract(ctx context.Context, r resolved, st *stage, prefix string) (*workResult, error) {
	req := &workRequest{Op: opExtract, Repo: s.repo, stage: st, Dir: st.dir, Prefix: prefix, Want: r.want, Limits: s.job.budget.left()}
	res, err := s.job.c.work(ctx, req, nil, s.job.progress.report)
	var missing *missingCommitError
	if errors.As(err, &missing) {
		err = &RefError{Repo: s.repo.Name, Ref: r.want, Why: "the repository has no such commit"}
	}
	return res, err
}

// repoObjects reads a repository and the ones it borrows from.
type repoObjects struct {
	main   *filesystem.Storage
	stores []*filesystem.Storage // main first
}

func (f *folderRepo) open() (*repoObjects, error) {
	var common billy.Filesystem
	if f.CommonDir != f.GitDir {
		common = osfs.New(f.CommonDir)
	}
	main := openStorage(dotgit.NewRepositoryFilesystem(osfs.New(f.GitDir), common))
	cfg, err := main.Config()
	if err != nil {
		return nil, &RepoError{Repo: f.Name, Why: "its configuration cannot be read: " + err.Error(), Fix: "repair .git/config"}
	}
	if ext := cfg.Raw.Section("extensions"); cfg.Raw.HasSection("extensions") {
		if v := ext.Option("objectformat"); v != "" && !strings.EqualFold(v, "sha1") {
			return nil, &RepoError{Repo: f.Name, Why: "its object ids are " + v, Fix: "give a repository with SHA-1 ids, or a folder without .git"}
		}
		if v := ext.Option("refstorage"); v != "" && !strings.EqualFold(v, "files") {
			return nil, &RepoError{Repo: f.Name, Why: "its refs are kept as " + v, Fix: "run git refs migrate --ref-format=files in it"}
		}
	}
	o := &repoObjects{main: main, stores: []*filesystem.Storage{main}}
	for _, alt := range f.Alternates {
		o.stores = append(o.stores, openStorage(osfs.New(filepath.Dir(alt))))
	}
	return o, nil
}

func openStorage(fs billy.Filesystem) *filesystem.Storage {
	return filesystem.NewStorageWithOptions(fs, cache.NewObjectLRU(objectCache),
		filesystem.Options{KeepDescriptors: true, LargeObjectThreshold: streamedObject})
}

func (o *repoObjects) Close() error {
	var err error
	for _, s := range o.stores {
		err = errors.Join(err, s.Close())
	}
	return err
}

func (o *repoObjects) object(h plumbing.Hash) (*openObject, error) {
	for _, s := range o.stores {
		e, err := s.EncodedObject(plumbing.AnyObject, h)
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			continue
		} else if err != nil {
			return nil, &damagedError{fmt.Errorf("read object %s: %w", h, err)}
		}
		var r io.ReadCloser
		if e.Size() > streamedObject && isDelta(s, h) {
			r = &wholeObject{store: s, hash: h}
		} else if r, err = e.Reader(); err != nil {
			return nil, &damagedError{fmt.Errorf("read object %s: %w", h, err)}
		}
		return &openObject{Reader: r, typ: e.Type(), size: e.Size(), close: r.Close}, nil
	}
	return nil, plumbing.ErrObjectNotFound
}

func isDelta(s *filesystem.Storage, h plumbing.Hash) bool {
	o, err := s.DeltaObject(plumbing.AnyObject, h)
	if err != nil {
		return false
	}
	_, ok := o.(plumbing.DeltaObject)
	return ok
}

// wholeObject is a large object that is stored as a delta, resolved in memory
// when it is first read: go-git's reader that resolves deltas as a stream
// (plumbing/format/packfile, ReaderFromDelta, v5.19.3) loses its place in the
// base after a copy that goes backwards.
type wholeObject struct {
	store *filesystem.Storage
	hash  plumbing.Hash
	r     io.ReadCloser
}

func (w *wholeObject) Read(p []byte) (int, error) {
	if w.r == nil {
		whole := filesystem.NewStorage(w.store.Filesystem(), cache.NewObjectLRU(objectCache))
		defer whole.Close()
		e, err := whole.EncodedObject(plumbing.AnyObject, w.hash)
		if err != nil {
			return 0, &damagedError{fmt.Errorf("read object %s: %w", w.hash, err)}
		}
		if w.r, err = e.Reader(); err != nil {
			return 0, &damagedError{fmt.Errorf("read object %s: %w", w.hash, err)}
		}
	}
	return w.r.Read(p)
}

func (w *wholeObject) Close() error {
	if w.r == nil {
		return nil
	}
	return w.r.Close()
}

func (o *repoObjects) oversize(plumbing.Hash) (int64, bool) { return 0, false }

func (f *folderRepo) extract(ctx context.Context, req *workRequest, report func(Progress)) (_ *workResult, err error) {
	o, err := f.open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	want := plumbing.NewHash(req.Want)
	obj, err := o.object(want)
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return nil, &missingCommitError{req.Want}
	} else if err != nil {
		return nil, err
	}
	if err := obj.Close(); err != nil {
		return nil, err
	}
	return req.extract(ctx, o, want, true, report)
}

// resolve looks a ref up.
func (f *folderRepo) resolve(ref string) (_ *workResult, err error) {
	o, err := f.open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	res := &workResult{Ref: ref}
	want, head, err := f.find(o, ref, res)
	if err != nil {
		return nil, err
	}
	commit, err := findCommit(o, want)
	switch {
	case errors.Is(err, plumbing.ErrObjectNotFound):
		return nil, &RefError{Repo: f.Name, Ref: ref, Why: "the repository has no such commit"}
	case err != nil:
		return nil, err
	}
	res.Want, res.Commit, res.Date = want.String(), commit.Hash.String(), commit.Committer.When.UTC()
	if head && f.Worktree != "" {
		res.Dirty = f.dirty(o, commit.TreeHash)
	}
	return res, nil
}

// find returns the object a ref names, and whether it is what HEAD is at.
func (f *folderRepo) find(o *repoObjects, ref string, res *workResult) (h plumbing.Hash, head bool, err error) {
	at, err := storer.ResolveReference(o.main, plumbing.HEAD)
	if ref == "" || ref == "HEAD" {
		if err != nil {
			return h, false, &RepoError{Repo: f.Name, Why: "it has no commits", Fix: "commit first, or remove .git to use the files as they are"}
		}
		res.Ref = shortName(at.Name().String())
		return at.Hash(), true, nil
	}
	if isCommitID(ref) {
		return plumbing.NewHash(ref), at != nil && at.Hash().String() == ref, nil
	}
	if why := malformedRef(ref); why != "" {
		return h, false, &RefError{Repo: f.Name, Ref: ref, Why: why}
	}
	names := refNames(ref)
	names = append(names, "refs/remotes/origin/"+ref)
	for _, full := range names {
		if found, err := storer.ResolveReference(o.main, plumbing.ReferenceName(full)); err == nil {
			return found.Hash(), at != nil && at.Hash() == found.Hash(), nil
		}
	}
	if isShortID(ref) {
		return f.findShort(o, strings.ToLower(ref))
	}
	return h, false, &RefError{Repo: f.Name, Ref: ref, Why: "there is no such branch or tag", Have: o.someRefs()}
}

// findShort resolves an abbreviated id.
func (f *folderRepo) findShort(o *repoObjects, ref string) (h plumbing.Hash, head bool, err error) {
	prefix := plumbing.NewHash(ref + strings.Repeat("0", 40-len(ref)))
	var ids []string
	for _, s := range o.stores {
		found, err := s.HashesWithPrefix(prefix[:len(ref)/2])
		if err != nil {
			return h, false, &damagedError{fmt.Errorf("search objects: %w", err)}
		}
		for _, c := range found {
			id := c.String()
			if !strings.HasPrefix(id, ref) || slices.Contains(ids, id) {
				continue
			}
			if _, err := findCommit(o, c); err == nil {
				ids = append(ids, id)
			}
		}
	}
	switch len(ids) {
	case 0:
		return h, false, &RefError{Repo: f.Name, Ref: ref, Why: "there is no such branch, tag or commit", Have: o.someRefs()}
	case 1:
		return plumbing.NewHash(ids[0]), false, nil
	}
	return h, false, &RefError{Repo: f.Name, Ref: ref, Why: "several commits start with it", Have: ids[:min(len(ids), maxNamesInError)]}
}

// someRefs lists branches and tags for an error message.
func (o *repoObjects) someRefs() []string {
	var names []string
	iter, err := o.main.IterReferences()
	if err != nil {
		return nil
	}
	defer iter.Close()
	_ = iter.ForEach(func(r *plumbing.Reference) error {
		if n := r.Name(); n.IsBranch() || n.IsTag() {
			names = append(names, n.Short())
		}
		return nil
	})
	slices.Sort(names)
	return names[:min(len(names), maxNamesInError)]
}

// hashFile is the git blob id of a file's content.
func hashFile(r io.Reader, size int64, buf []byte) (plumbing.Hash, int64, error) {
	h := newBlobHash(size)
	n, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{r}, buf)
	var id plumbing.Hash
	copy(id[:], h.Sum(nil))
	return id, n, err
}

// equalContent reports whether a reader gives a blob with the given id.
func equalContent(r io.Reader, size int64, want plumbing.Hash) bool {
	id, n, err := hashFile(r, size, make([]byte, 64<<10))
	return err == nil && n == size && bytes.Equal(id[:], want[:])
}
