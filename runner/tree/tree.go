// Package tree copies and removes folders that foreign code has written in.
package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Owner is whom a copy belongs to; nil is the caller.
type Owner struct{ UID, GID int }

func (o *Owner) take(path string) error {
	if o == nil {
		return nil
	}
	return os.Lchown(path, o.UID, o.GID)
}

// Copy copies folders, regular files and symbolic links, links as they are;
// whatever else there is, is left out. Everything in the copy may be written by
// its owner. A copy on a file system that shares blocks costs no space
// (copy_file_range). The folder to must not be there.
func Copy(ctx context.Context, from, to string, owner *Owner) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		switch e.Type() {
		case fs.ModeDir:
			return errors.Join(os.Mkdir(dst, 0o755), owner.take(dst))
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, dst)
		case 0:
			return CopyFile(path, dst, owner)
		}
		return nil
	})
}

// CopyFile copies one regular file to a name that is free. Of its mode only
// whether it can be executed is kept.
func CopyFile(from, to string, owner *Owner) error {
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
	return errors.Join(err, owner.take(to), out.Close())
}

// Remove removes a folder in which foreign code may have taken away its own
// permissions.
func Remove(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, _ error) error {
		if e != nil && e.IsDir() {
			_ = os.Chmod(path, 0o700) // whatever stays closed shows in the second try
		}
		return nil
	})
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}
