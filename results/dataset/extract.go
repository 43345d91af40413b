package dataset

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/repromill/repromill/results/schema"
)

// Extract commits one run of d to another folder, in files of its own. It is
// how the files of a run are had whose rows are merged with those of others;
// the rows are the same, the bytes of the files may differ from those that were
// committed.
func (d *Dataset) Extract(ctx context.Context, runID, root string) (*Dataset, error) {
	m, err := d.Manifest(runID)
	if err != nil {
		return nil, err
	}
	to, err := Open(root, Config{Now: func() time.Time { return m.Committed }, Tool: m.Tool, BufferBytes: d.cfg.BufferBytes})
	if err != nil {
		return nil, err
	}
	tx := to.Begin(runID, m.Created)
	tx.SetPlanHash(m.PlanHash)
	tx.from = m
	err = d.extract(ctx, m, tx)
	if err == nil {
		_, err = tx.Commit(ctx)
	}
	if err = errors.Join(err, tx.Abort()); err != nil {
		return nil, fmt.Errorf("extract run %s: %w", runID, err)
	}
	return to, nil
}

func (d *Dataset) extract(ctx context.Context, m *Manifest, tx *Txn) error {
	seen := map[string]bool{}
	for _, f := range m.Files {
		if seen[f.Table] {
			continue
		}
		seen[f.Table] = true
		ops, err := opsOf(f.Table)
		if err != nil {
			return err
		}
		if err := ops.copyRun(ctx, d, m.RunID, tx); err != nil {
			return err
		}
	}
	for _, a := range m.Attachments {
		if p := d.attachmentProblem(&a); p != "" {
			return &CorruptError{Path: d.abs(a.Path), Reason: p}
		}
		f, err := os.Open(d.abs(a.Path))
		if err != nil {
			return err
		}
		if err := errors.Join(tx.AttachFrom(a.Name, f), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (opsFor[T]) copyRun(ctx context.Context, d *Dataset, runID string, tx *Txn) error {
	return Each(ctx, d, runID, func(rows []T) error {
		for i := range rows {
			schema.CommonOf(&rows[i]).SchemaVersion = schema.Version // that of the files written
		}
		return Add(tx, rows...)
	})
}

// inherit takes the counts over that a manifest has of the commit it was made
// by, where a transaction copies that one.
func (tx *Txn) inherit(files []File) {
	if tx.from == nil {
		return
	}
	for i := range files {
		for _, f := range tx.from.Files {
			if f.Table == files[i].Table && f.Partition["suite"] == files[i].Partition["suite"] {
				files[i].Dropped, files[i].NaNToNull, files[i].FixedTexts = f.Dropped, f.NaNToNull, f.FixedTexts
			}
		}
	}
}
