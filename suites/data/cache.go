package data

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const hour = time.Hour

// folder is a data set's folder in the hub's cache.
func (h *Hub) folder(repo string) string {
	return filepath.Join(h.c.Cache, "datasets--"+strings.ReplaceAll(repo, "/", "--"))
}

// snapshot is where the hub's tools look for a file at a commit.
func (h *Hub) snapshot(f File) string {
	return filepath.Join(h.folder(f.Repo), "snapshots", f.Commit, filepath.FromSlash(f.Path))
}

// checked returns the SHA-256 of a file, and refuses content other than was
// announced.
func (h *Hub) checked(name string, f File) (string, error) {
	r, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("read data set: %w", err)
	}
	defer r.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, r); err != nil {
		return "", fmt.Errorf("read data set: %w", err)
	}
	got := hex.EncodeToString(sum.Sum(nil))
	if f.SHA256 != "" && got != f.SHA256 {
		return "", &Error{fmt.Sprintf("%s has changed: its SHA-256 is %s, the plan names %s", f, got, f.SHA256), "remove " + name + " if it is damaged; else plan again, and compare only runs over the same data"}
	}
	return got, nil
}

// keep puts a file into the hub's cache, in the layout of its tools: a blob under
// its hash, and a relative link to it in the commit's snapshot. It never replaces
// what is there.
func (h *Hub) keep(f Local) error {
	blob := filepath.Join(h.folder(f.Repo), "blobs", f.SHA256)
	link := h.snapshot(f.File)
	for _, dir := range []string{filepath.Dir(blob), filepath.Dir(link)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if _, err := os.Stat(blob); errors.Is(err, os.ErrNotExist) {
		if err := place(f.Name, blob); err != nil {
			return err
		}
	}
	target, err := filepath.Rel(filepath.Dir(link), blob)
	if err != nil {
		return err
	}
	if err := os.Symlink(target, link); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// place copies a file beside its final name and renames it.
func place(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	tmp, err := os.CreateTemp(filepath.Dir(to), ".incomplete-*")
	if err != nil {
		return err
	}
	_, err = io.Copy(tmp, src)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), to)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}
