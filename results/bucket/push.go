package bucket

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
	"golang.org/x/sync/errgroup"

	"github.com/repromill/repromill/results/dataset"
)

// Pushed is what became of a run that was pushed.
type Pushed struct {
	RunID    string `json:"run_id"`
	Manifest string `json:"manifest"` // URL
	Files    int    `json:"files"`    // sent now
	Bytes    int64  `json:"bytes"`    // of them
	// Already is true when the run was committed there before; Other says that
	// the bytes there are those of another commit of the same run, which stay.
	Already bool `json:"already"`
	Other   bool `json:"other_commit,omitempty"`
}

// ConflictError says that another commit of the run was begun there, with other
// bytes, and did not come to its end.
type ConflictError struct{ RunID, Bucket string }

func (e *ConflictError) Error() string {
	return fmt.Sprintf("another commit of run %s was begun in %s and has not come to its end: %s", e.RunID, e.Bucket, e.UserError())
}

// UserError returns the fix.
func (e *ConflictError) UserError() string {
	return "push it from where it was begun, or, when that place is gone for good: `repromill results push --take-over " + e.RunID + "`"
}

// Push commits a run of a dataset to the bucket. It may be killed anywhere and
// repeated: it goes on where it stood, and a run that is there stays as it is.
// takeOver replaces what a commit with other bytes has left unfinished, which
// is for the case in which nobody can finish that one.
func (b *Bucket) Push(ctx context.Context, d *dataset.Dataset, runID string, takeOver bool) (Pushed, error) {
	out := Pushed{RunID: runID, Manifest: b.name + "/" + manifestKey(runID)}
	m, err := d.Manifest(runID)
	if err != nil {
		return out, err
	}
	if d.Merged(m) {
		// Merged files hold rows of other runs, which are pushed by themselves.
		dir, err := os.MkdirTemp("", "repromill-push-")
		if err != nil {
			return out, fmt.Errorf("push run %s: %w", runID, err)
		}
		defer os.RemoveAll(dir)
		if d, err = d.Extract(ctx, runID, dir); err == nil {
			m, err = d.Manifest(runID)
		}
		if err != nil {
			return out, fmt.Errorf("push run %s: %w", runID, err)
		}
	}
	doc, err := os.ReadFile(filepath.Join(d.Root(), filepath.FromSlash(manifestKey(runID))))
	if err != nil {
		return out, fmt.Errorf("push run %s: %w", runID, err)
	}
	if done, err := b.committed(ctx, &out, m); done || err != nil {
		return out, err
	}
	if err := b.intend(ctx, runID, doc, takeOver); err != nil {
		return out, err
	}
	// Whoever committed the run between the two looks has removed its intent
	// after that, so it shows now.
	if done, err := b.committed(ctx, &out, m); done || err != nil {
		return out, err
	}
	if err := b.send(ctx, d, m, &out); err != nil {
		return out, fmt.Errorf("push run %s: %w", runID, err)
	}
	b.cfg.Hook("bucket:manifest:before")
	there, err := b.writeOnce(ctx, manifestKey(runID), doc)
	if err != nil {
		return out, fmt.Errorf("push run %s: %w", runID, err)
	}
	b.cfg.Hook("bucket:manifest:after")
	out.Other = !sameDocument(there, doc)
	return out, b.clear(ctx, runID)
}

// committed looks whether the run is there, and tidies up after it if so.
func (b *Bucket) committed(ctx context.Context, out *Pushed, m *dataset.Manifest) (bool, error) {
	there, err := b.read(ctx, manifestKey(out.RunID))
	if err != nil || there == nil {
		return false, err
	}
	have, err := dataset.ParseManifest(there)
	if err != nil {
		return false, &dataset.CorruptError{Path: out.Manifest, Reason: err.Error() + "; remove it and push the run again"}
	}
	out.Already, out.Other = true, !have.SameCommit(m)
	return true, b.clear(ctx, out.RunID)
}

// intend claims the run for these bytes.
func (b *Bucket) intend(ctx context.Context, runID string, doc []byte, takeOver bool) error {
	b.cfg.Hook("bucket:intent:before")
	there, err := b.writeOnce(ctx, intentKey(runID), doc)
	if err != nil {
		return fmt.Errorf("push run %s: %w", runID, err)
	}
	if !sameDocument(there, doc) {
		if !takeOver {
			return &ConflictError{runID, b.name}
		}
		if err := b.b.WriteAll(ctx, intentKey(runID), doc, &blob.WriterOptions{ContentType: "application/json"}); err != nil {
			return b.explain("take over run "+runID, err)
		}
	}
	b.cfg.Hook("bucket:intent:after")
	return nil
}

func (b *Bucket) clear(ctx context.Context, runID string) error {
	b.cfg.Hook("bucket:clear:before")
	err := b.b.Delete(ctx, intentKey(runID))
	if err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return b.explain("remove the intent of run "+runID, err)
	}
	b.cfg.Hook("bucket:clear:after")
	return nil
}

// send puts all files of a manifest in their places, but for those that an
// earlier push has put there.
func (b *Bucket) send(ctx context.Context, d *dataset.Dataset, m *dataset.Manifest, out *Pushed) error {
	var list []source
	schemas := map[string]bool{}
	for _, f := range m.Files {
		list = append(list, source{f.Path, f.SHA256, f.Bytes})
		schemas[path.Join(f.Table, f.SchemaVersion, schemaDoc)] = true
	}
	for _, a := range m.Attachments {
		list = append(list, source{a.Path, a.SHA256, a.Bytes})
	}
	for key := range schemas {
		if err := b.sendSchema(ctx, d, key); err != nil {
			return err
		}
	}
	sent := make([]bool, len(list))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(b.cfg.Parallel)
	var err error
	for i, s := range list {
		one := func() (err error) {
			sent[i], err = b.sendFile(ctx, d, s)
			return err
		}
		if b.cfg.Parallel > 1 {
			g.Go(one)
		} else if err = one(); err != nil {
			break
		}
	}
	err = errors.Join(err, g.Wait())
	for i, s := range list {
		if sent[i] {
			out.Files, out.Bytes = out.Files+1, out.Bytes+s.bytes
		}
	}
	return err
}

// sendSchema keeps a table's _schema.json, which describes the columns to
// people, like that of the dataset.
func (b *Bucket) sendSchema(ctx context.Context, d *dataset.Dataset, key string) error {
	doc, err := os.ReadFile(filepath.Join(d.Root(), filepath.FromSlash(key)))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if there, err := b.read(ctx, key); err != nil || bytes.Equal(there, doc) {
		return err
	}
	b.cfg.Hook("bucket:schema:before")
	if err := b.b.WriteAll(ctx, key, doc, &blob.WriterOptions{ContentType: "application/json"}); err != nil {
		return b.explain("write "+key, err)
	}
	b.cfg.Hook("bucket:schema:after")
	return nil
}

// sendFile sends one file, checking its bytes against the manifest on the way:
// an object appears with the end of its writing only, and a file that is
// damaged does not get there.
func (b *Bucket) sendFile(ctx context.Context, d *dataset.Dataset, s source) (sent bool, err error) {
	if at, err := b.b.Attributes(ctx, s.key); err == nil && at.Size == s.bytes && at.Metadata[metaSHA256] == s.sha256 {
		return false, nil
	} else if err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return false, b.explain("look at "+s.key, err)
	}
	f, err := s.open(d)
	if err != nil {
		return false, err
	}
	defer f.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	b.cfg.Hook("bucket:file:before")
	w, err := b.b.NewWriter(ctx, s.key, &blob.WriterOptions{ContentType: contentType(s.key), Metadata: map[string]string{metaSHA256: s.sha256}})
	if err != nil {
		return false, b.explain("write "+s.key, err)
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, h), f)
	if err == nil && (n != s.bytes || digest(h) != s.sha256) {
		err = &dataset.CorruptError{Path: f.Name(), Reason: "its content is not the one in the manifest"}
	}
	if err != nil {
		stop() // an object that is given up does not appear
		return false, errors.Join(err, ignoreCancel(w.Close()))
	}
	if err := w.Close(); err != nil {
		return false, b.explain("write "+s.key, err)
	}
	b.cfg.Hook("bucket:file:after")
	return true, nil
}

func digest(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

func ignoreCancel(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || gcerrors.Code(err) == gcerrors.Canceled || strings.Contains(err.Error(), "context canceled") {
		return nil
	}
	return err
}

func contentType(key string) string {
	switch path.Ext(key) {
	case ".parquet":
		return "application/vnd.apache.parquet"
	case ".json":
		return "application/json"
	case ".md":
		return "text/markdown; charset=utf-8"
	}
	return "application/octet-stream"
}
