package schema

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/parquet"
	pqschema "github.com/apache/arrow/go/v17/parquet/schema"
)

// The keys of a file's key-value metadata.
const (
	MetaName    = "schema_name"    // "repromill.<table>"
	MetaVersion = "schema_version" // Version
	MetaArrow   = "ARROW:schema"   // the Arrow schema with each field's documentation, as pyarrow writes it
)

// Name is the schema's name in a file's metadata.
func Name(table string) string { return "repromill." + table }

// Arrow returns the Arrow schema of a table. Each field's metadata holds doc,
// and unit, key and enum where they apply; the schema's own holds schema_name
// and schema_version.
func Arrow(table string) (*arrow.Schema, error) {
	l, err := layoutOf(table)
	if err != nil {
		return nil, err
	}
	return l.arrow(), nil
}

func (l *layout) arrow() *arrow.Schema {
	fields := make([]arrow.Field, len(l.cols))
	for i, c := range l.cols {
		fields[i] = arrow.Field{Name: c.Name, Type: arrowType(c.Type), Nullable: c.Nullable, Metadata: fieldMeta(c.Column)}
	}
	meta := arrow.NewMetadata([]string{MetaName, MetaVersion}, []string{Name(l.table), Version})
	return arrow.NewSchema(fields, &meta)
}

func fieldMeta(c Column) arrow.Metadata {
	keys, vals := []string{"doc"}, []string{c.Doc}
	if c.Unit != "" {
		keys, vals = append(keys, "unit"), append(vals, c.Unit)
	}
	if c.Key {
		keys, vals = append(keys, "key"), append(vals, "true")
	}
	if c.Enum != nil {
		keys, vals = append(keys, "enum"), append(vals, strings.Join(c.Enum, "|"))
	}
	return arrow.NewMetadata(keys, vals)
}

func arrowType(t Type) arrow.DataType {
	switch t {
	case Int64:
		return arrow.PrimitiveTypes.Int64
	case Double:
		return arrow.PrimitiveTypes.Float64
	case Boolean:
		return arrow.FixedWidthTypes.Boolean
	case Timestamp:
		return arrow.FixedWidthTypes.Timestamp_us
	case DoubleList:
		return arrow.ListOfField(arrow.Field{Name: "element", Type: arrow.PrimitiveTypes.Float64, Nullable: true})
	}
	return arrow.BinaryTypes.String
}

// fileMeta is the key-value metadata of every file of the table.
func (l *layout) fileMeta() (keys, vals []string, err error) {
	var buf bytes.Buffer
	w := ipc.NewWriter(&buf, ipc.WithSchema(l.arrow()))
	if err := w.Close(); err != nil {
		return nil, nil, fmt.Errorf("serialise arrow schema: %w", err)
	}
	return []string{MetaName, MetaVersion, MetaArrow},
		[]string{Name(l.table), Version, base64.StdEncoding.EncodeToString(buf.Bytes())}, nil
}

// parquet returns the Parquet schema. It is built here and not by
// parquet/pqarrow, which would link gRPC into every binary.
func (l *layout) parquet() (*pqschema.GroupNode, error) {
	fields := make(pqschema.FieldList, len(l.cols))
	for i, c := range l.cols {
		rep := parquet.Repetitions.Required
		if c.Nullable {
			rep = parquet.Repetitions.Optional
		}
		n, err := parquetNode(c, rep)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", c.Name, err)
		}
		fields[i] = n
	}
	return pqschema.NewGroupNode("schema", parquet.Repetitions.Required, fields, -1)
}

func parquetNode(c column, rep parquet.Repetition) (pqschema.Node, error) {
	switch c.Type {
	case Int64:
		return pqschema.NewInt64Node(c.Name, rep, -1), nil
	case Double:
		return pqschema.NewFloat64Node(c.Name, rep, -1), nil
	case Boolean:
		return pqschema.NewBooleanNode(c.Name, rep, -1), nil
	case Timestamp:
		return pqschema.NewPrimitiveNodeLogical(c.Name, rep, pqschema.NewTimestampLogicalType(true, pqschema.TimeUnitMicros), parquet.Types.Int64, -1, -1)
	case DoubleList:
		element := pqschema.NewFloat64Node("element", parquet.Repetitions.Optional, -1)
		list, err := pqschema.NewGroupNode("list", parquet.Repetitions.Repeated, pqschema.FieldList{element}, -1)
		if err != nil {
			return nil, err
		}
		return pqschema.NewGroupNodeLogical(c.Name, rep, pqschema.FieldList{list}, pqschema.NewListLogicalType(), -1)
	}
	return pqschema.NewPrimitiveNodeLogical(c.Name, rep, pqschema.StringLogicalType{}, parquet.Types.ByteArray, -1, -1)
}
