package git

import (
	"context"
	"crypto/sha1"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// plainSource is a folder without .git. It stands for one commit whose id
// follows from names, contents, executable bits and link targets alone: its
// tree is the one that "git add --all" would make of the folder with no ignore
// rules, and author, date and message are constants.
type plainSource struct {
	job   *job
	dir   string
	label string

	root    *os.Root
	commit  *object.Commit
	meta    map[plumbing.Hash]*plumbing.MemoryObject // trees, the commit, link targets
	files   map[plumbing.Hash]plainFile
	count   int
	bytes   int64
	skipped []Skipped
	buf     []byte
}

type plainFile struct {
	path string
	size int64
}

func (s *plainSource) name() string { return s.label }

// plainRefs are the names the only commit of a plain folder goes by.
func plainRefs() []string { return []string{"HEAD", "main", "master"} }

func (s *plainSource) resolve(ctx context.Context, ref string) (r resolved, err error) {
	if err := s.snapshot(ctx); err != nil {
		return r, err
	}
	id := s.commit.Hash.String()
	named := ref == "" || slices.Contains(plainRefs(), ref)
	if !named && !((isCommitID(ref) || isShortID(ref)) && strings.HasPrefix(id, strings.ToLower(ref))) {
		return r, &RefError{Repo: s.label, Ref: ref,
			Why: "a folder without .git has one commit, which follows from its content", Have: append(plainRefs(), id)}
	}
	if ref == "" {
		ref = "HEAD"
	}
	return resolved{want: id, commit: id, ref: ref}, nil
}

func (s *plainSource) extract(ctx context.Context, r resolved, st *stage, prefix string) (*workResult, error) {
	if s.commit == nil {
		if err := s.snapshot(ctx); err != nil {
			return nil, err
		}
	}
	if r.want != s.commit.Hash.String() {
		return nil, &RefError{Repo: s.label, Ref: r.want, Why: "the folder's content is another commit", Have: []string{s.commit.Hash.String()}}
	}
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	defer func() { _ = root.Close() }()
	s.root = root
	req := &workRequest{Dir: st.dir, Prefix: prefix, Limits: s.job.budget.left()}
	res, err := req.extract(ctx, s, s.commit.Hash, true, s.job.progress.report)
	if err != nil {
		return nil, fmt.Errorf("copy folder (if it changed meanwhile, try again): %w", err)
	}
	for _, skip := range s.skipped {
		res.Tree.Skipped = append(res.Tree.Skipped, Skipped{Path: path.Join(prefix, skip.Path), Why: skip.Why})
	}
	res.Date, res.Plain = time.Time{}, true
	return res, nil
}

// snapshot hashes the folder.
func (s *plainSource) snapshot(ctx context.Context) error {
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	defer func() { _ = root.Close() }()
	s.root, s.count, s.bytes, s.skipped = root, 0, 0, nil
	s.meta, s.files = map[plumbing.Hash]*plumbing.MemoryObject{}, map[plumbing.Hash]plainFile{}
	s.buf = make([]byte, 128<<10)
	tree, err := s.folder(ctx, ".", 0)
	if err != nil {
		return err
	}
	who := object.Signature{Name: "plain folder", Email: "plain@repromill.invalid",
		When: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)}
	c := &object.Commit{Author: who, Committer: who, Message: "Content of a plain folder\n", TreeHash: tree}
	c.Hash, err = s.keep(c.Encode)
	s.commit = c
	return err
}

// keep encodes an object and stores it.
func (s *plainSource) keep(encode func(plumbing.EncodedObject) error) (plumbing.Hash, error) {
	m := new(plumbing.MemoryObject)
	if err := encode(m); err != nil {
		return plumbing.ZeroHash, fmt.Errorf("encode object: %w", err)
	}
	s.meta[m.Hash()] = m
	return m.Hash(), nil
}

// folder hashes one folder into a tree.
func (s *plainSource) folder(ctx context.Context, dir string, depth int) (plumbing.Hash, error) {
	if depth > maxDepth {
		return plumbing.ZeroHash, &RepoError{Repo: s.label, Why: "folders are nested deeper than 128", Fix: "give a folder that is not"}
	}
	entries, err := fs.ReadDir(s.root.FS(), dir)
	if err != nil {
		return plumbing.ZeroHash, fmt.Errorf("list folder: %w", err)
	}
	t := &object.Tree{}
	for _, e := range entries {
		if err := context.Cause(ctx); err != nil {
			return plumbing.ZeroHash, err
		}
		entry, err := s.entry(ctx, path.Join(dir, e.Name()), e, depth)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		if entry != nil {
			t.Entries = append(t.Entries, *entry)
		}
	}
	slices.SortFunc(t.Entries, func(a, b object.TreeEntry) int { return strings.Compare(treeOrder(a), treeOrder(b)) })
	return s.keep(t.Encode)
}

// treeOrder is the key git sorts a tree's entries by.
func treeOrder(e object.TreeEntry) string {
	if e.Mode == filemode.Dir {
		return e.Name + "/"
	}
	return e.Name
}

// entry hashes one member of a folder; nil is one that git would not hold.
func (s *plainSource) entry(ctx context.Context, p string, e fs.DirEntry, depth int) (*object.TreeEntry, error) {
	skip := func(why string) (*object.TreeEntry, error) {
		s.skipped = append(s.skipped, Skipped{Path: p, Why: why})
		return nil, nil
	}
	out := &object.TreeEntry{Name: e.Name()}
	var err error
	switch {
	case isDotGit(e.Name()):
		return skip("name stands for .git")
	case e.IsDir():
		before := s.count
		out.Mode = filemode.Dir
		if out.Hash, err = s.folder(ctx, p, depth+1); err == nil && s.count == before {
			return nil, nil // git does not hold empty folders
		}
	case e.Type() == fs.ModeSymlink:
		out.Mode = filemode.Symlink
		var target string
		if target, err = s.root.Readlink(p); err == nil {
			s.count++
			out.Hash, err = s.keep(func(o plumbing.EncodedObject) error {
				o.SetType(plumbing.BlobObject)
				w, err := o.Writer()
				if err == nil {
					_, err = io.WriteString(w, target)
				}
				return err
			})
		}
	case e.Type().IsRegular():
		out.Mode, out.Hash, err = s.file(p)
	default:
		return skip("not a file, folder or link")
	}
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", p, err)
	}
	return out, nil
}

// file hashes one regular file, within the limits.
func (s *plainSource) file(p string) (mode filemode.FileMode, h plumbing.Hash, err error) {
	f, err := s.root.Open(p)
	if err != nil {
		return mode, h, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return mode, h, err
	}
	l := s.job.budget.left()
	s.count++
	s.bytes += info.Size()
	switch {
	case info.Size() > l.FileBytes:
		return mode, h, &LimitError{Cap: CapFile, Limit: l.FileBytes, Got: info.Size(), Path: p}
	case s.count > l.Files:
		return mode, h, &LimitError{Cap: CapFiles, Limit: int64(l.Files)}
	case s.bytes > l.TotalBytes:
		return mode, h, &LimitError{Cap: CapTotal, Limit: l.TotalBytes, Got: s.bytes}
	}
	h, n, err := hashFile(io.LimitReader(f, info.Size()), info.Size(), s.buf)
	if err == nil && n != info.Size() {
		err = io.ErrUnexpectedEOF
	}
	mode = filemode.Regular
	if info.Mode()&0o100 != 0 {
		mode = filemode.Executable
	}
	s.files[h] = plainFile{p, info.Size()}
	return mode, h, err
}

func newBlobHash(size int64) hash.Hash {
	h := sha1.New()
	fmt.Fprintf(h, "blob %d\x00", size)
	return h
}

func (s *plainSource) object(h plumbing.Hash) (*openObject, error) {
	if m, ok := s.meta[h]; ok {
		r, err := m.Reader()
		if err != nil {
			return nil, err
		}
		return &openObject{Reader: r, typ: m.Type(), size: m.Size(), close: r.Close}, nil
	}
	file, ok := s.files[h]
	if !ok {
		return nil, plumbing.ErrObjectNotFound
	}
	f, err := s.root.Open(file.path)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", file.path, err)
	}
	return &openObject{Reader: f, typ: plumbing.BlobObject, size: file.size, close: f.Close}, nil
}

func (s *plainSource) oversize(plumbing.Hash) (int64, bool) { return 0, false }
