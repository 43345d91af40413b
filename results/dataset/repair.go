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

	"github.com/repromill/repromill/results/atomicfile"
)

// half looks at a run without manifest: nothing yet, staged files, or a commit
// that was cut short after its intent was written.
func (v *verifier) half(ctx context.Context, id string) error {
	d := v.d
	intent, err := readManifest(d.intentPath(id))
	var corrupt *CorruptError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return v.leftovers(id)
	case errors.As(err, &corrupt):
		intent = nil
	case err != nil:
		v.add(Problem{Kind: Unreadable, RunID: id, Path: v.rel(d.intentPath(id)), Message: err.Error()})
		return v.ownParts(id)
	}
	p := Problem{Kind: HalfCommit, RunID: id, Path: v.rel(d.intentPath(id)), Message: "a crash cut the commit short", Fix: fixRepair}
	if err := v.ownParts(id); err != nil {
		return err
	}
	if !v.repair {
		v.add(p)
		return nil
	}
	if intent != nil && intent.RunID == id && d.complete(intent) {
		if _, err := d.publish(ctx, intent); err != nil {
			return fmt.Errorf("finish commit of run %s: %w", id, err)
		}
		if err := d.clean(id); err != nil {
			return fmt.Errorf("finish commit of run %s: %w", id, err)
		}
		p.Message += "; its files are all there and it was finished"
		v.rep.Runs++
		p.Repaired = true
		v.add(p)
		return v.committed(ctx, intent)
	}
	if err := d.rollback(id); err != nil {
		return err
	}
	p.Message += "; its files are not all there and it was removed"
	p.Repaired = true
	v.add(p)
	return nil
}

// complete reports whether every file of an intent is there and whole, in its
// place or still staged.
func (d *Dataset) complete(m *Manifest) bool {
	staging := d.stagingDir(m.RunID)
	for _, f := range m.Files {
		if !eitherIntact(d.abs(f.Path), stagedPart(staging, &f), f.Bytes, f.SHA256) {
			return false
		}
	}
	for _, a := range m.Attachments {
		if !eitherIntact(d.abs(a.Path), stagedAttachment(staging, a.Name), a.Bytes, a.SHA256) {
			return false
		}
	}
	// Publishing needs the folder for its temporary files.
	return atomicfile.MkdirAll(staging, 0o755) == nil
}

// eitherIntact looks at the staged file first, as publishing does.
func eitherIntact(placed, staged string, size int64, sum string) bool {
	f, err := os.Open(staged)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.Open(placed)
	}
	if err != nil {
		return false
	}
	defer f.Close()
	return intact(f, size, sum) == ""
}

// leftovers reports staged files, an intent beside a manifest and a lock file
// that a dead process left.
func (v *verifier) leftovers(id string) error {
	d := v.d
	for _, path := range []string{d.stagingDir(id), d.intentPath(id), d.lockPath(id)} {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) || path == d.lockPath(id) && v.repair {
			continue // repair holds the lock itself and removes it
		}
		p := Problem{Kind: StaleStaging, RunID: id, Path: v.rel(path), Message: "a process that died left it", Fix: fixRepair}
		if v.repair {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("remove what run %s left: %w", id, err)
			}
			p.Repaired = true
		}
		v.add(p)
	}
	return nil
}

// strays walks the tables for files that no manifest names.
func (v *verifier) strays(ctx context.Context) error {
	entries, err := os.ReadDir(v.d.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list results folder: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), "_") {
			continue
		}
		err := filepath.WalkDir(filepath.Join(v.d.root, e.Name()), func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				v.add(Problem{Kind: Unreadable, Path: v.rel(path), Message: err.Error()})
				return nil
			}
			return v.stray(ctx, path, e)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) stray(ctx context.Context, path string, e fs.DirEntry) error {
	rel := v.rel(path)
	if mergedRE.MatchString(e.Name()) && !v.owned[rel] {
		if err := v.strayMerged(ctx, path); err != nil {
			return err
		}
	}
	switch {
	case e.IsDir() || v.owned[rel]:
	case strings.HasSuffix(path, partSuffix):
		if id, ok := runOfPart(e.Name()); ok && (v.busy[id] || v.d.inProgress(id) || v.since(id, rel)) {
			return nil
		}
		v.add(Problem{Kind: OrphanFile, Path: rel, Message: "readers see it and no manifest names it", Fix: "remove it, or commit its run again"})
	case strings.HasSuffix(path, tempSuffix):
		v.add(Problem{Kind: Incomplete, Path: rel, Message: "temporary files do not belong here", Fix: "remove it"})
	}
	return nil
}

// since reports whether a run names a file that was committed while verify was
// looking elsewhere.
func (v *verifier) since(id, rel string) bool {
	m, err := v.d.Manifest(id)
	return err == nil && slices.ContainsFunc(m.Files, func(f File) bool { return f.Path == rel })
}
