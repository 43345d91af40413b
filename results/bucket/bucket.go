// Package bucket keeps the results of runs in an object store, in the layout
// that they have in a results folder (package dataset), so that DuckDB, Polars
// and pandas read them from there as they are.
//
// Object stores rename nothing, so a run is put there in another order than it
// is committed to a folder:
//
//	_runs/<run_id>/intent.json     the manifest to come; whoever writes it first commits the run
//	<table>/…/part-<run_id>-0.parquet and the attachments
//	_runs/<run_id>/manifest.json   the commit point
//
// and the intent is removed last. The intent and the manifest are written on
// the condition that there is none, which S3, Google's and Azure's stores hold
// for all of their clients. So only one commit's bytes are ever put in the place
// of a run, however many processes push it and wherever they are killed:
// pushing may happen any number of times, the rows are there once.
package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/repromill/repromill/results/dataset"
)

// Config tunes a bucket. Its zero value works.
type Config struct {
	// Hook, when not nil, is called before and after every durable step, with
	// "bucket:<what>:<before|after>".
	Hook func(point string)
	// Parallel bounds the files of a run that are sent at once; 0 is 4.
	Parallel int
}

// Bucket is a results folder in an object store. It is safe for concurrent
// use, also by several processes.
type Bucket struct {
	b    *blob.Bucket
	name string
	cfg  Config
}

// UserError is a mistake of the user's, with the way to put it right.
type UserError struct{ Message, Fix string }

func (e *UserError) Error() string { return e.Message + ": " + e.Fix }

// UserError returns the fix.
func (e *UserError) UserError() string { return e.Fix }

// Schemes lists what a URL of [Open] may begin with.
func Schemes() []string { return []string{"s3", "gs", "azblob", "file"} }

// Open opens the object store at a URL, without reaching for it yet:
//
//	s3://BUCKET/PREFIX?region=…&endpoint=https://…&use_path_style=true
//	gs://BUCKET/PREFIX
//	azblob://CONTAINER/PREFIX
//	file:///FOLDER
//
// Queries are those of gocloud.dev/blob's drivers. Credentials come from where
// each store's own tools take them (AWS_ACCESS_KEY_ID, AWS_PROFILE, workload
// identity, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT, …) and never
// from the URL. A folder holds conditions within one process only, so one
// process at a time may push to it.
func Open(ctx context.Context, raw string, cfg Config) (*Bucket, error) {
	u, err := url.Parse(raw)
	if err != nil || !slices.Contains(Schemes(), u.Scheme) {
		return nil, &UserError{fmt.Sprintf("%q names no object store", redacted(raw)), "use s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, azblob://CONTAINER/PREFIX or file:///FOLDER"}
	}
	if u.User != nil {
		return nil, &UserError{fmt.Sprintf("the URL %s holds credentials", redacted(raw)), "give them the way the store's own tools take them, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"}
	}
	name := u.Scheme + "://" + u.Host + u.Path
	prefix := ""
	q := u.Query()
	if u.Scheme == "file" {
		if u.Host != "" || !filepath.IsAbs(u.Path) {
			return nil, &UserError{fmt.Sprintf("%q names no folder", raw), "give an absolute path with three slashes, such as file:///srv/results"}
		}
		q.Set("create_dir", "true")
		q.Set("metadata", "skip")   // no files beside the data
		q.Set("no_tmp_dir", "true") // what is renamed has to be on the same file system
	} else {
		if u.Host == "" {
			return nil, &UserError{fmt.Sprintf("%q names no bucket", raw), "give its name after the two slashes"}
		}
		prefix, u.Path = strings.Trim(u.Path, "/"), ""
	}
	if u.Scheme == "s3" && !q.Has(responseChecksums) {
		q.Set(responseChecksums, "when_required") // hashes are compared here, and other stores than Amazon's send none
	}
	u.RawQuery = q.Encode()
	b, err := blob.OpenBucket(ctx, u.String())
	if err != nil {
		return nil, &UserError{fmt.Sprintf("the object store %s cannot be opened: %v", name, err), "correct the URL, and see that the store's credentials are in the environment"}
	}
	if prefix != "" {
		b = blob.PrefixedBucket(b, prefix+"/")
	}
	return open(b, name, cfg), nil
}

func open(b *blob.Bucket, name string, cfg Config) *Bucket {
	if cfg.Hook == nil {
		cfg.Hook = func(string) {}
	}
	if cfg.Parallel <= 0 {
		cfg.Parallel = 4
	}
	return &Bucket{b: b, name: name, cfg: cfg}
}

// redacted is a URL without what might be a password.
func redacted(raw string) string {
	if i := strings.LastIndex(raw, "@"); i >= 0 {
		if j := strings.Index(raw, "://"); j >= 0 && j < i {
			return raw[:j+3] + "…" + raw[i:]
		}
	}
	return raw
}

// Name is the URL without its query.
func (b *Bucket) Name() string { return b.name }

// Close ends the use of the bucket.
func (b *Bucket) Close() error { return b.b.Close() }

const responseChecksums = "response_checksum_validation"

const (
	runsPrefix  = "_runs/"
	manifestDoc = "manifest.json"
	intentDoc   = "intent.json"
	schemaDoc   = "_schema.json"
	metaSHA256  = "sha256"
	maxDocument = 64 << 20
)

func manifestKey(runID string) string { return runsPrefix + runID + "/" + manifestDoc }
func intentKey(runID string) string   { return runsPrefix + runID + "/" + intentDoc }

// Manifest reads the manifest of a run that is in the bucket; nil is none.
func (b *Bucket) Manifest(ctx context.Context, runID string) (*dataset.Manifest, error) {
	doc, err := b.read(ctx, manifestKey(runID))
	if err != nil || doc == nil {
		return nil, err
	}
	m, err := dataset.ParseManifest(doc)
	if err == nil && m.RunID != runID {
		err = fmt.Errorf("it is of run %s", m.RunID)
	}
	if err != nil {
		return nil, &dataset.CorruptError{Path: b.name + "/" + manifestKey(runID), Reason: err.Error()}
	}
	return m, nil
}

// Runs lists the runs that are in the bucket or were begun there, and whether
// they are committed.
func (b *Bucket) Runs(ctx context.Context) (map[string]bool, error) {
	out := map[string]bool{}
	it := b.b.List(&blob.ListOptions{Prefix: runsPrefix})
	for {
		o, err := it.Next(ctx)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, b.explain("list", err)
		}
		id, doc, ok := strings.Cut(strings.TrimPrefix(o.Key, runsPrefix), "/")
		if ok {
			out[id] = out[id] || doc == manifestDoc
		}
	}
}

// read reads a small object; nil is none.
func (b *Bucket) read(ctx context.Context, key string) ([]byte, error) {
	r, err := b.b.NewReader(ctx, key, nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, b.explain("read "+key, err)
	}
	defer r.Close()
	doc, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return nil, b.explain("read "+key, err)
	}
	if len(doc) > maxDocument {
		return nil, fmt.Errorf("read %s/%s: it is larger than %d bytes", b.name, key, maxDocument)
	}
	if doc == nil {
		doc = []byte{}
	}
	return doc, nil
}

// conflictTries bounds the repetition of a conditional write that met another
// one of the same object, which S3 answers with 409.
const conflictTries = 5

// writeOnce writes a small object that is not there yet, and returns what is
// there in the end. A write whose answer was lost is found done.
func (b *Bucket) writeOnce(ctx context.Context, key string, doc []byte) (there []byte, err error) {
	for try := 1; ; try++ {
		err = b.b.WriteAll(ctx, key, doc, &blob.WriterOptions{ContentType: "application/json", IfNotExist: true})
		if err == nil {
			return doc, nil
		}
		lost := gcerrors.Code(err) == gcerrors.FailedPrecondition
		if lost || conflict(err) {
			there, rerr := b.read(ctx, key)
			if there != nil || rerr != nil {
				return there, rerr
			}
		}
		if !lost && !conflict(err) || try == conflictTries {
			return nil, b.explain("write "+key, err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Duration(try) * 200 * time.Millisecond):
		}
	}
}

// conflict is the answer of a store that is at work on the same key for
// somebody else.
func conflict(err error) bool {
	return strings.Contains(err.Error(), "ConditionalRequestConflict") || strings.Contains(err.Error(), "StatusCode: 409")
}

// explain turns an error of a store into one that says what to do.
func (b *Bucket) explain(what string, err error) error {
	switch {
	case err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return err
	case gcerrors.Code(err) == gcerrors.PermissionDenied, strings.Contains(err.Error(), "StatusCode: 403"), strings.Contains(err.Error(), "get credentials"):
		return &UserError{fmt.Sprintf("%s in %s: the store does not allow it: %v", what, b.name, err), "put credentials that may read and write there into the environment"}
	case strings.Contains(err.Error(), "NoSuchBucket"):
		return &UserError{fmt.Sprintf("%s: the bucket does not exist", b.name), "create it, or correct the URL"}
	}
	return fmt.Errorf("%s in %s: %w", what, b.name, err)
}

// sameDocument compares manifests by their bytes.
func sameDocument(a, b []byte) bool { return bytes.Equal(a, b) }

// source is a file of the dataset that is about to be sent.
type source struct {
	key, sha256 string
	bytes       int64
}

func (s source) open(d *dataset.Dataset) (*os.File, error) {
	return os.Open(filepath.Join(d.Root(), filepath.FromSlash(s.key)))
}
