package schema

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow/ipc"
	pqschema "github.com/apache/arrow/go/v17/parquet/schema"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite golden files")

// dump renders all tables as text: a line for each column as Arrow has it, and
// the schema as Parquet stores it.
func dump(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, table := range Tables() {
		sc, err := Arrow(table)
		if err != nil {
			t.Fatal(err)
		}
		version, _ := sc.Metadata().GetValue(MetaVersion)
		fmt.Fprintf(&b, "table %s %s partitions=%s\n", table, version, strings.Join(Partitions(table), ","))
		for _, f := range sc.Fields() {
			null := "required"
			if f.Nullable {
				null = "nullable"
			}
			fmt.Fprintf(&b, "  %-20s %-28s %s", f.Name, f.Type, null)
			for _, k := range []string{"key", "unit", "enum", "doc"} {
				if v, ok := f.Metadata.GetValue(k); ok {
					fmt.Fprintf(&b, " %s=%q", k, v)
				}
			}
			b.WriteByte('\n')
		}
		l, err := layoutOf(table)
		if err != nil {
			t.Fatal(err)
		}
		root, err := l.parquet()
		if err != nil {
			t.Fatal(err)
		}
		pqschema.PrintSchema(root, &b, 2)
	}
	return b.String()
}

// frozen are the SHA-256 sums of the golden files of published versions. An
// entry is added with a version and never changed.
var frozen = map[string]string{
	"v1": "ee23e7add7a8f01f6481bc8a86adfbae9a3b9a13bdc26ebc2676f7859c0bf1f7",
}

const howToChange = `The tables of version %[1]s are frozen: files in users' folders have this shape and stay there.
To change a column, type, unit or meaning, make the next version instead:
  1. set Version in schema.go to the next one (its files get a folder of their own, <table>/v2/…);
  2. run "go test ./results/schema -run TestFrozen -update", which writes testdata/<version>.golden once;
  3. add the sum that the test then names to the table "frozen" in this file;
  4. keep %[1]s readable where the program reads old runs, and say in ARCHITECTURE.md why.
testdata/%[1]s.golden is never edited.
`

// TestFrozen holds every table to the version it says it is. The -update flag
// writes the golden file of a version that has none, and never changes one.
func TestFrozen(t *testing.T) {
	got, path := dump(t), filepath.Join("testdata", Version+".golden")
	want, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && *update {
		want, err = []byte(got), os.WriteFile(path, []byte(got), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("the schemas differ from %s (-frozen +code):\n%s\n"+howToChange, path, d, Version)
	}
}

// TestFrozenFilesAreWhole catches an edit of a golden file of a published version.
func TestFrozenFilesAreWhole(t *testing.T) {
	if frozen[Version] == "" {
		t.Errorf("version %s has no sum in the table frozen", Version)
	}
	for version, want := range frozen {
		b, err := os.ReadFile(filepath.Join("testdata", version+".golden"))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(b)); got != want {
			t.Errorf("testdata/%s.golden has the sum %s, it was published with %s\n"+howToChange, version, got, want, version)
		}
	}
}

func TestOtherVersions(t *testing.T) {
	good := encode(t, fill[MetricRow](3))
	for _, c := range []struct {
		version string
		refused bool
	}{{"v1", false}, {"v2", true}, {"v0", true}} {
		b := bytes.ReplaceAll(good, []byte("schema_version\x18\x02v1"), []byte("schema_version\x18\x02"+c.version))
		if bytes.Equal(b, good) != (c.version == "v1") {
			t.Fatal("the file's metadata is not where this test changes it")
		}
		_, err := decode[MetricRow](b)
		var other *VersionError
		if errors.As(err, &other) != c.refused {
			t.Errorf("%s: %v", c.version, err)
		}
		if c.refused && (other.Have != c.version || !strings.Contains(err.Error(), `"v1"`) || !strings.Contains(err.Error(), "DuckDB")) {
			t.Errorf("%s: %v, want both versions and what to do", c.version, err)
		}
	}
	if !Readable("v1-draft") {
		t.Error("files from before v1 was frozen cannot be read")
	}
}

func TestColumnsFollowTheRules(t *testing.T) {
	for _, table := range Tables() {
		cols, err := Columns(table)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, c := range cols {
			if seen[c.Name] {
				t.Errorf("%s.%s: declared twice", table, c.Name)
			}
			seen[c.Name] = true
			if c.Name != strings.ToLower(c.Name) || strings.ContainsAny(c.Name, " -.") {
				t.Errorf("%s.%s: not snake_case", table, c.Name)
			}
			if slices.Contains(Partitions(table), c.Name) {
				t.Errorf("%s.%s: a partition column is repeated in the file", table, c.Name)
			}
			if strings.HasSuffix(c.Name, "_s") && c.Unit != "s" {
				t.Errorf("%s.%s: unit %q, want s", table, c.Name, c.Unit)
			}
			if !strings.HasSuffix(strings.TrimSuffix(c.Doc, "…"), ".") && !strings.HasSuffix(c.Doc, "…") {
				t.Errorf("%s.%s: doc %q does not end as a sentence", table, c.Name, c.Doc)
			}
		}
		for _, name := range []string{"run_id", "attempt", "plan_hash", "kind", "simulated", "schema_version"} {
			if !seen[name] {
				t.Errorf("%s lacks %s", table, name)
			}
		}
	}
	if _, err := Columns("nope"); err == nil || !strings.Contains(err.Error(), "requests") {
		t.Errorf("unknown table: %v, want an error that names the tables", err)
	}
}

func common() Common {
	return Common{RunID: "01J0000000000000000000RUN1", Attempt: "r/execute/-/0/0", PlanHash: "ab12", Kind: Measured, SchemaVersion: Version}
}

// fill sets every field of a row to something that is not its zero value,
// different in each row, and every third row's nullable fields to NULL.
func fill[T Row](n int) []T {
	out := make([]T, n)
	for i := range out {
		v := reflect.ValueOf(&out[i]).Elem()
		for _, f := range reflect.VisibleFields(v.Type()) {
			if f.Anonymous {
				continue
			}
			set(v.FieldByIndex(f.Index), f, i)
		}
	}
	return out
}

func set(v reflect.Value, f reflect.StructField, i int) {
	null := i%3 == 2 && !strings.Contains(f.Tag.Get("col"), "req")
	switch p := v.Addr().Interface().(type) {
	case *string:
		switch enum := f.Tag.Get("enum"); {
		case enum != "":
			words := strings.Split(enum, "|")
			*p = words[i%len(words)]
		case !null:
			*p = fmt.Sprintf("%s-%d é", f.Name, i%7)
		}
		if strings.Contains(f.Tag.Get("col"), "partition") {
			*p = ""
		}
	case *int64:
		*p = int64(i) - 3
	case *bool:
		*p = i%2 == 0
	case *time.Time:
		if !null {
			*p = time.Date(2026, 11, 21, 1, 2, 3, 4000*(i%100), time.UTC)
		}
	case *[]float64:
		if !null {
			*p = []float64{}
			for j := range i % 40 {
				*p = append(*p, float64(i)+float64(j)/1024)
			}
		}
	case *Opt[int64]:
		if !null {
			*p = Int(i * 1000)
		}
	case *Opt[float64]:
		if !null {
			*p = Float(float64(i) / 3)
		}
	case *Opt[bool]:
		if !null {
			*p = Bool(i%2 == 1)
		}
	}
}

func encode[T Row](t testing.TB, batches ...[]T) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := NewWriter[T](&buf, map[string]string{"run_id": "r"})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range batches {
		if err := w.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func decode[T Row](b []byte) (out []T, err error) {
	r, err := NewReader[T](bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	for {
		rows, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, rows...)
	}
}

func roundTrip[T Row](t *testing.T) {
	var zero T
	t.Run(zero.Table(), func(t *testing.T) {
		want := fill[T](700)
		c, err := NewChecker[T]()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Check(want); err != nil {
			t.Fatal(err)
		}
		got, err := decode[T](encode(t, want[:1], want[1:600], want[600:]))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("read back (-want +got):\n%.2000s", d)
		}
		empty, err := decode[T](encode[T](t))
		if err != nil || len(empty) != 0 {
			t.Errorf("empty file: %d rows, %v", len(empty), err)
		}
		j, err := json.Marshal(want[0])
		if err != nil {
			t.Fatal(err)
		}
		var back T
		if err := json.Unmarshal(j, &back); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want[0], back); d != "" {
			t.Errorf("through JSON (-want +got):\n%s", d)
		}
	})
}

func TestRoundTrip(t *testing.T) {
	roundTrip[RunRow](t)
	roundTrip[ClaimRow](t)
	roundTrip[MetricRow](t)
	roundTrip[SampleRow](t)
	roundTrip[RequestRow](t)
	roundTrip[EstimateRow](t)
	roundTrip[EventRow](t)
	roundTrip[ComparisonRow](t)
	roundTrip[VerdictRow](t)
	roundTrip[LayerRow](t)
	roundTrip[ServerRow](t)
}

func TestNaNIsNull(t *testing.T) {
	rows := []RequestRow{{Common: common(), Arm: "a", Cell: "c", Status: "ok", TTFTS: Float(math.NaN()), ITLS: []float64{1, math.NaN(), 3}}}
	var buf bytes.Buffer
	w, err := NewWriter[RequestRow](&buf, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Write(rows), w.Close()); err != nil {
		t.Fatal(err)
	}
	if w.Stats().NaNToNull != 2 {
		t.Errorf("NaNToNull = %d, want 2", w.Stats().NaNToNull)
	}
	got, err := decode[RequestRow](buf.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if got[0].TTFTS.Valid {
		t.Errorf("ttft_s = %v, want NULL", got[0].TTFTS)
	}
	if l := got[0].ITLS; len(l) != 3 || l[0] != 1 || !math.IsNaN(l[1]) || l[2] != 3 {
		t.Errorf("itl_s = %v, want [1 NULL 3]", l)
	}
}

func TestCheckNamesTheValue(t *testing.T) {
	ok := func() RequestRow { return RequestRow{Common: common(), Arm: "a", Cell: "c", Status: "ok"} }
	for name, c := range map[string]struct {
		change func(*RequestRow)
		want   string
	}{
		"infinity":      {func(r *RequestRow) { r.TTFTS = Float(math.Inf(1)) }, "table requests, column ttft_s, row 1: +Inf"},
		"in a list":     {func(r *RequestRow) { r.ITLS = []float64{0, math.Inf(-1)} }, "table requests, column itl_s, row 1: element 1 is -Inf"},
		"missing text":  {func(r *RequestRow) { r.Cell = "" }, "table requests, column cell, row 1: is empty"},
		"unknown kind":  {func(r *RequestRow) { r.Kind = "guessed" }, `table requests, column kind, row 1: "guessed" is not one of [measured`},
		"too far ahead": {func(r *RequestRow) { r.Arrival = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) }, "table requests, column arrival, row 1: 9999-01-01"},
	} {
		t.Run(name, func(t *testing.T) {
			rows := []RequestRow{ok(), ok(), ok()}
			ck, err := NewChecker[RequestRow]()
			if err != nil {
				t.Fatal(err)
			}
			if err := ck.Check(rows); err != nil {
				t.Fatalf("before the change: %v", err)
			}
			c.change(&rows[1])
			err = ck.Check(rows)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got %v, want %s…", err, c.want)
			}
		})
	}
}

func TestKeys(t *testing.T) {
	c, err := NewChecker[SampleRow]()
	if err != nil {
		t.Fatal(err)
	}
	base := SampleRow{Suite: "s", DatasetSHA: "d", ItemID: "i", Repeat: 1, Arm: "a"}
	same := base
	same.Attempt, same.Output, same.Score = "other", "text", Float(1)
	if !bytes.Equal(c.AppendKey(nil, &base), c.AppendKey(nil, &same)) {
		t.Error("columns outside the key change it")
	}
	seen := map[string]string{string(c.AppendKey(nil, &base)): "base"}
	for name, r := range map[string]SampleRow{
		"suite": {Suite: "t", DatasetSHA: "d", ItemID: "i", Repeat: 1, Arm: "a"}, "dataset": {Suite: "s", DatasetSHA: "e", ItemID: "i", Repeat: 1, Arm: "a"},
		"item": {Suite: "s", DatasetSHA: "d", ItemID: "j", Repeat: 1, Arm: "a"}, "repeat": {Suite: "s", DatasetSHA: "d", ItemID: "i", Repeat: 2, Arm: "a"},
		"arm": {Suite: "s", DatasetSHA: "d", ItemID: "i", Repeat: 1, Arm: "b"}, "shifted": {Suite: "sd", ItemID: "i", Repeat: 1, Arm: "a"},
	} {
		k := string(c.AppendKey(nil, &r))
		if other, ok := seen[k]; ok {
			t.Errorf("%s has the key of %s", name, other)
		}
		seen[k] = name
	}
}

func TestBadUTF8IsRepaired(t *testing.T) {
	got, err := decode[EventRow](encode(t, []EventRow{{Common: common(), Seq: 1, Event: "log", Data: "a\xff\x00b"}}))
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Data != "a\uFFFD\x00b" {
		t.Errorf("data = %q", got[0].Data)
	}
}

func TestFileMetadata(t *testing.T) {
	r, err := NewReader[RunRow](bytes.NewReader(encode(t, fill[RunRow](1))))
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]string{MetaName: "repromill.runs", MetaVersion: Version, "run_id": "r"} {
		if got := r.Meta(k); got != want {
			t.Errorf("%s = %q, want %q", k, got, want)
		}
	}
	raw, err := base64.StdEncoding.DecodeString(r.Meta(MetaArrow))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := ipc.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Release()
	want, err := Arrow(Runs)
	if err != nil {
		t.Fatal(err)
	}
	// String renders the metadata too, which Equal leaves out.
	if d := cmp.Diff(want.String(), stream.Schema().String()); d != "" {
		t.Errorf("Arrow schema in the file (-want +got):\n%s", d)
	}
}

type failing struct{ left int }

var errFull = errors.New("no space left on device")

func (f *failing) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestWriterReportsAFullDisk(t *testing.T) {
	rows := fill[SampleRow](5000)
	size := len(encode(t, rows))
	for _, left := range []int{0, 3, 100, size / 2, size - 1} {
		w, err := NewWriter[SampleRow](&failing{left}, map[string]string{"run_id": "r"})
		if err == nil {
			err = errors.Join(w.Write(rows), w.Flush(), w.Close())
		}
		if err == nil || !strings.Contains(err.Error(), errFull.Error()) {
			t.Errorf("%d of %d bytes: %v, want %v", left, size, err, errFull)
		}
	}
}

func TestLongTextsAndLists(t *testing.T) {
	rows := make([]SampleRow, 40)
	for i := range rows {
		rows[i] = SampleRow{Common: common(), ItemID: fmt.Sprint(i), Arm: "a", Outcome: "wrong", Output: strings.Repeat(fmt.Sprintf("%d ", i), 80_000)}
	}
	got, err := decode[SampleRow](encode(t, rows))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(rows, got); d != "" {
		t.Errorf("long texts differ:\n%.500s", d)
	}
}
