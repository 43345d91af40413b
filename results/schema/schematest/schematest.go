// Package schematest writes Parquet files as others publish them, for tests of
// what reads data sets.
package schematest

import (
	"fmt"
	"io"

	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/schema"
)

// Column is a column with its values: []string, []int64, []float64, [][]string
// (lists, in the three levels that Arrow writes) or []*string (with NULLs).
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
		cw, err := rg.NextColumn()
		if err != nil {
			return fmt.Errorf("column %s: %w", c.Name, err)
		}
		if err := write(cw, c.Values); err != nil {
			return fmt.Errorf("column %s: %w", c.Name, err)
		}
		if err := cw.Close(); err != nil {
			return fmt.Errorf("column %s: %w", c.Name, err)
		}
	}
	if err := rg.Close(); err != nil {
		return err
	}
	return fw.Close()
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
	return nil, fmt.Errorf("column %s: values are %T", c.Name, c.Values)
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
