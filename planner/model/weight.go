package model

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// Locate gives the file that a tensor of a census lies in.
type Locate func(t *Tensor) io.ReaderAt

// Weight reads the values of a stored weight, a few rows at a time. It is not
// safe for concurrent use.
type Weight struct {
	// Rows × Cols are the values as a matrix; leading axes count as rows.
	Rows, Cols int

	s       *Stored
	data    io.ReaderAt
	scales  io.ReaderAt
	globals []float32 // of NVFP4: one, or one per leading index
	table   []float32 // of FP8: all scales
	per     int       // rows of one matrix
	first   int       // row of the stored tensor that is row 0, of plain formats
	buf     []byte
	sbuf    []byte
	tally   *tally // of what is read; nil where nobody asks
}

// maxTable bounds the FP8 scales that are kept, in bytes.
const maxTable = 64 << 20

// unreadError is a weight that makes no sense as it is stored.
type unreadError struct{ err error }

func (e *unreadError) Error() string { return e.err.Error() }
func (e *unreadError) Unwrap() error { return e.err }

// maxCols bounds the values of a row, of which at least one is held in memory.
const maxCols = 1 << 24

// OpenWeight prepares to read a weight. Only what belongs to the whole weight
// is read at once: global scales, and the scales of FP8.
func OpenWeight(s *Stored, locate Locate) (*Weight, error) {
	n := len(s.Shape)
	w := &Weight{s: s, Rows: 1, Cols: 1, per: 1, data: locate(s.Weight)}
	if n > 0 {
		w.Cols = int(s.Shape[n-1])
		w.Rows = int(product(s.Shape[:n-1]))
	}
	w.per = max(1, w.Rows)
	if n > 1 {
		w.per = max(1, int(s.Shape[n-2]))
	}
	fail := func(err error) (*Weight, error) {
		wrapped := fmt.Errorf("open weight %s: %w", short(s.Name), err)
		if errors.Unwrap(err) == nil { // the weight's own fault, not that of who reads
			return nil, &unreadError{wrapped}
		}
		return nil, wrapped
	}
	if w.Cols > maxCols || len(s.Shape) > 0 && product(s.Shape) > 0 && (w.Rows < 0 || w.Cols < 0) {
		return fail(fmt.Errorf("a row has %d values, more than %d", w.Cols, maxCols))
	}
	switch s.Format {
	case FormatBF16, FormatFP16, FormatFP32:
		return w, nil
	case FormatNVFP4, FormatMXFP4, FormatMXFP8:
		block := int64(s.Cols)
		if s.Scale == nil || w.Cols%int(block) != 0 || s.Scale.Bytes() != int64(w.Rows)*int64(w.Cols)/block || s.Weight.Bytes() != int64(w.Rows)*int64(w.Cols)*int64(formatBits(s.Format))/8 {
			return fail(fmt.Errorf("scales and codes do not fit %v", s.Shape))
		}
		w.scales = locate(s.Scale)
		if s.Format != FormatNVFP4 {
			return w, nil
		}
		if s.Global == nil {
			return fail(fmt.Errorf("its global scale is missing"))
		}
		var err error
		if w.globals, err = readFloats(s.Global, locate(s.Global)); err != nil {
			return fail(err)
		}
		if g := len(w.globals); g != 1 && g != ceilDiv(w.Rows, w.per) {
			return fail(fmt.Errorf("%d global scales for %v", g, s.Shape))
		}
		return w, nil
	case FormatFP8:
		if s.Scale == nil {
			w.table = []float32{1}
			return w, nil
		}
		var err error
		if w.table, err = readFloats(s.Scale, locate(s.Scale)); err != nil {
			return fail(err)
		}
		if len(w.table) != w.tableSize() {
			return fail(fmt.Errorf("%d scales for %v", len(w.table), s.Shape))
		}
		return w, nil
	}
	return fail(fmt.Errorf("values of format %s are not read", s.Format))
}

// tableSize is the number of FP8 scales that the block of the weight calls for.
func (w *Weight) tableSize() int {
	switch s := w.s; {
	case s.Rows > 0 && s.Cols > 0:
		return ceilDiv(w.Rows, w.per) * ceilDiv(w.per, s.Rows) * ceilDiv(w.Cols, s.Cols)
	case s.Rows == 1:
		return w.Rows
	case len(w.table) > 1:
		return ceilDiv(w.Rows, w.per)
	}
	return 1
}

// readCodes reads n rows from row on as they are stored, with the scales of
// their blocks in four-bit formats.
func (w *Weight) readCodes(row, n int) error {
	at, width := int64(w.first+row)*int64(w.Cols), int64(n)*int64(w.Cols)
	per, shift := w.elementBits()
	w.buf = grow(w.buf, int(width*per>>shift))
	if err := w.read(w.data, w.s.Weight, w.buf, at*per>>shift); err != nil {
		return err
	}
	w.sbuf = w.sbuf[:0]
	if w.scales != nil {
		across := w.Cols / w.s.Cols
		w.sbuf = grow(w.sbuf, n*across)
		if err := w.read(w.scales, w.s.Scale, w.sbuf, int64(row)*int64(across)); err != nil {
			return err
		}
	}
	if w.tally != nil {
		w.tally.count(w.buf, w.sbuf)
	}
	return nil
}

// ReadRows decodes n rows from row on into dst, n × Cols values.
func (w *Weight) ReadRows(dst []float32, row, n int) error {
	if err := w.readCodes(row, n); err != nil {
		return err
	}
	dst = dst[:n*w.Cols]
	switch w.s.Format {
	case FormatBF16:
		decodeBF16(dst, w.buf)
	case FormatFP16:
		for i := range dst {
			dst[i] = decodeFP16(binary.LittleEndian.Uint16(w.buf[2*i:]))
		}
	case FormatFP32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(w.buf[4*i:]))
		}
	case FormatFP8:
		for r := range n {
			w.rowFP8(dst[r*w.Cols:][:w.Cols], w.buf[r*w.Cols:][:w.Cols], row+r)
		}
	default:
		block, across := w.s.Cols, w.Cols/w.s.Cols
		for r := range n {
			g := w.storedGlobal((row + r) / w.per)
			for b, code := range w.sbuf[r*across:][:across] {
				i := r*across + b
				if w.s.Format == FormatMXFP8 {
					unpackE4M3(dst[i*block:][:block], w.buf[i*block:], DecodeE8M0(code))
					continue
				}
				unpackE2M1(dst[i*block:][:block], w.buf[i*block/2:], w.blockScale(code, g))
			}
		}
	}
	return nil
}

// decodeBF16 takes four values at a time.
func decodeBF16(dst []float32, src []byte) {
	for len(dst) >= 4 && len(src) >= 8 {
		x := binary.LittleEndian.Uint64(src)
		lo, hi := uint32(x), uint32(x>>32)
		d := (*[4]float32)(dst)
		d[0], d[1] = math.Float32frombits(lo<<16), math.Float32frombits(lo&0xFFFF0000)
		d[2], d[3] = math.Float32frombits(hi<<16), math.Float32frombits(hi&0xFFFF0000)
		dst, src = dst[4:], src[8:]
	}
	for i := range dst {
		dst[i] = DecodeBF16(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

// global is what multiplies the block scales of a matrix of NVFP4, whatever the
// convention; 1 for other formats.
func (w *Weight) global(matrix int) float32 {
	if w.s.Inverse {
		return 1 / w.storedGlobal(matrix)
	}
	return w.storedGlobal(matrix)
}

// storedGlobal is the global scale as it is stored.
func (w *Weight) storedGlobal(matrix int) float32 {
	if len(w.globals) == 0 {
		return 1
	}
	return w.globals[min(matrix, len(w.globals)-1)]
}

// blockScale is what the codes of a block are multiplied with, given the global
// scale as it is stored.
func (w *Weight) blockScale(code uint8, global float32) float32 {
	switch {
	case w.s.Format == FormatMXFP4:
		return DecodeE8M0(code)
	case w.s.Inverse:
		return tableE4M3[code] / global
	}
	return tableE4M3[code] * global
}

func (w *Weight) rowFP8(dst []float32, codes []byte, row int) {
	rows, cols := w.s.Rows, w.s.Cols
	scales, width := w.table, w.Cols
	switch {
	case rows > 0 && cols > 0:
		across := ceilDiv(w.Cols, cols)
		matrix, inside := row/w.per, row%w.per
		scales, width = w.table[(matrix*ceilDiv(w.per, rows)+inside/rows)*across:], cols
	case rows == 1:
		scales = w.table[row:]
	case len(w.table) > 1:
		scales = w.table[row/w.per:]
	}
	for first, b := 0, 0; first < len(codes); first, b = first+width, b+1 {
		last := min(first+width, len(codes))
		unpackE4M3(dst[first:last], codes[first:last], scales[b])
	}
}

func unpackE4M3(dst []float32, codes []byte, scale float32) {
	codes = codes[:len(dst)]
	for i, c := range codes {
		dst[i] = tableE4M3[c] * scale
	}
}

// elementBits gives the size of an element as a product and a shift.
func (w *Weight) elementBits() (per int64, shift uint) {
	switch w.s.Format {
	case FormatFP32:
		return 4, 0
	case FormatBF16, FormatFP16:
		return 2, 0
	case FormatFP8, FormatMXFP8:
		return 1, 0
	}
	return 1, 1
}

// read fills b from a place in a tensor.
func (w *Weight) read(r io.ReaderAt, t *Tensor, b []byte, at int64) error {
	if at < 0 || at+int64(len(b)) > t.Bytes() {
		return fmt.Errorf("read weight %s: row beyond its end", short(t.Name))
	}
	if _, err := io.ReadFull(io.NewSectionReader(r, t.Begin+at, int64(len(b))), b); err != nil {
		return fmt.Errorf("read weight %s: %w", short(t.Name), err)
	}
	return nil
}

// readFloats reads a small tensor of floats as a whole.
func readFloats(t *Tensor, r io.ReaderAt) ([]float32, error) {
	if t.Bytes() > maxTable {
		return nil, fmt.Errorf("%s has %d bytes of scales, more than %d", short(t.Name), t.Bytes(), maxTable)
	}
	b := make([]byte, t.Bytes())
	if _, err := io.ReadFull(io.NewSectionReader(r, t.Begin, t.Bytes()), b); err != nil {
		return nil, fmt.Errorf("read scales %s: %w", short(t.Name), err)
	}
	out := make([]float32, t.Elements())
	for i := range out {
		switch t.DType {
		case "F32":
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		case "BF16":
			out[i] = DecodeBF16(binary.LittleEndian.Uint16(b[2*i:]))
		case "F16":
			out[i] = decodeFP16(binary.LittleEndian.Uint16(b[2*i:]))
		default:
			return nil, fmt.Errorf("scales %s are of type %s", short(t.Name), short(t.DType))
		}
	}
	return out, nil
}

// decodeFP16 is the value of an IEEE 754 half.
func decodeFP16(c uint16) float32 {
	sign, exp, man := uint32(c&0x8000)<<16, uint32(c>>10&31), uint32(c&0x3FF)
	switch exp {
	case 0:
		v := float32(man) / (1 << 24)
		return math.Float32frombits(math.Float32bits(v) | sign)
	case 31:
		return math.Float32frombits(sign | 0x7F800000 | man<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | man<<13)
}

func grow(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}
