package schema

import (
	"fmt"
	"math"

	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/file"
	pqschema "github.com/apache/arrow/go/v17/parquet/schema"
)

// EachForeign calls fn for every row of a Parquet file that is not one of ours,
// such as a published data set: a map from column to string, bool, int64,
// float64, []byte, []any (a list), map[string]any (a struct) or nil. Times and
// decimals come as the integers that store them; a NaN is nil, as JSON has none.
// An error of fn ends it and is returned. With columns only those are read; one
// that is missing is a [*MissingColumnError].
//
// A damaged file gives an error, never a panic: everything is decoded in the
// caller's goroutine, where the library's panics can be caught.
func EachForeign(src Source, columns []string, fn func(row map[string]any) error) error {
	useCodec()
	f, err := openForeign(src)
	if err != nil {
		return err
	}
	fields, err := foreignFields(f.MetaData().Schema, columns)
	if err != nil {
		return err
	}
	for g := range f.NumRowGroups() {
		if err := foreignGroup(f, g, fields, fn); err != nil {
			return fmt.Errorf("row group %d: %w", g, err)
		}
	}
	return nil
}

func openForeign(src Source) (f *file.Reader, err error) {
	defer guard("read parquet footer", &err)
	if f, err = file.NewParquetReader(struct{ Source }{src}); err != nil {
		return nil, fmt.Errorf("read parquet footer: %w", err)
	}
	for g := range f.NumRowGroups() {
		if n := f.MetaData().RowGroup(g).NumRows(); n < 0 || n > math.MaxInt32 {
			return nil, fmt.Errorf("row group %d: states %d rows", g, n)
		}
	}
	return f, nil
}

// MissingColumnError says that a foreign file lacks a column.
type MissingColumnError struct {
	Column string
	Have   []string
}

func (e *MissingColumnError) Error() string {
	return fmt.Sprintf("there is no column %q; there are %q", e.Column, e.Have)
}

// field is a node of a foreign schema with its levels.
type field struct {
	name     string
	repeated bool
	def, rep int16 // levels at which the node itself is there
	leaf     int   // column index, -1 for a group
	kids     []*field
	list     bool // a LIST group: its value is that of its only, repeated child
	text     bool // UTF-8
	leaves   []int
}

func foreignFields(sc *pqschema.Schema, columns []string) (out []*field, err error) {
	defer guard("read parquet schema", &err)
	root := sc.Root()
	at := map[string]*field{}
	var have []string
	next := 0
	for i := range root.NumFields() {
		f := fieldOf(root.Field(i), 0, 0, &next)
		at[f.name] = f
		have = append(have, f.name)
		out = append(out, f)
	}
	if columns == nil {
		return out, nil
	}
	out = nil
	for _, c := range columns {
		if at[c] == nil {
			return nil, &MissingColumnError{c, have}
		}
		out = append(out, at[c])
	}
	return out, nil
}

func fieldOf(n pqschema.Node, def, rep int16, next *int) *field {
	f := &field{name: n.Name(), leaf: -1, def: def, rep: rep}
	switch n.RepetitionType() {
	case parquet.Repetitions.Optional:
		f.def++
	case parquet.Repetitions.Repeated:
		f.def++
		f.rep++
		f.repeated = true
	}
	g, ok := n.(*pqschema.GroupNode)
	if !ok {
		f.leaf = *next
		f.leaves = []int{*next}
		f.text = n.LogicalType().Equals(pqschema.StringLogicalType{}) || n.LogicalType().Equals(pqschema.JSONLogicalType{}) || n.LogicalType().Equals(pqschema.EnumLogicalType{}) ||
			n.ConvertedType() == pqschema.ConvertedTypes.UTF8
		*next++
		return f
	}
	for i := range g.NumFields() {
		kid := fieldOf(g.Field(i), f.def, f.rep, next)
		f.kids = append(f.kids, kid)
		f.leaves = append(f.leaves, kid.leaves...)
	}
	f.list = n.ConvertedType() == pqschema.ConvertedTypes.List && len(f.kids) == 1 && f.kids[0].repeated
	return f
}

func foreignGroup(f *file.Reader, g int, fields []*field, fn func(map[string]any) error) error {
	a := assembler{streams: map[int]*stream{}}
	if err := a.open(f, g, fields); err != nil {
		return err
	}
	for range f.MetaData().RowGroup(g).NumRows() {
		row, err := a.row(fields)
		if err != nil {
			return err
		}
		if err := fn(row); err != nil {
			return err
		}
	}
	return nil
}

// assembler puts rows together from the columns of a row group. The algorithm is
// that of Dremel (Melnik et al., VLDB 2010): levels say where a value belongs.
type assembler struct {
	streams map[int]*stream
}

func (a *assembler) open(f *file.Reader, g int, fields []*field) (err error) {
	defer guard("open columns", &err)
	rg := f.RowGroup(g)
	for _, fl := range fields {
		for _, i := range fl.leaves {
			col, err := rg.Column(i)
			if err != nil {
				return err
			}
			a.streams[i] = newStream(col)
		}
	}
	return nil
}

func (a *assembler) row(fields []*field) (row map[string]any, err error) {
	defer guard("decode parquet", &err)
	row = make(map[string]any, len(fields))
	for _, fl := range fields {
		if row[fl.name], err = a.value(fl); err != nil {
			return nil, fmt.Errorf("column %s: %w", fl.name, err)
		}
	}
	return row, nil
}

// value reads the next value of a field, which the streams of all of its leaves
// stand at.
func (a *assembler) value(f *field) (any, error) {
	first := a.streams[f.leaves[0]]
	if err := first.fill(); err != nil {
		return nil, err
	}
	if first.defs[first.at] < f.def {
		for _, i := range f.leaves {
			if err := a.streams[i].skip(); err != nil {
				return nil, err
			}
		}
		if f.repeated {
			return []any{}, nil
		}
		return nil, nil
	}
	if !f.repeated {
		return a.inner(f)
	}
	list := []any{}
	for {
		v, err := a.inner(f)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		more, err := first.peek()
		if err != nil || !more || first.reps[first.at] != f.rep {
			return list, err
		}
	}
}

func (a *assembler) inner(f *field) (any, error) {
	if f.leaf >= 0 {
		v, err := a.streams[f.leaf].next()
		if b, ok := v.([]byte); ok && f.text {
			v = string(b)
		}
		return v, err
	}
	if f.list {
		kid := f.kids[0]
		v, err := a.value(kid)
		if items, ok := v.([]any); ok && kid.leaf < 0 && len(kid.kids) == 1 { // the group around each element
			for i := range items {
				if m, ok := items[i].(map[string]any); ok {
					items[i] = m[kid.kids[0].name]
				}
			}
		}
		return v, err
	}
	out := make(map[string]any, len(f.kids))
	for _, k := range f.kids {
		v, err := a.value(k)
		if err != nil {
			return nil, err
		}
		out[k.name] = v
	}
	return out, nil
}
