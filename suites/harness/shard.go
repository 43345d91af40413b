package harness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/repromill/repromill/suites/compare"
	"github.com/repromill/repromill/suites/endpoint"
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

// Size is how many of n questions are in the block; 0 where there is no such block.
func (s Shard) Size(n int) int {
	from, to, err := s.block(n)
	if err != nil {
		return 0
	}
	return to - from
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
// needed. A method that decides once compares nothing before all are there. A shard
// of another declaration is refused. Neither servers nor c.Dir are
// used.
func Merge(ctx context.Context, c Config, dirs ...string) (Result, error) {
	c.From = dirs
	c.Shard, c.Only = Shard{}, ""
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

// Complete reports whether every question has all its answers.
func (r Result) Complete() bool { return r.Units == r.Questions*r.Repeats }

// Decided reports whether more answers would change no verdict: every comparison
// is by a sequential method, and each has come to its end.
func (r Result) Decided() bool {
	for _, c := range r.Comparisons {
		m, err := compare.Find(c.Result.Method)
		_, sequential := m.(compare.Sequential)
		if err != nil || !sequential || c.Result.Verdict == compare.Undecided {
			return false
		}
	}
	return len(r.Comparisons) > 0
}

// others says of which arms the server in a folder is another system than that of
// the folders before it, and how; it adds what is seen for the first time.
func others(first map[string]endpoint.Identity, looks []Look) map[string]string {
	out := map[string]string{}
	seen := map[string]bool{}
	for _, k := range looks {
		if seen[k.Arm] {
			continue
		}
		seen[k.Arm] = true
		if was, ok := first[k.Arm]; !ok {
			first[k.Arm] = k.Identity
		} else if change := k.Identity.Since(was); change.Material {
			out[k.Arm] = change.String()
		}
	}
	return out
}

// marked are looks, those at servers that are others made void.
func marked(looks []Look, others map[string]string) []Look {
	looks = slices.Clone(looks)
	for i, k := range looks {
		if why := others[k.Arm]; why != "" {
			looks[i].Void, looks[i].Reason = true, "another system than in the blocks before: "+why
		}
	}
	return looks
}

// strangers warns of blocks whose servers were other systems than those of the
// blocks before.
func strangers(c *Config, looks []Look) (out []string) {
	if c.From == nil {
		return nil
	}
	for _, k := range looks {
		if k.Void && k.Seq == 0 {
			out = append(out, fmt.Sprintf("the answers of arm %s in a block that began at %s are void: its server is %s", k.Arm, k.At.UTC().Format("2006-01-02 15:04:05 UTC"), k.Reason))
		}
	}
	return out
}
