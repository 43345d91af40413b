package bucket

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"gocloud.dev/gcerrors"

	"github.com/repromill/repromill/results/dataset"
)

// Verify reads every object that a manifest of the bucket names and compares it
// with its hash, and looks for data that no manifest names. Problems are data;
// the error is for a bucket that cannot be looked at.
func (b *Bucket) Verify(ctx context.Context) (*dataset.VerifyReport, error) {
	rep := &dataset.VerifyReport{Problems: []dataset.Problem{}}
	runs, err := b.Runs(ctx)
	if err != nil {
		return nil, err
	}
	owned, half := map[string]bool{}, map[string]bool{}
	for _, id := range slices.Sorted(maps.Keys(runs)) {
		if !runs[id] {
			half[id] = true
			rep.Problems = append(rep.Problems, dataset.Problem{Kind: dataset.HalfCommit, RunID: id, Path: intentKey(id), Message: "a push was cut short", Fix: "push the run again: `repromill results push " + id + "`"})
			continue
		}
		m, err := b.Manifest(ctx, id)
		var corrupt *dataset.CorruptError
		if errors.As(err, &corrupt) {
			rep.Problems = append(rep.Problems, dataset.Problem{Kind: dataset.ManifestDamaged, RunID: id, Path: manifestKey(id), Message: corrupt.Reason, Fix: "remove it and push the run again"})
			continue
		}
		if err != nil || m == nil {
			return nil, errors.Join(err, ctx.Err())
		}
		rep.Runs++
		if err := b.verifyRun(ctx, m, rep, owned); err != nil {
			return nil, err
		}
	}
	return rep, b.strays(ctx, rep, owned, half)
}

func (b *Bucket) verifyRun(ctx context.Context, m *dataset.Manifest, rep *dataset.VerifyReport, owned map[string]bool) error {
	for _, f := range m.Files {
		rep.Rows += f.Rows
		if err := b.verifyObject(ctx, m.RunID, source{f.Path, f.SHA256, f.Bytes}, dataset.FileDamaged, rep, owned); err != nil {
			return err
		}
	}
	for _, a := range m.Attachments {
		if err := b.verifyObject(ctx, m.RunID, source{a.Path, a.SHA256, a.Bytes}, dataset.AttachmentDamaged, rep, owned); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bucket) verifyObject(ctx context.Context, runID string, s source, kind dataset.ProblemKind, rep *dataset.VerifyReport, owned map[string]bool) error {
	owned[s.key] = true
	rep.Files++
	rep.Bytes += s.bytes
	p := dataset.Problem{Kind: kind, RunID: runID, Path: s.key, Fix: "remove the run's manifest there and push the run again"}
	r, err := b.b.NewReader(ctx, s.key, nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		p.Kind, p.Message = dataset.FileMissing, "the manifest names it and it is not there"
		rep.Problems = append(rep.Problems, p)
		return nil
	}
	if err != nil {
		return b.explain("read "+s.key, err)
	}
	defer r.Close()
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return b.explain("read "+s.key, err)
	}
	if n != s.bytes {
		p.Message = fmt.Sprintf("it has %d bytes and the manifest states %d", n, s.bytes)
	} else if digest(h) != s.sha256 {
		p.Message = "its hash is not the one in the manifest"
	}
	if p.Message != "" {
		rep.Problems = append(rep.Problems, p)
	}
	return nil
}

// strays looks for data files that no manifest names: readers that glob see
// them. Those of a push that was cut short are known by its intent.
func (b *Bucket) strays(ctx context.Context, rep *dataset.VerifyReport, owned, half map[string]bool) error {
	it := b.b.List(nil)
	for {
		o, err := it.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return b.explain("list", err)
		}
		if strings.HasPrefix(o.Key, runsPrefix) || !strings.HasSuffix(o.Key, ".parquet") || owned[o.Key] || half[runOf(o.Key)] {
			continue
		}
		rep.Problems = append(rep.Problems, dataset.Problem{Kind: dataset.OrphanFile, Path: o.Key, Message: "readers see it and no manifest names it", Fix: "remove it, or push its run again"})
	}
}

// runOf is the run that a data file is of, by its name.
func runOf(key string) string {
	_, name, _ := cutLast(key, "/part-")
	return strings.TrimSuffix(name, "-0.parquet")
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
