package schematest

import (
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/schema"
)

// WriteRows writes a file of one row group with a column for each field of T,
// named by its json tag: strings, int64s, and slices and structs of them to any
// depth, in the layout that Arrow writes.
func WriteRows[T any](w io.Writer, rows []T) error {
	t := reflect.TypeFor[T]()
	var fields schema.FieldList
	for i := range t.NumField() {
		n, err := nodeOf(fieldName(t.Field(i)), t.Field(i).Type)
		if err != nil {
			return err
		}
		fields = append(fields, n)
	}
	root, err := schema.NewGroupNode("schema", parquet.Repetitions.Required, fields, -1)
	if err != nil {
		return fmt.Errorf("make schema: %w", err)
	}
	s := &shredder{}
	for _, row := range rows {
		s.at = 0
		for i := range t.NumField() {
			s.nested(reflect.ValueOf(row).Field(i), 0, 0, 0)
		}
	}
	fw := file.NewParquetWriter(w, root, file.WithWriterProps(parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy))))
	rg := fw.AppendRowGroup()
	for i := range s.leaves {
		cw, err := rg.NextColumn()
		if err == nil {
			err = s.leaves[i].write(cw)
		}
		if err == nil {
			err = cw.Close()
		}
		if err != nil {
			return fmt.Errorf("column %d: %w", i, err)
		}
	}
	if err := rg.Close(); err != nil {
		return err
	}
	return fw.Close()
}

func fieldName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// nodeOf makes a column; everything may be NULL, as Arrow has it.
func nodeOf(name string, t reflect.Type) (schema.Node, error) {
	switch t.Kind() {
	case reflect.String:
		return schema.NewPrimitiveNodeLogical(name, parquet.Repetitions.Optional, schema.StringLogicalType{}, parquet.Types.ByteArray, -1, -1)
	case reflect.Int64:
		return schema.NewInt64Node(name, parquet.Repetitions.Optional, -1), nil
	case reflect.Slice:
		elem, err := nodeOf("element", t.Elem())
		if err != nil {
			return nil, err
		}
		list, err := schema.NewGroupNode("list", parquet.Repetitions.Repeated, schema.FieldList{elem}, -1)
		if err != nil {
			return nil, err
		}
		return schema.NewGroupNodeConverted(name, parquet.Repetitions.Optional, schema.FieldList{list}, schema.ConvertedTypes.List, -1)
	case reflect.Struct:
		var fields schema.FieldList
		for i := range t.NumField() {
			n, err := nodeOf(fieldName(t.Field(i)), t.Field(i).Type)
			if err != nil {
				return nil, err
			}
			fields = append(fields, n)
		}
		return schema.NewGroupNode(name, parquet.Repetitions.Optional, fields, -1)
	}
	return nil, fmt.Errorf("column %s: there is no column for %s", name, t)
}

// shredder cuts rows into leaf columns with definition and repetition levels.
//
// Source: Melnik et al., "Dremel", VLDB 2010, section 4.1.
type shredder struct {
	leaves []leaf
	at     int // the leaf that comes next
}

type leaf struct {
	text       []parquet.ByteArray
	numbers    []int64
	defs, reps []int16
}

// next returns the leaf that comes next in the order of the schema.
func (s *shredder) next() *leaf {
	if s.at == len(s.leaves) {
		s.leaves = append(s.leaves, leaf{})
	}
	s.at++
	return &s.leaves[s.at-1]
}

// nested adds a value whose parents have the definition level def, and rep as the
// level of the list that goes on with it; depth is how many lists hold it.
func (s *shredder) nested(v reflect.Value, def, rep, depth int16) {
	switch v.Kind() {
	case reflect.String:
		l := s.next()
		l.text, l.defs, l.reps = append(l.text, parquet.ByteArray(v.String())), append(l.defs, def+1), append(l.reps, rep)
	case reflect.Int64:
		l := s.next()
		l.numbers, l.defs, l.reps = append(l.numbers, v.Int()), append(l.defs, def+1), append(l.reps, rep)
	case reflect.Struct:
		for i := range v.NumField() {
			s.nested(v.Field(i), def+1, rep, depth)
		}
	case reflect.Slice:
		if v.Len() == 0 {
			s.empty(v.Type().Elem(), def+1, rep)
			return
		}
		begin := s.at
		for i := range v.Len() {
			s.at = begin
			if i > 0 {
				rep = depth + 1
			}
			s.nested(v.Index(i), def+2, rep, depth+1)
		}
	}
}

// empty marks every leaf below an empty list.
func (s *shredder) empty(t reflect.Type, def, rep int16) {
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			s.empty(t.Field(i).Type, def, rep)
		}
	case reflect.Slice:
		s.empty(t.Elem(), def, rep)
	default:
		l := s.next()
		l.defs, l.reps = append(l.defs, def), append(l.reps, rep)
	}
}

func (l *leaf) write(cw file.ColumnChunkWriter) (err error) {
	switch cw := cw.(type) {
	case *file.ByteArrayColumnChunkWriter:
		_, err = cw.WriteBatch(l.text, l.defs, l.reps)
	case *file.Int64ColumnChunkWriter:
		_, err = cw.WriteBatch(l.numbers, l.defs, l.reps)
	default:
		err = fmt.Errorf("no writer for %T", cw)
	}
	return err
}
