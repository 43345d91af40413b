// Package atomicfile makes file writes durable and all-or-nothing: write a
// temporary file, fsync it, rename it over the target, fsync the directory.
//
// After any crash the target holds either its old content or the new one,
// never a part. The directory is synced as well: without that a rename may be
// lost although the data survived.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Options tune one write. The zero value writes with mode 0o644 through a
// uniquely named temporary file beside the target.
type Options struct {
	// Perm is the mode of the new file; 0 means 0o644.
	Perm fs.FileMode
	// Temp is the path of the temporary file. It must lie on the target's
	// filesystem, and its owner must be the only writer. Empty means a unique
	// name beside the target, which a killed process leaves behind.
	Temp string
	// Hook, when not nil, is called with "<Point>-<step>:<before|after>" around
	// every durable step (write, fsync, rename, dirsync), so that a test can
	// strike there.
	Hook func(point string)
	// Point is the prefix of the names given to Hook, "pkg:what".
	Point string
}

// step runs one durable step between its two hook points.
func (o Options) step(name string, fn func() error) error {
	if o.Hook != nil {
		o.Hook(o.Point + "-" + name + ":before")
	}
	if err := fn(); err != nil {
		return err
	}
	if o.Hook != nil {
		o.Hook(o.Point + "-" + name + ":after")
	}
	return nil
}

// Write replaces path with data. When it returns an error the old content is
// in place, unless the error is from the last step, the directory's fsync:
// then the new content is visible but not known to be durable ([IsVisible]).
func Write(path string, data []byte, o Options) error {
	temp := o.Temp
	f, err := create(path, temp, o.Perm)
	if err != nil {
		return fmt.Errorf("create temporary file for %s: %w", path, err)
	}
	temp = f.Name()
	err = o.step("write", func() error { _, err := f.Write(data); return err })
	if err == nil {
		err = o.step("fsync", f.Sync)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(temp))
	}
	if err := Rename(temp, path, o); err != nil {
		if !IsVisible(err) {
			err = errors.Join(err, os.Remove(temp))
		}
		return err
	}
	return nil
}

func create(path, temp string, perm fs.FileMode) (*os.File, error) {
	if perm == 0 {
		perm = 0o644
	}
	if temp != "" {
		return os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, perm)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(perm); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

// Rename moves the complete, already synced file oldPath to newPath and makes
// that durable. Both must be on one filesystem.
func Rename(oldPath, newPath string, o Options) error {
	err := o.step("rename", func() error { return os.Rename(oldPath, newPath) })
	if err != nil {
		return fmt.Errorf("rename into place: %w", err)
	}
	dir := filepath.Dir(newPath)
	if err := o.step("dirsync", func() error { return SyncDir(dir) }); err != nil {
		return &visibleError{fmt.Errorf("sync directory of %s: %w", newPath, err)}
	}
	return nil
}

// visibleError marks a failure after the new content became visible.
type visibleError struct{ err error }

func (e *visibleError) Error() string { return e.err.Error() }
func (e *visibleError) Unwrap() error { return e.err }

// IsVisible reports whether err came after the rename: the new content can be
// seen, but a power cut may still undo it.
func IsVisible(err error) bool {
	var v *visibleError
	return errors.As(err, &v)
}

// SyncDir fsyncs a directory, so that the names in it survive a power cut.
// Filesystems that cannot sync a directory report success.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil
	}
	return errors.Join(err, d.Close())
}

// MkdirAll is os.MkdirAll that syncs the parent of every directory it makes.
func MkdirAll(dir string, perm fs.FileMode) error {
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return SyncDir(parent)
}

// Once writes a file that nobody has written yet, as a whole; its error wraps
// [fs.ErrExist] when somebody has. link(2) is atomic over NFS too, where O_EXCL
// and locks are not everywhere.
func Once(path string, data []byte, perm fs.FileMode) error {
	f, err := create(path, "", perm)
	if err != nil {
		return fmt.Errorf("create temporary file for %s: %w", path, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Link(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}
