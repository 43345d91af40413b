// Package dataset keeps the results of runs as a folder that any Parquet
// reader understands, and commits each run to it whole or not at all.
//
//	<root>/<table>/<version>/date=YYYY-MM-DD/part-<run_id>-0.parquet
//	<root>/<table>/<version>/date=YYYY-MM-DD/suite=<suite>/part-<run_id>-0.parquet   samples, requests
//	<root>/<table>/<version>/_schema.json
//	<root>/_runs/<run_id>/manifest.json        the commit point; beside it plan, report, logs
//	<root>/_staging/<run_id>/*.parquet.tmp     the only place for incomplete files
//
// A run is committed in this order: all files are written and synced below
// _staging; intent.json states what the manifest will say; the files are
// renamed into place and their folders synced; manifest.json is written by the
// same dance, last. A reader that globs sees complete files only, because none
// that is incomplete ends in .parquet; a reader that reads manifests sees
// committed runs only. After a crash at any point [Dataset.Verify] finishes or
// removes the half commit, and committing the run again does the same.
//
// Compact merges the files of many runs, by partition:
//
//	<root>/<table>/<version>/date=YYYY-MM-DD/merged-<hash>-<n>.parquet
//	<root>/<table>/<version>/date=YYYY-MM-DD/_merged.json   whose rows they hold
//	<root>/_staging/.compact/…                              while it is at work
//
// The date is the UTC date on which the run was created. Partition columns are
// in the path and not in the files.
package dataset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/repromill/repromill/results/schema"
)

// Config tunes a dataset. Its zero value works.
type Config struct {
	Now func() time.Time // nil means time.Now
	// Hook, when not nil, is called before and after every durable step with
	// "dataset:<what>-<step>:<before|after>".
	Hook func(point string)
	// LockWait bounds the wait for another process that is committing the same
	// run; 0 means 30 seconds.
	LockWait time.Duration
	// BufferBytes bounds the rows that a transaction holds before it writes a
	// row group, before compression; 0 means 64 MiB.
	BufferBytes int64
	// Tool names the program and its version in manifests.
	Tool string

	swap func(a, b string) error // exchanges two folders; nil means swapFolders
}

// Dataset is a results folder. It is safe for concurrent use, also by several
// processes.
type Dataset struct {
	root string
	cfg  Config
}

// Open returns the dataset at root, which need not exist yet: it is made by the
// first commit.
func Open(root string, cfg Config) (*Dataset, error) {
	if root == "" {
		return nil, &UserError{Message: "the results folder is not named", Fix: "give its path"}
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open results folder %s: %w", root, err)
	}
	if info, err := os.Stat(abs); err == nil && !info.IsDir() {
		return nil, &UserError{Message: abs + " is a file, not a results folder", Fix: "name a folder"}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.LockWait == 0 {
		cfg.LockWait = 30 * time.Second
	}
	if cfg.BufferBytes == 0 {
		cfg.BufferBytes = 64 << 20
	}
	if cfg.swap == nil {
		cfg.swap = swapFolders
	}
	return &Dataset{root: abs, cfg: cfg}, nil
}

// Root is the absolute path of the folder.
func (d *Dataset) Root() string { return d.root }

// Glob is a pattern for all files of a table, as DuckDB and Polars take it.
func (d *Dataset) Glob(table string) string {
	return filepath.Join(d.root, table, schema.Version, "**", "*.parquet")
}

// UserError is a mistake of the user's, with the way to put it right.
type UserError struct {
	Message string
	Fix     string
}

func (e *UserError) Error() string { return e.Message + ": " + e.Fix }

// UserError returns the fix.
func (e *UserError) UserError() string { return e.Fix }

const (
	runsDir     = "_runs"
	stagingDir  = "_staging"
	manifestDoc = "manifest.json"
	intentDoc   = "intent.json"
	schemaDoc   = "_schema.json"
	partSuffix  = ".parquet"
	tempSuffix  = ".tmp"
)

func (d *Dataset) runDir(runID string) string     { return filepath.Join(d.root, runsDir, runID) }
func (d *Dataset) stagingDir(runID string) string { return filepath.Join(d.root, stagingDir, runID) }
func (d *Dataset) manifestPath(runID string) string {
	return filepath.Join(d.runDir(runID), manifestDoc)
}
func (d *Dataset) intentPath(runID string) string { return filepath.Join(d.runDir(runID), intentDoc) }

// abs turns a manifest's slash-separated path into one of this machine.
func (d *Dataset) abs(rel string) string { return filepath.Join(d.root, filepath.FromSlash(rel)) }

var (
	runIDRE  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	attachRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){0,3}$`)
	dateRE   = regexp.MustCompile(`^date=\d{4}-\d{2}-\d{2}$`)
)

// checkRunID refuses ids that cannot be part of a file name.
func checkRunID(id string) error {
	if !runIDRE.MatchString(id) || strings.HasSuffix(id, ".") {
		return &UserError{Message: fmt.Sprintf("%q is not a run id", id), Fix: "use letters, digits, '.', '_' and '-', at most 128 of them"}
	}
	return nil
}

// partitionValue turns a name into the value of a partition: lower case, and
// only [a-z0-9._-], so that no reader has to unescape it.
func partitionValue(s string) string {
	v := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
			return r
		}
		return '-'
	}, strings.ToLower(s))
	v = strings.TrimLeft(v, "._-")
	return v[:min(len(v), 100)]
}

// partPath is the path of a run's file of a table, relative to the root and
// with slashes.
func partPath(table, version, date, suite, runID string) string {
	dir := table + "/" + version + "/date=" + date
	if suite != "" {
		dir += "/suite=" + suite
	}
	return dir + "/part-" + runID + "-0" + partSuffix
}

// NotFoundError says that a run is not committed.
type NotFoundError struct{ RunID string }

func (e *NotFoundError) Error() string {
	return "no committed run has the id " + e.RunID + ": " + e.UserError()
}

// UserError returns the fix.
func (e *NotFoundError) UserError() string {
	return "see `repromill results list` for the ids there are"
}

// Is makes errors.Is(err, fs.ErrNotExist) true.
func (e *NotFoundError) Is(target error) bool { return target == fs.ErrNotExist }

// Manifest returns the manifest of a committed run. The error is a
// [*NotFoundError] when there is none and a [*CorruptError] when it is damaged.
func (d *Dataset) Manifest(runID string) (*Manifest, error) {
	if err := checkRunID(runID); err != nil {
		return nil, err
	}
	m, err := readManifest(d.manifestPath(runID))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NotFoundError{runID}
	}
	if err != nil {
		return nil, err
	}
	if m.RunID != runID {
		return nil, &CorruptError{Path: d.manifestPath(runID), Reason: "it is of run " + m.RunID}
	}
	return m, nil
}

// List returns the manifests of all committed runs, newest first. A damaged
// manifest does not hide the others: it appears with RunID and Problem only.
func (d *Dataset) List(ctx context.Context) ([]Manifest, error) {
	ids, err := d.runIDs()
	if err != nil {
		return nil, err
	}
	var out []Manifest
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		m, err := d.Manifest(id)
		switch {
		case errors.Is(err, fs.ErrNotExist): // not committed yet
		case err != nil:
			out = append(out, Manifest{RunID: id, Problem: err.Error()})
		default:
			out = append(out, *m)
		}
	}
	slices.SortStableFunc(out, func(a, b Manifest) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(b.RunID, a.RunID)
	})
	return out, nil
}

// runIDs lists the runs that have a folder, committed or not.
func (d *Dataset) runIDs() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(d.root, runsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && checkRunID(e.Name()) == nil {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}
