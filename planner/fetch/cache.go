package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// metaVersion is the version of the metadata document. A document of another
// version is no entry.
const metaVersion = 1

// entry is the metadata of a cached answer.
type entry struct {
	V         int         `json:"v"`
	Key       string      `json:"key"`
	URL       string      `json:"url"`
	FinalURL  string      `json:"final_url"`
	Status    int         `json:"status"`
	Header    http.Header `json:"header"`
	SHA256    string      `json:"sha256"`
	Size      int64       `json:"size"`
	FetchedAt time.Time   `json:"fetched_at"`
	// Check is the hash of the document without it.
	Check string `json:"check"`
}

// sum is what Check has to be.
func (e *entry) sum() string {
	bare := *e
	bare.Check = ""
	doc, err := json.Marshal(bare)
	if err != nil {
		return "" // a time that no document holds; it never matches
	}
	s := sha256.Sum256(doc)
	return hex.EncodeToString(s[:])
}

// sound reports whether a document that was read back can be one of ours.
func (e *entry) sound(key string) bool {
	return e.V == metaVersion && e.Key == key && isSHA256(e.SHA256) && e.Size >= 0 &&
		e.Check != "" && e.Check == e.sum()
}

func isSHA256(s string) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == sha256.Size && hex.EncodeToString(raw) == s
}

// cache stores answers below dir. Nothing in it is believed without its hash,
// so its files need no fsync: what a crash tears is fetched again.
type cache struct {
	dir  string
	now  func() time.Time
	hook func(string)
}

func openCache(dir string, now func() time.Time, hook func(string)) (*cache, error) {
	for _, sub := range []string{"blobs", "meta", "lock", "tmp"} {
		if err := makeDir(filepath.Join(dir, sub)); err != nil {
			return nil, err
		}
	}
	return &cache{dir: dir, now: now, hook: hook}, nil
}

// cacheKey identifies a request. who separates what is seen with a token from
// what is seen without.
func cacheKey(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (c *cache) metaPath(key string) string {
	return filepath.Join(c.dir, "meta", key[:2], key+".json")
}

func (c *cache) blobPath(sum string) string {
	return filepath.Join(c.dir, "blobs", sum[:2], sum)
}

// lock makes the caller the only one over all processes to fetch key. Keys
// share 4,096 lock files, so that no lock file ever needs to be removed.
func (c *cache) lock(ctx context.Context, key string) (*flock.Flock, error) {
	l := flock.New(filepath.Join(c.dir, "lock", key[:3]))
	if _, err := l.TryLockContext(ctx, lockPoll); err != nil {
		return nil, fmt.Errorf("lock cache entry: %w", err)
	}
	return l, nil
}

// find returns the entry of key, or nil where there is none that can be used.
func (c *cache) find(key string) (*entry, error) {
	data, err := os.ReadFile(c.metaPath(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read cache entry: %w", err)
	}
	var e entry
	if json.Unmarshal(data, &e) != nil || !e.sound(key) {
		return nil, nil
	}
	return &e, nil
}

// body returns the bytes of an entry, or nil and false where they do not hold.
// Without want they are only checked.
func (c *cache) body(e *entry, want bool) ([]byte, bool) {
	f, err := os.Open(c.blobPath(e.SHA256))
	if err != nil {
		return nil, false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() != e.Size {
		return nil, false
	}
	h := sha256.New()
	var data []byte
	if want {
		data = make([]byte, e.Size)
		if _, err = io.ReadFull(f, data); err == nil {
			h.Write(data)
		}
	} else {
		_, err = io.Copy(h, f)
	}
	if err != nil || hex.EncodeToString(h.Sum(nil)) != e.SHA256 {
		return nil, false
	}
	return data, true
}

// temp makes a file for a body that is arriving.
func (c *cache) temp() (*os.File, error) {
	f, err := os.CreateTemp(filepath.Join(c.dir, "tmp"), "body-*")
	if err != nil {
		return nil, fmt.Errorf("make cache file: %w", err)
	}
	return f, nil
}

// storeBlob moves a complete body to its place. It replaces a blob of the same
// name: the one there may be what a reader found to be corrupt.
func (c *cache) storeBlob(temp, sum string) error {
	path := c.blobPath(sum)
	if err := makeDir(filepath.Dir(path)); err != nil {
		return err
	}
	c.hook("fetch:blob:before")
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("store body: %w", err)
	}
	c.hook("fetch:blob:after")
	return nil
}

// storeMeta makes an entry visible. Its blob must be in place.
func (c *cache) storeMeta(e *entry) error {
	path := c.metaPath(e.Key)
	if err := makeDir(filepath.Dir(path)); err != nil {
		return err
	}
	e.Check = e.sum()
	c.hook("fetch:meta:before")
	if err := writeJSON(path, e); err != nil {
		return fmt.Errorf("store cache entry: %w", err)
	}
	c.hook("fetch:meta:after")
	return nil
}

// fresh reports whether an entry may still be used without asking. What was
// stored since a request began is fresh for it whatever its maxAge. An entry
// from the future is the work of a clock that was wrong, here or there.
func (c *cache) fresh(e *entry, maxAge time.Duration, since time.Time) bool {
	age := c.now().Sub(e.FetchedAt)
	return age >= -5*time.Minute && (age < maxAge || e.FetchedAt.After(since))
}
