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

	"github.com/repromill/repromill/results/schema"
)

const (
	fixIndex   = "put it back from a backup; the files beside it are whole Parquet and readers see them"
	fixDamaged = "see `repromill results verify`"
)

// mergedLeaf is the index of one partition as verify has it.
type mergedLeaf struct {
	index   *mergedIndex
	claimed map[mergedKey]bool // by manifests
	bad     map[string]bool    // indexes that were reported, by path
}

type mergedKey struct{ run, part string }

// inMerged reports whether the rows of a manifest's file lie in a merged one.
func (v *verifier) inMerged(ctx context.Context, id string, mf *File) (bool, error) {
	dir := filepath.Dir(v.d.abs(mf.Path))
	for _, again := range []bool{false, true} {
		l, err := v.leaf(ctx, mf.Table, dir, again)
		if err != nil {
			return false, err
		}
		if in, run := l.index.find(id, mf.SHA256); in != nil {
			l.claimed[mergedKey{id, mf.SHA256}] = true
			if run.Rows != mf.Rows {
				v.add(Problem{Kind: RowsDiffer, RunID: id, Path: v.rel(filepath.Join(dir, in.Name)), Message: fmt.Sprintf("it has %d rows of the run and the manifest states %d", run.Rows, mf.Rows)})
			}
			return true, nil
		}
	}
	return false, nil
}

// leaf reads the index of a partition and checks the files that it names, once
// each. With again it looks whether the index has changed since.
func (v *verifier) leaf(ctx context.Context, table, dir string, again bool) (*mergedLeaf, error) {
	l := v.leaves[dir]
	if l != nil && !again {
		return l, nil
	}
	if l == nil {
		l = &mergedLeaf{claimed: map[mergedKey]bool{}, bad: map[string]bool{}}
		v.leaves[dir] = l
	}
	for try := 1; ; try++ {
		x, err := readIndex(dir)
		var corrupt *CorruptError
		if errors.As(err, &corrupt) {
			return l, v.badIndex(l, dir, corrupt)
		}
		if err != nil {
			return nil, err
		}
		l.index = x
		if x == nil {
			return l, nil
		}
		var missing *mergedFile
		for i := range x.Files {
			gone, err := v.mergedFile(ctx, table, dir, &x.Files[i])
			if err != nil {
				return nil, err
			}
			if gone {
				missing = &x.Files[i]
			}
		}
		if missing == nil {
			return l, nil
		}
		if try == openTries { // nobody is merging: it is not there
			path := v.rel(filepath.Join(dir, missing.Name))
			if !v.owned[path] {
				v.owned[path] = true
				v.add(Problem{Kind: FileMissing, Path: path, Message: fmt.Sprintf("it held rows of %d runs and is not there", len(missing.Runs)), Fix: fixIndex})
			}
			return l, nil
		}
	}
}

// badIndex reports a damaged index, and keeps the files beside it from being
// called orphans.
func (v *verifier) badIndex(l *mergedLeaf, dir string, corrupt *CorruptError) error {
	if l.bad[corrupt.Path] {
		return nil
	}
	l.bad[corrupt.Path] = true
	v.add(Problem{Kind: ManifestDamaged, Path: v.rel(corrupt.Path), Message: corrupt.Reason, Fix: fixIndex})
	list, err := filepath.Glob(filepath.Join(dir, "merged-*"+partSuffix))
	for _, path := range list {
		v.owned[v.rel(path)] = true
	}
	return err
}

func (v *verifier) mergedFile(ctx context.Context, table, dir string, in *mergedFile) (gone bool, err error) {
	path := filepath.Join(dir, in.Name)
	rel := v.rel(path)
	if v.owned[rel] {
		return false, nil
	}
	p := Problem{Path: rel}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	v.owned[rel] = true
	v.rep.Files++
	v.rep.Bytes += in.Bytes
	if err != nil {
		p.Kind, p.Message = Unreadable, err.Error()
		v.add(p)
		return false, nil
	}
	defer f.Close()
	if reason := intact(f, in.Bytes, in.SHA256); reason != "" {
		v.damaged(f, &File{Table: table, RowGroups: in.RowGroups}, p, reason)
		return false, nil
	}
	ops, err := opsOf(table)
	if err != nil {
		return false, err
	}
	problems, err := ops.checkMerged(ctx, f, in, table)
	for _, q := range problems {
		q.Path = rel
		v.add(q)
	}
	return false, err
}

// unclaimed reports rows in merged files whose run is not committed.
func (v *verifier) unclaimed(ctx context.Context) error {
	dirs := make([]string, 0, len(v.leaves))
	for dir := range v.leaves {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	for _, dir := range dirs {
		l := v.leaves[dir]
		if l.index == nil {
			continue
		}
		for _, f := range l.index.Files {
			for _, r := range f.Runs {
				if err := ctx.Err(); err != nil {
					return err
				}
				if l.claimed[mergedKey{r.RunID, r.Part}] {
					continue
				}
				m, err := v.d.Manifest(r.RunID)
				if err == nil && slices.ContainsFunc(m.Files, func(f File) bool { return f.SHA256 == r.Part }) || err != nil && !errors.Is(err, fs.ErrNotExist) {
					continue // merged since, or its manifest was reported
				}
				v.add(Problem{Kind: OrphanFile, RunID: r.RunID, Path: v.rel(filepath.Join(dir, f.Name)), Message: fmt.Sprintf("readers see %d rows of a run that no manifest names", r.Rows), Fix: "put the run's manifest back from a backup"})
			}
		}
	}
	return nil
}

// compaction reports what a killed compaction left, and removes it with repair.
func (v *verifier) compaction() error {
	stage := filepath.Join(v.d.root, stagingDir, compactDir)
	if _, err := os.Lstat(stage); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	release, err := v.d.lockCompaction()
	var busy *UserError
	if errors.As(err, &busy) {
		return nil // it is at work
	}
	if err != nil {
		return err
	}
	defer release()
	p := Problem{Kind: StaleStaging, Path: v.rel(stage), Message: "a compaction that died left it", Fix: fixRepair}
	if v.repair {
		if _, err := v.d.tidyCompaction(); err != nil {
			return err
		}
		p.Repaired = true
	}
	v.add(p)
	return nil
}

// strayMerged looks at a merged file that nothing has led to.
func (v *verifier) strayMerged(ctx context.Context, path string) error {
	dir := filepath.Dir(path)
	table, _, _ := strings.Cut(v.rel(path), "/")
	if !schema.Known(table) {
		return nil
	}
	_, err := v.leaf(ctx, table, dir, true)
	return err
}
