package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/repromill/repromill/results/atomicfile"
)

// copySource copies the checkout for builds that write into it.
func (j *job) copySource(ctx context.Context) error {
	to := filepath.Join(j.dir, "src")
	err := filepath.WalkDir(j.r.req.Source, func(path string, e fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		rel, err := filepath.Rel(j.r.req.Source, path)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		switch e.Type() {
		case fs.ModeDir:
			return own(os.Mkdir, dst)
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, dst)
		case 0:
			return copyFile(path, dst)
		}
		return nil
	})
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
		removeTree(out) // of a build that did not finish
		err = errors.Join(atomicfile.MkdirAll(filepath.Dir(out), 0o755), os.Rename(tmp, out))
	}
	if err != nil {
		return "", fmt.Errorf("keep what was built in the checkout: %w", err)
	}
	if !found {
		return "", nil
	}
	return out, nil
}

// copyFile copies one file for the build's user.
func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644|info.Mode().Perm()&0o111)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil && os.Geteuid() == 0 {
		err = out.Chown(nobody, nobody)
	}
	return errors.Join(err, out.Close())
}
