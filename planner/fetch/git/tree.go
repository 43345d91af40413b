package git

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

const (
	maxLinkCopy   = 16 << 20 // a symbolic link's target, to be copied
	maxLinkChain  = 8
	maxLinkTarget = 4096
	maxModules    = 256 << 10 // .gitmodules; its reader is quadratic
	modulesFile   = ".gitmodules"
)

// fileEntry is one materialised file: a line of the manifest.
type fileEntry struct {
	Path string        `json:"p"`
	Exec bool          `json:"x,omitempty"`
	Size int64         `json:"s"`
	Hash plumbing.Hash `json:"-"`
	ID   string        `json:"h"` // Hash in hex; what travels
}

// treeResult is what came of one tree. Paths are relative to the checkout's
// root, below the prefix the tree was written at.
type treeResult struct {
	Files   []fileEntry `json:"files"`
	Bytes   int64       `json:"bytes"`
	Skipped []Skipped   `json:"skipped,omitempty"`
	Copied  []Copied    `json:"copied,omitempty"`
	LFS     []Pointer   `json:"lfs,omitempty"`
	Modules []gitlink   `json:"modules,omitempty"`
}

// gitlink is a submodule entry of a tree, with its url in .gitmodules as it
// stands there.
type gitlink struct {
	Path   string `json:"path"`
	Commit string `json:"commit"`
	URL    string `json:"url,omitempty"`
}

// treeWriter materialises the regular files of one tree.
type treeWriter struct {
	objs   objects
	limits Limits // what is left for this tree
	prefix string // where the tree goes, relative to the checkout's root; "" is the root
	verify bool   // the source does not vouch for its hashes: check each blob
	dry    bool   // count and check, and read no contents
	onFile func(files int)

	out     treeResult
	entries int
	byPath  map[string]fileEntry // relative to the tree
	links   []treeLink           // in the order of the tree
	linkTo  map[string]string    // the same, by path
	modules []byte
	buf     []byte
}

type treeLink struct {
	path   string
	target string
}

// write walks the tree into root. A nil root only counts and checks.
func (t *treeWriter) write(ctx context.Context, root *os.Root, tree plumbing.Hash) (*treeResult, error) {
	if _, ok := t.objs.(*spool); ok && root != nil {
		// Sizes cost nothing here: refuse before the first file is written.
		probe := &treeWriter{objs: t.objs, limits: t.limits, prefix: t.prefix, dry: true,
			byPath: map[string]fileEntry{}, linkTo: map[string]string{}}
		if err := probe.walk(ctx, nil, "", tree); err != nil {
			return nil, err
		}
	}
	t.byPath, t.linkTo = map[string]fileEntry{}, map[string]string{}
	t.buf = make([]byte, 1<<20)
	dir := root
	if root != nil && t.prefix != "" {
		if err := root.MkdirAll(t.prefix, 0o755); err != nil {
			return nil, fmt.Errorf("create folder of submodule: %w", err)
		}
		sub, err := root.OpenRoot(t.prefix)
		if err != nil {
			return nil, fmt.Errorf("open folder of submodule: %w", err)
		}
		defer func() { _ = sub.Close() }()
		dir = sub
	}
	if err := t.walk(ctx, dir, "", tree); err != nil {
		return nil, err
	}
	for _, l := range t.links {
		if err := t.copyLink(dir, l); err != nil {
			return nil, err
		}
	}
	urls := moduleURLs(t.modules)
	for i, m := range t.out.Modules {
		t.out.Modules[i].URL = urls[strings.TrimPrefix(m.Path, t.prefixSlash())]
	}
	return &t.out, nil
}

func (t *treeWriter) prefixSlash() string {
	if t.prefix == "" {
		return ""
	}
	return t.prefix + "/"
}

func (t *treeWriter) skip(p, why string) {
	t.out.Skipped = append(t.out.Skipped, Skipped{Path: t.prefixSlash() + p, Why: why})
}

// walk handles one folder. dir is nil when nothing is written.
func (t *treeWriter) walk(ctx context.Context, dir *os.Root, at string, tree plumbing.Hash) error {
	entries, err := t.readTree(at, tree)
	if err != nil {
		return err
	}
	seen := make(map[string]bool, len(entries))
	for _, e := range entries {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		// Folders, links and refused names cost work too: a tree that refers to
		// itself over and over is stopped here.
		if t.entries++; t.entries > 4*t.limits.Files+1000 {
			return &LimitError{Cap: CapFiles, Limit: int64(t.limits.Files), Got: int64(t.entries), What: "entries of all kinds"}
		}
		p := strings.TrimPrefix(at+"/"+e.Name, "/")
		why := cmp.Or(unsafeName(e.Name), tooLong(t.prefixSlash()+p))
		if why == "" && seen[e.Name] {
			why = "second entry of this name"
		}
		if why != "" {
			t.skip(p, why)
			continue
		}
		seen[e.Name] = true
		if err := t.entry(ctx, dir, p, e); err != nil {
			return err
		}
	}
	return nil
}

func (t *treeWriter) entry(ctx context.Context, dir *os.Root, p string, e object.TreeEntry) error {
	switch e.Mode {
	case filemode.Dir:
		return t.folder(ctx, dir, p, e)
	case filemode.Regular, filemode.Executable, filemode.Deprecated:
		f := fileEntry{Path: p, Exec: e.Mode == filemode.Executable, Hash: e.Hash}
		return t.file(dir, f)
	case filemode.Symlink:
		target, err := t.small(e.Hash, maxLinkTarget)
		if err != nil {
			return t.missing(p, e.Hash, err)
		}
		t.links = append(t.links, treeLink{p, string(target)})
		t.linkTo[p] = string(target)
	case filemode.Submodule:
		t.out.Modules = append(t.out.Modules, gitlink{Path: t.prefixSlash() + p, Commit: e.Hash.String()})
	default:
		t.skip(p, "entry of mode "+e.Mode.String())
	}
	return nil
}

func (t *treeWriter) folder(ctx context.Context, dir *os.Root, p string, e object.TreeEntry) error {
	if dir == nil {
		return t.walk(ctx, nil, p, e.Hash)
	}
	name := path.Base(p)
	if err := dir.Mkdir(name, 0o755); errors.Is(err, fs.ErrExist) {
		t.skip(p, "collides with another name on this file system")
		return nil
	} else if err != nil {
		return fmt.Errorf("create folder: %w", err)
	}
	sub, err := dir.OpenRoot(name)
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	defer func() { _ = sub.Close() }()
	return t.walk(ctx, sub, p, e.Hash)
}

// file writes one regular file into the folder it belongs to.
func (t *treeWriter) file(dir *os.Root, f fileEntry) error {
	o, err := t.objs.object(f.Hash)
	if _, local := t.objs.(*repoObjects); local && errors.Is(err, plumbing.ErrObjectNotFound) {
		t.skip(f.Path, whyAbsent)
		return nil
	}
	if err != nil {
		return t.missing(f.Path, f.Hash, err)
	}
	defer func() { _ = o.Close() }()
	f.Size = o.size
	switch {
	case o.typ != plumbing.BlobObject:
		return &damagedError{fmt.Errorf("%q is a %s", f.Path, o.typ)}
	case o.size > t.limits.FileBytes:
		return &LimitError{Cap: CapFile, Limit: t.limits.FileBytes, Got: o.size, Path: f.Path}
	case len(t.out.Files) >= t.limits.Files:
		return &LimitError{Cap: CapFiles, Limit: int64(t.limits.Files)}
	case t.out.Bytes+o.size > t.limits.TotalBytes:
		return &LimitError{Cap: CapTotal, Limit: t.limits.TotalBytes, Got: t.out.Bytes + o.size}
	}
	if !t.dry {
		written, err := t.content(dir, path.Base(f.Path), f, o)
		if err != nil || !written {
			return err
		}
	}
	t.out.Bytes += f.Size
	t.byPath[f.Path] = f
	f.Path, f.ID = t.prefixSlash()+f.Path, f.Hash.String()
	t.out.Files = append(t.out.Files, f)
	if t.onFile != nil {
		t.onFile(len(t.out.Files))
	}
	return nil
}

// content copies an object into a new file. It reports false for a name that
// is taken already, which is a skipped file and not an error.
func (t *treeWriter) content(dir *os.Root, name string, f fileEntry, o *openObject) (bool, error) {
	var w io.Writer = io.Discard
	if dir != nil {
		mode := fs.FileMode(0o444)
		if f.Exec {
			mode = 0o555
		}
		file, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if errors.Is(err, fs.ErrExist) {
			t.skip(f.Path, "collides with another name on this file system")
			return false, nil
		} else if err != nil {
			return false, fmt.Errorf("create file: %w", err)
		}
		defer func() { _ = file.Close() }()
		w = struct{ io.Writer }{file} // keeps CopyBuffer to our buffer
	}
	var r io.Reader = struct{ io.Reader }{o}
	sum := newBlobHash(o.size)
	if t.verify {
		r = io.TeeReader(r, sum)
	}
	first, err := io.ReadFull(r, t.buf)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return false, fmt.Errorf("read %q: %w", f.Path, err)
	}
	t.note(f.Path, t.buf[:first], o.size)
	if _, err := w.Write(t.buf[:first]); err != nil {
		return false, fmt.Errorf("write %q: %w", f.Path, err)
	}
	n := int64(first)
	if n == int64(len(t.buf)) {
		rest, err := io.CopyBuffer(w, io.LimitReader(r, o.size-n+1), t.buf)
		if err != nil {
			return false, fmt.Errorf("copy %q: %w", f.Path, err)
		}
		n += rest
	}
	if n != o.size {
		return false, &damagedError{fmt.Errorf("%q has %d bytes, its object says %d", f.Path, n, o.size)}
	}
	if t.verify && !bytes.Equal(sum.Sum(nil), f.Hash[:]) {
		return false, &damagedError{fmt.Errorf("%q does not match its object %s", f.Path, f.Hash)}
	}
	return true, nil
}

// note looks at a file's first bytes for what the checkout reports or needs.
func (t *treeWriter) note(p string, first []byte, size int64) {
	if p == modulesFile && size <= maxModules {
		t.modules = bytes.Clone(first)
	}
	if ptr, ok := parsePointer(first, size); ok {
		ptr.Path = t.prefixSlash() + p
		t.out.LFS = append(t.out.LFS, ptr)
	}
}

// copyLink writes a copy of the regular file that a symbolic link leads to.
func (t *treeWriter) copyLink(dir *os.Root, l treeLink) error {
	f, why := t.follow(l)
	if why != "" {
		t.skip(l.path, fmt.Sprintf("symbolic link to %q: %s", l.target, why))
		return nil
	}
	parent := dir
	if d := path.Dir(l.path); dir != nil && d != "." {
		sub, err := dir.OpenRoot(d)
		if err != nil {
			return fmt.Errorf("open folder: %w", err)
		}
		defer func() { _ = sub.Close() }()
		parent = sub
	}
	before := len(t.out.Files)
	if err := t.file(parent, fileEntry{Path: l.path, Exec: f.Exec, Hash: f.Hash}); err != nil {
		return err
	}
	if len(t.out.Files) > before {
		t.out.Copied = append(t.out.Copied, Copied{Path: t.prefixSlash() + l.path, Target: l.target})
	}
	return nil
}

// follow resolves a link by name within the tree; it never asks the file
// system.
func (t *treeWriter) follow(l treeLink) (f fileEntry, why string) {
	at := l
	for range maxLinkChain {
		if path.IsAbs(at.target) || strings.ContainsAny(at.target, "\x00\\") {
			return f, "leaves the tree"
		}
		p := path.Join(path.Dir(at.path), at.target)
		if p == ".." || strings.HasPrefix(p, "../") {
			return f, "leaves the tree"
		}
		if f, ok := t.byPath[p]; ok {
			if f.Size > maxLinkCopy {
				return f, "target is larger than 16 MiB"
			}
			return f, ""
		}
		next, ok := t.linkTo[p]
		if !ok {
			return f, "target is not a regular file of the tree"
		}
		at = treeLink{p, next}
	}
	return f, "chain of links is too long or a loop"
}

// readTree decodes a tree object and checks it against its id.
func (t *treeWriter) readTree(at string, h plumbing.Hash) ([]object.TreeEntry, error) {
	m, err := readMeta(t.objs, plumbing.TreeObject, h)
	if err != nil {
		return nil, t.missing(at, h, err)
	}
	tree, err := object.DecodeTree(nil, m)
	if err != nil {
		return nil, &damagedError{fmt.Errorf("tree %s: %w", h, err)}
	}
	return tree.Entries, nil
}

// small reads a whole small blob.
func (t *treeWriter) small(h plumbing.Hash, limit int64) ([]byte, error) {
	o, err := t.objs.object(h)
	if err != nil {
		return nil, err
	}
	defer func() { _ = o.Close() }()
	if o.typ != plumbing.BlobObject || o.size > limit {
		return nil, &damagedError{fmt.Errorf("object %s is a %s of %d bytes", h, o.typ, o.size)}
	}
	b, err := io.ReadAll(io.LimitReader(o, limit))
	if err == nil && t.verify && plumbing.ComputeHash(o.typ, b) != h {
		err = &damagedError{fmt.Errorf("object %s does not match its id", h)}
	}
	return b, err
}

// missing says why an object that a tree names is not there.
func (t *treeWriter) missing(p string, h plumbing.Hash, err error) error {
	if n, ok := t.objs.oversize(h); ok {
		return &LimitError{Cap: CapFile, Limit: t.limits.FileBytes, Got: n, Path: p}
	}
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return &damagedError{fmt.Errorf("object %s of %q is missing", h, p)}
	}
	return err
}

// readMeta reads a commit, tree or tag into memory and checks it against its
// id.
func readMeta(objs objects, want plumbing.ObjectType, h plumbing.Hash) (*plumbing.MemoryObject, error) {
	o, err := objs.object(h)
	if err != nil {
		return nil, err
	}
	defer func() { _ = o.Close() }()
	if want != plumbing.AnyObject && o.typ != want {
		return nil, &damagedError{fmt.Errorf("object %s is a %s, not a %s", h, o.typ, want)}
	}
	if o.size > maxMetaObject {
		return nil, &LimitError{Cap: CapFile, Limit: maxMetaObject, Got: o.size, What: "one " + o.typ.String() + " object"}
	}
	m := new(plumbing.MemoryObject)
	m.SetType(o.typ)
	if _, err := io.Copy(m, io.LimitReader(o, maxMetaObject)); err != nil {
		return nil, fmt.Errorf("read object %s: %w", h, err)
	}
	if m.Hash() != h {
		return nil, &damagedError{fmt.Errorf("object %s does not match its id", h)}
	}
	return m, nil
}

// findCommit reads a commit, through annotated tags.
func findCommit(objs objects, h plumbing.Hash) (*object.Commit, error) {
	for range maxLinkChain {
		m, err := readMeta(objs, plumbing.AnyObject, h)
		if err != nil {
			return nil, err
		}
		switch m.Type() {
		case plumbing.CommitObject:
			c, err := object.DecodeCommit(nil, m)
			if err != nil {
				return nil, &damagedError{fmt.Errorf("commit %s: %w", h, err)}
			}
			return c, nil
		case plumbing.TagObject:
			tag, err := object.DecodeTag(nil, m)
			if err != nil {
				return nil, &damagedError{fmt.Errorf("tag %s: %w", h, err)}
			}
			h = tag.Target
		default:
			return nil, &RefError{Ref: h.String(), Why: "it is a " + m.Type().String() + ", not a commit"}
		}
	}
	return nil, &damagedError{errors.New("chain of tags is too long")}
}
