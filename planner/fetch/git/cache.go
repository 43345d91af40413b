package git

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const metaVersion = 1

// meta is the record of one cached checkout.
type meta struct {
	Version        int         `json:"version"`
	Repo           string      `json:"repo"`
	Commit         string      `json:"commit"`
	CommitDate     time.Time   `json:"commit_date"`
	Submodules     bool        `json:"submodules"`
	Plain          bool        `json:"plain,omitempty"`
	Files          int         `json:"files"`
	Bytes          int64       `json:"bytes"`
	ManifestSHA256 string      `json:"manifest_sha256"`
	Skipped        []Skipped   `json:"skipped,omitempty"`
	Copied         []Copied    `json:"copied,omitempty"`
	LFS            []Pointer   `json:"lfs,omitempty"`
	Modules        []Submodule `json:"modules,omitempty"`
	FetchedAt      time.Time   `json:"fetched_at"`
}

// cacheKey names the folder of a checkout.
func cacheKey(repo, commit string, submodules bool) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "v%d\n%s\n%s\nsubmodules=%t\n", metaVersion, repo, commit, submodules))
	return hex.EncodeToString(sum[:16])
}

// writeManifest writes one line per file, in the order of the walk:
// mode, size, git blob id, quoted path.
func writeManifest(w io.Writer, files []fileEntry) error {
	b := bufio.NewWriterSize(w, 64<<10)
	var line []byte
	for _, f := range files {
		mode := "100644"
		if f.Exec {
			mode = "100755"
		}
		line = fmt.Appendf(line[:0], "%s %d %s ", mode, f.Size, f.ID)
		line = append(strconv.AppendQuote(line, f.Path), '\n')
		if _, err := b.Write(line); err != nil {
			return err
		}
	}
	return b.Flush()
}

// readManifest is the inverse of writeManifest. It refuses paths that a
// checkout cannot hold.
func readManifest(b []byte) ([]fileEntry, error) {
	files := make([]fileEntry, 0, bytes.Count(b, []byte("\n")))
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(f) != 4 || len(f[2]) != 40 || f[0] != "100644" && f[0] != "100755" {
			return nil, fmt.Errorf("malformed manifest line %q", line)
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("malformed size in manifest line %q", line)
		}
		p, err := strconv.Unquote(f[3])
		if err != nil || unsafePath(p) != "" {
			return nil, fmt.Errorf("malformed path in manifest line %q", line)
		}
		files = append(files, fileEntry{Path: p, Exec: f[0] == "100755", Size: n, ID: f[2]})
	}
	return files, nil
}

// publish writes the stage's meta and manifest and renames it to dst. The caller holds dst's lock.
func (c *Cloner) publish(s *stage, dst string, m *meta, files []fileEntry) error {
	var manifest bytes.Buffer
	if err := writeManifest(&manifest, files); err != nil {
		return err
	}
	sum := sha256.Sum256(manifest.Bytes())
	m.Version, m.ManifestSHA256 = metaVersion, hex.EncodeToString(sum[:])
	record, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encode meta: %w", err)
	}
	c.hook("git:meta:before")
	for name, b := range map[string][]byte{"manifest": manifest.Bytes(), "meta.json": record} {
		if err := writeSynced(filepath.Join(s.dir, name), b); err != nil {
			return err
		}
	}
	c.hook("git:meta:after")
	c.hook("git:publish:before")
	if err := os.Rename(s.dir, dst); err != nil {
		return fmt.Errorf("publish checkout: %w", err)
	}
	c.hook("git:publish:after")
	return nil
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}

// cached returns the checkout under a key, or nil when there is none or it is
// damaged. A damaged one is left for whoever holds the key's lock to replace.
func (c *Cloner) cached(key string) (*meta, error) {
	dir := c.path(key)
	b, err := os.ReadFile(filepath.Join(dir, "meta.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read cached checkout: %w", err)
	}
	var m meta
	if json.Unmarshal(b, &m) != nil || m.Version != metaVersion {
		return nil, nil
	}
	if slices.ContainsFunc(m.Skipped, func(s Skipped) bool { return s.Why == whyAbsent }) {
		return nil, nil // the local repository may hold more by now
	}
	manifest, err := os.ReadFile(filepath.Join(dir, "manifest"))
	if err != nil {
		return nil, nil
	}
	if sum := sha256.Sum256(manifest); hex.EncodeToString(sum[:]) != m.ManifestSHA256 {
		return nil, nil
	}
	files, err := readManifest(manifest)
	if err != nil || verifyTree(filepath.Join(dir, "tree"), files) != nil {
		return nil, nil
	}
	return &m, nil
}

// verifyTree checks that a folder holds exactly the listed files with the
// listed contents.
func verifyTree(dir string, files []fileEntry) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open checkout: %w", err)
	}
	defer func() { _ = root.Close() }()
	n := 0
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list checkout: %w", err)
	}
	if n != len(files) {
		return fmt.Errorf("checkout holds %d files, its manifest lists %d", n, len(files))
	}
	buffers := sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	const batch = 64
	for start := 0; start < len(files); start += batch {
		part := files[start:min(start+batch, len(files))]
		g.Go(func() error {
			buf := buffers.Get().(*[]byte)
			defer buffers.Put(buf)
			for _, f := range part {
				if err := verifyFile(root, f, *buf); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func verifyFile(root *os.Root, want fileEntry, buf []byte) error {
	f, err := root.Open(want.Path)
	if err != nil {
		return fmt.Errorf("open %q: %w", want.Path, err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() != want.Size || info.Mode()&0o100 != 0 != want.Exec {
		return fmt.Errorf("%q has another size or mode", want.Path)
	}
	id, _, err := hashFile(f, want.Size, buf)
	if err != nil {
		return fmt.Errorf("read %q: %w", want.Path, err)
	}
	if id.String() != want.ID {
		return fmt.Errorf("%q has another content", want.Path)
	}
	return nil
}
