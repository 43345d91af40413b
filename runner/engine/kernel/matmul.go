package kernel

import (
	"unsafe"

	"github.com/repromill/repromill/planner/model"
)

// Product is one multiplication: the rows of X, each of Matrix.Cols values, with
// the transposed matrix, into the rows of Out, each of Matrix.Rows values.
type Product struct {
	Matrix *Matrix
	X, Out []float32
	// Scales multiply the rows of the result, of inputs that were rounded to a
	// format with a scale; nil for none.
	Scales []float32
}

// Round rounds n inputs, rows of cols values, to the format that a matrix asks
// for. It returns the scales of the rows, in buf where it is large enough; nil
// when the matrix takes its inputs as they are.
func (m *Matrix) Round(x []float32, n int, buf []float32) []float32 {
	if m.Activations == "" {
		return nil
	}
	if cap(buf) < n {
		buf = make([]float32, n)
	}
	buf = buf[:n]
	for i := range buf {
		row := x[i*m.Cols:][:m.Cols]
		if m.Activations == model.FormatFP8 {
			buf[i] = roundFP8(row, m.InputScale)
		} else {
			buf[i] = roundNVFP4(row, m.InputScale)
		}
	}
	return buf
}

// Scratch is the memory that one goroutine needs to multiply.
type Scratch struct{ w []float32 }

// Rows of a matrix that are decoded at once. One row of inputs reads them right
// away; many pass over them again and again, and then a larger tile saves
// reading the inputs.
const (
	smallTile  = 4
	largeTile  = 32
	tileValues = 1 << 17 // of a large tile at most: half of a usual L2 cache
)

// Rows computes the rows from first to last of a matrix, for all inputs.
func (s *Scratch) Rows(p *Product, first, last int) {
	m := p.Matrix
	n := len(p.X) / m.Cols
	if n == 0 {
		return
	}
	tile := smallTile
	if n > 2 {
		tile = min(largeTile, max(smallTile, tileValues/m.Cols&^(smallTile-1)))
	}
	if n == 1 && s.single(p, &first, last) {
		return
	}
	if len(s.w) < tile*m.Cols {
		s.w = make([]float32, tile*m.Cols)
	}
	for ; first < last; first += tile {
		rows := min(tile, last-first)
		w := s.decode(m, first, rows)
		for at := 0; at < n; {
			width := 1
			if n-at >= 3 {
				width = 3
			}
			for r := 0; r < rows; r += 4 {
				p.quad(w[r*m.Cols:], first+r, min(4, rows-r), at, width)
			}
			at += width
		}
	}
}

// decode gives rows as float32, without the scales that multiply whole products.
func (s *Scratch) decode(m *Matrix, first, rows int) []float32 {
	per := m.rowBytes()
	data := m.Data[first*per:][:rows*per]
	if m.Format == model.FormatFP32 && littleEndian && aligned(data) {
		return unsafe.Slice((*float32)(unsafe.Pointer(&data[0])), rows*m.Cols)
	}
	var scales []byte
	if m.Format == model.FormatNVFP4 {
		across := m.Cols / model.BlockNVFP4
		scales = m.Scales[first*across:][:rows*across]
	}
	w := s.w[:rows*m.Cols]
	Decode(w, m.Format, data, scales)
	return w
}

// single multiplies one input with rows in fours, straight from the codes, where
// there is a kernel for that. It takes first to where it came.
func (s *Scratch) single(p *Product, first *int, last int) bool {
	m := p.Matrix
	if !accelerated || m.Cols%16 != 0 || m.Format != model.FormatBF16 {
		return false
	}
	per := m.rowBytes()
	var out [12]float32
	for ; *first+4 <= last; *first += 4 {
		dotBF16x4(&m.Data[*first*per], per, &p.X[0], m.Cols, &out[0])
		p.store(out[:4], *first, 4, 0, 1)
	}
	return *first == last
}

// quad multiplies up to four rows w of the matrix with width inputs, 1 or 3.
func (p *Product) quad(w []float32, row, rows, at, width int) {
	cols := p.Matrix.Cols
	var out [12]float32
	x := p.X[at*cols:][:width*cols]
	switch {
	case accelerated && rows == 4 && cols%lanes == 0 && width == 3:
		dot4x3(&w[0], &x[0], cols, &out[0])
	case accelerated && rows == 4 && cols%lanes == 0:
		dot4x1(&w[0], &x[0], cols, &out[0])
	default:
		for r := range rows {
			for b := range width {
				out[b*4+r] = dot(w[r*cols:][:cols], x[b*cols:][:cols])
			}
		}
	}
	p.store(out[:], row, rows, at, width)
}

// store writes products, out[b*4+r] of input at+b and row+r.
func (p *Product) store(out []float32, row, rows, at, width int) {
	m := p.Matrix
	for b := range width {
		dst, from := p.Out[(at+b)*m.Rows+row:][:rows], out[b*4:][:rows]
		scale := float32(1)
		if m.Scale != 0 && m.RowScales == nil {
			scale = m.Scale
		}
		if p.Scales != nil {
			scale *= p.Scales[at+b]
		}
		switch {
		case m.RowScales != nil:
			for r := range dst {
				dst[r] = from[r] * (m.RowScales[row+r] * scale)
			}
		case scale == 1 && rows == 4:
			*(*[4]float32)(dst) = *(*[4]float32)(from)
		default:
			for r := range dst {
				dst[r] = from[r] * scale
			}
		}
		if m.Bias != nil {
			for r := range dst {
				dst[r] += m.Bias[row+r]
			}
		}
	}
}

// dot sums in the order that the package promises.
func dot(a, b []float32) float32 {
	if accelerated && len(a) >= lanes && len(a)%lanes == 0 {
		return dotFMA(&a[0], &b[0], len(a))
	}
	return dotGo(a, b)
}

// dotGo is dot in Go. Without fused multiplication its lanes differ from those
// of the assembly in the last bit.
func dotGo(a, b []float32) float32 {
	var s [lanes]float32
	b = b[:len(a)]
	i := 0
	for ; i+lanes <= len(a); i += lanes {
		x, y := (*[lanes]float32)(a[i:]), (*[lanes]float32)(b[i:])
		for l := range s {
			s[l] += x[l] * y[l]
		}
	}
	for l := 0; i < len(a); i, l = i+1, l+1 {
		s[l] += a[i] * b[i]
	}
	return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}

// Dot is the product of two vectors of the same length.
func Dot(a, b []float32) float32 { return dot(a, b) }

func aligned(b []byte) bool { return uintptr(unsafe.Pointer(&b[0]))%4 == 0 }

var littleEndian = func() bool {
	one := uint16(1)
	return *(*byte)(unsafe.Pointer(&one)) == 1
}()
