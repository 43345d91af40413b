package dataset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/repromill/repromill/results/atomicfile"
)

// lockLayout holds the places of data files: shared by those who put files into
// partitions, exclusive for who replaces a partition. The lock is on the folder
// of the runs, so that it leaves no file.
func (d *Dataset) lockLayout(ctx context.Context, how int) (release func() error, err error) {
	dir := filepath.Join(d.root, runsDir)
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("lock results folder: %w", err)
	}
	wait := time.NewTimer(d.cfg.LockWait)
	defer wait.Stop()
	for {
		err := flock(f, how)
		if err == nil {
			return f.Close, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock results folder: %w", err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), f.Close())
		case <-wait.C:
			return nil, errors.Join(fmt.Errorf("lock results folder: other processes have been at work in it for more than %s", d.cfg.LockWait), f.Close())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// swap puts the staged folder in the place of the partition. Files that came
// after the merged ones were read, or that were not merged, go along as links.
func (c *compactor) swap(ctx context.Context, used map[string]fs.FileInfo) (err error) {
	release, err := c.d.lockLayout(ctx, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	staged := filepath.Join(c.stage, newDir)
	entries, err := os.ReadDir(c.leaf)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if was := used[name]; was != nil {
			info, err := e.Info()
			if err != nil {
				return err
			}
			if !os.SameFile(info, was) || info.Size() != was.Size() || !info.ModTime().Equal(was.ModTime()) {
				return fmt.Errorf("%s was changed by another process; compact again", name)
			}
			continue
		}
		if name == mergedDoc {
			continue
		}
		if err := os.Link(filepath.Join(c.leaf, name), filepath.Join(staged, name)); err != nil {
			return fmt.Errorf("keep %s: %w", name, err)
		}
	}
	if err := atomicfile.SyncDir(staged); err != nil {
		return err
	}
	o := c.d.point("compact")
	hook(o, "swap:before")
	if err := c.exchange(staged); err != nil {
		return err
	}
	err = errors.Join(atomicfile.SyncDir(filepath.Dir(c.leaf)), atomicfile.SyncDir(c.stage))
	hook(o, "swap:after")
	return err
}

// exchange makes the staged folder the partition. The former one is in the
// staged one's place then, or beside it.
func (c *compactor) exchange(staged string) error {
	err := c.d.cfg.swap(staged, c.leaf)
	for _, cannot := range []error{unix.ENOSYS, unix.EINVAL, unix.ENOTSUP, unix.EXDEV, errors.ErrUnsupported} {
		if errors.Is(err, cannot) {
			return c.replace(staged)
		}
	}
	return err
}

// replace is exchange in two steps, between which the partition is absent.
func (c *compactor) replace(staged string) error {
	old := filepath.Join(c.stage, oldDir)
	if err := os.Rename(c.leaf, old); err != nil {
		return err
	}
	hook(c.d.point("compact"), "replace:between")
	if err := os.Rename(staged, c.leaf); err != nil {
		return errors.Join(err, os.Rename(old, c.leaf))
	}
	return nil
}
