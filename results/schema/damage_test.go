package schema

import (
	"bytes"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/file"
	pqschema "github.com/apache/arrow/go/v17/parquet/schema"
)

// TestReaderSurvivesDamage flips bits, cuts and splices files. The reader may
// refuse or return other rows; it must not panic, hang or take much memory.
func TestReaderSurvivesDamage(t *testing.T) {
	whole := encode(t, fill[RequestRow](300), fill[RequestRow](50))
	rng := rand.New(rand.NewPCG(3, 4))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	refused := 0
	const rounds = 200
	for i := range rounds {
		bad := bytes.Clone(whole)
		switch i % 4 {
		case 0, 1:
			bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
		case 2: // the footer, where the numbers are
			bad[len(bad)-1-rng.IntN(8000)] ^= byte(1 + rng.IntN(255))
		case 3:
			bad = bad[:rng.IntN(len(bad))]
		}
		if _, err := decode[RequestRow](bad); err != nil {
			refused++
		}
	}
	runtime.ReadMemStats(&after)
	if refused < rounds/4 {
		t.Errorf("only %d of %d damaged files were refused", refused, rounds)
	}
	if per := (after.TotalAlloc - before.TotalAlloc) / rounds; per > 64<<20 {
		t.Errorf("a damaged file costs %d MiB", per>>20)
	}
}

func TestReaderAndOtherSchemas(t *testing.T) {
	if rows, err := decode[MetricRow](encode(t, fill[EventRow](3))); err != nil || len(rows) != 3 || rows[0].Metric != "" || rows[0].RunID == "" {
		t.Errorf("%d rows, %v; want 3 with the columns that both tables have", len(rows), err)
	}
	// An older draft lacks columns, required ones too: that is no damage.
	old, err := NewReader[MetricRow](bytes.NewReader(encode(t, fill[EventRow](3))))
	if err != nil {
		t.Fatal(err)
	}
	if rows, err := old.Next(); err != nil || old.Check(rows) != nil {
		t.Errorf("rows of an older draft: %v, %v", err, old.Check(rows))
	}
	if _, err := decode[RunRow]([]byte("PAR1 this is no Parquet file PAR1")); err == nil {
		t.Error("took text for Parquet")
	}
	var buf bytes.Buffer
	root, err := pqschema.NewGroupNode("schema", parquet.Repetitions.Required, pqschema.FieldList{pqschema.NewInt64Node("run_id", parquet.Repetitions.Required, -1)}, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.NewParquetWriter(&buf, root).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := decode[RunRow](buf.Bytes()); err == nil || !strings.Contains(err.Error(), "column run_id is not string") {
		t.Errorf("a column of another type: %v", err)
	}
}

func FuzzReader(f *testing.F) {
	whole := encode(f, fill[EventRow](20), fill[EventRow](5))
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(whole[len(whole)/2:])
	f.Add([]byte("PAR1\x00\x00\x00\x00PAR1"))
	f.Add(encode(f, fill[RequestRow](10)))
	f.Fuzz(func(t *testing.T, b []byte) {
		rows, err := decode[EventRow](b)
		if err == nil && len(rows) > maxGroupRows*len(b) {
			t.Errorf("%d rows from %d bytes", len(rows), len(b))
		}
		_, _ = decode[RequestRow](b)
	})
}
