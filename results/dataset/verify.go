package dataset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/repromill/repromill/results/schema"
)

// ProblemKind is a stable word for what is wrong.
type ProblemKind string

// The kinds of problem.
const (
	ManifestDamaged   ProblemKind = "manifest_damaged"   // it cannot be read or does not match its checksum
	FileMissing       ProblemKind = "file_missing"       // a manifest names it
	FileDamaged       ProblemKind = "file_damaged"       // size or hash differ from the manifest
	RowGroupDamaged   ProblemKind = "row_group_damaged"  // the part of the file that differs is known
	RowsDiffer        ProblemKind = "rows_differ"        // the file is whole but has another number of rows
	SchemaDiffers     ProblemKind = "schema_differs"     // the file is of another table or version
	ValueRefused      ProblemKind = "value_refused"      // NaN, infinity, or a word outside a vocabulary
	AttachmentDamaged ProblemKind = "attachment_damaged" // missing, or size or hash differ
	OrphanFile        ProblemKind = "orphan_file"        // a data file that no manifest names
	HalfCommit        ProblemKind = "half_commit"        // a commit that a crash cut short
	StaleStaging      ProblemKind = "stale_staging"      // staged files that nobody works on
	Incomplete        ProblemKind = "incomplete_file"    // a temporary file among the tables
	Unreadable        ProblemKind = "unreadable"         // the operating system refuses
)

// Problem is one thing that is wrong with the dataset.
type Problem struct {
	Kind     ProblemKind `json:"kind"`
	RunID    string      `json:"run_id,omitempty"`
	Path     string      `json:"path"`                // relative to the root, with slashes
	RowGroup *int        `json:"row_group,omitempty"` // from 0
	Message  string      `json:"message"`
	Fix      string      `json:"fix,omitempty"`
	Repaired bool        `json:"repaired,omitempty"`
}

func (p Problem) String() string {
	s := p.Path
	if p.RowGroup != nil {
		s += fmt.Sprintf(", row group %d", *p.RowGroup)
	}
	s += ": " + p.Message
	switch {
	case p.Repaired:
		s += " (repaired)"
	case p.Fix != "":
		s += " (" + p.Fix + ")"
	}
	return s
}

// VerifyReport is what Verify saw.
type VerifyReport struct {
	Runs       int       `json:"runs"` // committed
	Files      int       `json:"files"`
	Rows       int64     `json:"rows"`
	Bytes      int64     `json:"bytes"`
	InProgress []string  `json:"in_progress,omitempty"` // runs that some process is committing
	Problems   []Problem `json:"problems"`
}

// OK reports whether nothing is wrong, repaired problems aside.
func (r *VerifyReport) OK() bool {
	for _, p := range r.Problems {
		if !p.Repaired {
			return false
		}
	}
	return true
}

const (
	fixRerun  = "commit the run again: `repromill run --resume <run id>`"
	fixRepair = "finish or remove it: `repromill results verify --repair`"
)

// Verify checks every manifest against its files (existence, size, hash, rows,
// schema, every value) and looks for what no manifest names. Problems are data;
// the error is for a folder that cannot be looked at.
//
// With repair half commits are finished where all their files are there and
// whole, else removed, and stale staged files are removed. Committed runs and
// files of unknown origin are never touched.
func (d *Dataset) Verify(ctx context.Context, repair bool) (*VerifyReport, error) {
	v := &verifier{d: d, repair: repair, rep: &VerifyReport{Problems: []Problem{}}, owned: map[string]bool{}, busy: map[string]bool{}, leaves: map[string]*mergedLeaf{}}
	if err := v.compaction(); err != nil {
		return nil, err
	}
	ids, err := d.runIDs()
	if err != nil {
		return nil, err
	}
	for _, id := range append(ids, v.stagedOnly(ids)...) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := v.run(ctx, id); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(v.strays(ctx), v.unclaimed(ctx)); err != nil {
		return nil, err
	}
	return v.rep, nil
}

type verifier struct {
	d      *Dataset
	repair bool
	rep    *VerifyReport
	owned  map[string]bool // paths that manifests name, relative
	busy   map[string]bool // runs in progress
	leaves map[string]*mergedLeaf
}

func (v *verifier) add(p Problem) { v.rep.Problems = append(v.rep.Problems, p) }

// stagedOnly lists runs that have staged files and no folder yet.
func (v *verifier) stagedOnly(known []string) (ids []string) {
	entries, err := os.ReadDir(filepath.Join(v.d.root, stagingDir))
	if err != nil {
		return nil // absent, or reported by strays
	}
	have := map[string]bool{}
	for _, id := range known {
		have[id] = true
	}
	for _, e := range entries {
		id := strings.TrimPrefix(e.Name(), lockPrefix)
		if checkRunID(id) == nil && !have[id] {
			have[id] = true
			ids = append(ids, id)
		}
	}
	return ids
}

// run checks one run under its lock, so that a commit in progress is not
// mistaken for half of one.
func (v *verifier) run(ctx context.Context, id string) (err error) {
	if v.repair {
		lock, err := v.d.tryLock(id)
		if errors.Is(err, errLocked) {
			v.setBusy(id)
			return nil
		}
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, lock.release()) }()
	} else if v.d.inProgress(id) {
		v.setBusy(id)
		return nil
	}
	m, err := v.d.Manifest(id)
	var corrupt *CorruptError
	switch {
	case errors.As(err, &corrupt):
		v.add(Problem{Kind: ManifestDamaged, RunID: id, Path: v.rel(corrupt.Path), Message: corrupt.Reason, Fix: fixRerun})
		return v.ownParts(id)
	case errors.Is(err, fs.ErrNotExist):
		return v.half(ctx, id)
	case err != nil:
		v.add(Problem{Kind: Unreadable, RunID: id, Path: v.rel(v.d.manifestPath(id)), Message: err.Error()})
		return v.ownParts(id)
	}
	v.rep.Runs++
	if err := v.committed(ctx, m); err != nil {
		return err
	}
	return v.leftovers(id)
}

func (v *verifier) setBusy(id string) {
	v.busy[id] = true
	v.rep.InProgress = append(v.rep.InProgress, id)
}

// ownParts keeps a run's files from being called orphans when its manifest
// cannot say that they are its own.
func (v *verifier) ownParts(id string) error {
	paths, err := v.d.partsOf(id)
	for _, p := range paths {
		v.owned[v.rel(p)] = true
	}
	return err
}

// committed checks everything that a manifest names.
func (v *verifier) committed(ctx context.Context, m *Manifest) error {
	for i := range m.Files {
		f := &m.Files[i]
		v.owned[f.Path] = true
		v.rep.Rows += f.Rows
		if err := v.file(ctx, m.RunID, f); err != nil {
			return err
		}
	}
	for _, a := range m.Attachments {
		v.rep.Files++
		v.rep.Bytes += a.Bytes
		if p := v.d.attachmentProblem(&a); p != "" {
			v.add(Problem{Kind: AttachmentDamaged, RunID: m.RunID, Path: a.Path, Message: p})
		}
	}
	return nil
}

func (d *Dataset) attachmentProblem(a *Attachment) string {
	f, err := os.Open(d.abs(a.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return "it is missing"
	}
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	return intact(f, a.Bytes, a.SHA256)
}

func (v *verifier) file(ctx context.Context, id string, mf *File) error {
	problem := Problem{RunID: id, Path: mf.Path}
	f, err := os.Open(v.d.abs(mf.Path))
	if errors.Is(err, fs.ErrNotExist) {
		if found, err := v.inMerged(ctx, id, mf); found || err != nil {
			return err
		}
	}
	v.rep.Files++
	v.rep.Bytes += mf.Bytes
	if err != nil {
		problem.Kind, problem.Message = Unreadable, err.Error()
		if errors.Is(err, fs.ErrNotExist) {
			problem.Kind, problem.Message, problem.Fix = FileMissing, "the manifest names it and it is not there", fixRerun
		}
		v.add(problem)
		return nil
	}
	defer f.Close()
	if reason := intact(f, mf.Bytes, mf.SHA256); reason != "" {
		v.damaged(f, mf, problem, reason)
		return nil
	}
	if !schema.Readable(mf.SchemaVersion) {
		return nil // another release's: that its bytes are those committed is what can be said
	}
	// Its bytes are those that were committed: decoding them is safe.
	return v.content(ctx, f, mf, problem)
}

// damaged names the row groups that differ, by their checksums: the bytes of a
// damaged file are never decoded.
func (v *verifier) damaged(f *os.File, mf *File, p Problem, reason string) {
	p.Fix = fixRerun
	found := false
	for i, g := range mf.RowGroups {
		sum, err := schema.Checksum(io.NewSectionReader(f, g.Offset, g.Bytes))
		if err == nil && sum == g.CRC32C {
			continue
		}
		found = true
		p.Kind, p.RowGroup, p.Message = RowGroupDamaged, &i, fmt.Sprintf("its %d rows cannot be trusted: %s", g.Rows, reason)
		v.add(p)
	}
	if !found {
		p.Kind, p.Message = FileDamaged, reason+"; all row groups are whole, so the header or the footer differs"
		v.add(p)
	}
}

// content decodes a whole file and checks its rows.
func (v *verifier) content(ctx context.Context, f *os.File, mf *File, p Problem) error {
	ops, err := opsOf(mf.Table)
	if err != nil {
		return fmt.Errorf("verify %s: %w", mf.Path, err)
	}
	problems, err := ops.check(ctx, f, mf)
	for _, q := range problems {
		q.RunID, q.Path = p.RunID, p.Path
		v.add(q)
	}
	return err
}

// check decodes a whole file and checks its rows.
func (opsFor[T]) check(ctx context.Context, f *os.File, mf *File) (out []Problem, err error) {
	r, err := schema.NewReader[T](f)
	if err != nil {
		return []Problem{{Kind: SchemaDiffers, Message: err.Error()}}, nil
	}
	if name, version := r.Meta(schema.MetaName), r.Meta(schema.MetaVersion); name != schema.Name(mf.Table) || version != mf.SchemaVersion {
		out = append(out, Problem{Kind: SchemaDiffers, Message: fmt.Sprintf("it says that it is %s %s, the manifest %s %s", name, version, schema.Name(mf.Table), mf.SchemaVersion)})
	}
	var rows int64
	for g := 0; ; g++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		batch, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			out = append(out, Problem{Kind: RowGroupDamaged, RowGroup: &g, Message: err.Error()})
			continue
		}
		rows += int64(len(batch))
		if err := r.Check(batch); err != nil {
			out = append(out, Problem{Kind: ValueRefused, RowGroup: &g, Message: err.Error()})
		}
	}
	if col := r.NaN(); col != "" {
		out = append(out, Problem{Kind: ValueRefused, Message: "column " + col + " holds a NaN, which makes every sum over it NaN"})
	}
	if rows != mf.Rows {
		out = append(out, Problem{Kind: RowsDiffer, Message: fmt.Sprintf("it has %d rows and the manifest states %d", rows, mf.Rows)})
	}
	return out, nil
}

func (v *verifier) rel(path string) string {
	rel, err := filepath.Rel(v.d.root, path)
	if err != nil {
		return path
	}
	return filepath.ToSlash(rel)
}
