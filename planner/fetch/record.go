package fetch

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// errNotDir is what the system says where a part of a path is a file.
var errNotDir = error(syscall.ENOTDIR)

// record writes an answer into the mirror that is being filled, in the layout
// that [Config.Mirror] reads. Several processes may fill one mirror.
func (c *Client) record(j *job, res *Response) error {
	name := mirrorName(j.loc.place.host, j.loc.path, j.loc.query, j.rangeSpec())
	if err := os.MkdirAll(c.cfg.Record, 0o755); err != nil {
		return fmt.Errorf("record %s: %w", j.url, err)
	}
	root, err := os.OpenRoot(c.cfg.Record)
	if err != nil {
		return fmt.Errorf("record %s: %w", j.url, err)
	}
	defer root.Close()
	body, err := os.Open(res.Path)
	if err != nil {
		return fmt.Errorf("record %s: %w", j.url, err)
	}
	defer body.Close()
	meta := sidecar{
		URL: j.loc.canonical(), Status: res.Status, ContentType: res.Header.Get("Content-Type"),
		FetchedAt: res.FetchedAt.UTC(), Header: http.Header{},
	}
	if res.FinalURL != res.URL {
		meta.FinalURL = c.canonical(res.FinalURL)
	}
	for _, k := range []string{"Link", "X-Repo-Commit", "X-Linked-Etag", "X-Linked-Size", "X-Error-Code", "X-Error-Message", "Content-Range"} {
		if v := res.Header.Values(k); len(v) > 0 {
			meta.Header[k] = v
		}
	}
	doc, err := json.MarshalIndent(meta, "", "  ")
	if err != nil {
		return fmt.Errorf("record %s: %w", j.url, err)
	}
	c.cfg.Hook("fetch:record:before")
	if err := recordFile(root, name, body, append(doc, '\n')); err != nil {
		return fmt.Errorf("record %s: %w", j.url, err)
	}
	c.cfg.Hook("fetch:record:after")
	return nil
}

// canonical is the URL without a configured endpoint.
func (l location) canonical() string {
	l.base = "https://" + l.place.host
	return l.String()
}

// recordFile makes room for a name and writes body and sidecar. The sidecar
// comes first: a body without it would pass for a status 200.
func recordFile(root *os.Root, name string, body io.ReadSeeker, meta []byte) error {
	// Every round clears one obstacle, and another process may add one.
	name = portable(root, name)
	for range 20 {
		if err := makeRoom(root, path.Dir(name)); err != nil {
			return err
		}
		target := name
		if info, err := root.Lstat(target); err == nil && info.IsDir() {
			target += "@"
		}
		if err := writeIn(root, sidecarOf(target), bytes.NewReader(meta)); err != nil {
			return err
		}
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if err := writeIn(root, target, body); err == nil || !isDirError(err) {
			return err
		}
	}
	return errors.New("its folder keeps changing")
}

func isDirError(err error) bool {
	return errors.Is(err, errNotDir) || errors.Is(err, syscall.EISDIR) || errors.Is(err, fs.ErrExist)
}

// makeRoom creates the folders of dir. A file in the way steps aside under its
// other name, "<name>@".
func makeRoom(root *os.Root, dir string) error {
	for range 20 {
		err := root.MkdirAll(dir, 0o755)
		if err == nil {
			return nil
		}
		if !isDirError(err) {
			return err
		}
		for p := dir; p != "."; p = path.Dir(p) {
			if info, err := root.Lstat(p); err == nil && !info.IsDir() {
				if err := root.Rename(p, p+"@"); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
		}
	}
	return fmt.Errorf("make folder %s: something is always in the way", filepath.FromSlash(dir))
}

// portable is the name, or its other name where a part of it differs from what
// is there in letter case only: so the mirror survives a file system that
// ignores it.
func portable(root *os.Root, name string) string {
	dir := "."
	for part := range strings.SplitSeq(name, "/") {
		entries, err := fs.ReadDir(root.FS(), dir)
		if err != nil {
			break // nothing is there to collide with
		}
		for _, e := range entries {
			if e.Name() != part && strings.EqualFold(e.Name(), part) {
				return otherName(name)
			}
		}
		dir = path.Join(dir, part)
	}
	return name
}

// writeIn writes a file beside its place below root and renames it.
func writeIn(root *os.Root, name string, data io.Reader) error {
	temp := path.Join(path.Dir(name), ".tmp-"+rand.Text())
	f, err := root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = root.Rename(temp, name)
	}
	if err != nil {
		_ = root.Remove(temp) // the first error is the one that counts
	}
	return err
}
