package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Entry is one image in the store.
type Entry struct {
	Kind   string    `json:"kind"` // environments|system|bases|sources
	Key    string    `json:"key"`
	Digest string    `json:"digest,omitempty"` // of the manifest
	Base   string    `json:"base,omitempty"`
	Python string    `json:"python,omitempty"`
	Count  int       `json:"packages,omitempty"` // in the lock
	Bytes  int64     `json:"bytes"`              // of its own layers, which others may share
	Made   time.Time `json:"made"`
	Used   time.Time `json:"used"`
}

// List returns what is in the store, the last used first.
func (b *Builder) List() ([]Entry, error) {
	var out []Entry
	err := b.records(func(r *record) {
		e := Entry{Kind: r.Kind, Key: r.Key, Base: or(r.Base, r.Local), Python: r.Python, Made: r.Created, Used: r.Used}
		if r.Manifest.Hex != "" {
			e.Digest = r.Manifest.String()
		}
		for l := range strings.Lines(r.Lock) {
			if l[0] != ' ' && l[0] != '#' && strings.TrimSpace(l) != "" {
				e.Count++
			}
		}
		for _, l := range r.Layers {
			e.Bytes += l.Size
		}
		out = append(out, e)
	})
	slices.SortFunc(out, func(a, b Entry) int { return b.Used.Compare(a.Used) })
	return out, err
}

// records calls fn for every record that can be read.
func (b *Builder) records(fn func(*record)) error {
	for _, kind := range []string{kindEnvironment, kindSystem, kindBase, kindSource} {
		files, err := os.ReadDir(filepath.Join(b.cfg.Dir, kind))
		if err != nil {
			return fmt.Errorf("list images: %w", err)
		}
		for _, f := range files {
			key, ok := strings.CutSuffix(f.Name(), ".json")
			if !ok {
				continue
			}
			r, err := b.readRecord(kind, key)
			if err != nil {
				return err
			}
			info, ierr := f.Info()
			if r == nil || ierr != nil {
				continue // removed meanwhile
			}
			r.Used = info.ModTime()
			fn(r)
		}
	}
	return nil
}

// Pruned is what a prune removed.
type Pruned struct {
	Images int   `json:"images"`
	Bytes  int64 `json:"bytes"`
	Left   int64 `json:"left_bytes"`
}

// young is how old a file of no record must be before it is taken for a
// leftover: a build writes its blobs before its record.
const young = 2 * time.Hour

// Prune removes the images used longest ago until the store's blobs take at
// most keep bytes, and what interrupted builds left behind.
func (b *Builder) Prune(ctx context.Context, keep int64) (Pruned, error) {
	var list []*record
	if err := b.records(func(r *record) { list = append(list, r) }); err != nil {
		return Pruned{}, err
	}
	slices.SortFunc(list, func(a, c *record) int { return c.Used.Compare(a.Used) }) // the oldest last
	var out Pruned
	sizes, err := b.blobSizes()
	if err != nil {
		return out, err
	}
	for _, n := range sizes {
		out.Left += n
	}
	before := out.Left
	refs := references(list)
	for i := len(list) - 1; i >= 0 && out.Left > keep; i-- {
		r := list[i]
		if r.Kind == kindBase && len(r.Layers) == 0 {
			continue // two small files that every environment above it needs
		}
		if err := os.Remove(b.recordPath(r.Kind, r.Key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return out, fmt.Errorf("remove image record: %w", err)
		}
		out.Images++
		for h := range blobsOf(r) {
			if refs[h]--; refs[h] == 0 {
				if err := os.Remove(b.blobs.Path(h)); err == nil {
					out.Left -= sizes[h]
				}
			}
		}
		b.forget(ctx, r)
	}
	out.Left -= b.leftovers(refs, sizes)
	b.stopped(ctx)
	out.Bytes = before - out.Left
	return out, nil
}

func blobsOf(r *record) map[v1.Hash]bool {
	out := map[v1.Hash]bool{}
	for _, h := range []v1.Hash{r.Manifest, r.Config} {
		if h.Hex != "" {
			out[h] = true
		}
	}
	for _, l := range r.Layers {
		out[l.Digest] = true
	}
	return out
}

func references(list []*record) map[v1.Hash]int {
	refs := map[v1.Hash]int{}
	for _, r := range list {
		for h := range blobsOf(r) {
			refs[h]++
		}
	}
	return refs
}

func (b *Builder) blobSizes() (map[v1.Hash]int64, error) {
	out := map[v1.Hash]int64{}
	files, err := os.ReadDir(filepath.Join(b.cfg.Dir, "blobs", "sha256"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list blobs: %w", err)
	}
	for _, f := range files {
		if info, err := f.Info(); err == nil {
			out[v1.Hash{Algorithm: "sha256", Hex: f.Name()}] = info.Size()
		}
	}
	return out, nil
}

// forget removes what stands beside a record. A part that cannot be removed is
// found again as a leftover.
func (b *Builder) forget(ctx context.Context, r *record) {
	_ = os.Remove(b.logPath(r.Key))
	if r.Overlay != "" {
		discard(filepath.Join(b.cfg.Dir, "overlays", r.Key))
	}
	if r.Kind == kindSystem && b.cfg.Engine != nil {
		_ = b.cfg.Engine.RemoveImage(ctx, systemTag(r.Key))
	}
}

func systemTag(key string) string { return "repromill/system:" + key[:16] }

// leftovers removes files that no record names and nobody is writing.
func (b *Builder) leftovers(refs map[v1.Hash]int, sizes map[v1.Hash]int64) (freed int64) {
	old := func(path string) bool {
		info, err := os.Lstat(path)
		return err == nil && b.cfg.Now().Sub(info.ModTime()) > young
	}
	for h, n := range sizes {
		if p := b.blobs.Path(h); refs[h] <= 0 && old(p) && os.Remove(p) == nil {
			freed += n
		}
	}
	work, err := os.ReadDir(filepath.Join(b.cfg.Dir, "work"))
	if err != nil {
		return freed
	}
	for _, f := range work {
		if p := filepath.Join(b.cfg.Dir, "work", f.Name()); old(p) && !strings.HasSuffix(p, ".lock") {
			discard(p)
		}
	}
	return freed
}

// stopped removes build containers that no longer run: those of a process that
// was killed.
func (b *Builder) stopped(ctx context.Context) {
	if b.cfg.Engine == nil {
		return
	}
	list, err := b.cfg.Engine.List(ctx, map[string]string{LabelBuild: ""})
	if err != nil {
		return
	}
	for _, c := range list {
		if !c.Running && b.cfg.Now().Sub(c.Created) > young {
			_ = b.cfg.Engine.Remove(ctx, c.ID)
		}
	}
}
