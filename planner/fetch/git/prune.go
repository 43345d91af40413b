package git

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Cached is one checkout in the cache.
type Cached struct {
	Key    string
	Repo   string
	Commit string
	Bytes  int64
	Used   time.Time // last
}

// List returns the checkouts in the cache.
func (c *Cloner) List(ctx context.Context) ([]Cached, error) {
	entries, err := os.ReadDir(c.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list checkouts: %w", err)
	}
	var out []Cached
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var m meta
		b, err := os.ReadFile(c.path(e.Name(), "meta.json"))
		if err != nil || json.Unmarshal(b, &m) != nil {
			continue // locks and stages, or being removed
		}
		info, err := os.Stat(c.path(e.Name()))
		if err != nil {
			continue
		}
		out = append(out, Cached{Key: e.Name(), Repo: m.Repo, Commit: m.Commit, Bytes: m.Bytes + int64(len(b)), Used: info.ModTime()})
	}
	return out, nil
}

// Remove takes a checkout out of the cache. It reports false when another
// process is at it.
func (c *Cloner) Remove(ctx context.Context, key string) (bool, error) {
	if filepath.Base(key) != key {
		return false, fmt.Errorf("remove checkout: %q is no key", key)
	}
	if err := os.MkdirAll(c.path("locks"), 0o700); err != nil {
		return false, fmt.Errorf("remove checkout: %w", err)
	}
	lock, err := lockFile(ctx, c.path("locks", key), false)
	if err != nil || lock == nil {
		return false, err
	}
	defer lock.Close()
	// Without its record it is no checkout any more, wherever this stops.
	if err := os.Remove(c.path(key, "meta.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("remove checkout: %w", err)
	}
	if err := os.RemoveAll(c.path(key)); err != nil {
		return false, fmt.Errorf("remove checkout: %w", err)
	}
	return true, nil
}

// touch notes that a checkout was used. That the note is lost only makes it
// look older.
func (c *Cloner) touch(key string) {
	now := c.cfg.Now()
	_ = os.Chtimes(c.path(key), now, now)
}
