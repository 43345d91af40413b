package kernel

import "golang.org/x/sys/cpu"

// accelerated says that the assembly can run here.
var accelerated = cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasF16C

// decodeBF16 decodes n values, a multiple of 16.
//
//go:noescape
func decodeBF16(dst *float32, src *byte, n int)

// decodeE4M3 decodes n codes, a multiple of 16, none of them NaN.
//
//go:noescape
func decodeE4M3(dst *float32, src *byte, n int)

// decodeNVFP4 decodes n codes, a multiple of 16, with a scale for each 16 by
// its index in table.
//
//go:noescape
func decodeNVFP4(dst *float32, src, scales *byte, table *float32, n int)

// roundBF16 rounds n values, a multiple of 8.
//
//go:noescape
func roundBF16(x *float32, n int)

// dotFMA is the product of two vectors of n values, a multiple of 8.
//
//go:noescape
func dotFMA(a, b *float32, n int) float32

// dot4x1 multiplies 4 rows of k values, a multiple of 8, with x.
//
//go:noescape
func dot4x1(w, x *float32, k int, out *float32)

// dot4x3 multiplies 4 rows of w with 3 rows of x, all of k values, a multiple of
// 8: out[b*4+r] is the product of row r of w and row b of x.
//
//go:noescape
func dot4x3(w, x *float32, k int, out *float32)

// dotBF16x4 is dot4x1 of rows of BF16 that lie stride bytes apart; k is a
// multiple of 16.
//
//go:noescape
func dotBF16x4(w *byte, stride int, x *float32, k int, out *float32)

// mixRows adds p[i] times row i of v, each of dim values, a multiple of 8.
//
//go:noescape
func mixRows(out, v, p *float32, rows, dim int)

// expRow replaces n values, a multiple of 8, by e to the power of scale times
// their distance from top.
//
//go:noescape
func expRow(x *float32, n int, top, scale float32)

// siluRow replaces n values, a multiple of 8, by their SiLU.
//
//go:noescape
func siluRow(x *float32, n int)
