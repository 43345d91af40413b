package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/repromill/repromill/results/schema"
)

// Read returns the rows that a committed run has in the table of T, in the
// order in which they were added (by suite where the table is partitioned so).
// The error is a [*NotFoundError] for a run that is not committed, a
// [*CorruptError] for a damaged file and a [*schema.VersionError] for one of
// another version.
func Read[T schema.Row](ctx context.Context, d *Dataset, runID string) ([]T, error) {
	var out []T
	err := Each(ctx, d, runID, func(rows []T) error { out = append(out, rows...); return nil })
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Each is Read for tables too large for memory: it calls fn with the rows of
// one row group after the other.
func Each[T schema.Row](ctx context.Context, d *Dataset, runID string, fn func([]T) error) error {
	m, err := d.Manifest(runID)
	if err != nil {
		return err
	}
	var zero T
	for _, f := range m.Files {
		if f.Table != zero.Table() {
			continue
		}
		if err := eachOf(ctx, d, runID, &f, fn); err != nil {
			return fmt.Errorf("read %s of run %s: %w", f.Table, runID, err)
		}
	}
	return nil
}

// EachValues calls fn with every row that a committed run has in a table: the
// suite, where the table is partitioned by it, and the values in the order of
// [schema.Columns], as [schema.Checker.Values] has them. The slice is used again.
func EachValues(ctx context.Context, d *Dataset, runID, table string, fn func(suite string, values []any) error) error {
	ops, err := opsOf(table)
	if err != nil {
		return err
	}
	return ops.values(ctx, d, runID, fn)
}

func (opsFor[T]) values(ctx context.Context, d *Dataset, runID string, fn func(string, []any) error) error {
	ck, err := schema.NewChecker[T]()
	if err != nil {
		return err
	}
	var values []any
	return Each(ctx, d, runID, func(rows []T) error {
		for i := range rows {
			suite := ""
			if s := ck.Suite(&rows[i]); s != nil {
				suite = *s
			}
			values = ck.Values(values[:0], &rows[i])
			if err := fn(suite, values); err != nil {
				return err
			}
		}
		return nil
	})
}

// eachOf decodes one file of a manifest, or the part of a merged file that has
// taken its place.
func eachOf[T schema.Row](ctx context.Context, d *Dataset, runID string, mf *File, fn func([]T) error) (err error) {
	if !schema.Readable(mf.SchemaVersion) {
		return &schema.VersionError{Table: mf.Table, Have: mf.SchemaVersion}
	}
	ck, err := schema.NewChecker[T]()
	if err != nil {
		return err
	}
	f, in, at, err := d.open(runID, mf)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	withSuite := func(rows []T) error {
		for i := range rows {
			if s := ck.Suite(&rows[i]); s != nil {
				*s = mf.Partition["suite"]
			}
		}
		return fn(rows)
	}
	if in != nil {
		return eachMerged(ctx, f, in, at.First, at.Rows, withSuite)
	}
	return eachPart(ctx, f, mf, withSuite)
}

// eachPart decodes a file of one run. Its hash is checked first, so that no
// damaged byte reaches the decoder.
func eachPart[T schema.Row](ctx context.Context, f *os.File, mf *File, fn func([]T) error) error {
	if p := intact(f, mf.Bytes, mf.SHA256); p != "" {
		return &CorruptError{Path: f.Name(), Reason: p}
	}
	r, err := schema.NewReader[T](f)
	var other *schema.VersionError
	if errors.As(err, &other) {
		return err
	}
	if err != nil {
		return &CorruptError{Path: f.Name(), Reason: err.Error()}
	}
	for {
		rows, err := r.Next()
		if errors.Is(err, io.EOF) {
			return ctx.Err()
		}
		if err != nil {
			return &CorruptError{Path: f.Name(), Reason: err.Error()}
		}
		if err := errors.Join(ctx.Err(), fn(rows)); err != nil {
			return err
		}
	}
}

// intact compares a file with what its manifest states and says what differs,
// "" when nothing does.
func intact(f *os.File, size int64, sum string) string {
	info, err := f.Stat()
	if err != nil {
		return err.Error()
	}
	if info.Size() != size {
		return fmt.Sprintf("it has %d bytes and the manifest states %d", info.Size(), size)
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, size)); err != nil {
		return err.Error()
	}
	if hex.EncodeToString(h.Sum(nil)) != sum {
		return "its content does not match the hash in the manifest"
	}
	return ""
}
