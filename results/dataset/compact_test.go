package dataset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/repromill/repromill/results/schema"
)

// addVaried adds a run in which every kind of value occurs, NULLs included; one
// of no requests has two tables only.
func addVaried(d *Dataset, id string, n int) error {
	tx := d.Begin(id, created)
	var requests []schema.RequestRow
	for i := range n {
		r := schema.RequestRow{Common: common(), Suite: "load", Arm: "a", Cell: "c", RequestID: int64(i), Status: "ok", Arrival: created, E2ES: schema.Float(float64(i) / 3)}
		switch i % 4 {
		case 0:
			r.ITLS = []float64{1, math.NaN(), float64(i)}
		case 1:
			r.ITLS = []float64{}
		case 2:
			r.E2ES, r.Arrival = schema.Opt[float64]{}, r.Arrival.Add(-1e9)
		}
		requests = append(requests, r)
	}
	err := errors.Join(
		Add(tx, schema.RunRow{Common: common(), Status: "succeeded", Title: id}),
		Add(tx, sample("a", n), sample("a", n+1)))
	if n > 0 {
		err = errors.Join(err, Add(tx, schema.MetricRow{Common: common(), Metric: "m", Value: schema.Float(1), LowerIsBetter: schema.Bool(false), Status: "ok"}, schema.MetricRow{Common: common(), Metric: "n", Status: "not_found"}),
			Add(tx, sample("b", n)), Add(tx, requests...), tx.Attach("plan.json", []byte("{}\n")))
	}
	if err == nil {
		_, err = tx.Commit(context.Background())
	}
	return errors.Join(err, tx.Abort())
}

func variedID(i int) string { return fmt.Sprintf("01JD7Q000000000000000RUN%02d", i) }

func addAll(t testing.TB, d *Dataset, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := addVaried(d, variedID(i), 3+i%5); err != nil {
			t.Fatal(err)
		}
	}
}

// rowsOf is everything that the runs hold, as readers through manifests see it.
func rowsOf(t testing.TB, d *Dataset, from, to int) map[string]string {
	t.Helper()
	out := map[string]string{}
	for i := from; i < to; i++ {
		id := variedID(i)
		out[id] = text[schema.RunRow](t, d, id) + text[schema.MetricRow](t, d, id) + text[schema.SampleRow](t, d, id) + text[schema.RequestRow](t, d, id)
	}
	return out
}

func text[T schema.Row](t testing.TB, d *Dataset, id string) string {
	t.Helper()
	rows, err := Read[T](context.Background(), d, id)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%+v\n", rows)
}

// globbed counts rows by run and table as a reader sees them that only globs.
func globbed(t testing.TB, d *Dataset) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, path := range tree(t, d.Root()) {
		if strings.HasPrefix(path, "_") || !strings.HasSuffix(path, partSuffix) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(d.Root(), path))
		if err != nil {
			t.Fatal(err)
		}
		err = schema.EachForeign(bytes.NewReader(b), []string{"run_id"}, func(row map[string]any) error {
			out[fmt.Sprint(row["run_id"], " ", path[:strings.Index(path, "/")])]++
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	return out
}

func compact(t testing.TB, d *Dataset, cfg CompactConfig) *CompactReport {
	t.Helper()
	rep, err := d.Compact(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func wantClean(t testing.TB, d *Dataset, runs int, when string) *VerifyReport {
	t.Helper()
	rep := mustVerify(t, d, false)
	if !rep.OK() || rep.Runs != runs {
		t.Errorf("%s: verify: %+v, want %d runs and no problem", when, rep, runs)
	}
	return rep
}

func TestCompact(t *testing.T) {
	d := open(t, t.TempDir(), Config{})
	if rep := compact(t, d, CompactConfig{}); rep.Partitions != 0 {
		t.Errorf("of nothing: %+v", rep)
	}
	addAll(t, d, 0, 5)
	rows, seen, was := rowsOf(t, d, 0, 5), globbed(t, d), wantClean(t, d, 5, "before")
	held, err := os.Open(filepath.Join(d.Root(), "runs/v1/date=2026-11-22/part-"+variedID(3)+"-0.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()

	rep := compact(t, d, CompactConfig{})
	if rep.Partitions != 5 || rep.Merged != 5 || rep.FilesBefore != 25 || rep.FilesAfter != 5 || rep.Rows != was.Rows || len(rep.Problems) != 0 || rep.BytesAfter >= rep.BytesBefore {
		t.Errorf("compact: %+v", rep)
	}
	check := func(n int, when string) {
		t.Helper()
		if diff := cmp.Diff(rows, rowsOf(t, d, 0, n)); diff != "" {
			t.Errorf("%s: rows changed:\n%s", when, diff)
		}
		if diff := cmp.Diff(seen, globbed(t, d)); diff != "" {
			t.Errorf("%s: what a glob sees changed:\n%s", when, diff)
		}
	}
	check(5, "merged")
	if got := wantClean(t, d, 5, "merged"); got.Rows != was.Rows || got.Files != 5+5 {
		t.Errorf("verify after: %+v, before: %+v", got, was)
	}
	if b, err := io.ReadAll(held); err != nil || readAll[schema.RunRow](b) != nil {
		t.Error("a file that was open before cannot be read on")
	}
	for _, path := range tree(t, d.Root()) {
		if strings.HasPrefix(path, stagingDir) || strings.Contains(path, "/part-") {
			t.Errorf("%s is left", path)
		}
	}
	before := tree(t, d.Root())
	if rep := compact(t, d, CompactConfig{}); rep.Merged != 0 || !slices.Equal(before, tree(t, d.Root())) {
		t.Errorf("compacting twice changed something: %+v", rep)
	}
	addAll(t, d, 5, 7)
	rows, seen = rowsOf(t, d, 0, 7), globbed(t, d)
	if rep := compact(t, d, CompactConfig{}); rep.Merged != 5 || rep.FilesBefore != 15 {
		t.Errorf("with two more runs: %+v", rep)
	}
	check(7, "merged again")
	wantClean(t, d, 7, "merged again")
	if tx := d.Begin(variedID(0), created); tx.Abort() != nil || addVaried(d, variedID(0), 3) != nil || len(globbed(t, d)) != len(seen) {
		t.Error("committing a merged run again is not a no-op")
	}
	check(7, "committed again")
}

func TestCompactSizes(t *testing.T) {
	d := open(t, t.TempDir(), Config{})
	for i := range 8 {
		if err := addVaried(d, variedID(i), 6000); err != nil {
			t.Fatal(err)
		}
	}
	rows := rowsOf(t, d, 0, 8)
	info, err := os.Stat(filepath.Join(d.Root(), "requests/v1/date=2026-11-22/suite=load/part-"+variedID(0)+"-0.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := CompactConfig{Target: 5 * info.Size() / 2} // a few runs a file
	if rep := compact(t, d, cfg); rep.FilesAfter <= 5 || rep.FilesAfter >= 20 {
		t.Errorf("a small target gave %+v", rep)
	}
	wantClean(t, d, 8, "in several files")
	if diff := cmp.Diff(rows, rowsOf(t, d, 0, 8)); diff != "" {
		t.Error(diff)
	}
	compact(t, d, cfg)
	before := tree(t, d.Root())
	compact(t, d, cfg)
	if after := tree(t, d.Root()); !slices.Equal(before, after) {
		t.Errorf("it does not come to rest:\n%s\n%s", before, after)
	}
	wantClean(t, d, 8, "at rest")
	cfg.Target = 1
	if rep := compact(t, d, cfg); rep.Merged != 0 {
		t.Errorf("large files were merged: %+v", rep)
	}
}

// TestCompactLeavesDamageAlone merges the good files around a damaged one, a
// stray one and a half commit.
func TestCompactLeavesDamageAlone(t *testing.T) {
	d := open(t, t.TempDir(), Config{})
	addAll(t, d, 0, 6)
	bad := "metrics/v1/date=2026-11-22/part-" + variedID(2) + "-0.parquet"
	flip(t, d.abs(bad), 100)
	damaged, _ := os.ReadFile(d.abs(bad))
	stray := "metrics/v1/date=2026-11-22/x.parquet"
	if err := os.WriteFile(d.abs(stray), []byte("not ours"), 0o644); err != nil {
		t.Fatal(err)
	}
	half := "metrics/v1/date=2026-11-22/part-" + variedID(5) + "-0.parquet"
	if err := os.Remove(d.manifestPath(variedID(5))); err != nil {
		t.Fatal(err)
	}
	rep := compact(t, d, CompactConfig{})
	if len(rep.Problems) != 1 || rep.Problems[0].Path != bad || rep.Problems[0].RunID != variedID(2) || rep.FilesBefore != 5*4+4 {
		t.Errorf("%+v", rep)
	}
	if b, err := os.ReadFile(d.abs(bad)); err != nil || !bytes.Equal(b, damaged) {
		t.Errorf("the damaged file was touched: %v", err)
	}
	for _, p := range []string{stray, half} {
		if _, err := os.Stat(d.abs(p)); err != nil {
			t.Error(err)
		}
	}
	var got []string
	for _, p := range mustVerify(t, d, false).Problems {
		got = append(got, string(p.Kind)+" "+p.Path)
	}
	slices.Sort(got)
	if !slices.ContainsFunc(got, func(s string) bool { return strings.HasSuffix(s, bad) }) || !slices.Contains(got, "orphan_file "+stray) || !slices.Contains(got, "orphan_file "+half) {
		t.Errorf("verify found %q", got)
	}
	if len(rowsOf(t, d, 3, 5)) != 2 {
		t.Error("good runs cannot be read")
	}
}

func TestDamagedMergedFiles(t *testing.T) {
	leaf := "requests/v1/date=2026-11-22/suite=load/"
	for _, c := range []struct {
		name string
		do   func(t *testing.T, d *Dataset, name string, f *mergedFile)
		want string
		read bool // run 0 can be read still
	}{
		{"row group", func(t *testing.T, d *Dataset, name string, f *mergedFile) {
			flip(t, name, f.RowGroups[1].Offset+9)
		}, "row_group_damaged", true},
		{"footer", func(t *testing.T, d *Dataset, name string, f *mergedFile) { flip(t, name, f.Bytes-20) }, "file_damaged", false},
		{"file removed", func(t *testing.T, d *Dataset, name string, f *mergedFile) { _ = os.Remove(name) }, "file_missing", false},
		{"index", func(t *testing.T, d *Dataset, name string, f *mergedFile) {
			flip(t, filepath.Join(filepath.Dir(name), mergedDoc), 60)
		}, "manifest_damaged", false},
		{"manifest removed", func(t *testing.T, d *Dataset, name string, f *mergedFile) {
			_ = os.Remove(d.manifestPath(variedID(1)))
		}, "orphan_file", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, t.TempDir(), Config{})
			for i := range 2 {
				if err := addVaried(d, variedID(i), 2000); err != nil {
					t.Fatal(err)
				}
			}
			compact(t, d, CompactConfig{Target: 100_000}) // which ends a row group with every run
			x, err := readIndex(d.abs(leaf))
			if err != nil || len(x.Files) != 1 || len(x.Files[0].RowGroups) != 2 {
				t.Fatalf("index: %+v, %v", x, err)
			}
			c.do(t, d, d.abs(leaf+x.Files[0].Name), &x.Files[0])
			rep := mustVerify(t, d, false)
			if rep.OK() || !slices.ContainsFunc(rep.Problems, func(p Problem) bool { return string(p.Kind) == c.want }) {
				t.Errorf("problems: %v, want %s", rep.Problems, c.want)
			}
			if _, err := Read[schema.RequestRow](context.Background(), d, variedID(0)); (err == nil) != c.read {
				t.Errorf("reading the other run: %v", err)
			}
			if err := addVaried(d, variedID(2), 3); err != nil {
				t.Errorf("a new run: %v", err)
			}
		})
	}
}

// TestDamagedManifestOfMergedRun refuses to commit rows a second time.
func TestDamagedManifestOfMergedRun(t *testing.T) {
	d := open(t, t.TempDir(), Config{})
	addAll(t, d, 0, 2)
	compact(t, d, CompactConfig{})
	seen := globbed(t, d)
	flip(t, d.manifestPath(variedID(1)), 100)
	var user *UserError
	if err := addVaried(d, variedID(1), 4); !errors.As(err, &user) {
		t.Errorf("committing it again: %v", err)
	}
	if diff := cmp.Diff(seen, globbed(t, d)); diff != "" {
		t.Error(diff)
	}
}

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

func TestCompactCancelled(t *testing.T) {
	d := open(t, t.TempDir(), Config{})
	addAll(t, d, 0, 3)
	before := tree(t, d.Root())
	ctx, cancel := context.WithCancel(context.Background())
	cfg := CompactConfig{Progress: func(done, total int, _ string) { cancel() }}
	if _, err := d.Compact(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if !slices.Equal(before, tree(t, d.Root())) {
		t.Error("something changed")
	}
	release, err := d.lockCompaction()
	if err != nil {
		t.Fatal(err)
	}
	var user *UserError
	if _, err := d.Compact(context.Background(), CompactConfig{}); !errors.As(err, &user) {
		t.Errorf("beside another one: %v", err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
}

func TestExtract(t *testing.T) {
	d := open(t, t.TempDir(), Config{Tool: "x"})
	addAll(t, d, 0, 3)
	rows := rowsOf(t, d, 1, 2)
	m, err := d.Manifest(variedID(1))
	if err != nil || d.Merged(m) {
		t.Fatal(err)
	}
	compact(t, d, CompactConfig{})
	if !d.Merged(m) {
		t.Error("it does not say that it is merged")
	}
	to, err := d.Extract(context.Background(), variedID(1), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	got, err := to.Manifest(variedID(1))
	if err != nil || to.Merged(got) {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rows, rowsOf(t, to, 1, 2)); diff != "" {
		t.Error(diff)
	}
	if !got.SameCommit(m) {
		t.Errorf("%+v\n%+v", got, m)
	}
	wantClean(t, to, 1, "extracted")
	m.Committed = m.Committed.Add(1)
	if got.SameCommit(m) {
		t.Error("another commit passes for the same")
	}
}

func TestReadOtherVersion(t *testing.T) {
	d := open(t, t.TempDir(), Config{})
	m := commitRun(t, d, testRun)
	for i := range m.Files {
		f := &m.Files[i]
		from := d.abs(f.Path)
		f.SchemaVersion, f.Path = "v2", strings.Replace(f.Path, "/v1/", "/v2/", 1)
		if err := errors.Join(os.MkdirAll(filepath.Dir(d.abs(f.Path)), 0o755), os.Rename(from, d.abs(f.Path))); err != nil {
			t.Fatal(err)
		}
	}
	doc, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.manifestPath(testRun), doc, 0o644); err != nil {
		t.Fatal(err)
	}
	var other *schema.VersionError
	if _, err := Read[schema.RunRow](context.Background(), d, testRun); !errors.As(err, &other) || other.Have != "v2" || !strings.Contains(err.Error(), "DuckDB") {
		t.Errorf("%v", err)
	}
	wantClean(t, d, 1, "another version")
	if rep := compact(t, d, CompactConfig{}); rep.Merged != 0 {
		t.Errorf("another version was merged: %+v", rep)
	}
}

func FuzzMergedIndex(f *testing.F) {
	x := &mergedIndex{Schema: mergedSchema, Files: []mergedFile{{Name: mergedName(strings.Repeat("a", 64), 0), Rows: 2, Bytes: 100, RowGroups: []schema.Group{{Rows: 2, Offset: 4, Bytes: 50}},
		Runs: []mergedRun{{RunID: "A", Part: "p", Rows: 1, Digest: "d"}, {RunID: "B", First: 1, Rows: 1}}}}}
	doc, err := x.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Add([]byte(`{}`))
	f.Add(bytes.Replace(doc, []byte("merged-a"), []byte("../../../"), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := parseIndex(b)
		if err != nil {
			return
		}
		for i := range x.Files {
			in := &x.Files[i]
			if filepath.Base(in.Name) != in.Name || in.tailAt() > in.Bytes || in.tailAt() < 0 {
				t.Errorf("%+v", in)
			}
			for _, r := range in.Runs {
				if r.First < 0 || r.First+r.Rows > in.Rows {
					t.Errorf("%+v", r)
				}
			}
		}
	})
}
