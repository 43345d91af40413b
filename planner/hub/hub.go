// Package hub reads the files of a model on the Hugging Face Hub as a
// [model.Source]: small files as a whole, files of weights by ranges, so that
// the headers of a checkpoint of any size cost a few requests and the weights
// are never downloaded unless they are asked for.
//
// What the server says about a range is checked before a byte of it is used:
// the place, the length, the size of the file, and that the file is still the
// one that was opened.
package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/planner/model"
)

// Client is what the package needs of [fetch.Client].
type Client interface {
	Get(ctx context.Context, r fetch.Request) (*fetch.Response, error)
	URL(s fetch.Site, path string, query url.Values) (string, error)
}

// Config names a model. Client, ID and Revision are needed.
type Config struct {
	Client   Client
	ID       string // org/name
	Revision string // commit, or what stands for one in a mirror
	// Sizes are the files of the revision with their sizes in bytes, 0 where one
	// is not known. A file that is not among them is not asked for. Nil means
	// that the files are not known.
	Sizes map[string]int64
	// Stream is set where weights are read: ranges then pass by the cache.
	Stream bool
}

// Source reads the files of one revision. It is safe for concurrent use.
type Source struct {
	cfg      Config
	requests atomic.Int64
	bytes    atomic.Int64
}

// New returns the source of a model's files.
func New(cfg Config) *Source { return &Source{cfg: cfg} }

// Traffic is how many requests were answered so far, and the bytes of their
// bodies; answers from a cache count as if they had come over the network.
func (s *Source) Traffic() (requests, bytes int64) { return s.requests.Load(), s.bytes.Load() }

// Streaming returns a source of the same files whose ranges pass by the cache.
func (s *Source) Streaming() *Source {
	cfg := s.cfg
	cfg.Stream = true
	return New(cfg)
}

// DeniedError is a file that the hub does not give to this user.
type DeniedError struct {
	ID, File string
	Status   int
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("the hub does not hand out %s of %s (%d %s)", e.File, e.ID, e.Status, http.StatusText(e.Status))
}

// UserError is what the user can do.
func (e *DeniedError) UserError() string {
	return "accept the conditions at https://huggingface.co/" + e.ID + " and set HF_TOKEN to a token of that account"
}

// AnswerError is an answer to a range that cannot be true.
type AnswerError struct{ URL, Why string }

func (e *AnswerError) Error() string { return "read " + e.URL + ": " + e.Why }

// UserError is what the user can do.
func (e *AnswerError) UserError() string {
	return "check what HF_ENDPOINT points to and any proxy on the way, then try again; nothing of the answer was used"
}

// Open implements [model.Source]. Files of weights are read by ranges, others
// as a whole. A pickle is never opened.
func (s *Source) Open(ctx context.Context, name string) (model.File, error) {
	if name == "" || strings.ContainsAny(name, "/\\\x00") || name == "." || name == ".." {
		return nil, fmt.Errorf("open file of %s: %q is no file name", s.cfg.ID, name)
	}
	size, listed := s.cfg.Sizes[name]
	if s.cfg.Sizes != nil && !listed {
		return nil, fmt.Errorf("open %s of %s: %w", name, s.cfg.ID, fs.ErrNotExist)
	}
	u, err := s.cfg.Client.URL(fetch.HF, fetch.Path(append(strings.Split(s.cfg.ID, "/"), "resolve", s.cfg.Revision, name)...), nil)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(name, ".safetensors") {
		return s.whole(ctx, name, u)
	}
	f := &file{s: s, ctx: ctx, name: name, url: u, size: size}
	if size == 0 {
		err = f.probe()
	}
	return f, err
}

// maxWhole bounds a file that is read as a whole, in bytes.
const maxWhole = model.MaxIndex

func (s *Source) whole(ctx context.Context, name, u string) (model.File, error) {
	res, err := s.get(ctx, name, fetch.Request{URL: u, MaxBytes: maxWhole})
	if err != nil {
		return nil, err
	}
	return &memory{strings.NewReader(string(res.Body))}, nil
}

type memory struct{ *strings.Reader }

func (m *memory) Close() error { return nil }
func (m *memory) Size() int64  { return m.Reader.Size() }

// get asks, and says in the terms of a source what a refusal means.
func (s *Source) get(ctx context.Context, name string, r fetch.Request) (*fetch.Response, error) {
	res, err := s.cfg.Client.Get(ctx, r)
	var status *fetch.StatusError
	var missing *fetch.NotInMirrorError
	switch {
	case errors.As(err, &status) && (status.Status == http.StatusNotFound || status.Status == http.StatusGone):
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	case errors.As(err, &status) && (status.Status == http.StatusUnauthorized || status.Status == http.StatusForbidden):
		return nil, &DeniedError{ID: s.cfg.ID, File: name, Status: status.Status}
	case errors.As(err, &missing):
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	case err != nil:
		return nil, err
	}
	s.requests.Add(1)
	s.bytes.Add(int64(len(res.Body)))
	return res, nil
}

// file is a file of weights. Its context is that of Open, as io.ReaderAt takes
// none.
type file struct {
	s         *Source
	ctx       context.Context
	name, url string

	mu   sync.Mutex
	size int64
	tag  string
	head []byte // what probe read
}

func (f *file) Close() error { return nil }
func (f *file) Size() int64  { return f.size }

// probeBytes is what the first read of a file of unknown size asks for. Most
// headers of files with few large tensors fit.
const probeBytes = 8 << 10

// probe learns the size of a file from its first bytes.
func (f *file) probe() error {
	body, size, err := f.ask(0, probeBytes)
	if err != nil {
		return err
	}
	if size < 0 {
		return &AnswerError{f.url, "the server does not say how long the file is"}
	}
	f.size, f.head = size, body
	return nil
}

// ReadAt implements [io.ReaderAt].
func (f *file) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 || at >= f.size {
		return 0, io.EOF
	}
	want := b[:min(int64(len(b)), f.size-at)]
	n := 0
	if at < int64(len(f.head)) {
		n = copy(want, f.head[at:])
	}
	for n < len(want) {
		piece := want[n:min(len(want), n+maxPiece)]
		body, _, err := f.ask(at+int64(n), int64(len(piece)))
		n += copy(piece, body)
		if err != nil {
			return n, err
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// maxPiece is the longest range of one request, in bytes.
const maxPiece = 16 << 20

// ask reads one range and checks the answer. Size is that of the file as the
// answer has it, -1 where it has none.
func (f *file) ask(at, n int64) (body []byte, size int64, err error) {
	res, err := f.s.get(f.ctx, f.name, fetch.Request{
		URL: f.url, Offset: at, Length: n, MaxBytes: at + n + maxPiece, NoStore: f.s.cfg.Stream,
	})
	if err != nil {
		var big *fetch.TooLargeError
		if errors.As(err, &big) {
			err = &AnswerError{f.url, "the server ignores ranges and sends the whole file"}
		}
		return nil, 0, err
	}
	bad := func(format string, args ...any) ([]byte, int64, error) {
		return nil, 0, &AnswerError{f.url, fmt.Sprintf(format, args...)}
	}
	got := int64(len(res.Body))
	size = -1
	if r := res.Header.Get("Content-Range"); r != "" {
		first, last, total, ok := contentRange(r)
		if !ok || first != at || got > n || total >= 0 && last >= total || last-first+1 < got {
			return bad("the answer to bytes %d to %d is labelled %.60q and has %d bytes", at, at+n-1, r, got)
		}
		size = total
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.size > 0 && size >= 0 && size != f.size {
		return bad("the file has %d bytes and was said to have %d", size, f.size)
	}
	if known := max(size, f.size); known > 0 && got < min(n, known-at) || got == 0 {
		return bad("%d bytes came of the %d from %d on", got, n, at)
	}
	// A weak tag may differ between servers that hold the same bytes.
	if tag := res.Header.Get("Etag"); strings.HasPrefix(tag, `"`) {
		if f.tag != "" && f.tag != tag {
			return bad("the file changed while it was read (its tag was %.80s and is %.80s)", f.tag, tag)
		}
		f.tag = tag
	}
	return res.Body, size, nil
}

// contentRange reads "bytes 0-99/1000"; total is -1 for a star.
func contentRange(s string) (first, last, total int64, ok bool) {
	var of string
	if n, _ := fmt.Sscanf(s, "bytes %d-%d/%s", &first, &last, &of); n != 3 || first < 0 || last < first {
		return 0, 0, 0, false
	}
	if of == "*" {
		return first, last, -1, true
	}
	n, err := fmt.Sscanf(of, "%d", &total)
	return first, last, total, err == nil && n == 1 && total >= 0 && fmt.Sprint(total) == of
}
