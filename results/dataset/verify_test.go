package dataset

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/schema"
	"github.com/google/go-cmp/cmp"

	table "github.com/repromill/repromill/results/schema"
)

// bigRun commits a run whose requests file has several row groups.
func bigRun(t testing.TB, d *Dataset) *Manifest {
	t.Helper()
	tx := d.Begin(testRun, created)
	for i := range 8 {
		rows := make([]table.RequestRow, 1024)
		for j := range rows {
			rows[j] = table.RequestRow{Common: common(), Suite: "load", Arm: "a", Cell: "c", RequestID: int64(i*1024 + j), Status: "ok", ITLS: []float64{1, 2, 3, float64(j)}, E2ES: table.Float(float64(j))}
		}
		if err := Add(tx, rows...); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Attach("plan.json", []byte(`{"a":1}`)); err != nil {
		t.Fatal(err)
	}
	m, err := tx.Commit(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func flip(t testing.TB, path string, at int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyNamesTheDamage(t *testing.T) {
	type damage struct {
		name string
		do   func(t *testing.T, d *Dataset, m *Manifest)
		want string // kind, path, row group
	}
	part := "requests/v1/date=2026-11-22/suite=load/part-" + testRun + "-0.parquet"
	group := func(n int) func(*testing.T, *Dataset, *Manifest) {
		return func(t *testing.T, d *Dataset, m *Manifest) {
			g := m.Files[0].RowGroups[n]
			flip(t, d.abs(part), g.Offset+g.Bytes/2)
		}
	}
	edit := func(path string, fn func(string) error) func(*testing.T, *Dataset, *Manifest) {
		return func(t *testing.T, d *Dataset, _ *Manifest) {
			if err := fn(d.abs(path)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []damage{
		{"first row group", group(0), "row_group_damaged " + part + " 0"},
		{"third row group", group(2), "row_group_damaged " + part + " 2"},
		{"footer", func(t *testing.T, d *Dataset, m *Manifest) { flip(t, d.abs(part), m.Files[0].Bytes-20) }, "file_damaged " + part},
		{"magic", func(t *testing.T, d *Dataset, m *Manifest) { flip(t, d.abs(part), 0) }, "file_damaged " + part},
		{"truncated", edit(part, func(p string) error { return os.Truncate(p, 20000) }), "row_group_damaged " + part},
		{"data removed", edit(part, os.Remove), "file_missing " + part},
		{"attachment", func(t *testing.T, d *Dataset, m *Manifest) { flip(t, d.abs(m.Attachments[0].Path), 3) }, "attachment_damaged _runs/" + testRun + "/plan.json"},
		{"attachment removed", edit("_runs/"+testRun+"/plan.json", os.Remove), "attachment_damaged _runs/" + testRun + "/plan.json"},
		{"manifest", func(t *testing.T, d *Dataset, _ *Manifest) { flip(t, d.manifestPath(testRun), 200) }, "manifest_damaged _runs/" + testRun + "/manifest.json"},
		{"manifest removed", edit("_runs/"+testRun+"/manifest.json", os.Remove), "orphan_file " + part},
		{"orphan", edit("", func(root string) error {
			return os.WriteFile(filepath.Join(root, "requests/v1/date=2026-11-22/x.parquet"), nil, 0o644)
		}), "orphan_file requests/v1/date=2026-11-22/x.parquet"},
		{"temporary file", edit("", func(root string) error {
			return os.WriteFile(filepath.Join(root, "requests/v1/y.parquet.tmp"), nil, 0o644)
		}), "incomplete_file requests/v1/y.parquet.tmp"},
		{"stale staging", edit("", func(root string) error {
			return os.MkdirAll(filepath.Join(root, "_staging/OTHER"), 0o755)
		}), "stale_staging _staging/OTHER"},
		{"stale lock", edit("", func(root string) error {
			return os.WriteFile(filepath.Join(root, "_staging/.lock-OTHER"), nil, 0o644)
		}), "stale_staging _staging/.lock-OTHER"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, t.TempDir(), Config{BufferBytes: 200 << 10})
			m := bigRun(t, d)
			if len(m.Files[0].RowGroups) < 3 {
				t.Fatalf("only %d row groups", len(m.Files[0].RowGroups))
			}
			if rep := mustVerify(t, d, false); !rep.OK() {
				t.Fatalf("before the damage: %v", rep.Problems)
			}
			c.do(t, d, m)
			var got []string
			rep := mustVerify(t, d, false)
			for _, p := range rep.Problems {
				s := string(p.Kind) + " " + p.Path
				if p.RowGroup != nil && c.name != "truncated" {
					s += fmt.Sprint(" ", *p.RowGroup)
				}
				got = append(got, s)
			}
			if c.name == "truncated" {
				got = got[:1] // every group after the cut is named
			}
			if d := cmp.Diff([]string{c.want}, got); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
			if strings.HasPrefix(c.want, "row_group") || strings.HasPrefix(c.want, "file_damaged") {
				var corrupt *CorruptError
				if _, err := Read[table.RequestRow](context.Background(), d, testRun); !errors.As(err, &corrupt) {
					t.Errorf("reading: %v, want a CorruptError", err)
				}
			}
		})
	}
}

// TestDamagedManifestIsReplaced commits a run again whose manifest was damaged.
func TestDamagedManifestIsReplaced(t *testing.T) {
	d := open(t, t.TempDir(), Config{BufferBytes: 200 << 10})
	first := bigRun(t, d)
	flip(t, d.manifestPath(testRun), 100)
	list, err := d.List(context.Background())
	if err != nil || len(list) != 1 || !strings.Contains(list[0].Problem, "is damaged") {
		t.Errorf("list = %+v, %v; want one problem", list, err)
	}
	var corrupt *CorruptError
	if _, err := d.Manifest(testRun); !errors.As(err, &corrupt) {
		t.Errorf("manifest: %v, want a CorruptError", err)
	}
	second := bigRun(t, d)
	if d := cmp.Diff(first.Files, second.Files); d != "" {
		t.Errorf("files differ (-first +second):\n%s", d)
	}
	if rep := mustVerify(t, d, false); !rep.OK() {
		t.Errorf("verify = %v", rep.Problems)
	}
}

// TestForeignFileWithNaN puts a file made by other means where ours was, with a
// manifest that vouches for it.
func TestForeignFileWithNaN(t *testing.T) {
	d := open(t, t.TempDir(), Config{})
	m := bigRun(t, d)
	var buf bytes.Buffer
	node, err := schema.NewGroupNode("schema", 0, schema.FieldList{schema.NewFloat64Node("e2e_s", 1, -1)}, -1)
	if err != nil {
		t.Fatal(err)
	}
	w := file.NewParquetWriter(&buf, node)
	rg := w.AppendBufferedRowGroup()
	col, err := rg.Column(0)
	if err != nil {
		t.Fatal(err)
	}
	nan := 0.0
	nan /= nan
	if _, err := col.(*file.Float64ColumnChunkWriter).WriteBatch([]float64{1, nan}, []int16{1, 1}, nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(rg.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	path := d.abs(m.Files[0].Path)
	if err := os.WriteFile(path, buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	s := &stagedFile{h: sha256.New()}
	s.h.Write(buf.Bytes())
	m.Files[0].Bytes, m.Files[0].SHA256 = int64(buf.Len()), s.sum()
	doc, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.manifestPath(testRun), doc, 0o644); err != nil {
		t.Fatal(err)
	}
	rep := mustVerify(t, d, true)
	want := map[ProblemKind]string{SchemaDiffers: "repromill.requests", ValueRefused: "", RowsDiffer: "2 rows"}
	nanSeen := false
	for _, p := range rep.Problems {
		if !strings.Contains(p.Message, want[p.Kind]) {
			t.Errorf("unexpected %s", p)
		}
		nanSeen = nanSeen || strings.Contains(p.Message, "column e2e_s holds a NaN")
	}
	if !nanSeen || rep.OK() {
		t.Errorf("no NaN found in %v", rep.Problems)
	}
}

// TestBitFlips damages one random bit of a file at a time. Verify always finds
// it, and nothing panics or allocates without bound.
func TestBitFlips(t *testing.T) {
	d := open(t, t.TempDir(), Config{})
	commitRun(t, d, testRun)
	m, err := d.Manifest(testRun)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(7, 7))
	paths := []string{d.manifestPath(testRun)}
	for _, f := range m.Files {
		paths = append(paths, d.abs(f.Path))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const flips = 60
	for range flips {
		path := paths[rng.IntN(len(paths))]
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(whole)
		at, bit := rng.IntN(len(bad)), byte(1)<<rng.IntN(8)
		bad[at] ^= bit
		if err := os.WriteFile(path, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		if rep := mustVerify(t, d, false); rep.OK() {
			t.Errorf("bit %#x of byte %d of %s was flipped and verify found nothing", bit, at, path)
		}
		if err := os.WriteFile(path, whole, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if per := (after.TotalAlloc - before.TotalAlloc) / flips; per > 64<<20 {
		t.Errorf("verify allocates %d MiB a time", per>>20)
	}
	if rep := mustVerify(t, d, false); !rep.OK() {
		t.Errorf("the repaired dataset: %v", rep.Problems)
	}
}

func FuzzManifest(f *testing.F) {
	d := open(f, f.TempDir(), Config{})
	m := bigRun(f, d)
	doc, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"schema": "repromill.manifest/v1", "run_id": "../x", "files": [{"path": "/etc/passwd"}], "checksum": ""}`))
	f.Add(bytes.Replace(doc, []byte(`"table": "requests"`), []byte(`"table": "../../x"`), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		// Give every mutation a right checksum, so that the checks behind it
		// are reached.
		if loc := checksumRE.FindAllSubmatchIndex(b, -1); len(loc) > 0 {
			at := loc[len(loc)-1]
			if want, got := checksum(b); got != "" {
				b = append(append(bytes.Clone(b[:at[2]]), want...), b[at[3]:]...)
			}
		}
		m, err := ParseManifest(b)
		if err != nil {
			return
		}
		for _, f := range m.Files {
			if strings.Contains(f.Path, "..") && !strings.Contains(m.RunID, "..") || strings.HasPrefix(f.Path, "/") || !strings.HasSuffix(f.Path, "part-"+m.RunID+"-0.parquet") {
				t.Errorf("took the path %q for run %q", f.Path, m.RunID)
			}
		}
		for _, a := range m.Attachments {
			if !strings.HasPrefix(a.Path, "_runs/"+m.RunID+"/") {
				t.Errorf("took the attachment path %q", a.Path)
			}
		}
		if _, err := json.Marshal(m); err != nil {
			t.Errorf("an accepted manifest cannot be written: %v", err)
		}
	})
}
