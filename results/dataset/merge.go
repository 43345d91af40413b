package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/repromill/repromill/results/schema"
)

const (
	// mergeGroupBytes and mergeGroupRows end a row group at the end of a run:
	// large enough for a reader to work in bulk, small enough for one run's rows
	// to be read alone.
	mergeGroupBytes = 16 << 20
	mergeGroupRows  = 1 << 16
	// mergeMaxGroup ends a row group within a run.
	mergeMaxGroup = 64 << 20
)

// tableOps are the operations that depend on a table's row type.
type tableOps interface {
	check(ctx context.Context, f *os.File, mf *File) ([]Problem, error)
	checkMerged(ctx context.Context, f *os.File, in *mergedFile, table string) ([]Problem, error)
	copyRun(ctx context.Context, d *Dataset, runID string, tx *Txn) error
	values(ctx context.Context, d *Dataset, runID string, fn func(suite string, values []any) error) error
	merge(ctx context.Context, c *compactor, sources []source) ([]mergedFile, error)
}

type opsFor[T schema.Row] struct{}

func opsOf(table string) (tableOps, error) {
	switch table {
	case schema.Runs:
		return opsFor[schema.RunRow]{}, nil
	case schema.Claims:
		return opsFor[schema.ClaimRow]{}, nil
	case schema.Metrics:
		return opsFor[schema.MetricRow]{}, nil
	case schema.Samples:
		return opsFor[schema.SampleRow]{}, nil
	case schema.Requests:
		return opsFor[schema.RequestRow]{}, nil
	case schema.Estimates:
		return opsFor[schema.EstimateRow]{}, nil
	case schema.Events:
		return opsFor[schema.EventRow]{}, nil
	case schema.Comparisons:
		return opsFor[schema.ComparisonRow]{}, nil
	case schema.Verdicts:
		return opsFor[schema.VerdictRow]{}, nil
	case schema.Layers:
		return opsFor[schema.LayerRow]{}, nil
	case schema.Servers:
		return opsFor[schema.ServerRow]{}, nil
	}
	return nil, fmt.Errorf("table %q is not known", table)
}

// digest sums up rows in their order.
type digest[T schema.Row] struct {
	ck *schema.Checker[T]
	h  hash.Hash
	b  []byte
}

func newDigest[T schema.Row](ck *schema.Checker[T]) *digest[T] {
	return &digest[T]{ck: ck, h: sha256.New()}
}

func (g *digest[T]) add(rows []T) {
	for i := range rows {
		g.b = g.ck.AppendRow(g.b[:0], &rows[i])
		g.h.Write(g.b)
	}
}

func (g *digest[T]) sum() string {
	s := hex.EncodeToString(g.h.Sum(nil))
	g.h.Reset()
	return s
}

// merger writes the merged files of one partition.
type merger[T schema.Row] struct {
	c      *compactor
	digest *digest[T]
	id     string // of the set of runs, for names
	f      *stagedFile
	w      *schema.Writer[T]
	group  int64 // rows in the open row group
	cur    mergedFile
	done   []mergedFile
}

// merge reads the sources one after the other and writes their rows, run by
// run, to files in the staged folder.
func (opsFor[T]) merge(ctx context.Context, c *compactor, sources []source) (_ []mergedFile, err error) {
	ck, err := schema.NewChecker[T]()
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	for _, s := range sources {
		fmt.Fprintln(h, s.name, s.info.Size())
	}
	m := &merger[T]{c: c, digest: newDigest(ck), id: hex.EncodeToString(h.Sum(nil))}
	defer func() {
		if m.f != nil {
			err = errors.Join(err, m.f.close())
		}
	}()
	for _, s := range sources {
		if err := m.source(ctx, s); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if err := m.finish(ctx); err != nil {
		return nil, err
	}
	return m.done, nil
}

func (m *merger[T]) source(ctx context.Context, s source) (err error) {
	f, err := os.Open(filepath.Join(m.c.leaf, s.name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if s.part != nil {
		run := mergedRun{RunID: s.id, Part: s.part.SHA256}
		return m.run(ctx, run, s.part.Rows, func(fn func([]T) error) error { return eachPart(ctx, f, s.part, fn) })
	}
	return eachRun(ctx, f, s.in, func(run mergedRun, rows func(func([]T) error) error) error {
		return m.run(ctx, run, run.Rows, rows)
	})
}

// eachRun calls fn for every run of a merged file, with a function that reads
// its rows.
func eachRun[T schema.Row](ctx context.Context, f *os.File, in *mergedFile, fn func(mergedRun, func(func([]T) error) error) error) error {
	var held []T // the row group last read, which the next run may share
	var heldFrom, heldTo int64
	for _, run := range in.Runs {
		err := fn(run, func(each func([]T) error) error {
			for at := run.First; at < run.First+run.Rows; {
				if at < heldFrom || at >= heldTo {
					var err error
					if held, heldFrom, err = groupAt[T](ctx, f, in, at); err != nil {
						return err
					}
					heldTo = heldFrom + int64(len(held))
				}
				end := min(run.First+run.Rows, heldTo)
				if err := each(held[at-heldFrom : end-heldFrom]); err != nil {
					return err
				}
				at = end
			}
			return ctx.Err()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// groupAt reads the row group that holds a row.
func groupAt[T schema.Row](ctx context.Context, f *os.File, in *mergedFile, row int64) (rows []T, first int64, err error) {
	for _, g := range in.RowGroups {
		if row < first+g.Rows {
			err := eachMerged(ctx, f, in, first, g.Rows, func(batch []T) error { rows = batch; return nil })
			return rows, first, err
		}
		first += g.Rows
	}
	return nil, 0, fmt.Errorf("there is no row %d", row)
}

// run appends the rows of one run. A digest that the run has already must come
// out again.
func (m *merger[T]) run(ctx context.Context, run mergedRun, rows int64, each func(func([]T) error) error) error {
	if err := m.begin(); err != nil {
		return err
	}
	was := run.Digest
	run.First, run.Rows = m.w.Rows(), 0
	err := each(func(batch []T) error {
		m.digest.add(batch)
		run.Rows += int64(len(batch))
		m.group += int64(len(batch))
		if err := m.w.Write(batch); err != nil {
			return err
		}
		if m.w.Buffered() >= mergeMaxGroup {
			return m.flush()
		}
		return nil
	})
	run.Digest = m.digest.sum()
	switch {
	case err != nil:
		return err
	case run.Rows != rows:
		return fmt.Errorf("run %s has %d rows there and should have %d", run.RunID, run.Rows, rows)
	case was != "" && was != run.Digest:
		return fmt.Errorf("the rows of run %s are not those that were merged", run.RunID)
	}
	m.cur.Runs = append(m.cur.Runs, run)
	if m.w.Buffered() >= min(mergeGroupBytes, m.c.cfg.Target) || m.group >= mergeGroupRows {
		if err := m.flush(); err != nil {
			return err
		}
	}
	// Only what is written counts, so that every file but the last is no longer
	// one to be merged, and merging comes to rest.
	if m.f.size >= m.c.cfg.Target {
		return m.finish(ctx)
	}
	return nil
}

func (m *merger[T]) flush() error {
	m.group = 0
	return m.w.Flush()
}

func (m *merger[T]) begin() (err error) {
	if m.f != nil {
		return nil
	}
	m.cur = mergedFile{Name: mergedName(m.id, len(m.done))}
	if m.f, err = newStagedFile(filepath.Join(m.c.stage, newDir, m.cur.Name+tempSuffix)); err != nil {
		return err
	}
	m.w, err = schema.NewWriter[T](m.f, nil)
	return err
}

// finish completes the open file, and reads it back.
func (m *merger[T]) finish(ctx context.Context) error {
	if m.f == nil {
		return nil
	}
	if err := errors.Join(m.w.Close(), m.f.finish(m.c.d.point("compact-data"))); err != nil {
		return err
	}
	f := m.cur
	f.Rows, f.Bytes, f.SHA256, f.RowGroups = m.w.Rows(), m.f.size, m.f.sum(), m.w.Groups()
	m.f = nil
	name := filepath.Join(m.c.stage, newDir, f.Name)
	r, err := os.Open(name + tempSuffix)
	if err != nil {
		return err
	}
	defer r.Close()
	if f.Tail, err = schema.Checksum(io.NewSectionReader(r, f.tailAt(), f.Bytes-f.tailAt())); err != nil {
		return err
	}
	if reason := intact(r, f.Bytes, f.SHA256); reason != "" {
		return &CorruptError{Path: r.Name(), Reason: reason}
	}
	err = eachRun(ctx, r, &f, func(run mergedRun, rows func(func([]T) error) error) error {
		if err := rows(func(batch []T) error { m.digest.add(batch); return nil }); err != nil {
			return err
		}
		if m.digest.sum() != run.Digest {
			return fmt.Errorf("the rows of run %s read back differ from those that were written", run.RunID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	m.done = append(m.done, f)
	return os.Rename(r.Name(), name)
}

// checkMerged decodes a whole merged file and compares the rows of every run
// with what they were when they were merged.
func (opsFor[T]) checkMerged(ctx context.Context, f *os.File, in *mergedFile, table string) (out []Problem, err error) {
	out, err = opsFor[T]{}.check(ctx, f, &File{Table: table, SchemaVersion: schema.Version, Rows: in.Rows})
	if err != nil || len(out) > 0 {
		return out, err
	}
	ck, err := schema.NewChecker[T]()
	if err != nil {
		return nil, err
	}
	sum := newDigest(ck)
	err = eachRun(ctx, f, in, func(run mergedRun, rows func(func([]T) error) error) error {
		other := ""
		err := rows(func(batch []T) error {
			sum.add(batch)
			for i := range batch {
				if id := schema.CommonOf(&batch[i]).RunID; id != run.RunID {
					other = id
				}
			}
			return nil
		})
		if got := sum.sum(); err == nil && (got != run.Digest || other != "") {
			out = append(out, Problem{Kind: RowsDiffer, RunID: run.RunID, Message: "the rows of the run are not those that were merged"})
		}
		return err
	})
	return out, err
}
