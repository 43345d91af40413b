package dataset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/repromill/repromill/results/schema"
)

// mergedSchema names the shape of _merged.json; a reader refuses any other.
const mergedSchema = "repromill.merged/v1"

// mergedDoc is the index of a partition's merged files. It lies beside them, so
// that files and index change in one step.
const mergedDoc = "_merged.json"

// mergedIndex says which rows of a partition's merged files are which run's.
// Manifests are never changed by merging: they go on to name the file that was
// committed, whose rows are looked up here by run and hash.
type mergedIndex struct {
	Schema   string       `json:"schema"`
	Files    []mergedFile `json:"files"`
	Checksum string       `json:"checksum"` // as of a manifest
}

type mergedFile struct {
	Name      string         `json:"name"` // within the folder
	Rows      int64          `json:"rows"`
	Bytes     int64          `json:"bytes"`
	SHA256    string         `json:"sha256"`
	Tail      uint32         `json:"tail_crc32c"` // of what follows the last row group
	RowGroups []schema.Group `json:"row_groups"`
	Runs      []mergedRun    `json:"runs"` // in the order of their rows
}

// mergedRun is a run's rows within a merged file.
type mergedRun struct {
	RunID  string `json:"run_id"`
	Part   string `json:"part_sha256"` // of the file that was committed
	First  int64  `json:"first_row"`
	Rows   int64  `json:"rows"`
	Digest string `json:"rows_sha256"` // of the rows in order, as schema.Checker.AppendRow has them
}

var mergedRE = regexp.MustCompile(`^merged-[0-9a-f]{16}-\d{1,6}\.parquet$`)

// readIndex reads the index of a partition; nil is none.
func readIndex(dir string) (*mergedIndex, error) {
	name := filepath.Join(dir, mergedDoc)
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read index of merged files: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read index of merged files: %w", err)
	}
	x, err := parseIndex(b)
	if err != nil {
		return nil, &CorruptError{Path: name, Reason: err.Error()}
	}
	return x, nil
}

// parseIndex decodes and checks an index. What it returns names files of its
// folder only, and rows that lie within them.
func parseIndex(b []byte) (*mergedIndex, error) {
	if len(b) > maxManifest {
		return nil, fmt.Errorf("it is larger than %d bytes", maxManifest)
	}
	x := &mergedIndex{}
	if err := json.Unmarshal(b, x); err != nil {
		return nil, fmt.Errorf("it is not the JSON of an index: %w", err)
	}
	if x.Schema != mergedSchema {
		return nil, fmt.Errorf("its schema is %q; this program reads %q", x.Schema, mergedSchema)
	}
	if want, got := checksum(b); want == "" || want != got || got != x.Checksum {
		return nil, errors.New("its checksum does not match its content")
	}
	for _, f := range x.Files {
		if !mergedRE.MatchString(f.Name) {
			return nil, fmt.Errorf("it names %q, which is no merged file", f.Name)
		}
		if err := f.consistent(); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return x, nil
}

// consistent reports whether groups and runs tile the file's rows and bytes.
func (f *mergedFile) consistent() error {
	var rows, end int64
	for i, g := range f.RowGroups {
		if g.Rows <= 0 || g.Bytes <= 0 || g.Offset < end || g.Offset+g.Bytes > f.Bytes {
			return fmt.Errorf("row group %d does not lie where it can", i)
		}
		rows, end = rows+g.Rows, g.Offset+g.Bytes
	}
	if rows != f.Rows {
		return fmt.Errorf("its row groups have %d rows of %d", rows, f.Rows)
	}
	rows = 0
	for _, r := range f.Runs {
		if err := checkRunID(r.RunID); err != nil {
			return err
		}
		if r.First != rows || r.Rows < 0 {
			return fmt.Errorf("the rows of run %s do not lie where they can", r.RunID)
		}
		rows += r.Rows
	}
	if rows != f.Rows {
		return fmt.Errorf("its runs have %d rows of %d", rows, f.Rows)
	}
	return nil
}

// tailAt is where the row groups end and the footer begins.
func (f *mergedFile) tailAt() int64 {
	if len(f.RowGroups) == 0 {
		return 0
	}
	g := f.RowGroups[len(f.RowGroups)-1]
	return g.Offset + g.Bytes
}

// find looks a run's file up; nil is not there.
func (x *mergedIndex) find(runID string, part string) (*mergedFile, *mergedRun) {
	if x == nil {
		return nil, nil
	}
	for i := range x.Files {
		for j := range x.Files[i].Runs {
			if r := &x.Files[i].Runs[j]; r.RunID == runID && r.Part == part {
				return &x.Files[i], r
			}
		}
	}
	return nil, nil
}

// encode sets the checksum and renders the document.
func (x *mergedIndex) encode() ([]byte, error) {
	x.Checksum = ""
	b, err := json.MarshalIndent(x, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode index of merged files: %w", err)
	}
	b, x.Checksum = seal(append(b, '\n'))
	return b, nil
}

// openTries bounds how often a file is looked for that merging moves while it
// is looked for.
const openTries = 5

// open opens what holds the rows of a manifest's file: the file itself, or the
// merged file that has taken its place, with the run's part of it. The error is
// [fs.ErrNotExist] when neither is there.
func (d *Dataset) open(runID string, mf *File) (f *os.File, in *mergedFile, at *mergedRun, err error) {
	dir := filepath.Dir(d.abs(mf.Path))
	for range openTries {
		f, err = os.Open(d.abs(mf.Path))
		if !errors.Is(err, fs.ErrNotExist) {
			return f, nil, nil, err
		}
		x, xerr := readIndex(dir)
		if xerr != nil {
			return nil, nil, nil, xerr
		}
		in, at = x.find(runID, mf.SHA256)
		if in == nil {
			continue // it may have been put back, or moved on, since the first look
		}
		f, err = os.Open(filepath.Join(dir, in.Name))
		if !errors.Is(err, fs.ErrNotExist) {
			return f, in, at, err
		}
	}
	return nil, nil, nil, err
}

// Merged reports whether rows of a committed run lie in files that it shares
// with other runs.
func (d *Dataset) Merged(m *Manifest) bool {
	for _, f := range m.Files {
		if _, err := os.Lstat(d.abs(f.Path)); errors.Is(err, fs.ErrNotExist) {
			if x, err := readIndex(filepath.Dir(d.abs(f.Path))); err == nil {
				if in, _ := x.find(m.RunID, f.SHA256); in != nil {
					return true
				}
			}
		}
	}
	return false
}

// mergedParts lists the partitions of a date in which rows of a run are merged.
func (d *Dataset) mergedParts(runID, date string) (dirs []string, err error) {
	for _, pattern := range []string{"*/*/date=" + date, "*/*/date=" + date + "/suite=*"} {
		list, err := filepath.Glob(filepath.Join(d.root, filepath.FromSlash(pattern), mergedDoc))
		if err != nil {
			return nil, err
		}
		for _, name := range list {
			x, err := readIndex(filepath.Dir(name))
			if err != nil {
				return nil, err
			}
			for _, f := range x.Files {
				for _, r := range f.Runs {
					if r.RunID == runID {
						dirs = append(dirs, filepath.Dir(name))
					}
				}
			}
		}
	}
	return dirs, nil
}

// eachMerged calls fn with the rows that lie from first on in a merged file.
// Only the row groups that hold them are read, each after its checksum, so that
// no damaged byte reaches the decoder and a small run costs little.
func eachMerged[T schema.Row](ctx context.Context, f *os.File, in *mergedFile, first, rows int64, fn func([]T) error) error {
	corrupt := func(reason string) error { return &CorruptError{Path: f.Name(), Reason: reason} }
	if info, err := f.Stat(); err != nil {
		return err
	} else if info.Size() != in.Bytes {
		return corrupt(fmt.Sprintf("it has %d bytes and its index states %d", info.Size(), in.Bytes))
	}
	if sum, err := schema.Checksum(io.NewSectionReader(f, in.tailAt(), in.Bytes-in.tailAt())); err != nil {
		return err
	} else if sum != in.Tail {
		return corrupt("its footer does not match the checksum in its index")
	}
	r, err := schema.NewReader[T](f)
	if err != nil {
		return corrupt(err.Error())
	}
	var before int64
	for g, group := range in.RowGroups {
		start, end := max(first, before), min(first+rows, before+group.Rows)
		if start < end {
			if sum, err := schema.Checksum(io.NewSectionReader(f, group.Offset, group.Bytes)); err != nil {
				return err
			} else if sum != group.CRC32C {
				return corrupt(fmt.Sprintf("row group %d does not match its checksum", g))
			}
			r.Seek(g)
			batch, err := r.Next()
			if err != nil {
				return corrupt(err.Error())
			}
			if int64(len(batch)) != group.Rows {
				return corrupt(fmt.Sprintf("row group %d has %d rows and its index states %d", g, len(batch), group.Rows))
			}
			if err := errors.Join(ctx.Err(), fn(batch[start-before:end-before])); err != nil {
				return err
			}
		}
		before += group.Rows
	}
	return ctx.Err()
}

// mergedName is the name of the n-th file that merging makes of the given runs.
func mergedName(id string, n int) string { return fmt.Sprintf("merged-%.16s-%d%s", id, n, partSuffix) }
