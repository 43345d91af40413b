package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"

	"github.com/repromill/repromill/results/schema"
)

// tables know how to look through the Parquet files of each table.
var tables = map[string]table{
	schema.Runs: tableOf[schema.RunRow]{}, schema.Claims: tableOf[schema.ClaimRow]{}, schema.Metrics: tableOf[schema.MetricRow]{},
	schema.Samples: tableOf[schema.SampleRow]{}, schema.Requests: tableOf[schema.RequestRow]{}, schema.Estimates: tableOf[schema.EstimateRow]{},
	schema.Events: tableOf[schema.EventRow]{}, schema.Comparisons: tableOf[schema.ComparisonRow]{}, schema.Verdicts: tableOf[schema.VerdictRow]{},
	schema.Layers: tableOf[schema.LayerRow]{}, schema.Servers: tableOf[schema.ServerRow]{},
}

type table interface {
	// redact counts what would be taken out of a file, and writes the file without
	// it where w is not nil.
	redact(ctx context.Context, f *os.File, r *Redactor, w io.Writer) (int, error)
}

type tableOf[T schema.Row] struct{}

func (tableOf[T]) redact(ctx context.Context, f *os.File, red *Redactor, w io.Writer) (n int, err error) {
	r, err := schema.NewReader[T](f)
	if err != nil {
		return 0, fmt.Errorf("read rows: %w", err)
	}
	var out *schema.Writer[T]
	if w != nil {
		if out, err = schema.NewWriter[T](w, map[string]string{"run_id": r.Meta("run_id")}); err != nil {
			return 0, fmt.Errorf("write rows: %w", err)
		}
	}
	texts := newTexts(red, reflect.TypeFor[T]())
	for {
		rows, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return n, fmt.Errorf("read rows: %w", err)
		}
		for i := range rows {
			n += texts.clean(reflect.ValueOf(&rows[i]).Elem())
		}
		if out != nil {
			if err := out.Write(rows); err != nil {
				return n, fmt.Errorf("write rows: %w", err)
			}
		}
	}
	if out != nil {
		if err := out.Close(); err != nil {
			return n, fmt.Errorf("write rows: %w", err)
		}
	}
	return n, nil
}

// texts takes secrets out of the text columns of rows. Most columns hold the same
// few words in every row, which are looked through once.
type texts struct {
	red    *Redactor
	fields [][]int
	known  map[string]struct{}
}

const (
	maxKnown     = 10_000 // texts remembered as clean
	maxKnownSize = 200    // bytes of one
)

func newTexts(red *Redactor, t reflect.Type) *texts {
	x := &texts{red: red, known: map[string]struct{}{}}
	for _, f := range reflect.VisibleFields(t) {
		if f.Type.Kind() == reflect.String {
			x.fields = append(x.fields, f.Index)
		}
	}
	return x
}

func (x *texts) clean(row reflect.Value) (n int) {
	for _, index := range x.fields {
		field := row.FieldByIndex(index)
		s := field.String()
		if _, ok := x.known[s]; ok || len(s) < 8 {
			continue
		}
		out, hits := x.red.Text(s)
		if hits > 0 {
			n += hits
			field.SetString(out)
		} else if len(s) <= maxKnownSize && len(x.known) < maxKnown {
			x.known[s] = struct{}{}
		}
	}
	return n
}
