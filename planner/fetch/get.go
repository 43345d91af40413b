package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"time"
)

// Request is what is asked for.
type Request struct {
	// URL is a URL of a known site; it is rebuilt before use.
	URL string
	// Accept is the media type, empty means any.
	Accept string
	// MaxBytes caps the decompressed body, 0 means the client's cap.
	MaxBytes int64
	// MaxAge is how old a cached answer may be: 0 means the client's life,
	// negative means that the site is asked in any case.
	MaxAge time.Duration
	// Offset and Length ask for a part of the resource, in bytes. Length 0
	// means all of it.
	Offset, Length int64
	// Timeout replaces the cap on the time of one answer, 0 keeps it.
	Timeout time.Duration
	// NoBody leaves Response.Body nil: the caller reads Response.Path.
	NoBody bool
	// NoStore keeps the answer out of the cache and of the recorded mirror: for
	// pieces of large files that are read once. Response.Path is empty.
	NoStore bool
	// Check looks at an answer from the network before it is stored: for
	// sites that send errors with status 200. An answer with an error is not
	// stored; the error is returned, after retries if it wraps ErrTransient.
	Check func(*Response) error
}

// Response is an answer.
type Response struct {
	// URL is the rebuilt URL that was asked for, FinalURL the one that
	// answered after redirects, without the signature of a content network.
	URL, FinalURL string
	// Canonical is FinalURL at the site's own host, also where an endpoint is
	// configured in its stead.
	Canonical string
	Status    int
	// Header holds the headers that mean something to a caller.
	Header http.Header
	Body   []byte
	// Path is a file with the body, not to be written to. It stays valid
	// until the cache is pruned.
	Path   string
	Size   int64
	SHA256 string // of the body, hex
	// FetchedAt is when the site sent or confirmed this answer. It is zero
	// for a mirror's file without a sidecar.
	FetchedAt             time.Time
	FromCache, FromMirror bool
}

// job is a request that passed the guard.
type job struct {
	Request
	loc   location
	key   string
	url   string
	start time.Time
}

// Get returns the answer to a request, from the mirror, the cache or the site.
//
// Errors: [*BlockedError] for what the guard refuses, [*StatusError] for a
// status other than success, [*TooLargeError], [*TimeoutError],
// [*NotInMirrorError], and the context's error.
func (c *Client) Get(ctx context.Context, r Request) (*Response, error) {
	res, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	if res.Status < 200 || res.Status > 299 {
		return nil, statusError(res)
	}
	return res, nil
}

func statusError(res *Response) *StatusError {
	return &StatusError{
		URL: res.URL, Status: res.Status, Header: res.Header,
		Excerpt: string(res.Body[:min(len(res.Body), maxExcerpt)]),
	}
}

// do returns an answer with any final status.
func (c *Client) do(ctx context.Context, r Request) (*Response, error) {
	j, err := c.newJob(r)
	if err != nil {
		return nil, err
	}
	if c.cfg.Mirror != "" {
		res, err := c.fromMirror(j)
		if err == nil {
			res.Canonical = c.canonical(res.FinalURL)
		}
		return res, err
	}
	var res *Response
	if j.NoStore {
		res, err = c.pass(ctx, j)
	} else {
		res, err = c.cached(ctx, j)
	}
	if err != nil {
		return nil, err
	}
	res.Canonical = c.canonical(res.FinalURL)
	if c.cfg.Record != "" && !j.NoStore {
		if err := c.record(j, res); err != nil {
			return nil, err
		}
	}
	return res, nil
}

func (c *Client) canonical(url string) string {
	if loc, err := c.rebuild(url); err == nil {
		return loc.canonical()
	}
	return url // a content network's
}

func (c *Client) newJob(r Request) (*job, error) {
	loc, err := c.rebuild(r.URL)
	if err != nil {
		return nil, err
	}
	if r.Offset < 0 || r.Length < 0 || r.Length == 0 && r.Offset != 0 || r.Offset+r.Length < 0 {
		return nil, fmt.Errorf("get %s: range of %d bytes from %d", loc, r.Length, r.Offset)
	}
	if r.Accept == "" {
		r.Accept = "*/*"
	}
	if r.MaxBytes <= 0 {
		r.MaxBytes = c.cfg.MaxBytes
	}
	if r.MaxAge == 0 {
		r.MaxAge = c.cfg.MaxAge
	}
	if r.Timeout <= 0 {
		r.Timeout = c.cfg.Timeouts.Total
	}
	j := &job{Request: r, loc: loc, url: loc.String(), start: c.cfg.Now()}
	who := ""
	if t := c.token(loc); t != "" {
		sum := sha256.Sum256([]byte(t))
		who = hex.EncodeToString(sum[:])
	}
	j.key = cacheKey("GET", j.url, r.Accept, j.rangeSpec(), who)
	return j, nil
}

// rangeSpec is the value of the Range header, or "".
func (r *Request) rangeSpec() string {
	if r.Length == 0 {
		return ""
	}
	return fmt.Sprintf("bytes=%d-%d", r.Offset, r.Offset+r.Length-1)
}

// cached answers from the cache, or fetches while holding the key's lock.
func (c *Client) cached(ctx context.Context, j *job) (*Response, error) {
	if res, _, err := c.use(j); res != nil || err != nil {
		return res, err
	}
	lock, err := c.cache.lock(ctx, j.key)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	// Whoever held the lock may have fetched it.
	res, e, err := c.use(j)
	if res != nil || err != nil {
		return res, err
	}
	if e != nil {
		if _, ok := c.cache.body(e, false); !ok {
			e = nil
		}
	}
	return c.refresh(ctx, j, e)
}

// pass answers from the site and leaves nothing behind.
func (c *Client) pass(ctx context.Context, j *job) (*Response, error) {
	a, err := c.fetch(ctx, j, nil)
	if err != nil {
		return nil, err
	}
	defer a.discard()
	body, err := os.ReadFile(a.path)
	if err != nil {
		return nil, fmt.Errorf("get %s: read its body: %w", j.url, err)
	}
	return &Response{
		URL: j.url, FinalURL: a.finalURL, Status: a.status, Header: a.header,
		Body: body, Size: a.size, SHA256: a.sum, FetchedAt: c.cfg.Now().UTC(),
	}, nil
}

// use returns the stored answer if it is sound and fresh enough, and otherwise
// the stored entry that may be revalidated, if any.
func (c *Client) use(j *job) (*Response, *entry, error) {
	e, err := c.cache.find(j.key)
	if e == nil || err != nil {
		return nil, nil, err
	}
	maxAge := j.MaxAge
	if isMissing(e.Status) {
		maxAge = min(maxAge, c.cfg.MissingAge)
	}
	if !c.cache.fresh(e, maxAge, j.start) {
		return nil, e, nil
	}
	if e.Size > j.MaxBytes {
		if _, ok := c.cache.body(e, false); !ok {
			return nil, nil, nil
		}
		return nil, e, tooLarge(j, fmt.Sprintf("%d bytes, more than the cap of %d", e.Size, j.MaxBytes))
	}
	res, ok := c.respond(j, e)
	if !ok {
		return nil, nil, nil
	}
	res.FromCache = true
	return res, e, nil
}

// respond makes the answer of an entry, or reports that its body is gone.
func (c *Client) respond(j *job, e *entry) (*Response, bool) {
	body, ok := c.cache.body(e, !j.NoBody || e.Status >= 300)
	if !ok {
		return nil, false
	}
	return &Response{
		URL: e.URL, FinalURL: e.FinalURL, Status: e.Status, Header: e.Header.Clone(),
		Body: body, Path: c.cache.blobPath(e.SHA256), Size: e.Size, SHA256: e.SHA256, FetchedAt: e.FetchedAt,
	}, true
}

// refresh asks the site and stores what may be stored. old, where there is
// one, is offered for revalidation.
func (c *Client) refresh(ctx context.Context, j *job, old *entry) (*Response, error) {
	a, err := c.fetch(ctx, j, old)
	if err != nil {
		return nil, err
	}
	defer a.discard()
	e := &entry{
		V: metaVersion, Key: j.key, URL: j.url, FinalURL: a.finalURL, Status: a.status,
		Header: a.header, SHA256: a.sum, Size: a.size, FetchedAt: c.cfg.Now().UTC(),
	}
	if a.status == http.StatusNotModified && old != nil {
		e = old
		e.FetchedAt = c.cfg.Now().UTC()
	} else if err := c.cache.storeBlob(a.path, a.sum); err != nil {
		return nil, err
	}
	res, ok := c.respond(j, e)
	if !ok {
		return nil, fmt.Errorf("get %s: its body cannot be read back from the cache", j.url)
	}
	res.FromCache = a.status == http.StatusNotModified
	if storable(e.Status) {
		if err := c.cache.storeMeta(e); err != nil {
			return nil, err
		}
	}
	return res, nil
}

func isMissing(status int) bool {
	return status == http.StatusNotFound || status == http.StatusGone
}

func storable(status int) bool {
	return status == http.StatusOK || status == http.StatusPartialContent || isMissing(status)
}
