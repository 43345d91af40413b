package schema

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unsafe"
)

// Type is the type of a column, spelled as Arrow spells it.
type Type string

// The types a column may have: those that every reader of Parquet agrees on.
const (
	Int64      Type = "int64"
	String     Type = "string"
	Double     Type = "double"
	Boolean    Type = "bool"
	Timestamp  Type = "timestamp[us, UTC]"
	DoubleList Type = "list<double>"
)

// Column describes one column of a table.
type Column struct {
	Name     string   `json:"name"`
	Type     Type     `json:"type"`
	Nullable bool     `json:"nullable,omitempty"`
	Key      bool     `json:"key,omitempty"`  // part of the table's key
	Unit     string   `json:"unit,omitempty"` // SI symbol or word; empty where the doc says which column holds it
	Doc      string   `json:"doc"`
	Enum     []string `json:"enum,omitempty"` // the only values allowed, where that is closed
}

// column is a Column with what encoding needs: where the field lies in the row
// struct and how it is stored.
type column struct {
	Column
	offset uintptr
	opt    bool // the field is an Opt, else a plain value
	dict   bool // few distinct values: dictionary encoding
	text   bool // long free text: no dictionary and no statistics
}

// layout is the plan for one row type, derived from its struct once per writer
// or reader, so that no row costs reflection.
type layout struct {
	table  string
	size   uintptr // of the row struct
	cols   []column
	suite  *column  // the partition column that is not stored, if any
	keys   []column // key columns but run_id, which is the same in all rows
	checks []column // columns that validation has to look at
}

// layoutFor derives the layout of T. It fails only on a row type that breaks
// the package's own rules, which a test catches.
func layoutFor[T Row]() (*layout, error) {
	var zero T
	t := reflect.TypeOf(zero)
	l := &layout{table: zero.Table(), size: t.Size()}
	if t.Field(0).Type != reflect.TypeFor[Common]() {
		return nil, fmt.Errorf("row type %s does not embed Common first", t.Name())
	}
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous {
			continue
		}
		c, role, err := columnOf(t, f)
		if err != nil {
			return nil, err
		}
		if c.Key && (c.opt || c.Type != String && c.Type != Int64) {
			return nil, fmt.Errorf("key column %s is a %s, which has no exact identity", c.Name, c.Type)
		}
		if c.Key && c.Name != "run_id" {
			l.keys = append(l.keys, c)
		}
		if role == "partition" {
			l.suite = &c
			continue
		}
		if c.Type == Double || c.Type == DoubleList || c.Type == Timestamp || c.Enum != nil || c.Type == String && !c.Nullable {
			l.checks = append(l.checks, c)
		}
		l.cols = append(l.cols, c)
	}
	return l, nil
}

// columnOf reads one field and its tags. Role is "partition" for a field that
// is part of the path instead of the file.
func columnOf(t reflect.Type, f reflect.StructField) (c column, role string, err error) {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	c = column{Column: Column{Name: name, Unit: f.Tag.Get("unit"), Doc: f.Tag.Get("doc")}}
	// Index is relative to t also for fields promoted from Common.
	for _, i := range f.Index {
		sf := t.Field(i)
		c.offset += sf.Offset
		t = sf.Type
	}
	if enum := f.Tag.Get("enum"); enum != "" {
		c.Enum = strings.Split(enum, "|")
	}
	roles := strings.Split(f.Tag.Get("col"), ",")
	req := slices.Contains(roles, "req")
	c.Key = slices.Contains(roles, "key")
	c.dict = slices.Contains(roles, "dict")
	c.text = slices.Contains(roles, "text")
	if slices.Contains(roles, "partition") {
		role = "partition"
	}
	switch f.Type {
	case reflect.TypeFor[string]():
		c.Type, c.Nullable = String, !req && role == ""
	case reflect.TypeFor[int64]():
		c.Type = Int64
	case reflect.TypeFor[bool]():
		c.Type = Boolean
	case reflect.TypeFor[time.Time]():
		c.Type, c.Nullable = Timestamp, true
	case reflect.TypeFor[[]float64]():
		c.Type, c.Nullable = DoubleList, true
	case reflect.TypeFor[Opt[int64]]():
		c.Type, c.Nullable, c.opt = Int64, true, true
	case reflect.TypeFor[Opt[float64]]():
		c.Type, c.Nullable, c.opt = Double, true, true
	case reflect.TypeFor[Opt[bool]]():
		c.Type, c.Nullable, c.opt = Boolean, true, true
	default:
		return c, "", fmt.Errorf("column %s has the type %s, which no column may have", name, f.Type)
	}
	if name == "" || c.Doc == "" {
		return c, "", fmt.Errorf("field %s lacks a json name or a doc tag", f.Name)
	}
	return c, role, nil
}

// rows is a slice of row structs seen without its type: the columns are read
// and written through their offsets. It keeps the slice alive by its pointer.
type rows struct {
	base unsafe.Pointer
	size uintptr
	n    int
}

func rowsOf[T Row](s []T) rows {
	var zero T
	return rows{unsafe.Pointer(unsafe.SliceData(s)), unsafe.Sizeof(zero), len(s)}
}

func rowOf[T Row](row *T) rows { return rows{unsafe.Pointer(row), unsafe.Sizeof(*row), 1} }

// at returns the field at off of row i. F must be the field's type, which
// columnOf has checked.
func at[F any](r rows, off uintptr, i int) *F {
	return (*F)(unsafe.Add(r.base, r.size*uintptr(i)+off))
}
