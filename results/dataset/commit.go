package dataset

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/results/schema"
)

// Commit makes the run visible and durable, and ends the transaction. It is
// idempotent by run id: when the run is committed already, by this or another
// process, what was added is dropped and the manifest there is returned. On an
// error without a manifest nothing of the run is visible, and the run can be
// committed again; a manifest beside an error means that the run is committed
// and only tidying up failed.
func (tx *Txn) Commit(ctx context.Context) (*Manifest, error) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if err := tx.start(ctx); err != nil {
		return nil, err
	}
	if tx.existing != nil {
		m := tx.existing
		return m, errors.Join(tx.d.clean(tx.runID), tx.end())
	}
	m, err := tx.build(ctx)
	committed := false
	if err == nil {
		committed, err = tx.d.publish(ctx, m)
	}
	switch {
	case committed && err != nil:
		return m, tx.fail(fmt.Errorf("commit run %s: %w", tx.runID, err))
	case err != nil:
		err = errors.Join(err, tx.d.rollback(tx.runID))
		return nil, tx.fail(fmt.Errorf("commit run %s: %w", tx.runID, err))
	}
	return m, errors.Join(tx.d.clean(tx.runID), tx.end())
}

// build completes the staged files, lists them in a manifest and leaves that as
// the intent.
func (tx *Txn) build(ctx context.Context) (*Manifest, error) {
	m := &Manifest{
		Schema: ManifestSchema, RunID: tx.runID, PlanHash: tx.planHash, Created: tx.created,
		Committed: tx.d.cfg.Now().UTC(), Tool: tx.d.cfg.Tool, Files: []File{}, Attachments: tx.attached,
	}
	for _, table := range schema.Tables() {
		for _, t := range tx.tables {
			if t.table() != table {
				continue
			}
			files, err := t.finish()
			if err != nil {
				return nil, err
			}
			m.Files = append(m.Files, files...)
		}
	}
	tx.inherit(m.Files)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	doc, err := m.encode()
	if err != nil {
		return nil, err
	}
	if err := atomicfile.MkdirAll(tx.d.runDir(tx.runID), 0o755); err != nil {
		return nil, err
	}
	o := tx.d.point("intent")
	o.Temp = filepath.Join(tx.d.stagingDir(tx.runID), intentDoc+tempSuffix)
	return m, atomicfile.Write(tx.d.intentPath(tx.runID), doc, o)
}

// publish renames the files of m into place and writes the manifest last. It
// may be repeated: what is in place already is left there. Committed is true
// once the manifest is visible, also beside an error.
func (d *Dataset) publish(ctx context.Context, m *Manifest) (committed bool, err error) {
	release, err := d.lockLayout(ctx, unix.LOCK_SH)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, release()) }()
	staging := d.stagingDir(m.RunID)
	for _, f := range m.Files {
		if err := d.writeSchema(f.Table, f.SchemaVersion, staging); err != nil {
			return false, err
		}
		if err := d.moveIn(stagedPart(staging, &f), d.abs(f.Path), "data"); err != nil {
			return false, err
		}
	}
	for _, a := range m.Attachments {
		if err := d.moveIn(stagedAttachment(staging, a.Name), d.abs(a.Path), "attachment"); err != nil {
			return false, err
		}
	}
	doc, err := m.encode()
	if err != nil {
		return false, err
	}
	o := d.point("manifest")
	o.Temp = filepath.Join(staging, manifestDoc+tempSuffix)
	err = atomicfile.Write(d.manifestPath(m.RunID), doc, o)
	return err == nil || atomicfile.IsVisible(err), err
}

// stagedPart is where a file of a manifest lies before it is published.
func stagedPart(staging string, f *File) string {
	return filepath.Join(staging, stagedName(f.Table, f.Partition["suite"]))
}

func stagedName(table, suite string) string {
	if suite != "" {
		table += "__" + suite
	}
	return table + partSuffix + tempSuffix
}

func stagedAttachment(staging, name string) string {
	return filepath.Join(staging, "attached", filepath.FromSlash(name))
}

// moveIn renames a staged file to its place, unless that was done before.
func (d *Dataset) moveIn(staged, target, what string) error {
	if _, err := os.Lstat(staged); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(target); err == nil {
			return nil
		}
	}
	if err := atomicfile.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	return atomicfile.Rename(staged, target, d.point(what))
}

// tableSchema is the content of _schema.json.
type tableSchema struct {
	Name       string          `json:"schema_name"`
	Version    string          `json:"schema_version"`
	Partitions []string        `json:"partitions"`
	Columns    []schema.Column `json:"columns"`
}

// writeSchema keeps the table's _schema.json up to date with this program.
func (d *Dataset) writeSchema(table, version, staging string) error {
	if version != schema.Version {
		return nil // the files are of another program, which has written it
	}
	cols, err := schema.Columns(table)
	if err != nil {
		return err
	}
	doc, err := json.MarshalIndent(tableSchema{schema.Name(table), version, schema.Partitions(table), cols}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode schema of %s: %w", table, err)
	}
	doc = append(doc, '\n')
	path := filepath.Join(d.root, table, version, schemaDoc)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, doc) {
		return nil
	}
	if err := atomicfile.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	o := d.point("schema")
	o.Temp = filepath.Join(staging, table+schemaDoc+tempSuffix)
	return atomicfile.Write(path, doc, o)
}

// clean removes what a commit needed and the committed run does not.
func (d *Dataset) clean(runID string) error {
	err := removeAll(d.intentPath(runID))
	return errors.Join(err, os.RemoveAll(d.stagingDir(runID)))
}

// rollback removes every trace of a commit that has no manifest. The caller
// holds the run's lock.
func (d *Dataset) rollback(runID string) error {
	paths, err := d.halfCommitted(runID)
	if err != nil {
		return err
	}
	// The intent goes last: it is how the rest is found again.
	if err := removeAll(append(paths, d.intentPath(runID))...); err != nil {
		return fmt.Errorf("roll back run %s: %w", runID, err)
	}
	return os.RemoveAll(d.stagingDir(runID))
}

// halfCommitted lists the files that a commit without manifest made visible.
func (d *Dataset) halfCommitted(runID string) ([]string, error) {
	intent, err := readManifest(d.intentPath(runID))
	var corrupt *CorruptError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.As(err, &corrupt):
		return d.partsOf(runID)
	case err != nil:
		return nil, err
	}
	var paths []string
	for _, f := range intent.Files {
		paths = append(paths, d.abs(f.Path))
	}
	for _, a := range intent.Attachments {
		paths = append(paths, d.abs(a.Path))
	}
	return paths, nil
}

// partsOf finds the data files of a run by their name alone.
func (d *Dataset) partsOf(runID string) ([]string, error) {
	name := "part-" + runID + "-0" + partSuffix
	plain, err := filepath.Glob(filepath.Join(d.root, "*", "*", "date=*", name))
	if err != nil {
		return nil, err
	}
	bySuite, err := filepath.Glob(filepath.Join(d.root, "*", "*", "date=*", "suite=*", name))
	return append(plain, bySuite...), err
}

// removeAll removes files, absent ones included, and syncs their folders.
func removeAll(paths ...string) error {
	dirs := map[string]bool{}
	for _, p := range paths {
		err := os.Remove(p)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		if err != nil {
			return err
		}
		dirs[filepath.Dir(p)] = true
	}
	for dir := range dirs {
		if err := atomicfile.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}
