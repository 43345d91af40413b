package schema

import (
	"bytes"
	"fmt"
	"math"

	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/file"
)

// foreignBatch is how many values of a foreign column are decoded at once; they
// may be long texts.
const foreignBatch = 256

// stream is a leaf column, one value with its levels at a time.
type stream struct {
	read       func() (levels, values int, err error) // into defs, reps and what value sees
	value      func(i int) any
	maxDef     int16
	defs, reps []int16
	at, n      int // level stood at, levels held
	val        int // values taken of those held
	held       int
	hasRep     bool
}

func newStream(col file.ColumnChunkReader) *stream {
	d := col.Descriptor()
	s := &stream{maxDef: d.MaxDefinitionLevel(), hasRep: d.MaxRepetitionLevel() > 0, defs: make([]int16, foreignBatch), reps: make([]int16, foreignBatch)}
	switch cr := col.(type) {
	case *file.ByteArrayColumnChunkReader:
		typed(s, cr, func(v parquet.ByteArray) any { return bytes.Clone(v) })
	case *file.FixedLenByteArrayColumnChunkReader:
		typed(s, cr, func(v parquet.FixedLenByteArray) any { return bytes.Clone(v) })
	case *file.BooleanColumnChunkReader:
		typed(s, cr, func(v bool) any { return v })
	case *file.Int32ColumnChunkReader:
		typed(s, cr, func(v int32) any { return int64(v) })
	case *file.Int64ColumnChunkReader:
		typed(s, cr, func(v int64) any { return v })
	case *file.Int96ColumnChunkReader:
		typed(s, cr, func(v parquet.Int96) any { return v.ToTime().UnixMicro() })
	case *file.Float32ColumnChunkReader:
		typed(s, cr, func(v float32) any { return finite(float64(v)) })
	case *file.Float64ColumnChunkReader:
		typed(s, cr, func(v float64) any { return finite(v) })
	default:
		s.read = func() (int, int, error) { return 0, 0, fmt.Errorf("has an unexpected reader %T", col) }
	}
	return s
}

// finite is a number that JSON has, or nil.
func finite(v float64) any {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return v
}

// typed lets s read from a typed reader.
func typed[V any](s *stream, cr flatReader[V], convert func(V) any) {
	vals := make([]V, foreignBatch)
	s.read = func() (int, int, error) {
		levels, values, err := cr.ReadBatch(foreignBatch, vals, s.defs, s.reps)
		return int(levels), values, err
	}
	s.value = func(i int) any { return convert(vals[i]) }
}

// peek makes the next value available, and reports whether there is one.
func (s *stream) peek() (bool, error) {
	if s.at < s.n {
		return true, nil
	}
	levels, values, err := s.read()
	if err != nil {
		return false, err
	}
	s.at, s.val, s.n, s.held = 0, 0, levels, values
	// Columns without levels leave them unset.
	if s.maxDef == 0 {
		clear(s.defs)
		s.n = max(levels, values)
	}
	if !s.hasRep {
		clear(s.reps)
	}
	if s.n > foreignBatch || s.held > foreignBatch {
		return false, errShort
	}
	return s.n > 0, nil
}

func (s *stream) fill() error {
	ok, err := s.peek()
	if err == nil && !ok {
		err = errShort
	}
	return err
}

// next returns the value stood at, nil for a NULL.
func (s *stream) next() (any, error) {
	if err := s.fill(); err != nil {
		return nil, err
	}
	def := s.defs[s.at]
	s.at++
	if def < s.maxDef {
		return nil, nil
	}
	if s.val >= s.held {
		return nil, errShort
	}
	s.val++
	return s.value(s.val - 1), nil
}

// skip passes over a place that holds no value.
func (s *stream) skip() error {
	_, err := s.next()
	return err
}
