package schema

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"
)

// RowError says which value of which row cannot be stored, and why.
type RowError struct {
	Table  string
	Column string
	Row    int // place in the rows given, from 0
	Reason string
}

func (e *RowError) Error() string {
	return fmt.Sprintf("table %s, column %s, row %d: %s", e.Table, e.Column, e.Row, e.Reason)
}

// Checker validates rows of type T and reads their keys. It is made once and
// then costs no reflection.
type Checker[T Row] struct{ l *layout }

// NewChecker returns a checker for T.
func NewChecker[T Row]() (*Checker[T], error) {
	l, err := layoutFor[T]()
	if err != nil {
		return nil, err
	}
	return &Checker[T]{l}, nil
}

// Check reports the first value that no file may hold: an infinity, a missing
// required text, a word outside a closed vocabulary, or a time that pandas
// cannot represent. The error is a [*RowError].
func (c *Checker[T]) Check(batch []T) error {
	// In blocks that stay in cache while each column passes over them.
	for done := 0; done < len(batch); done += checkBlock {
		r := rowsOf(batch[done:min(done+checkBlock, len(batch))])
		for i := range c.l.checks {
			if err := c.l.checks[i].check(c.l.table, r, done); err != nil {
				return err
			}
		}
	}
	return nil
}

const checkBlock = 256

// pandas holds times as int64 nanoseconds, which end in these years.
var (
	minTime = time.Date(1678, 1, 1, 0, 0, 0, 0, time.UTC)
	maxTime = time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC)
)

func (c *column) check(table string, r rows, first int) error {
	fail := func(i int, format string, args ...any) error {
		return &RowError{table, c.Name, first + i, fmt.Sprintf(format, args...)}
	}
	switch c.Type {
	case Double:
		for i := range r.n {
			if v := at[Opt[float64]](r, c.offset, i); v.Valid && math.IsInf(v.V, 0) {
				return fail(i, "%v cannot be stored; store NULL and say why in a reason column", v.V)
			}
		}
	case DoubleList:
		for i := range r.n {
			for j, v := range *at[[]float64](r, c.offset, i) {
				if math.IsInf(v, 0) {
					return fail(i, "element %d is %v, which cannot be stored", j, v)
				}
			}
		}
	case Timestamp:
		for i := range r.n {
			if t := at[time.Time](r, c.offset, i); !t.IsZero() && (t.Before(minTime) || !t.Before(maxTime)) {
				return fail(i, "%s is outside the years 1678 to 2261", t.UTC().Format(time.RFC3339))
			}
		}
	case String:
		return c.checkString(r, fail)
	}
	return nil
}

func (c *column) checkString(r rows, fail func(int, string, ...any) error) error {
	last := ""
	for i := range r.n {
		s := *at[string](r, c.offset, i)
		switch {
		case s == last && s != "":
		case s == "" && !c.Nullable:
			return fail(i, "is empty, and every row needs it")
		case s != "" && c.Enum != nil && !slices.Contains(c.Enum, s):
			return fail(i, "%q is not one of %v", s, c.Enum)
		}
		last = s
	}
	return nil
}

// AppendKey appends the key of row within its run and table to b: two rows
// with the same bytes are the same observation.
func (c *Checker[T]) AppendKey(b []byte, row *T) []byte {
	r := rowOf(row)
	for i := range c.l.keys {
		k := &c.l.keys[i]
		switch k.Type {
		case String:
			s := *at[string](r, k.offset, 0)
			b = binary.AppendUvarint(b, uint64(len(s)))
			b = append(b, s...)
		case Int64:
			b = binary.AppendVarint(b, *at[int64](r, k.offset, 0))
		}
	}
	return b
}

// Values appends the values of a row to out, in the order of [Columns]: string,
// int64, float64, bool, [time.Time], []float64, or nil for a NULL.
func (c *Checker[T]) Values(out []any, row *T) []any {
	r := rowOf(row)
	for i := range c.l.cols {
		out = append(out, c.l.cols[i].value(r))
	}
	return out
}

func (c *column) value(r rows) any {
	switch c.Type {
	case String:
		if s := *at[string](r, c.offset, 0); s != "" || !c.Nullable {
			return s
		}
	case Timestamp:
		if t := *at[time.Time](r, c.offset, 0); !t.IsZero() {
			return t.UTC()
		}
	case Int64:
		if !c.opt {
			return *at[int64](r, c.offset, 0)
		}
		if v := *at[Opt[int64]](r, c.offset, 0); v.Valid {
			return v.V
		}
	case Double:
		if v := *at[Opt[float64]](r, c.offset, 0); v.Valid && !math.IsNaN(v.V) {
			return v.V
		}
	case Boolean:
		if !c.opt {
			return *at[bool](r, c.offset, 0)
		}
		if v := *at[Opt[bool]](r, c.offset, 0); v.Valid {
			return v.V
		}
	case DoubleList:
		if list := *at[[]float64](r, c.offset, 0); list != nil {
			return list
		}
	}
	return nil
}

// AppendRow appends all values of a row to b: two rows give the same bytes if,
// and only if, a file holds the same of them. A NaN is the NULL that it is
// stored as.
func (c *Checker[T]) AppendRow(b []byte, row *T) []byte {
	r := rowOf(row)
	for i := range c.l.cols {
		b = c.l.cols[i].appendValue(b, r)
	}
	if c.l.suite != nil {
		b = c.l.suite.appendValue(b, r)
	}
	return b
}

func (c *column) appendValue(b []byte, r rows) []byte {
	text := func(s string) []byte { return append(binary.AppendUvarint(b, uint64(len(s))), s...) }
	number := func(valid bool, bits uint64) []byte {
		if !valid {
			return append(b, 0)
		}
		return binary.LittleEndian.AppendUint64(append(b, 1), bits)
	}
	switch c.Type {
	case String:
		return text(*at[string](r, c.offset, 0))
	case Timestamp:
		t := *at[time.Time](r, c.offset, 0)
		return number(!t.IsZero(), uint64(t.UnixMicro()))
	case Int64:
		if !c.opt {
			return number(true, uint64(*at[int64](r, c.offset, 0)))
		}
		v := *at[Opt[int64]](r, c.offset, 0)
		return number(v.Valid, uint64(v.V))
	case Double:
		v := *at[Opt[float64]](r, c.offset, 0)
		return number(v.Valid && !math.IsNaN(v.V), math.Float64bits(v.V))
	case Boolean:
		v := Opt[bool]{Valid: true}
		if c.opt {
			v = *at[Opt[bool]](r, c.offset, 0)
		} else {
			v.V = *at[bool](r, c.offset, 0)
		}
		if !v.Valid {
			return append(b, 0)
		}
		if v.V {
			return append(b, 2)
		}
		return append(b, 1)
	}
	list := *at[[]float64](r, c.offset, 0)
	if list == nil {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(list))+1)
	for _, v := range list {
		b = number(!math.IsNaN(v), math.Float64bits(v))
	}
	return b
}

// Lists returns pointers to the list fields of row, so that a caller that
// keeps the row can copy them.
func (c *Checker[T]) Lists(row *T) []*[]float64 {
	var out []*[]float64
	r := rowOf(row)
	for i := range c.l.cols {
		if c.l.cols[i].Type == DoubleList {
			out = append(out, at[[]float64](r, c.l.cols[i].offset, 0))
		}
	}
	return out
}

// CommonOf returns the part of row that every table has.
func CommonOf[T Row](row *T) *Common {
	// layoutFor has checked that Common is the first field of every row type.
	return at[Common](rowOf(row), 0, 0)
}

// Suite returns the value of the row's suite partition, nil for tables that
// are partitioned by date alone.
func (c *Checker[T]) Suite(row *T) *string {
	if c.l.suite == nil {
		return nil
	}
	return at[string](rowOf(row), c.l.suite.offset, 0)
}
