package git

import (
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/index"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// maxRehash bounds the bytes read to tell a touched file from a changed one.
const maxRehash = 64 << 20

// dirty reports whether tracked files differ from a commit's tree: in the
// index, or in the worktree by size and time and, where these differ, by
// content. Untracked files do not count. A repository whose index cannot be
// read is not called dirty.
func (f *folderRepo) dirty(o *repoObjects, tree plumbing.Hash) bool {
	idx, err := o.main.Index()
	if err != nil {
		return false
	}
	committed := map[string]plumbing.Hash{}
	if flatten(o, "", tree, committed, 0) != nil {
		return false
	}
	if len(idx.Entries) != len(committed) {
		return true
	}
	budget := int64(maxRehash)
	for _, e := range idx.Entries {
		if committed[e.Name] != e.Hash || e.Stage != 0 { // 0 is a merged entry
			return true
		}
		if !e.SkipWorktree && f.changed(e, &budget) {
			return true
		}
	}
	return false
}

// changed compares one index entry with the file it stands for.
func (f *folderRepo) changed(e *index.Entry, budget *int64) bool {
	if e.Mode == filemode.Submodule {
		return false
	}
	p := filepath.Join(f.Worktree, filepath.FromSlash(e.Name))
	info, err := os.Lstat(p)
	if err != nil {
		return true
	}
	if e.Mode == filemode.Symlink {
		target, err := os.Readlink(p)
		return err != nil || plumbing.ComputeHash(plumbing.BlobObject, []byte(target)) != e.Hash
	}
	if !info.Mode().IsRegular() || info.Mode()&0o100 != 0 != (e.Mode == filemode.Executable) {
		return true
	}
	if uint32(info.Size()) == e.Size && info.ModTime().Equal(e.ModifiedAt) {
		return false
	}
	if *budget -= info.Size(); *budget < 0 {
		return true
	}
	file, err := os.Open(p)
	if err != nil {
		return true
	}
	defer func() { _ = file.Close() }()
	return !equalContent(io.LimitReader(file, info.Size()), info.Size(), e.Hash)
}

// flatten lists all entries of a tree that are not trees.
func flatten(objs objects, at string, tree plumbing.Hash, into map[string]plumbing.Hash, depth int) error {
	if depth > maxDepth || len(into) > 1_000_000 {
		return plumbing.ErrObjectNotFound
	}
	m, err := readMeta(objs, plumbing.TreeObject, tree)
	if err != nil {
		return err
	}
	t, err := object.DecodeTree(nil, m)
	if err != nil {
		return err
	}
	for _, e := range t.Entries {
		p := strings.TrimPrefix(path.Join(at, e.Name), "/")
		if e.Mode != filemode.Dir {
			into[p] = e.Hash
		} else if err := flatten(objs, p, e.Hash, into, depth+1); err != nil {
			return err
		}
	}
	return nil
}
