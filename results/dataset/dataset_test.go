package dataset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/repromill/repromill/results/schema"
)

var created = time.Date(2026, 11, 21, 23, 30, 0, 0, time.FixedZone("", -3600)) // the 22nd in UTC

const testRun = "01JD7Q0000000000000000RUN1"

func common() schema.Common {
	return schema.Common{Attempt: "a/0", Kind: schema.Measured}
}

func sample(suite string, i int) schema.SampleRow {
	return schema.SampleRow{Common: common(), Suite: suite, DatasetSHA: "d", ItemID: fmt.Sprint("q", i), Arm: "nvfp4", Outcome: "correct", Score: schema.Float(1), Output: strings.Repeat("text ", i%50)}
}

func open(t testing.TB, root string, cfg Config) *Dataset {
	t.Helper()
	if cfg.Now == nil {
		cfg.Now = func() time.Time { return created.Add(time.Hour) }
	}
	d, err := Open(root, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// addRun adds a small run that touches plain and partitioned tables.
func addRun(tx *Txn) error {
	tx.SetPlanHash("plan1")
	var samples []schema.SampleRow
	for i := range 700 {
		samples = append(samples, sample("MMLU-Pro", i), sample("aime2024", i))
	}
	return errors.Join(
		Add(tx, schema.RunRow{Common: common(), Status: "succeeded", Title: "A paper"}),
		Add(tx, schema.MetricRow{Common: common(), Metric: "gpu_time_saved", Value: schema.Float(36.5), Status: "ok"}, schema.MetricRow{Common: common(), Metric: "p99", Value: schema.Float(math.NaN()), Status: "not_a_number"}),
		Add(tx, samples...),
		tx.Attach("plan.json", []byte("{}\n")),
		tx.Attach("logs/execute.txt", []byte("hello\n")),
	)
}

func commitRun(t testing.TB, d *Dataset, id string) *Manifest {
	t.Helper()
	tx := d.Begin(id, created)
	if err := addRun(tx); err != nil {
		t.Fatal(err)
	}
	m, err := tx.Commit(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// tree lists all files below root with their sizes' signs left out.
func tree(t testing.TB, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !e.IsDir() {
			rel, _ := filepath.Rel(root, p)
			out = append(out, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return out
}

func mustVerify(t testing.TB, d *Dataset, repair bool) *VerifyReport {
	t.Helper()
	rep, err := d.Verify(context.Background(), repair)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func TestCommitLayout(t *testing.T) {
	d := open(t, t.TempDir(), Config{Tool: "repromill test"})
	m := commitRun(t, d, testRun)
	want := []string{
		"_runs/" + testRun + "/logs/execute.txt",
		"_runs/" + testRun + "/manifest.json",
		"_runs/" + testRun + "/plan.json",
		"metrics/v1/_schema.json",
		"metrics/v1/date=2026-11-22/part-" + testRun + "-0.parquet",
		"runs/v1/_schema.json",
		"runs/v1/date=2026-11-22/part-" + testRun + "-0.parquet",
		"samples/v1/_schema.json",
		"samples/v1/date=2026-11-22/suite=aime2024/part-" + testRun + "-0.parquet",
		"samples/v1/date=2026-11-22/suite=mmlu-pro/part-" + testRun + "-0.parquet",
	}
	if diff := cmp.Diff(want, tree(t, d.Root())); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if got := []int64{m.Rows(schema.Runs), m.Rows(schema.Metrics), m.Rows(schema.Samples)}; !slices.Equal(got, []int64{1, 2, 1400}) {
		t.Errorf("rows = %v", got)
	}
	if m.Files[1].NaNToNull != 1 {
		t.Errorf("nan_to_null = %d, want 1", m.Files[1].NaNToNull)
	}
	read, err := d.Manifest(testRun)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, read); diff != "" {
		t.Errorf("manifest read back (-want +got):\n%s", diff)
	}
	list, err := d.List(context.Background())
	if err != nil || len(list) != 1 || list[0].RunID != testRun {
		t.Errorf("list = %v, %v", list, err)
	}
	rep := mustVerify(t, d, false)
	if !rep.OK() || rep.Runs != 1 || rep.Files != 6 || rep.Rows != 1403 {
		t.Errorf("verify = %+v", rep)
	}
}

func TestReadBack(t *testing.T) {
	d := open(t, t.TempDir(), Config{})
	commitRun(t, d, testRun)
	rows, err := Read[schema.SampleRow](context.Background(), d, testRun)
	if err != nil {
		t.Fatal(err)
	}
	var want []schema.SampleRow
	for _, suite := range []string{"aime2024", "mmlu-pro"} {
		for i := range 700 {
			r := sample(suite, i)
			r.RunID, r.PlanHash, r.SchemaVersion = testRun, "plan1", schema.Version
			want = append(want, r)
		}
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("samples (-want +got):\n%.1000s", diff)
	}
	if _, err := Read[schema.RunRow](context.Background(), d, "nope"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unknown run: %v", err)
	}
	stop := errors.New("stop")
	if err := Each(context.Background(), d, testRun, func([]schema.SampleRow) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("each: %v, want the callback's error", err)
	}
}

func TestDuplicatesAreDroppedAndCounted(t *testing.T) {
	d := open(t, t.TempDir(), Config{})
	tx := d.Begin(testRun, created)
	first, second := sample("s", 1), sample("s", 1)
	first.Attempt, second.Attempt, second.Outcome = "a/1", "a/0", "wrong"
	if err := errors.Join(Add(tx, first), Add(tx, second, sample("s", 2)), Add(tx, second)); err != nil {
		t.Fatal(err)
	}
	m, err := tx.Commit(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if m.Files[0].Rows != 2 || m.Files[0].Dropped != 2 {
		t.Errorf("rows = %d, dropped = %d, want 2 and 2", m.Files[0].Rows, m.Files[0].Dropped)
	}
	rows, err := Read[schema.SampleRow](context.Background(), d, testRun)
	if err != nil || rows[0].Attempt != "a/1" || rows[0].Outcome != "correct" {
		t.Errorf("kept %+v, %v; want the row added first", rows[0], err)
	}
}

func TestBadRowsLeaveTheTransactionUsable(t *testing.T) {
	d := open(t, t.TempDir(), Config{})
	tx := d.Begin(testRun, created)
	bad := make([]schema.SampleRow, 1000)
	for i := range bad {
		bad[i] = sample("s", i)
	}
	bad[777].Score = schema.Float(math.Inf(1))
	var re *schema.RowError
	if err := Add(tx, bad...); !errors.As(err, &re) || re.Row != 777 || re.Column != "score" || re.Table != "samples" {
		t.Fatalf("got %v, want samples, score, row 777", err)
	}
	other := sample("s", 1)
	other.RunID = "other"
	if err := Add(tx, other); !errors.As(err, &re) || re.Column != "run_id" {
		t.Errorf("row of another run: %v", err)
	}
	if err := Add(tx, sample("S", 1), sample("s", 2)); !errors.As(err, &re) || !strings.Contains(err.Error(), "share the partition") {
		t.Errorf("two suites in one partition: %v", err)
	}
	if err := Add(tx, sample("→", 1)); !errors.As(err, &re) || !strings.Contains(err.Error(), "no letter") {
		t.Errorf("suite without a name: %v", err)
	}
	bad[777].Score = schema.Float(0)
	for i := range bad {
		bad[i].Suite = "S"
	}
	if err := Add(tx, bad...); err != nil {
		t.Fatal(err)
	}
	m, err := tx.Commit(context.Background())
	if err != nil || m.Rows(schema.Samples) != 1000 || m.Files[0].Dropped != 0 {
		t.Errorf("manifest %+v, %v; want 1000 rows, none dropped", m, err)
	}
}

func TestAddCopies(t *testing.T) {
	d := open(t, t.TempDir(), Config{})
	tx := d.Begin(testRun, created)
	itl := []float64{1, 2, 3}
	row := schema.RequestRow{Common: common(), Suite: "load", Arm: "a", Cell: "c", Status: "ok", ITLS: itl}
	if err := Add(tx, row); err != nil {
		t.Fatal(err)
	}
	itl[0] = 99
	if row.RunID != "" {
		t.Error("Add changed the caller's row")
	}
	if _, err := tx.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	rows, err := Read[schema.RequestRow](context.Background(), d, testRun)
	if err != nil || rows[0].ITLS[0] != 1 {
		t.Errorf("rows %v, %v; want the list as it was when added", rows, err)
	}
}

func TestCommitIsIdempotent(t *testing.T) {
	d := open(t, t.TempDir(), Config{})
	first := commitRun(t, d, testRun)
	before := tree(t, d.Root())
	tx := d.Begin(testRun, created.AddDate(0, 0, 3))
	if err := errors.Join(Add(tx, schema.RunRow{Common: common(), Status: "failed"}), tx.Attach("other.txt", nil)); err != nil {
		t.Fatal(err)
	}
	second, err := tx.Commit(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("second commit (-first +second):\n%s", diff)
	}
	if diff := cmp.Diff(before, tree(t, d.Root())); diff != "" {
		t.Errorf("files changed:\n%s", diff)
	}
	if err := Add(tx, schema.RunRow{Common: common(), Status: "failed"}); !errors.Is(err, errDone) {
		t.Errorf("Add after Commit: %v", err)
	}
}

func TestConcurrentCommitters(t *testing.T) {
	d := open(t, t.TempDir(), Config{})
	const n = 8
	manifests := make([]*Manifest, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			tx := d.Begin(testRun, created)
			if err := addRun(tx); err != nil {
				t.Error(err)
				return
			}
			m, err := tx.Commit(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			manifests[i] = m
		})
		wg.Go(func() { commitRun(t, d, fmt.Sprintf("OTHER%d", i)) })
	}
	wg.Wait()
	for _, m := range manifests[1:] {
		if diff := cmp.Diff(manifests[0], m); diff != "" {
			t.Fatalf("committers disagree:\n%s", diff)
		}
	}
	if rep := mustVerify(t, d, false); !rep.OK() || rep.Runs != n+1 {
		t.Errorf("verify = %+v", rep)
	}
}

func TestLockIsWaitedForAndReported(t *testing.T) {
	d := open(t, t.TempDir(), Config{LockWait: 50 * time.Millisecond})
	holder := d.Begin(testRun, created)
	if err := Add(holder, schema.RunRow{Common: common(), Status: "succeeded"}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Begin(testRun, created).Commit(context.Background()); !errors.Is(err, errLocked) {
		t.Errorf("second committer: %v, want %v", err, errLocked)
	}
	for _, repair := range []bool{false, true} {
		if rep := mustVerify(t, d, repair); !rep.OK() || !slices.Equal(rep.InProgress, []string{testRun}) {
			t.Errorf("verify(repair=%t) during a commit = %+v", repair, rep)
		}
	}
	if err := holder.Abort(); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, d.Root()); len(got) != 0 {
		t.Errorf("an aborted transaction left %v", got)
	}
	commitRun(t, d, testRun)
}

func TestMemoryBoundMakesRowGroups(t *testing.T) {
	d := open(t, t.TempDir(), Config{BufferBytes: 1 << 20})
	tx := d.Begin(testRun, created)
	for i := range 20 {
		rows := make([]schema.RequestRow, 2000)
		for j := range rows {
			rows[j] = schema.RequestRow{Common: common(), Suite: fmt.Sprint("load", j%3), Arm: "a", Cell: "c", RequestID: int64(i*2000 + j), Status: "ok", ITLS: []float64{1, 2, 3, float64(j)}}
		}
		if err := Add(tx, rows...); err != nil {
			t.Fatal(err)
		}
		tx.mu.Lock()
		if n := tx.tables[0].buffered(); n > 1<<20 {
			t.Errorf("holds %d bytes", n)
		}
		tx.mu.Unlock()
	}
	m, err := tx.Commit(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Files) != 3 || len(m.Files[0].RowGroups) < 3 || m.Rows(schema.Requests) != 40000 {
		t.Errorf("%d files, %d row groups, %d rows", len(m.Files), len(m.Files[0].RowGroups), m.Rows(schema.Requests))
	}
	if rep := mustVerify(t, d, false); !rep.OK() {
		t.Errorf("verify = %v", rep.Problems)
	}
}

func TestNamesThatCannotBe(t *testing.T) {
	d := open(t, t.TempDir(), Config{})
	var ue interface{ UserError() string }
	for _, id := range []string{"", ".", "..", "../x", "a/b", "-x", "a b", "é", strings.Repeat("x", 200), "x."} {
		if _, err := d.Begin(id, created).Commit(context.Background()); !errors.As(err, &ue) {
			t.Errorf("run id %q: %v, want a user error", id, err)
		}
		if _, err := d.Manifest(id); !errors.As(err, &ue) {
			t.Errorf("manifest of %q: %v, want a user error", id, err)
		}
	}
	tx := d.Begin(testRun, created)
	for _, name := range []string{"", "manifest.json", "intent.json", "../x", "/etc/passwd", "x.parquet", "x.tmp", "a//b", ".hidden", "a/../b"} {
		if err := tx.Attach(name, nil); err == nil {
			t.Errorf("attachment %q was taken", name)
		}
	}
	if got := tree(t, d.Root()); len(got) != 0 {
		t.Errorf("left %v", got)
	}
	for in, want := range map[string]string{"MMLU-Pro": "mmlu-pro", "τ²-bench": "bench", "a b/c%d": "a-b-c-d", "__HIVE_DEFAULT_PARTITION__": "hive_default_partition__", "..": "", "v1.2": "v1.2"} {
		if got := partitionValue(in); got != want {
			t.Errorf("partition value of %q = %q, want %q", in, got, want)
		}
	}
}
