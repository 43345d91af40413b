package model

import (
	"fmt"
	"math"
)

// Sizes of the scaled blocks along a row.
const (
	BlockNVFP4 = 16
	BlockMXFP4 = 32
)

// NVFP4 is a matrix of E2M1 values with one E4M3 scale for every 16 of a row
// and one float32 for the whole matrix.
type NVFP4 struct {
	Rows, Cols int
	Packed     []byte // Rows × Cols/2; the even column is the low nibble
	Scales     []byte // Rows × Cols/16 codes of E4M3
	// Global is weight_scale_2 of ModelOpt, which multiplies, or with Inverse
	// weight_global_scale of compressed-tensors, which divides
	// (NVIDIA/Model-Optimizer modelopt/torch/quantization/qtensor/nvfp4_tensor.py;
	// vllm-project/compressed-tensors quantization/utils/helpers.py).
	Global  float32
	Inverse bool
}

// QuantizeNVFP4 rounds w, rows × cols in row order, to the nearest NVFP4:
// global scale amax/(6·448), or its inverse, and block scales of amax/6. A block
// of zeros gets the scale 1, as ModelOpt writes it. cols is a multiple of 16.
func QuantizeNVFP4(w []float32, rows, cols int, inverse bool) (*NVFP4, error) {
	if err := checkMatrix(len(w), rows, cols, BlockNVFP4); err != nil {
		return nil, err
	}
	global := float32(1)
	if m := amax(w); m > 0 {
		global = m / (MaxE2M1 * MaxE4M3)
		if inverse {
			global = MaxE2M1 * MaxE4M3 / m
		}
	}
	return quantizeNVFP4(w, rows, cols, global, inverse), nil
}

// QuantizeNVFP4With is [QuantizeNVFP4] with a global scale that is given, for
// rows of a larger matrix, or where matrices share one.
func QuantizeNVFP4With(w []float32, rows, cols int, global float32) (*NVFP4, error) {
	if err := checkMatrix(len(w), rows, cols, BlockNVFP4); err != nil {
		return nil, err
	}
	if !(global > 0) || math.IsInf(float64(global), 0) {
		return nil, fmt.Errorf("quantize matrix: the global scale is %g", global)
	}
	return quantizeNVFP4(w, rows, cols, global, false), nil
}

func quantizeNVFP4(w []float32, rows, cols int, global float32, inverse bool) *NVFP4 {
	q := &NVFP4{
		Rows: rows, Cols: cols, Inverse: inverse, Global: global,
		Packed: make([]byte, len(w)/2), Scales: make([]byte, len(w)/BlockNVFP4),
	}
	for i := range q.Scales {
		block := w[i*BlockNVFP4:][:BlockNVFP4]
		s := amax(block) / MaxE2M1
		if inverse {
			s *= q.Global
		} else {
			s /= q.Global
		}
		if s == 0 {
			s = 1
		}
		q.Scales[i] = EncodeE4M3(s)
		packE2M1(q.Packed[i*BlockNVFP4/2:][:BlockNVFP4/2], block, q.scale(q.Scales[i]))
	}
	return q
}

// scale is what the codes of a block are multiplied with.
func (q *NVFP4) scale(code uint8) float32 {
	if q.Inverse {
		return DecodeE4M3(code) / q.Global
	}
	return DecodeE4M3(code) * q.Global
}

// Check reports a matrix whose parts do not fit each other.
func (q *NVFP4) Check() error {
	if err := checkMatrix(q.Rows*q.Cols, q.Rows, q.Cols, BlockNVFP4); err != nil {
		return err
	}
	if n := q.Rows * q.Cols; len(q.Packed) != n/2 || len(q.Scales) != n/BlockNVFP4 {
		return fmt.Errorf("read NVFP4 matrix of %d×%d: %d bytes of codes and %d scales, want %d and %d",
			q.Rows, q.Cols, len(q.Packed), len(q.Scales), n/2, n/BlockNVFP4)
	}
	return nil
}

// Dequantize writes the values of row into dst, of length Cols. [NVFP4.Check]
// has to have passed.
func (q *NVFP4) Dequantize(dst []float32, row int) {
	scales := q.Scales[row*q.Cols/BlockNVFP4:][:q.Cols/BlockNVFP4]
	packed := q.Packed[row*q.Cols/2:]
	for b, code := range scales {
		unpackE2M1(dst[b*BlockNVFP4:][:BlockNVFP4], packed[b*BlockNVFP4/2:], q.scale(code))
	}
}

// MXFP4 is a matrix of E2M1 values with one E8M0 scale for every 32 of a row
// (OCP Microscaling Formats v1.0).
type MXFP4 struct {
	Rows, Cols int
	Packed     []byte // Rows × Cols/2; the even column is the low nibble
	Scales     []byte // Rows × Cols/32 codes of E8M0
}

// QuantizeMXFP4 rounds w, rows × cols in row order, with the scales of OCP
// Microscaling Formats v1.0, 6.3: 2^(floor(log2 amax)-2). Values beyond 6 times
// the scale saturate. cols is a multiple of 32.
func QuantizeMXFP4(w []float32, rows, cols int) (*MXFP4, error) {
	if err := checkMatrix(len(w), rows, cols, BlockMXFP4); err != nil {
		return nil, err
	}
	q := &MXFP4{Rows: rows, Cols: cols, Packed: make([]byte, len(w)/2), Scales: make([]byte, len(w)/BlockMXFP4)}
	for i := range q.Scales {
		block := w[i*BlockMXFP4:][:BlockMXFP4]
		q.Scales[i] = EncodeE8M0(amax(block) / 4)
		packE2M1(q.Packed[i*BlockMXFP4/2:][:BlockMXFP4/2], block, DecodeE8M0(q.Scales[i]))
	}
	return q, nil
}

// Check reports a matrix whose parts do not fit each other.
func (q *MXFP4) Check() error {
	if err := checkMatrix(q.Rows*q.Cols, q.Rows, q.Cols, BlockMXFP4); err != nil {
		return err
	}
	if n := q.Rows * q.Cols; len(q.Packed) != n/2 || len(q.Scales) != n/BlockMXFP4 {
		return fmt.Errorf("read MXFP4 matrix of %d×%d: %d bytes of codes and %d scales, want %d and %d",
			q.Rows, q.Cols, len(q.Packed), len(q.Scales), n/2, n/BlockMXFP4)
	}
	return nil
}

// Dequantize writes the values of row into dst, of length Cols. [MXFP4.Check]
// has to have passed.
func (q *MXFP4) Dequantize(dst []float32, row int) {
	scales := q.Scales[row*q.Cols/BlockMXFP4:][:q.Cols/BlockMXFP4]
	packed := q.Packed[row*q.Cols/2:]
	for b, code := range scales {
		unpackE2M1(dst[b*BlockMXFP4:][:BlockMXFP4], packed[b*BlockMXFP4/2:], DecodeE8M0(code))
	}
}

// FP8 is a matrix of E4M3 values with one float32 scale, which multiplies, for
// every block of BlockRows × BlockCols: the whole matrix (per tensor), one row
// (per channel) or 128×128. Blocks at the edges may be smaller.
type FP8 struct {
	Rows, Cols           int
	BlockRows, BlockCols int
	Data                 []byte // Rows × Cols codes of E4M3
	// Scales is weight_scale of ModelOpt and compressed-tensors and
	// weight_scale_inv of DeepSeek and Qwen, in row order of the blocks.
	Scales []float32
}

// QuantizeFP8 rounds w, rows × cols in row order, with a scale of amax/448 per
// block of blockRows × blockCols. A block of zeros gets the scale 1.
func QuantizeFP8(w []float32, rows, cols, blockRows, blockCols int) (*FP8, error) {
	q := &FP8{Rows: rows, Cols: cols, BlockRows: blockRows, BlockCols: blockCols}
	if err := checkMatrix(len(w), rows, cols, 1); err != nil {
		return nil, err
	}
	if blockRows < 1 || blockCols < 1 {
		return nil, fmt.Errorf("quantize matrix: blocks of %d×%d", blockRows, blockCols)
	}
	q.Data = make([]byte, len(w))
	q.Scales = make([]float32, ceilDiv(rows, blockRows)*q.across())
	for r, i := 0, 0; r < rows; r, i = r+1, i+cols {
		for c, x := range w[i:][:cols] {
			s := &q.Scales[q.block(r, c)]
			*s = max2(*s, abs(x))
		}
	}
	for i := range q.Scales {
		if q.Scales[i] /= MaxE4M3; q.Scales[i] == 0 {
			q.Scales[i] = 1
		}
	}
	for r, i := 0, 0; r < rows; r, i = r+1, i+cols {
		for c, x := range w[i:][:cols] {
			q.Data[i+c] = EncodeE4M3(x / q.Scales[q.block(r, c)])
		}
	}
	return q, nil
}

// across is the number of blocks in a row of blocks.
func (q *FP8) across() int { return ceilDiv(q.Cols, q.BlockCols) }

func (q *FP8) block(row, col int) int { return row/q.BlockRows*q.across() + col/q.BlockCols }

// Check reports a matrix whose parts do not fit each other.
func (q *FP8) Check() error {
	if err := checkMatrix(len(q.Data), q.Rows, q.Cols, 1); err != nil {
		return err
	}
	if q.BlockRows < 1 || q.BlockCols < 1 || len(q.Scales) != ceilDiv(q.Rows, q.BlockRows)*q.across() {
		return fmt.Errorf("read FP8 matrix of %d×%d: %d scales for blocks of %d×%d", q.Rows, q.Cols, len(q.Scales), q.BlockRows, q.BlockCols)
	}
	return nil
}

// Dequantize writes the values of row into dst, of length Cols. [FP8.Check] has
// to have passed.
func (q *FP8) Dequantize(dst []float32, row int) {
	data := q.Data[row*q.Cols:][:q.Cols]
	scales := q.Scales[row/q.BlockRows*q.across():]
	for first, b := 0, 0; first < q.Cols; first, b = first+q.BlockCols, b+1 {
		s := scales[b]
		for c := first; c < min(first+q.BlockCols, q.Cols); c++ {
			dst[c] = DecodeE4M3(data[c]) * s
		}
	}
}

// packE2M1 rounds values divided by scale. A scale of zero gives zeros.
func packE2M1(dst []byte, values []float32, scale float32) {
	if scale == 0 {
		clear(dst)
		return
	}
	for i := range dst {
		dst[i] = EncodeE2M1(values[2*i]/scale) | EncodeE2M1(values[2*i+1]/scale)<<4
	}
}

// pairE2M1 are the values of both codes of a byte, the low one first.
var pairE2M1 = func() (t [256][2]float32) {
	for c := range t {
		t[c] = [2]float32{tableE2M1[c&15], tableE2M1[c>>4]}
	}
	return t
}()

func unpackE2M1(dst []float32, packed []byte, scale float32) {
	for len(dst) >= 8 && len(packed) >= 4 {
		d, s := (*[8]float32)(dst), (*[4]byte)(packed)
		a, b, c, e := &pairE2M1[s[0]], &pairE2M1[s[1]], &pairE2M1[s[2]], &pairE2M1[s[3]]
		d[0], d[1], d[2], d[3] = a[0]*scale, a[1]*scale, b[0]*scale, b[1]*scale
		d[4], d[5], d[6], d[7] = c[0]*scale, c[1]*scale, e[0]*scale, e[1]*scale
		dst, packed = dst[8:], packed[4:]
	}
	for i := range len(dst) / 2 {
		p := &pairE2M1[packed[i]]
		dst[2*i], dst[2*i+1] = p[0]*scale, p[1]*scale
	}
}

func checkMatrix(n, rows, cols, block int) error {
	switch {
	case rows < 1 || cols < 1 || rows > math.MaxInt/cols || n != rows*cols:
		return fmt.Errorf("read matrix: %d values are not %d×%d", n, rows, cols)
	case cols%block != 0:
		return fmt.Errorf("read matrix: rows of %d values are not made of blocks of %d", cols, block)
	}
	return nil
}

// amax is the largest magnitude; NaN counts as nothing.
func amax(w []float32) float32 {
	all := w
	var a, b uint32 // magnitudes of floats have the order of their bits
	for ; len(w) >= 2; w = w[2:] {
		a = max(a, math.Float32bits(w[0])&^(1<<31))
		b = max(b, math.Float32bits(w[1])&^(1<<31))
	}
	if len(w) > 0 {
		a = max(a, math.Float32bits(w[0])&^(1<<31))
	}
	if m := max(a, b); m <= 0x7F800000 {
		return math.Float32frombits(m)
	}
	return amaxOfNumbers(all)
}

func amaxOfNumbers(w []float32) float32 {
	var m float32
	for _, x := range w {
		m = max2(m, abs(x))
	}
	return m
}

func max2(m, x float32) float32 {
	if x > m {
		return x
	}
	return m
}

func abs(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

func ceilDiv(a, b int) int { return (a + b - 1) / b }
