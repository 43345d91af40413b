package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/repromill/repromill/cmd/repromill/internal/cache"
	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/planner/fetch/git"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/docker/engine"
	"github.com/repromill/repromill/runner/image"
)

// withCache opens everything that takes room. notes say what cannot be
// looked at here.
func (a *app) withCache(ctx context.Context, fn func(areas []cache.Area, notes []string) error) error {
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.close()
	uses, err := st.runner.Uses(ctx)
	if err != nil {
		return err
	}
	need := holds(uses)
	pl, err := st.outside()
	if err != nil {
		return err
	}
	areas := []cache.Area{checkouts{pl.Cloner, need}, quantizedModels{a.quantizedDir(), need}}
	var notes []string
	if a.cfg.String("mirror") == "" {
		areas = append(areas, downloads{pl.Client, need})
	}
	eng, err := a.connectDocker(ctx)
	if err != nil {
		notes, eng = append(notes, "engine images: "+err.Error()), nil
	} else {
		defer eng.Close()
	}
	b, err := a.imageBuilder(eng, nil)
	if err != nil {
		return err
	}
	areas = append(areas, environments{b, need})
	if eng != nil {
		areas = append(areas, loaded{eng, b, need})
	}
	if dir := a.cfg.String("mirror"); dir != "" {
		areas = append(areas, mirrors{dir})
	}
	return fn(areas, notes)
}

// needs is what unfinished runs hold on to.
type needs struct {
	preparing string            // the run that is just being prepared, if any
	code      map[string]string // repo@commit to the run
	image     map[string]string // id or key to the run
	model     map[string]string // folder to the run
}

func holds(uses []runner.Uses) needs {
	n := needs{code: map[string]string{}, image: map[string]string{}, model: map[string]string{}}
	for _, u := range uses {
		if u.Preparing {
			n.preparing = u.RunID
			n.code[u.Repo+"@"+u.Commit] = u.RunID
		}
		for _, dir := range u.Models {
			n.model[dir] = u.RunID
		}
		if u.Image != nil {
			n.image[u.Image.Ref], n.image[u.Image.Key] = u.RunID, u.RunID
		}
	}
	return n
}

func neededBy(run string) string {
	if run == "" {
		return ""
	}
	return "needed by run " + run
}

// lru calls remove for the items that do not fit, the oldest first.
func lru(items []cache.Item, keep int64, remove func(cache.Item) (bool, error)) (removed int64, err error) {
	total, _ := cache.Total(items, "")
	slices.SortStableFunc(items, func(x, y cache.Item) int { return x.Used.Compare(y.Used) })
	for _, it := range items {
		if total <= keep {
			break
		}
		if it.InUse != "" {
			continue
		}
		gone, err := remove(it)
		if err != nil {
			return removed, err
		}
		if gone {
			total -= it.Bytes
			removed++
		}
	}
	return removed, nil
}

// checkouts are the code of papers.
type checkouts struct {
	c    *git.Cloner
	need needs
}

func (checkouts) Name() string { return "checkout" }

func (x checkouts) Items(ctx context.Context) (out []cache.Item, err error) {
	list, err := x.c.List(ctx)
	for _, e := range list {
		out = append(out, cache.Item{Area: x.Name(), Name: e.Repo + " @ " + short(e.Commit) + " " + e.Key, Bytes: e.Bytes, Used: e.Used, InUse: neededBy(x.need.code[e.Repo+"@"+e.Commit])})
	}
	return out, err
}

func (x checkouts) Keep(ctx context.Context, keep int64) (int64, error) {
	items, err := x.Items(ctx)
	if err != nil {
		return 0, err
	}
	return lru(items, keep, func(it cache.Item) (bool, error) {
		return x.c.Remove(ctx, it.Name[strings.LastIndexByte(it.Name, ' ')+1:])
	})
}

// downloads are pages, answers and assets, by content.
type downloads struct {
	c    *fetch.Client
	need needs
}

func (downloads) Name() string { return "download" }

func (x downloads) Items(ctx context.Context) ([]cache.Item, error) {
	n, bytes, newest, err := x.c.Usage(ctx)
	if err != nil || n == 0 {
		return nil, err
	}
	return []cache.Item{{Area: x.Name(), Name: fmt.Sprintf("%d pages, answers and assets", n), Bytes: bytes, Used: newest, InUse: neededBy(x.need.preparing)}}, nil
}

func (x downloads) Keep(ctx context.Context, keep int64) (int64, error) {
	rep, err := x.c.Prune(ctx, fetch.PruneOptions{MaxBytes: max(keep, 1)})
	return int64(rep.Entries), err
}

// environments are the layers that image builds keep.
type environments struct {
	b    *image.Builder
	need needs
}

func (environments) Name() string { return "environment" }

func (x environments) Items(context.Context) (out []cache.Item, err error) {
	list, err := x.b.List()
	for _, e := range list {
		name := strings.TrimSuffix(e.Kind, "s") + " " + short(e.Key)
		if e.Python != "" {
			name += fmt.Sprintf(", Python %s, %d packages", e.Python, e.Count)
		}
		in := neededBy(x.need.image[e.Key])
		if in == "" {
			in = neededBy(x.need.preparing)
		}
		out = append(out, cache.Item{Area: x.Name(), Name: name, Bytes: e.Bytes, Used: e.Used, InUse: in})
	}
	return out, err
}

func (x environments) Keep(ctx context.Context, keep int64) (int64, error) {
	if x.need.preparing != "" {
		return 0, nil
	}
	p, err := x.b.Prune(ctx, keep)
	return int64(p.Images), err
}

// loaded are the environment images in the engine.
type loaded struct {
	e    *engine.Engine
	b    *image.Builder
	need needs
}

func (loaded) Name() string { return "image" }

func (x loaded) Items(ctx context.Context) (out []cache.Item, err error) {
	list, err := x.e.ListImages(ctx, nil)
	if err != nil {
		return nil, err
	}
	used := map[string]time.Time{}
	if records, err := x.b.List(); err == nil {
		for _, r := range records {
			used[r.Key] = r.Used
		}
	}
	for _, img := range list {
		for _, tag := range img.Tags {
			key, ours := strings.CutPrefix(tag, envRepository+":")
			if !ours {
				continue
			}
			in := firstOf(neededBy(x.need.image[img.ID]), neededBy(x.need.image[key]), neededBy(x.need.preparing))
			out = append(out, cache.Item{Area: x.Name(), Name: tag, Bytes: img.Size, Used: used[key], InUse: in})
		}
	}
	return out, nil
}

func (x loaded) Keep(ctx context.Context, keep int64) (int64, error) {
	items, err := x.Items(ctx)
	if err != nil {
		return 0, err
	}
	return lru(items, keep, func(it cache.Item) (bool, error) {
		err := x.e.RemoveImage(ctx, it.Name)
		if errors.Is(err, engine.ErrConflict) { // a container runs in it
			return false, nil
		}
		return err == nil, err
	})
}

// mirrors are the user's own and never pruned.
type mirrors struct{ dir string }

func (mirrors) Name() string { return "mirror" }

func (x mirrors) Items(ctx context.Context) ([]cache.Item, error) {
	it := cache.Item{Area: x.Name(), Name: x.dir, InUse: "yours: remove it by hand"}
	err := filepath.WalkDir(x.dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			it.Bytes += info.Size()
			if info.ModTime().After(it.Used) {
				it.Used = info.ModTime()
			}
		}
		return nil
	})
	return []cache.Item{it}, err
}

func (mirrors) Keep(context.Context, int64) (int64, error) { return 0, nil }
