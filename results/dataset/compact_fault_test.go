package dataset

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/repromill/repromill/results/schema"
)

// TestCompactKilledAtEveryStep kills a compaction at every durable step, with
// folders that can be exchanged and with ones that cannot. A reader that globs
// sees every row once at all times, but for the moment between two renames
// where there is no exchange, which the next look repairs.
func TestCompactKilledAtEveryStep(t *testing.T) {
	for _, how := range []string{"exchange", "replace"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			env := compactEnv + "=" + how
			first := t.TempDir()
			d := open(t, first, Config{})
			for i := range 2 {
				if err := addVaried(d, variedID(i), 0); err != nil {
					t.Fatal(err)
				}
			}
			start := copied(t, os.DirFS(first))
			rows, seen := small(t, d), globbed(t, d)
			trace, err := runChild(t, first, nil, env)
			if err != nil {
				t.Fatalf("%v\n%s", err, trace)
			}
			points := strings.Fields(trace)
			want := []string{"compact-data-fsync", "compact-index-rename", "compact-swap", "compact-clean"}
			if how == "replace" {
				want = append(want, "compact-replace")
			}
			for _, what := range want {
				if !slices.ContainsFunc(points, func(p string) bool { return strings.HasPrefix(p, "dataset:"+what) }) {
					t.Errorf("no hook at %s in %q", what, points)
				}
			}
			for n := range points {
				if slices.Index(points, points[n]) < n {
					continue // the same step of the second partition
				}
				root := t.TempDir()
				if err := os.CopyFS(root, start); err != nil {
					t.Fatal(err)
				}
				d := open(t, root, Config{})
				if out, err := runChild(t, root, nil, env, fmt.Sprintf("%s=%d", strikeEnv, n+1)); err == nil {
					t.Fatalf("it was not killed at %s:\n%s", points[n], out)
				}
				between := strings.Contains(points[n], "replace:between")
				if diff := cmp.Diff(seen, globbed(t, d)); diff != "" && !between {
					t.Errorf("killed at %s, what a glob sees:\n%s", points[n], diff)
				}
				if n%2 == 0 { // both ways back
					mustVerify(t, d, true)
					wantClean(t, d, 2, "repaired after "+points[n])
				}
				compact(t, d, CompactConfig{})
				wantClean(t, d, 2, "compacted after "+points[n])
				if diff := cmp.Diff(rows, small(t, d)) + cmp.Diff(seen, globbed(t, d)); diff != "" {
					t.Errorf("after %s rows changed:\n%s", points[n], diff)
				}
				if got := tree(t, root); slices.ContainsFunc(got, func(p string) bool { return strings.HasPrefix(p, stagingDir) || strings.Contains(p, "/part-") }) {
					t.Errorf("after %s there is left: %q", points[n], got)
				}
			}
		})
	}
}

func copied(t *testing.T, from fs.FS) fs.FS {
	t.Helper()
	root := t.TempDir()
	if err := os.CopyFS(root, from); err != nil {
		t.Fatal(err)
	}
	return os.DirFS(root)
}

func small(t testing.TB, d *Dataset) string {
	t.Helper()
	out := ""
	for i := range 2 {
		out += text[schema.RunRow](t, d, variedID(i)) + text[schema.SampleRow](t, d, variedID(i))
	}
	return out
}

func cannotSwap(_, _ string) error { return unix.EINVAL }

// TestCompactAmongOthers compacts while runs are committed, read and verified.
func TestCompactAmongOthers(t *testing.T) {
	d := open(t, t.TempDir(), Config{})
	addAll(t, d, 0, 4)
	rows := rowsOf(t, d, 0, 4)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(stop)
		for i := 4; i < 10; i++ {
			if err := addVaried(d, variedID(i), 3); err != nil {
				t.Errorf("commit: %v", err)
			}
		}
	})
	until := func(fn func()) {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					fn()
				}
			}
		})
	}
	until(func() {
		if _, err := d.Compact(context.Background(), CompactConfig{}); err != nil {
			t.Errorf("compact: %v", err)
		}
	})
	until(func() {
		for i := range 4 {
			got, err := Read[schema.RequestRow](context.Background(), d, variedID(i))
			if err != nil || !strings.Contains(rows[variedID(i)], fmt.Sprintf("%+v\n", got)) {
				t.Errorf("read: %v", err)
			}
		}
	})
	until(func() {
		rep, err := d.Verify(context.Background(), false)
		if err != nil || !rep.OK() {
			t.Errorf("verify: %+v, %v", rep, err)
		}
	})
	wg.Wait()
	compact(t, d, CompactConfig{})
	wantClean(t, d, 10, "in the end")
	for key, n := range globbed(t, d) {
		if want := map[string]int{"runs": 1, "metrics": 2, "samples": 3}[key[strings.Index(key, " ")+1:]]; want != 0 && n != want {
			t.Errorf("%s: %d rows, want %d", key, n, want)
		}
	}
}
