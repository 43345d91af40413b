package harness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// Shard is one of several contiguous blocks of the declared order; each holds all
// arms. The zero value is the whole.
type Shard struct {
	Index int `json:"index"` // from 0
	Of    int `json:"of"`    // 0 and 1 are the whole
}

// block returns the first place and the one after the last.
func (s Shard) block(n int) (from, to int, err error) {
	if s.Of == 0 {
		s.Of = 1
	}
	if s.Of < 0 || s.Of > n || s.Index < 0 || s.Index >= s.Of {
		return 0, 0, &UserError{fmt.Sprintf("shard %d of %d, over %d questions", s.Index, s.Of, n), "number shards from 0, and make no more of them than there are questions"}
	}
	return s.Index * n / s.Of, (s.Index + 1) * n / s.Of, nil
}

// Declared returns the suite whose answers lie in a folder, and which shard of it.
// The error is a [*UserError] where there are none.
func Declared(dir string) (suite string, s Shard, err error) {
	d, err := readDeclaration(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", s, &UserError{dir + " holds no answers", "name a folder that was given to `repromill shard --dir`"}
	}
	if err != nil {
		return "", s, err
	}
	return d.Suite, d.Shard, nil
}

// Merge returns what the answers of shards come to that ran in the folders dirs,
// all of them or as many as there are: a sequential method takes the beginning of
// the order that is complete, and so decides between shards whether more are
// needed. A shard of another declaration is refused. Neither servers nor c.Dir are
// used.
func Merge(ctx context.Context, c Config, dirs ...string) (Result, error) {
	c.From = dirs
	c.Shard = Shard{}
	if err := c.defaults(); err != nil {
		return Result{}, err
	}
	l, err := arrange(ctx, &c)
	if err != nil {
		return Result{}, err
	}
	want := c.declare(l)
	for _, dir := range dirs {
		d, err := readDeclaration(dir)
		if err != nil {
			return Result{}, err
		}
		d.Shard = want.Shard
		if err := want.same(*d, dir); err != nil {
			return Result{}, err
		}
	}
	return summarise(&c, l, "")
}
