package kueue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/shard"
)

// Logs returns what the pod that has the attempt has written to the volume. A
// pod that begins anew begins a new output.
func (e *Executor) Logs(ctx context.Context, h runner.Handle, fromByte int64) (io.ReadCloser, error) {
	at, job, rec, err := e.open(h)
	if err != nil {
		return nil, err
	}
	if fromByte < 0 {
		return nil, fmt.Errorf("read logs of %s: offset %d is negative", rec.Key, fromByte)
	}
	name := at.Output()
	if rec.Attempt.Shards != nil {
		name = shard.Folder(rec.Attempt.Dir).Log()
	}
	if name == "" {
		return e.early(ctx, at, job, fromByte), nil
	}
	f, err := os.Open(name)
	if rec.Attempt.Shards != nil && errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(strings.NewReader("")), nil // no client has begun
	}
	if err != nil {
		return nil, fmt.Errorf("read logs of %s: %w", rec.Key, err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read logs of %s: %w", rec.Key, err), f.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, fromByte, max(0, info.Size()-fromByte)), f}, nil
}
