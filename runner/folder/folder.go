// Package folder keeps one attempt on disk, as files that are replaced as a
// whole: what executors on this machine have in common.
package folder

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/runner"
)

// Attempt is the file that says what an attempt is. Its "key" is that of the
// attempt.
const Attempt = "attempt.json"

// TmpSuffix ends the names of files that are being written.
const TmpSuffix = ".tmp"

// Folder is the place of one attempt.
type Folder struct {
	Dir   string
	Point string // the prefix of the names given to hooks, such as "local"
}

// Root makes the folder that holds the attempts of an executor, and returns its
// absolute path.
func Root(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return "", fmt.Errorf("make attempts folder: %w", err)
	}
	return dir, nil
}

// Path is that of one of its files.
func (f Folder) Path(name string) string { return filepath.Join(f.Dir, name) }

// Name is unique on the machine: two installations may hold the same key.
func (f Folder) Name() string {
	sum := sha256.Sum256([]byte(f.Dir))
	return filepath.Base(f.Dir) + "-" + hex.EncodeToString(sum[:4])
}

// Has says whether there is a file of that name.
func (f Folder) Has(name string) bool {
	_, err := os.Lstat(f.Path(name))
	return err == nil
}

// Read decodes a file; the error is os.ErrNotExist where it lacks.
func (f Folder) Read(name string, v any) error {
	b, err := os.ReadFile(f.Path(name))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", f.Path(name), err)
	}
	return nil
}

// Durability is what a written file survives.
type Durability bool

// A file may have to survive a loss of power, or only the end of its writer.
const (
	Power   Durability = true
	Process Durability = false
)

// Write replaces a file as a whole. Only the holder of the attempt's lock
// writes, so the temporary name is fixed and a dead writer leaves at most one
// behind, which the next write or [Folder.Tidy] takes away.
func (f Folder) Write(name string, v any, survives Durability, hook func(string)) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	point := f.Point + ":" + name
	hook(point + ":before")
	path := f.Path(name)
	out, err := os.OpenFile(path+TmpSuffix, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = out.Write(append(b, '\n'))
	if err == nil && survives == Power {
		err = out.Sync()
	}
	err = errors.Join(err, out.Close())
	hook(point + ":rename")
	if err == nil {
		err = os.Rename(path+TmpSuffix, path)
	}
	if err == nil && survives == Power {
		err = atomicfile.SyncDir(f.Dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	hook(point + ":after")
	return nil
}

// Mark makes an empty file that survives a loss of power, unless it is there.
func (f Folder) Mark(name string, hook func(string)) error {
	if f.Has(name) {
		return nil
	}
	hook(f.Point + ":" + name + ":before")
	out, err := os.OpenFile(f.Path(name), os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		err = errors.Join(out.Close(), atomicfile.SyncDir(f.Dir))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	hook(f.Point + ":" + name + ":after")
	return nil
}

// Tidy removes what a dead writer of the files left.
func (f Folder) Tidy(names ...string) {
	for _, n := range names {
		_ = os.Remove(f.Path(n) + TmpSuffix) // it is seldom there, and replaced by the next
	}
}

// CheckKey refuses a folder that belongs to another key with the same hash.
func (f Folder) CheckKey(key runner.AttemptKey) error {
	var rec struct {
		Key string `json:"key"`
	}
	if err := f.Read(Attempt, &rec); err != nil {
		return err
	}
	if rec.Key != key.String() {
		return fmt.Errorf("submit %s: its folder %s holds %s", key, f.Dir, rec.Key)
	}
	return nil
}

// Status reads the final status from a file; ok is false while there is none.
func (f Folder) Status(name string) (st runner.Status, ok bool, err error) {
	err = f.Read(name, &st)
	if errors.Is(err, os.ErrNotExist) {
		return st, false, nil
	}
	return st, err == nil, err
}
