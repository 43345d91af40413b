// Package schematest writes Parquet files as others publish them, for tests of
// what reads data sets.
package schematest

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/schema"
)

// Column is a column with its values: []string, []int64, []float64, [][]string
// (lists, in the three levels that Arrow writes), []*string (with NULLs) or
// [][]map[string]any (lists of structs of texts and float64s, with NULLs for what a
// map lacks; the first struct has every field).
type Column struct {
	Name   string
	Values any
}

// Write writes a file of one row group with snappy pages, as the hub's tools do.
func Write(w io.Writer, columns ...Column) (err error) {
	var fields schema.FieldList
	for _, c := range columns {
		n, err := node(c)
		if err != nil {
			return err
		}
		fields = append(fields, n)
	}
	root, err := schema.NewGroupNode("schema", parquet.Repetitions.Required, fields, -1)
	if err != nil {
		return fmt.Errorf("make schema: %w", err)
	}
	fw := file.NewParquetWriter(w, root, file.WithWriterProps(parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy))))
	rg := fw.AppendRowGroup()
	for _, c := range columns {
		for _, leaf := range leaves(c.Values) {
			cw, err := rg.NextColumn()
			if err != nil {
				return fmt.Errorf("column %s: %w", c.Name, err)
			}
			if err := write(cw, leaf); err != nil {
				return fmt.Errorf("column %s: %w", c.Name, err)
			}
			if err := cw.Close(); err != nil {
				return fmt.Errorf("column %s: %w", c.Name, err)
			}
		}
	}
	if err := rg.Close(); err != nil {
		return err
	}
	return fw.Close()
}

// field is one field of a column of lists of structs.
type field struct {
	name string
	text bool
	rows [][]map[string]any
}

// leaves are the values of a column's leaves: one, or one for each field of its
// structs.
func leaves(values any) []any {
	rows, ok := values.([][]map[string]any)
	if !ok {
		return []any{values}
	}
	var out []any
	for _, r := range rows {
		for _, first := range r {
			for _, name := range slices.Sorted(maps.Keys(first)) {
				_, text := first[name].(string)
				out = append(out, field{name, text, rows})
			}
			return out
		}
	}
	return out
}

// levels are the values of a field with their definition and repetition levels.
func (f field) levels() (values []any, defs, reps []int16) {
	for _, r := range f.rows {
		if len(r) == 0 {
			defs, reps = append(defs, 1), append(reps, 0)
		}
		for i, m := range r {
			reps = append(reps, int16(min(i, 1)))
			if v := m[f.name]; v != nil {
				values, defs = append(values, v), append(defs, 4)
			} else {
				defs = append(defs, 3)
			}
		}
	}
	return values, defs, reps
}

func node(c Column) (schema.Node, error) {
	text := func(name string, rep parquet.Repetition) schema.Node {
		return schema.MustPrimitive(schema.NewPrimitiveNodeLogical(name, rep, schema.StringLogicalType{}, parquet.Types.ByteArray, -1, -1))
	}
	switch c.Values.(type) {
	case []string, []*string:
		return text(c.Name, parquet.Repetitions.Optional), nil
	case []int64:
		return schema.NewInt64Node(c.Name, parquet.Repetitions.Optional, -1), nil
	case []float64:
		return schema.NewFloat64Node(c.Name, parquet.Repetitions.Optional, -1), nil
	case [][]string:
		list := schema.MustGroup(schema.NewGroupNode("list", parquet.Repetitions.Repeated, schema.FieldList{text("element", parquet.Repetitions.Optional)}, -1))
		return schema.NewGroupNodeConverted(c.Name, parquet.Repetitions.Optional, schema.FieldList{list}, schema.ConvertedTypes.List, -1)
	}
	if _, ok := c.Values.([][]map[string]any); !ok {
		return nil, fmt.Errorf("column %s: values are %T", c.Name, c.Values)
	}
	var fields schema.FieldList
	for _, l := range leaves(c.Values) {
		if f := l.(field); f.text {
			fields = append(fields, text(f.name, parquet.Repetitions.Optional))
		} else {
			fields = append(fields, schema.NewFloat64Node(f.name, parquet.Repetitions.Optional, -1))
		}
	}
	element := schema.MustGroup(schema.NewGroupNode("element", parquet.Repetitions.Optional, fields, -1))
	list := schema.MustGroup(schema.NewGroupNode("list", parquet.Repetitions.Repeated, schema.FieldList{element}, -1))
	return schema.NewGroupNodeConverted(c.Name, parquet.Repetitions.Optional, schema.FieldList{list}, schema.ConvertedTypes.List, -1)
}

func write(cw file.ColumnChunkWriter, values any) error {
	ones := func(n int) []int16 {
		out := make([]int16, n)
		for i := range out {
			out[i] = 1
		}
		return out
	}
	var err error
	switch v := values.(type) {
	case []int64:
		_, err = cw.(*file.Int64ColumnChunkWriter).WriteBatch(v, ones(len(v)), nil)
	case []float64:
		_, err = cw.(*file.Float64ColumnChunkWriter).WriteBatch(v, ones(len(v)), nil)
	case []string:
		var b []parquet.ByteArray
		for _, s := range v {
			b = append(b, parquet.ByteArray(s))
		}
		_, err = cw.(*file.ByteArrayColumnChunkWriter).WriteBatch(b, ones(len(b)), nil)
	case []*string:
		var b []parquet.ByteArray
		var defs []int16
		for _, s := range v {
			if s == nil {
				defs = append(defs, 0)
				continue
			}
			b, defs = append(b, parquet.ByteArray(*s)), append(defs, 1)
		}
		_, err = cw.(*file.ByteArrayColumnChunkWriter).WriteBatch(b, defs, nil)
	case field:
		values, defs, reps := v.levels()
		if !v.text {
			var fs []float64
			for _, x := range values {
				fs = append(fs, x.(float64))
			}
			_, err = cw.(*file.Float64ColumnChunkWriter).WriteBatch(fs, defs, reps)
			break
		}
		var b []parquet.ByteArray
		for _, x := range values {
			b = append(b, parquet.ByteArray(x.(string)))
		}
		_, err = cw.(*file.ByteArrayColumnChunkWriter).WriteBatch(b, defs, reps)
	case [][]string:
		var b []parquet.ByteArray
		var defs, reps []int16
		for _, list := range v {
			if len(list) == 0 {
				defs, reps = append(defs, 1), append(reps, 0)
			}
			for i, s := range list {
				b, defs, reps = append(b, parquet.ByteArray(s)), append(defs, 3), append(reps, int16(min(i, 1)))
			}
		}
		_, err = cw.(*file.ByteArrayColumnChunkWriter).WriteBatch(b, defs, reps)
	}
	return err
}
