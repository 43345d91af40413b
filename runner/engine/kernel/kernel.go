// Package kernel multiplies matrices of the project's number formats on the
// CPU. Where the processor has AVX2, FMA and F16C the inner loops are assembly;
// elsewhere they are Go.
//
// A product is always summed in the same order: eight lanes over the columns,
// then the lanes. So a row's result does not depend on how many other rows are
// computed with it, on the number of threads, or on the batch that a request
// happens to run in.
package kernel

import (
	"fmt"
	"math"

	"github.com/repromill/repromill/planner/model"
)

// lanes is the number of partial sums of a product.
const lanes = 8

// Name says what computes here.
func Name() string {
	if accelerated {
		return "avx2"
	}
	return "go"
}

// tableE4M3 are the values of the codes of E4M3 that scale blocks of NVFP4.
var tableE4M3 = func() (t [256]float32) {
	for c := range t {
		t[c] = model.DecodeE4M3(uint8(c))
	}
	return t
}()

// Decode writes n values of a format as float32. Codes of [model.FormatFP8] are
// as they are, without a scale; those of [model.FormatNVFP4] are multiplied with
// the scale of their block of 16, not with the global one. src is little-endian.
func Decode(dst []float32, f model.Format, src, scales []byte) {
	switch n := len(dst); f {
	case model.FormatBF16:
		src = src[:2*n]
		done := 0
		if accelerated && n >= 16 {
			done = n &^ 15
			decodeBF16(&dst[0], &src[0], done)
		}
		for i := done; i < n; i++ {
			dst[i] = math.Float32frombits(uint32(src[2*i])<<16 | uint32(src[2*i+1])<<24)
		}
	case model.FormatFP8:
		src = src[:n]
		done := 0
		if accelerated && n >= 16 {
			done = n &^ 15
			decodeE4M3(&dst[0], &src[0], done)
		}
		for i := done; i < n; i++ {
			dst[i] = tableE4M3[src[i]]
		}
	case model.FormatNVFP4:
		src, scales = src[:n/2], scales[:n/model.BlockNVFP4]
		if accelerated && n > 0 {
			decodeNVFP4(&dst[0], &src[0], &scales[0], &tableE4M3[0], n)
			return
		}
		for b, code := range scales {
			s := tableE4M3[code]
			out, in := dst[b*16:][:16], src[b*8:][:8]
			for i, c := range in {
				out[2*i], out[2*i+1] = model.DecodeE2M1(c)*s, model.DecodeE2M1(c>>4)*s
			}
		}
	default:
		src = src[:4*n]
		for i := range dst {
			s := src[4*i:][:4]
			dst[i] = math.Float32frombits(uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24)
		}
	}
}

// Matrix is a weight of Rows × Cols in row order, as it lies in a checkpoint.
type Matrix struct {
	Rows, Cols int
	Format     model.Format // fp32, bf16, fp8_e4m3 or nvfp4
	Data       []byte       // little-endian; of nvfp4 two codes in a byte
	Scales     []byte       // of nvfp4, E4M3: Rows × Cols/16
	// Scale multiplies every product: the scale of an FP8 tensor or the global
	// scale of NVFP4. Zero means one.
	Scale float32
	// RowScales multiply the products of each row instead, of FP8 with a scale
	// per channel.
	RowScales []float32
	Bias      []float32 // Rows, added to the products; nil for none
	// Activations, where not empty, is the format that inputs are rounded to
	// before they are multiplied: fp8_e4m3 or nvfp4.
	Activations model.Format
	// InputScale is the calibrated scale of the inputs, that one step of the
	// format means: amax/448 of FP8, amax/2688 of NVFP4. Zero gives each row of
	// the input its own.
	InputScale float32
}

// rowBytes is the size of a row without its scales.
func (m *Matrix) rowBytes() int {
	switch m.Format {
	case model.FormatBF16:
		return 2 * m.Cols
	case model.FormatFP8:
		return m.Cols
	case model.FormatNVFP4:
		return m.Cols / 2
	}
	return 4 * m.Cols
}

// Bytes is what is read of memory when the matrix is multiplied once.
func (m *Matrix) Bytes() int64 { return int64(len(m.Data) + len(m.Scales) + 4*len(m.RowScales)) }

// Check reports a matrix whose parts do not fit each other.
func (m *Matrix) Check() error {
	if m.Rows < 1 || m.Cols < 1 || m.Rows > 1<<26 || m.Cols > 1<<24 {
		return fmt.Errorf("read matrix: its shape is %d×%d", m.Rows, m.Cols)
	}
	switch m.Format {
	case model.FormatFP32, model.FormatBF16, model.FormatFP8:
	case model.FormatNVFP4:
		if m.Cols%model.BlockNVFP4 != 0 || len(m.Scales) != m.Rows*m.Cols/model.BlockNVFP4 {
			return fmt.Errorf("read matrix of %d×%d: %d block scales do not fit it", m.Rows, m.Cols, len(m.Scales))
		}
	default:
		return fmt.Errorf("read matrix: the engine does not compute with %s", m.Format)
	}
	if len(m.Data) != m.Rows*m.rowBytes() {
		return fmt.Errorf("read matrix of %d×%d %s: it has %d bytes, want %d", m.Rows, m.Cols, m.Format, len(m.Data), m.Rows*m.rowBytes())
	}
	if m.RowScales != nil && len(m.RowScales) != m.Rows || m.Bias != nil && len(m.Bias) != m.Rows {
		return fmt.Errorf("read matrix of %d×%d: its scales or bias do not fit it", m.Rows, m.Cols)
	}
	switch m.Activations {
	case "", model.FormatFP8:
	case model.FormatNVFP4:
		if m.Cols%model.BlockNVFP4 != 0 {
			return fmt.Errorf("read matrix of %d×%d: its inputs are not made of blocks of 16", m.Rows, m.Cols)
		}
	default:
		return fmt.Errorf("read matrix: the engine does not round inputs to %s", m.Activations)
	}
	return nil
}

// Row decodes one row into dst, of length Cols, with all its scales.
func (m *Matrix) Row(dst []float32, row int) {
	n := m.rowBytes()
	var scales []byte
	if m.Format == model.FormatNVFP4 {
		per := m.Cols / model.BlockNVFP4
		scales = m.Scales[row*per:][:per]
	}
	Decode(dst[:m.Cols], m.Format, m.Data[row*n:][:n], scales)
	if s := m.rowScale(row); s != 1 {
		for i := range dst[:m.Cols] {
			dst[i] *= s
		}
	}
}

func (m *Matrix) rowScale(row int) float32 {
	switch {
	case m.RowScales != nil:
		return m.RowScales[row]
	case m.Scale != 0:
		return m.Scale
	}
	return 1
}
