package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// pruneGrace is how old a file that nothing refers to must be before it is
// taken for left behind: a writer may be between two of its steps.
const pruneGrace = time.Hour

// PruneOptions says what may stay in the cache. Zero means no such bound.
type PruneOptions struct {
	MaxAge   time.Duration // of an answer since it was fetched
	MaxBytes int64         // of all bodies together; the oldest go first
}

// PruneReport says what was removed.
type PruneReport struct {
	Entries, Blobs, Temps int
	Bytes                 int64
}

// Prune removes old answers, bodies that no answer needs and what crashes left
// behind. Other processes may use the cache meanwhile: at worst they fetch
// again.
func (c *Client) Prune(ctx context.Context, o PruneOptions) (PruneReport, error) {
	var rep PruneReport
	if c.cache == nil {
		return rep, &configError{"a mirror has no cache to prune", "drop --mirror"}
	}
	entries, err := c.pruneEntries(ctx, o, &rep)
	if err != nil {
		return rep, err
	}
	used := map[string]bool{}
	for _, e := range entries {
		used[e.SHA256] = true
	}
	old := c.cfg.Now().Add(-pruneGrace)
	err = walkFiles(ctx, filepath.Join(c.cache.dir, "blobs"), func(path string, info fs.FileInfo) error {
		if used[info.Name()] || info.ModTime().After(old) {
			return nil
		}
		rep.Blobs++
		rep.Bytes += info.Size()
		return remove(path)
	})
	if err != nil {
		return rep, err
	}
	err = walkFiles(ctx, filepath.Join(c.cache.dir, "tmp"), func(path string, info fs.FileInfo) error {
		if info.ModTime().After(old) {
			return nil
		}
		rep.Temps++
		rep.Bytes += info.Size()
		return remove(path)
	})
	return rep, err
}

// Usage says how many answers the cache holds, how many bytes their bodies
// take, and when the last one was fetched.
func (c *Client) Usage(ctx context.Context) (entries int, bytes int64, newest time.Time, err error) {
	if c.cache == nil {
		return 0, 0, newest, nil
	}
	err = walkFiles(ctx, filepath.Join(c.cache.dir, "blobs"), func(_ string, info fs.FileInfo) error {
		entries++
		bytes += info.Size()
		if info.ModTime().After(newest) {
			newest = info.ModTime()
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return entries, bytes, newest, err
}

// pruneEntries removes entries and returns those that stay.
func (c *Client) pruneEntries(ctx context.Context, o PruneOptions, rep *PruneReport) ([]*entry, error) {
	now := c.cfg.Now()
	var stay []*entry
	err := walkFiles(ctx, filepath.Join(c.cache.dir, "meta"), func(path string, info fs.FileInfo) error {
		var e entry
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("prune cache: %w", err)
		}
		key, isEntry := cutJSON(info.Name())
		switch {
		case !isEntry: // what a crash left of writing one
			if info.ModTime().After(now.Add(-pruneGrace)) {
				return nil
			}
			rep.Temps++
			return remove(path)
		case json.Unmarshal(data, &e) == nil && e.sound(key) && (o.MaxAge <= 0 || now.Sub(e.FetchedAt) < o.MaxAge):
			stay = append(stay, &e)
			return nil
		}
		rep.Entries++
		return remove(path)
	})
	if err != nil || o.MaxBytes <= 0 {
		return stay, err
	}
	// The newest stay as long as their bodies fit.
	slices.SortFunc(stay, func(a, b *entry) int { return b.FetchedAt.Compare(a.FetchedAt) })
	counted := map[string]bool{}
	var total int64
	for i, e := range stay {
		if !counted[e.SHA256] {
			counted[e.SHA256] = true
			total += e.Size
		}
		if total <= o.MaxBytes {
			continue
		}
		for _, gone := range stay[i:] {
			rep.Entries++
			if err := remove(c.cache.metaPath(gone.Key)); err != nil {
				return nil, err
			}
		}
		return stay[:i], nil
	}
	return stay, nil
}

func cutJSON(name string) (string, bool) {
	ext := filepath.Ext(name)
	return name[:len(name)-len(ext)], ext == ".json"
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("prune cache: %w", err)
	}
	return nil
}

// walkFiles calls do for every regular file below dir that is still there.
func walkFiles(ctx context.Context, dir string, do func(path string, info fs.FileInfo) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if cerr := ctx.Err(); cerr != nil {
			return cerr
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("prune cache: %w", err)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("prune cache: %w", err)
		}
		return do(path, info)
	})
}
