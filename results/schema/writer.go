package schema

import (
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strings"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/file"
)

const (
	// encodeBatch is how many rows are turned into columns at once: small
	// enough for the scratch to stay in cache, large enough to hide the cost
	// of a call per column.
	encodeBatch = 512
	// pageBytes is the size at which a column's page is compressed.
	pageBytes = 1 << 20
	// batchBytes bounds the long texts and lists in one batch, and so a page.
	batchBytes = 1 << 21
	// maxGroupRows bounds a row group, so that a reader can refuse absurd
	// counts before it allocates.
	maxGroupRows = 1 << 18
	// maxStats bounds the text kept as a column's smallest and largest value.
	maxStats = 256
)

// Group is one complete row group of a written file.
type Group struct {
	Rows   int64  `json:"rows"`
	Offset int64  `json:"offset"` // of its first byte in the file
	Bytes  int64  `json:"bytes"`
	CRC32C uint32 `json:"crc32c"` // Castagnoli, over its bytes: names the damaged part of a file
}

// Stats counts what a writer changed on the way.
type Stats struct {
	NaNToNull  int64 // NaN values stored as NULL
	FixedTexts int64 // texts that were not UTF-8 and had bytes replaced
}

// Writer encodes rows of one table as a Parquet file: zstd, statistics per
// column, dictionaries for columns with few values, and the schema with its
// documentation in the key-value metadata. Memory is bounded by the row group,
// which the caller ends with Flush.
type Writer[T Row] struct {
	l      *layout
	sink   *countingSink
	w      *file.Writer
	rg     file.BufferedRowGroupWriter
	groups []Group
	rgRows int64
	rgSize int64
	rows   int64
	stats  Stats
	sc     scratch
	closed bool
	failed error
}

// scratch holds the columns of one batch while they are encoded.
type scratch struct {
	strs []parquet.ByteArray
	f64  []float64
	i64  []int64
	bool []bool
	def  []int16
	rep  []int16
}

// NewWriter starts a Parquet file on w. Meta is added to the key-value
// metadata of the file.
func NewWriter[T Row](w io.Writer, meta map[string]string) (_ *Writer[T], err error) {
	useCodec()
	sink := &countingSink{w: w}
	defer func() { err = sink.cause(err) }()
	defer guard("start parquet file", &err)
	l, err := layoutFor[T]()
	if err != nil {
		return nil, err
	}
	root, err := l.parquet()
	if err != nil {
		return nil, err
	}
	pw := file.NewParquetWriter(sink, root, file.WithWriterProps(l.props()))
	keys, vals, err := l.fileMeta()
	if err != nil {
		return nil, err
	}
	for i, k := range keys {
		if err := pw.AppendKeyValueMetadata(k, vals[i]); err != nil {
			return nil, err
		}
	}
	for k, v := range meta {
		if err := pw.AppendKeyValueMetadata(k, v); err != nil {
			return nil, err
		}
	}
	return &Writer[T]{l: l, sink: sink, w: pw}, nil
}

func (l *layout) props() *parquet.WriterProperties {
	opts := []parquet.WriterProperty{
		parquet.WithVersion(parquet.V2_6),
		parquet.WithDataPageVersion(parquet.DataPageV1), // the version every reader knows
		parquet.WithDataPageSize(pageBytes),
		parquet.WithBatchSize(1 << 30), // one Write call is one batch, so that pages start at row boundaries
		parquet.WithCompression(compress.Codecs.Zstd),
		parquet.WithCompressionLevel(1),
		parquet.WithDictionaryDefault(false),
		parquet.WithStats(true),
		parquet.WithMaxStatsSize(maxStats),
		parquet.WithCreatedBy("repromill"),
	}
	for _, c := range l.cols {
		path := c.Name
		if c.Type == DoubleList {
			path += ".list.element"
		}
		if c.dict {
			opts = append(opts, parquet.WithDictionaryFor(path, true))
		}
		if c.text || c.Type == DoubleList {
			opts = append(opts, parquet.WithStatsFor(path, false))
		}
	}
	return parquet.NewWriterProperties(opts...)
}

// Write appends rows, which must have passed [Checker.Check]. It returns the
// first failure of the underlying writer, after which the file is useless.
func (w *Writer[T]) Write(batch []T) (err error) {
	if w.failed != nil {
		return w.failed
	}
	defer func() { err = w.sink.cause(err); w.failed = err }()
	defer guard("encode "+w.l.table, &err)
	for len(batch) > 0 {
		n := w.l.batchLen(rowsOf(batch[:min(len(batch), encodeBatch, int(maxGroupRows-w.rgRows))]))
		if w.rg == nil {
			w.rg = w.w.AppendBufferedRowGroup()
		}
		r := rowsOf(batch[:n])
		for i := range w.l.cols {
			if err := w.writeColumn(i, r); err != nil {
				return fmt.Errorf("encode table %s, column %s: %w", w.l.table, w.l.cols[i].Name, err)
			}
		}
		w.rgRows += int64(n)
		w.rows += int64(n)
		if w.rgRows >= maxGroupRows {
			if err := w.flush(); err != nil {
				return err
			}
		}
		batch = batch[n:]
	}
	return nil
}

// batchLen is how many of the rows go into one batch, at least one.
func (l *layout) batchLen(r rows) int {
	size := 0
	for i := range r.n {
		for j := range l.cols {
			switch c := &l.cols[j]; {
			case c.text:
				size += len(*at[string](r, c.offset, i))
			case c.Type == DoubleList:
				size += 8 * len(*at[[]float64](r, c.offset, i))
			}
		}
		if size > batchBytes {
			return i + 1
		}
	}
	return r.n
}

// Flush ends the row group, which writes it out. Without buffered rows it does
// nothing.
func (w *Writer[T]) Flush() (err error) {
	if w.failed != nil {
		return w.failed
	}
	defer func() { err = w.sink.cause(err); w.failed = err }()
	defer guard("flush "+w.l.table, &err)
	return w.flush()
}

func (w *Writer[T]) flush() error {
	if w.rg == nil {
		return nil
	}
	start := w.sink.n
	w.sink.crc = 0
	if err := w.rg.Close(); err != nil {
		return err
	}
	w.groups = append(w.groups, Group{Rows: w.rgRows, Offset: start, Bytes: w.sink.n - start, CRC32C: w.sink.crc})
	w.rg, w.rgRows, w.rgSize = nil, 0, 0
	return nil
}

// Close ends the last row group and writes the footer. It does not close the
// underlying writer.
func (w *Writer[T]) Close() (err error) {
	if w.closed {
		return w.failed
	}
	w.closed = true
	if err := w.Flush(); err != nil {
		return err
	}
	defer func() { err = w.sink.cause(err); w.failed = err }()
	defer guard("finish "+w.l.table, &err)
	if err := w.w.Close(); err != nil {
		return err
	}
	return nil
}

// Rows is the number of rows written so far.
func (w *Writer[T]) Rows() int64 { return w.rows }

// Buffered is about how many bytes the open row group holds, before
// compression.
func (w *Writer[T]) Buffered() int64 { return w.rgSize }

// Groups are the row groups written out so far.
func (w *Writer[T]) Groups() []Group { return w.groups }

// Stats counts the values that were changed so far.
func (w *Writer[T]) Stats() Stats { return w.stats }

func (w *Writer[T]) writeColumn(i int, r rows) error {
	col, err := w.rg.Column(i)
	if err != nil {
		return err
	}
	c := &w.l.cols[i]
	switch cw := col.(type) {
	case *file.ByteArrayColumnChunkWriter:
		vals, def := w.strings(c, r)
		_, err = cw.WriteBatch(vals, def, nil)
	case *file.Float64ColumnChunkWriter:
		vals, def, rep := w.doubles(c, r)
		_, err = cw.WriteBatch(vals, def, rep)
	case *file.Int64ColumnChunkWriter:
		vals, def := w.ints(c, r)
		_, err = cw.WriteBatch(vals, def, nil)
	case *file.BooleanColumnChunkWriter:
		vals, def := w.bools(c, r)
		_, err = cw.WriteBatch(vals, def, nil)
	}
	return err
}

func (w *Writer[T]) strings(c *column, r rows) (vals []parquet.ByteArray, def []int16) {
	vals, def = w.sc.strs[:0], w.sc.def[:0]
	for i := range r.n {
		s := *at[string](r, c.offset, i)
		if c.Nullable {
			if s == "" {
				def = append(def, 0)
				continue
			}
			def = append(def, 1)
		}
		if !utf8.ValidString(s) {
			// Readers refuse the whole file for one bad byte.
			s = strings.ToValidUTF8(s, "\uFFFD")
			w.stats.FixedTexts++
		}
		w.rgSize += int64(len(s)) + 4
		vals = append(vals, unsafe.Slice(unsafe.StringData(s), len(s)))
	}
	w.sc.strs, w.sc.def = vals, def
	return vals, levels(c, def)
}

func (w *Writer[T]) ints(c *column, r rows) (vals []int64, def []int16) {
	vals, def = w.sc.i64[:0], w.sc.def[:0]
	for i := range r.n {
		switch {
		case c.Type == Timestamp:
			t := *at[time.Time](r, c.offset, i)
			if t.IsZero() {
				def = append(def, 0)
				continue
			}
			vals = append(vals, t.UnixMicro())
		case c.opt:
			v := *at[Opt[int64]](r, c.offset, i)
			if !v.Valid {
				def = append(def, 0)
				continue
			}
			vals = append(vals, v.V)
		default:
			vals = append(vals, *at[int64](r, c.offset, i))
		}
		def = append(def, 1)
	}
	w.rgSize += int64(8 * len(vals))
	w.sc.i64, w.sc.def = vals, def
	return vals, levels(c, def)
}

func (w *Writer[T]) bools(c *column, r rows) (vals []bool, def []int16) {
	vals, def = w.sc.bool[:0], w.sc.def[:0]
	for i := range r.n {
		if !c.opt {
			vals = append(vals, *at[bool](r, c.offset, i))
			continue
		}
		if v := *at[Opt[bool]](r, c.offset, i); v.Valid {
			vals, def = append(vals, v.V), append(def, 1)
		} else {
			def = append(def, 0)
		}
	}
	w.sc.bool, w.sc.def = vals, def
	return vals, levels(c, def)
}

func (w *Writer[T]) doubles(c *column, r rows) (vals []float64, def, rep []int16) {
	if c.Type == DoubleList {
		return w.lists(c, r)
	}
	vals, def = w.sc.f64[:0], w.sc.def[:0]
	for i := range r.n {
		v := *at[Opt[float64]](r, c.offset, i)
		switch {
		case !v.Valid:
			def = append(def, 0)
		case math.IsNaN(v.V):
			def = append(def, 0)
			w.stats.NaNToNull++
		default:
			vals, def = append(vals, v.V), append(def, 1)
		}
	}
	w.rgSize += int64(8 * len(vals))
	w.sc.f64, w.sc.def = vals, def
	return vals, levels(c, def), nil
}

// lists encodes list<double> by the three levels of the Parquet format
// (LogicalTypes.md, "Lists"): 0 no list, 1 empty list, 2 NULL element,
// 3 element. A repetition level of 0 starts a row.
func (w *Writer[T]) lists(c *column, r rows) (vals []float64, def, rep []int16) {
	vals, def, rep = w.sc.f64[:0], w.sc.def[:0], w.sc.rep[:0]
	for i := range r.n {
		list := *at[[]float64](r, c.offset, i)
		if len(list) == 0 {
			level := int16(1)
			if list == nil {
				level = 0
			}
			def, rep = append(def, level), append(rep, 0)
			continue
		}
		for j, v := range list {
			rep = append(rep, int16(min(j, 1)))
			if math.IsNaN(v) {
				def = append(def, 2)
				w.stats.NaNToNull++
				continue
			}
			vals, def = append(vals, v), append(def, 3)
		}
	}
	w.rgSize += int64(8 * len(vals))
	w.sc.f64, w.sc.def, w.sc.rep = vals, def, rep
	return vals, def, rep
}

// levels is def for a nullable column; a required one has no levels.
func levels(c *column, def []int16) []int16 {
	if !c.Nullable {
		return nil
	}
	return def
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC32C of r's bytes, as a [Group] has it.
func Checksum(r io.Reader) (uint32, error) {
	h := crc32.New(castagnoli)
	_, err := io.Copy(h, r)
	return h.Sum32(), err
}

// countingSink counts and sums the bytes that passed and keeps the first error, which
// the Parquet library drops in places.
type countingSink struct {
	w   io.Writer
	n   int64
	crc uint32
	err error
}

func (s *countingSink) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.w.Write(p)
	s.n += int64(n)
	s.crc = crc32.Update(s.crc, castagnoli, p[:n])
	s.err = err
	return n, err
}

// cause is the sink's own error where it has one: what the library makes of it
// has lost the reason.
func (s *countingSink) cause(err error) error {
	if s.err != nil {
		return fmt.Errorf("write parquet: %w", s.err)
	}
	return err
}

// guard turns a panic of the Parquet library into an error: it panics on
// malformed files and on writers that fail.
func guard(doing string, err *error) {
	switch r := recover().(type) {
	case nil:
	case error:
		*err = fmt.Errorf("%s: %w", doing, r)
	default:
		*err = fmt.Errorf("%s: %v", doing, r)
	}
}
