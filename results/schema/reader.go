package schema

import (
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/file"
	pqschema "github.com/apache/arrow/go/v17/parquet/schema"
)

// readBatch is how many values are decoded at once.
const readBatch = 8192

// Reader decodes a Parquet file of one table, a row group at a time. Columns
// that the file lacks are NULL (or zero), columns it has beyond the table's are
// left out, so that files of drafts can be read, and those of other programs.
//
// A damaged file gives an error that names the row group, never a panic.
type Reader[T Row] struct {
	l       *layout
	f       *file.Reader
	size    int64
	columns map[string]int // leaf index by top-level name
	next    int
	nan     string // first column in which a NaN was found
	intern  map[string]string
	sc      scratch
}

// Source is what a Parquet file is read from; *os.File is one.
type Source interface {
	io.ReaderAt
	io.Seeker
}

// NewReader reads the footer of the Parquet file in src. A file that says it is
// of a version that is not [Readable] is a [*VersionError].
func NewReader[T Row](src Source) (_ *Reader[T], err error) {
	useCodec()
	defer guard("read parquet footer", &err)
	l, err := layoutFor[T]()
	if err != nil {
		return nil, err
	}
	size, err := src.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	// The library would make the caller's close its own.
	f, err := file.NewParquetReader(struct{ Source }{src})
	if err != nil {
		return nil, fmt.Errorf("read parquet footer: %w", err)
	}
	r := &Reader[T]{l: l, f: f, size: size, columns: map[string]int{}, intern: map[string]string{}}
	if v := r.Meta(MetaVersion); v != "" && !Readable(v) {
		return nil, &VersionError{l.table, v}
	}
	sc := f.MetaData().Schema
	for i := range sc.NumColumns() {
		name := sc.Column(i).ColumnPath()[0]
		if _, twice := r.columns[name]; twice {
			return nil, fmt.Errorf("column %s has more than one part in this file", name)
		}
		r.columns[name] = i
	}
	for i := range l.cols {
		c := &l.cols[i]
		if leaf, ok := r.columns[c.Name]; ok && !matches(sc.Column(leaf), c) {
			return nil, fmt.Errorf("column %s is not %s in this file", c.Name, c.Type)
		}
	}
	return r, r.preflight()
}

// matches reports whether the leaf column of a file holds what c does.
func matches(leaf *pqschema.Column, c *column) bool {
	def, rep := leaf.MaxDefinitionLevel(), leaf.MaxRepetitionLevel()
	if c.Type == DoubleList {
		return leaf.PhysicalType() == parquet.Types.Double && def == 3 && rep == 1
	}
	return leaf.PhysicalType() == c.physical() && def <= 1 && rep == 0
}

func (c *column) physical() parquet.Type {
	switch c.Type {
	case Int64, Timestamp:
		return parquet.Types.Int64
	case Double, DoubleList:
		return parquet.Types.Double
	case Boolean:
		return parquet.Types.Boolean
	}
	return parquet.Types.ByteArray
}

// preflight refuses footers whose numbers would make decoding allocate without
// bound: a row group's rows and the byte ranges of its columns must be possible.
func (r *Reader[T]) preflight() error {
	md := r.f.MetaData()
	for g := range r.f.NumRowGroups() {
		rg := md.RowGroup(g)
		if n := rg.NumRows(); n < 0 || n > maxGroupRows {
			return fmt.Errorf("row group %d: states %d rows", g, n)
		}
		if rg.NumColumns() != md.Schema.NumColumns() {
			return fmt.Errorf("row group %d: states %d columns, the schema %d", g, rg.NumColumns(), md.Schema.NumColumns())
		}
		for c := range rg.NumColumns() {
			cc, err := rg.ColumnChunk(c)
			if err != nil {
				return fmt.Errorf("row group %d, column %d: %w", g, c, err)
			}
			start := cc.DataPageOffset()
			if cc.HasDictionaryPage() && cc.DictionaryPageOffset() > 0 {
				start = min(start, cc.DictionaryPageOffset())
			}
			if n := cc.TotalCompressedSize(); start < 0 || n < 0 || start > r.size || n > r.size-start {
				return fmt.Errorf("row group %d, column %s: lies outside the file", g, cc.PathInSchema())
			}
		}
	}
	return nil
}

// Meta returns a value of the file's key-value metadata, "" when it has none.
func (r *Reader[T]) Meta(key string) string {
	if v := r.f.MetaData().KeyValueMetadata().FindValue(key); v != nil {
		return *v
	}
	return ""
}

// Check is [Checker.Check] for rows that this reader returned: it leaves out
// the columns that the file lacks.
func (r *Reader[T]) Check(batch []T) error {
	rs := rowsOf(batch)
	for i := range r.l.checks {
		c := &r.l.checks[i]
		if _, ok := r.columns[c.Name]; !ok {
			continue
		}
		if err := c.check(r.l.table, rs, 0); err != nil {
			return err
		}
	}
	return nil
}

// NaN is the name of a column in which a NaN was stored, "" when there was none
// so far. No file of this package has one: it comes from elsewhere.
func (r *Reader[T]) NaN() string { return r.nan }

func (r *Reader[T]) sawNaN(c *column, v float64) {
	if r.nan == "" && math.IsNaN(v) {
		r.nan = c.Name
	}
}

// Seek makes the row group with a number, from 0, the next one.
func (r *Reader[T]) Seek(group int) { r.next = max(group, 0) }

// Next returns the rows of the next row group, and [io.EOF] after the last. An
// error names the row group; the one after it may still be read.
func (r *Reader[T]) Next() (_ []T, err error) {
	if r.next >= r.f.NumRowGroups() {
		return nil, io.EOF
	}
	g := r.next
	r.next++
	defer func() {
		if err != nil {
			err = fmt.Errorf("row group %d: %w", g, err)
		}
	}()
	defer guard("decode "+r.l.table, &err)
	rg := r.f.RowGroup(g)
	out := make([]T, rg.NumRows())
	rs := rowsOf(out)
	for i := range r.l.cols {
		c := &r.l.cols[i]
		leaf, ok := r.columns[c.Name]
		if !ok {
			continue
		}
		col, err := rg.Column(leaf)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", c.Name, err)
		}
		if err := r.readColumn(c, col, rs); err != nil {
			return nil, fmt.Errorf("column %s: %w", c.Name, err)
		}
	}
	return out, nil
}

var errShort = errors.New("ends before its last row")

func (r *Reader[T]) readColumn(c *column, col file.ColumnChunkReader, rs rows) error {
	var def []int16
	if col.Descriptor().MaxDefinitionLevel() > 0 {
		def = grown(&r.sc.def)
	}
	switch cr := col.(type) {
	case *file.ByteArrayColumnChunkReader:
		return readFlat(cr, def, grown(&r.sc.strs), rs.n, func(i int, v parquet.ByteArray) {
			*at[string](rs, c.offset, i) = r.text(c, v)
		})
	case *file.BooleanColumnChunkReader:
		return readFlat(cr, def, grown(&r.sc.bool), rs.n, func(i int, v bool) {
			if c.opt {
				*at[Opt[bool]](rs, c.offset, i) = Some(v)
			} else {
				*at[bool](rs, c.offset, i) = v
			}
		})
	case *file.Int64ColumnChunkReader:
		return readFlat(cr, def, grown(&r.sc.i64), rs.n, func(i int, v int64) {
			switch {
			case c.Type == Timestamp:
				*at[time.Time](rs, c.offset, i) = time.UnixMicro(v).UTC()
			case c.opt:
				*at[Opt[int64]](rs, c.offset, i) = Some(v)
			default:
				*at[int64](rs, c.offset, i) = v
			}
		})
	case *file.Float64ColumnChunkReader:
		if c.Type == DoubleList {
			return r.readLists(cr, rs, c)
		}
		return readFlat(cr, def, grown(&r.sc.f64), rs.n, func(i int, v float64) {
			r.sawNaN(c, v)
			*at[Opt[float64]](rs, c.offset, i) = Some(v)
		})
	}
	return fmt.Errorf("has an unexpected reader %T", col)
}

// grown is the scratch slice s with room for a batch.
func grown[V any](s *[]V) []V {
	if cap(*s) < readBatch {
		*s = make([]V, readBatch)
	}
	return (*s)[:readBatch]
}

// text copies v out of the page; texts of columns with few values are shared.
func (r *Reader[T]) text(c *column, v parquet.ByteArray) string {
	if !c.dict {
		return string(v)
	}
	if s, ok := r.intern[string(v)]; ok {
		return s
	}
	s := string(v)
	if len(r.intern) < 1<<16 {
		r.intern[s] = s
	}
	return s
}

// flatReader is what the typed column readers have in common.
type flatReader[V any] interface {
	ReadBatch(batchSize int64, values []V, defLvls, repLvls []int16) (total int64, valuesRead int, err error)
}

// readFlat reads a column that is not repeated and calls set for each value
// that is there. Def is nil for a column without NULLs.
func readFlat[V any](cr flatReader[V], def []int16, vals []V, rows int, set func(row int, v V)) error {
	for row := 0; row < rows; {
		n, read, err := cr.ReadBatch(min(readBatch, int64(rows-row)), vals, def, nil)
		if err != nil {
			return err
		}
		if n <= 0 {
			return errShort
		}
		k := 0
		for i := range int(n) {
			if def != nil && def[i] == 0 {
				continue
			}
			if k >= read {
				return errShort
			}
			set(row+i, vals[k])
			k++
		}
		row += int(n)
	}
	return nil
}

// readLists reads list<double>; see Writer.lists for the levels.
func (r *Reader[T]) readLists(cr *file.Float64ColumnChunkReader, rs rows, c *column) error {
	vals, def, rep := grown(&r.sc.f64), grown(&r.sc.def), grown(&r.sc.rep)
	row := -1
	for {
		n, read, err := cr.ReadBatch(readBatch, vals, def, rep)
		if err != nil {
			return err
		}
		if n <= 0 {
			break
		}
		k := 0
		for i := range int(n) {
			if rep[i] == 0 {
				row++
			}
			if row < 0 || row >= rs.n {
				return fmt.Errorf("has a value for row %d of %d", row, rs.n)
			}
			list := at[[]float64](rs, c.offset, row)
			switch def[i] {
			case 1:
				*list = []float64{}
			case 2:
				*list = append(*list, math.NaN())
			case 3:
				if k >= read {
					return errShort
				}
				r.sawNaN(c, vals[k])
				*list = append(*list, vals[k])
				k++
			}
		}
	}
	if row != rs.n-1 {
		return errShort
	}
	return nil
}
