package dataset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/results/schema"
)

// compactDir holds what a compaction stages, below _staging. No run id begins
// with a dot.
const compactDir = ".compact"

// defaultTarget is the size of a merged file, which one thread of a reader takes
// well under a second to scan.
const defaultTarget = 128 << 20

// CompactConfig tunes a compaction. Its zero value works.
type CompactConfig struct {
	// Target is the size in bytes at which a merged file ends; 0 means 128 MiB.
	// Files of half of it and more are left as they are.
	Target int64
	// Progress, when not nil, is told how many of the partitions are done.
	Progress func(done, total int, partition string)
}

// CompactReport is what Compact did.
type CompactReport struct {
	Partitions  int       `json:"partitions"` // looked at
	Merged      int       `json:"merged"`     // of them, changed
	FilesBefore int       `json:"files_before"`
	FilesAfter  int       `json:"files_after"`
	BytesBefore int64     `json:"bytes_before"`
	BytesAfter  int64     `json:"bytes_after"`
	Rows        int64     `json:"rows"`     // moved
	Problems    []Problem `json:"problems"` // files that were left as they are
}

// Compact merges the small files of committed runs, for each partition, into
// few large ones. No row changes: each run's rows are hashed as they are read
// and again from the finished file, before anything is replaced. A damaged file
// is named and left alone, and so is whatever no manifest names.
//
// A partition changes in one step, an exchange of its folder, so that it holds
// each row exactly once at every moment and Compact may be killed anywhere.
// Readers that hold files open keep them. One that has listed names and not
// opened them yet finds them gone, which is an error and not another answer;
// this package's own readers look again. Where the file system cannot exchange
// folders, the partition is absent for a moment instead.
//
// Manifests stay as they were committed. Memory is bounded by a few row groups.
func (d *Dataset) Compact(ctx context.Context, cfg CompactConfig) (_ *CompactReport, err error) {
	if cfg.Target <= 0 {
		cfg.Target = defaultTarget
	}
	rep := &CompactReport{Problems: []Problem{}}
	if _, err := os.Stat(filepath.Join(d.root, runsDir)); errors.Is(err, fs.ErrNotExist) {
		return rep, nil
	}
	release, err := d.lockCompaction()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if _, err := d.tidyCompaction(); err != nil {
		return nil, err
	}
	dirs, err := d.partitions()
	if err != nil {
		return nil, err
	}
	for i, rel := range dirs {
		if cfg.Progress != nil {
			cfg.Progress(i, len(dirs), rel)
		}
		if err := ctx.Err(); err != nil {
			return rep, err
		}
		c := &compactor{d: d, cfg: cfg, rep: rep, rel: rel, leaf: d.abs(rel), stage: filepath.Join(d.root, stagingDir, compactDir, filepath.FromSlash(rel))}
		if err := c.run(ctx); err != nil {
			return rep, fmt.Errorf("compact %s: %w", rel, err)
		}
	}
	_, err = d.tidyCompaction()
	return rep, err
}

// lockCompaction keeps a second compaction away. The lock is on the staging
// folder itself, so that it leaves no file.
func (d *Dataset) lockCompaction() (release func() error, err error) {
	dir := filepath.Join(d.root, stagingDir)
	if err := atomicfile.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("lock results folder: %w", err)
	}
	if err := flock(f, unix.LOCK_EX); err != nil {
		err = errors.Join(err, f.Close())
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &UserError{Message: "another process is compacting " + d.root, Fix: "wait until it is done"}
		}
		return nil, fmt.Errorf("lock results folder: %w", err)
	}
	return f.Close, nil
}

// tidyCompaction removes what a compaction that was killed has left, and puts a
// partition back that it had taken away. The caller holds the lock.
func (d *Dataset) tidyCompaction() (left bool, err error) {
	stage := filepath.Join(d.root, stagingDir, compactDir)
	if _, err := os.Lstat(stage); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	err = filepath.WalkDir(stage, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() || e.Name() != oldDir {
			return err
		}
		rel, err := filepath.Rel(stage, filepath.Dir(path))
		if err != nil {
			return err
		}
		target := filepath.Join(d.root, rel)
		if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
			return fs.SkipDir
		}
		if err := atomicfile.Rename(path, target, d.point("compact-back")); err != nil {
			return err
		}
		return fs.SkipDir
	})
	if err != nil {
		return true, fmt.Errorf("put back what a compaction had moved: %w", err)
	}
	return true, os.RemoveAll(stage)
}

// partitions lists the folders of this version that hold data files, relative
// to the root and with slashes.
func (d *Dataset) partitions() (out []string, err error) {
	for _, table := range schema.Tables() {
		pattern := []string{d.root, table, schema.Version, "date=*"}
		if slices.Contains(schema.Partitions(table), "suite") {
			pattern = append(pattern, "suite=*")
		}
		dirs, err := filepath.Glob(filepath.Join(pattern...))
		if err != nil {
			return nil, err
		}
		for _, dir := range dirs {
			rel, err := filepath.Rel(d.root, dir)
			if err != nil {
				return nil, err
			}
			out = append(out, filepath.ToSlash(rel))
		}
	}
	return out, nil
}

// compactor merges the files of one partition.
type compactor struct {
	d     *Dataset
	cfg   CompactConfig
	rep   *CompactReport
	rel   string // of the partition, with slashes
	leaf  string
	stage string // its own folder below _staging
}

// source is a file whose rows are to be merged.
type source struct {
	name string
	info fs.FileInfo
	part *File       // of one run, or
	in   *mergedFile // of several
	id   string      // the run of part
}

const (
	newDir = "new" // the folder that takes the partition's place, and then what it was
	oldDir = "old" // what the partition was, where folders cannot be exchanged
)

func (c *compactor) run(ctx context.Context) (err error) {
	c.rep.Partitions++
	index, sources, err := c.candidates(ctx)
	if err != nil {
		return err
	}
	if len(sources) < 2 {
		return nil
	}
	if err := atomicfile.MkdirAll(filepath.Join(c.stage, newDir), 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.clean()) }()
	ops, err := opsOf(strings.SplitN(c.rel, "/", 2)[0])
	if err != nil {
		return err
	}
	files, err := ops.merge(ctx, c, sources)
	if err != nil {
		return err
	}
	var rows, before, after int64
	used := map[string]fs.FileInfo{}
	for _, s := range sources {
		used[s.name] = s.info
		before += s.info.Size()
	}
	next := &mergedIndex{Schema: mergedSchema, Files: files}
	for _, f := range files {
		rows += f.Rows
		after += f.Bytes
	}
	if index != nil {
		for _, f := range index.Files {
			if used[f.Name] == nil {
				next.Files = append(next.Files, f)
			}
		}
	}
	doc, err := next.encode()
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(c.stage, newDir, mergedDoc), doc, c.d.point("compact-index")); err != nil {
		return err
	}
	if err := c.swap(ctx, used); err != nil {
		return err
	}
	c.rep.Merged++
	c.rep.FilesBefore += len(sources)
	c.rep.FilesAfter += len(files)
	c.rep.BytesBefore += before
	c.rep.BytesAfter += after
	c.rep.Rows += rows
	return nil
}

// clean removes what was staged, which after the exchange is what the partition
// was before.
func (c *compactor) clean() error {
	o := c.d.point("compact")
	hook(o, "clean:before")
	if err := os.RemoveAll(c.stage); err != nil {
		return err
	}
	hook(o, "clean:after")
	return nil
}

// candidates lists the files worth merging: those under half of the target that
// belong to committed runs and are whole.
func (c *compactor) candidates(ctx context.Context) (*mergedIndex, []source, error) {
	entries, err := os.ReadDir(c.leaf)
	if err != nil {
		return nil, nil, err
	}
	index, err := readIndex(c.leaf)
	var corrupt *CorruptError
	if errors.As(err, &corrupt) {
		c.problem(Problem{Kind: ManifestDamaged, Path: c.rel + "/" + mergedDoc, Message: corrupt.Reason, Fix: fixIndex})
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	var merged, parts []source
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), partSuffix) || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, nil, err
		}
		if info.Size() >= c.cfg.Target/2 {
			continue
		}
		if s, ok := c.mergedSource(index, e.Name(), info); ok {
			merged = append(merged, s)
		} else if s, ok, err := c.partSource(e.Name(), info); err != nil {
			return nil, nil, err
		} else if ok {
			parts = append(parts, s)
		}
	}
	if len(merged)+len(parts) < 2 {
		return index, nil, nil
	}
	list, err := c.whole(ctx, append(merged, parts...))
	return index, list, err
}

// whole leaves out, and names, the files that are not what was committed.
func (c *compactor) whole(ctx context.Context, list []source) (out []source, err error) {
	for _, s := range list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		f, err := os.Open(filepath.Join(c.leaf, s.name))
		if err != nil {
			return nil, err
		}
		var reason string
		if s.part != nil {
			reason = intact(f, s.part.Bytes, s.part.SHA256)
		} else {
			reason = intact(f, s.in.Bytes, s.in.SHA256)
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
		if reason != "" {
			c.problem(Problem{Kind: FileDamaged, RunID: s.id, Path: c.rel + "/" + s.name, Message: reason + "; it was left as it is", Fix: fixDamaged})
			continue
		}
		out = append(out, s)
	}
	return out, nil
}

func (c *compactor) problem(p Problem) { c.rep.Problems = append(c.rep.Problems, p) }

func (c *compactor) mergedSource(x *mergedIndex, name string, info fs.FileInfo) (source, bool) {
	if x == nil {
		return source{}, false
	}
	i := slices.IndexFunc(x.Files, func(f mergedFile) bool { return f.Name == name })
	if i < 0 {
		return source{}, false
	}
	return source{name: name, info: info, in: &x.Files[i]}, true
}

// partSource is a file that the manifest of its run names. Any other is not
// ours to touch: its run may be about to be committed.
func (c *compactor) partSource(name string, info fs.FileInfo) (source, bool, error) {
	id, ok := runOfPart(name)
	if !ok {
		return source{}, false, nil
	}
	m, err := c.d.Manifest(id)
	var corrupt *CorruptError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return source{}, false, nil
	case errors.As(err, &corrupt):
		c.problem(Problem{Kind: ManifestDamaged, RunID: id, Path: runsDir + "/" + id + "/" + manifestDoc, Message: corrupt.Reason + "; its files were left as they are", Fix: fixRerun})
		return source{}, false, nil
	case err != nil:
		return source{}, false, err
	}
	for i := range m.Files {
		if f := &m.Files[i]; f.Path == c.rel+"/"+name && f.SchemaVersion == schema.Version {
			return source{name: name, info: info, part: f, id: id}, true, nil
		}
	}
	return source{}, false, nil
}

// runOfPart is the run that a data file is of, by its name.
func runOfPart(name string) (id string, ok bool) {
	id, ok = strings.CutPrefix(name, "part-")
	if !ok {
		return "", false
	}
	id, ok = strings.CutSuffix(id, "-0"+partSuffix)
	return id, ok && checkRunID(id) == nil
}
