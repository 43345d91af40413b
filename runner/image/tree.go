package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/runner/tree"
)

// copySource copies the checkout for builds that write into it.
func (j *job) copySource(ctx context.Context) error {
	err := tree.Copy(ctx, j.r.req.Source, filepath.Join(j.dir, "src"), buildOwner())
	if err != nil {
		return fmt.Errorf("copy checkout: %w", err)
	}
	return nil
}

// overlay gathers what a build wrote into the checkout, in a folder that is
// kept; empty when it wrote nothing.
func (j *job) overlay() (string, error) {
	if !j.edits() {
		return "", nil
	}
	out := filepath.Join(j.b.cfg.Dir, "overlays", j.r.key)
	tmp := filepath.Join(j.dir, "overlay")
	src := filepath.Join(j.dir, "src")
	found := false
	err := filepath.WalkDir(src, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == src {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		if e.IsDir() && e.Name() == "__pycache__" {
			return fs.SkipDir
		}
		if exists(filepath.Join(j.r.req.Source, rel)) || e.IsDir() {
			return nil
		}
		found = true
		dst := filepath.Join(tmp, rel)
		if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
			return err
		}
		return os.Rename(path, dst)
	})
	if err == nil && found {
		err = errors.Join(tree.Remove(out) /* of a build that did not finish */, atomicfile.MkdirAll(filepath.Dir(out), 0o755), os.Rename(tmp, out))
	}
	if err != nil {
		return "", fmt.Errorf("keep what was built in the checkout: %w", err)
	}
	if !found {
		return "", nil
	}
	return out, nil
}

// buildOwner is whom a build's files belong to.
func buildOwner() *tree.Owner {
	if os.Geteuid() != 0 {
		return nil
	}
	return &tree.Owner{UID: nobody, GID: nobody}
}
