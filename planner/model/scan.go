package model

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// Scales is what the scales and codes of one weight look like without its base.
type Scales struct {
	Blocks    int64   `json:"blocks,omitempty"`     // that were read
	Zero      int64   `json:"zero,omitempty"`       // blocks whose scale makes everything zero
	NotFinite int64   `json:"not_finite,omitempty"` // scales that are NaN or infinite
	Smallest  Measure `json:"smallest"`             // block scale, without the global one
	Largest   Measure `json:"largest"`
	Saturated int64   `json:"saturated,omitempty"` // scales at the largest code of E4M3
	Codes     int     `json:"codes,omitempty"`     // distinct values of the block scales
	Global    Measure `json:"global"`              // what multiplies, whatever the convention
	// Extreme is the share of blocks that use the largest codes. A scale from the
	// largest magnitude puts at least one value of every block there; searches
	// for a better scale may leave some out.
	Extreme Measure `json:"extreme,omitempty"`
	// Shares of the values.
	ZeroValues Measure `json:"zero_values"`
	Clipped    Measure `json:"clipped"` // at the format's largest value
	Bad        int64   `json:"bad_values,omitempty"`
	// Verdict is ok, suspicious or broken; Findings are what cannot come from a
	// sound export.
	Verdict  string   `json:"verdict"`
	Findings []string `json:"findings,omitempty"`
}

// tally counts codes and scales while a weight is read.
type tally struct {
	w      *Weight
	codes  [4][256]int64 // four histograms, as a byte often follows itself
	scale  [256]int64
	full   int64 // blocks that reach the largest codes
	blocks int64

	values, zeros, bad int64 // of floats
	first              uint32
	varied             bool
}

func newTally(w *Weight) *tally { return &tally{w: w} }

// count takes what ReadRows has read: codes, and block scales of four-bit
// formats.
func (t *tally) count(codes, scales []byte) {
	for _, s := range scales {
		t.scale[s]++
	}
	switch t.w.s.Format {
	case FormatNVFP4:
		t.bytes(codes)
		t.blocks += int64(len(codes) / 8)
		for ; len(codes) >= 8; codes = codes[8:] {
			if hasNibble(binary.LittleEndian.Uint64(codes), 7) {
				t.full++
			}
		}
	case FormatMXFP4:
		t.bytes(codes)
		t.blocks += int64(len(codes) / 16)
		for ; len(codes) >= 16; codes = codes[16:] {
			// 4 and 6 are codes 6 and 7: a block's largest value lies between.
			if hasNibble(binary.LittleEndian.Uint64(codes), 6) || hasNibble(binary.LittleEndian.Uint64(codes[8:]), 6) {
				t.full++
			}
		}
	case FormatMXFP8:
		t.bytes(codes)
		t.blocks += int64(len(scales))
	case FormatFP8:
		t.bytes(codes)
	case FormatBF16:
		t.floats(codes, 2, 0x7F80, 0x7FFF)
	case FormatFP16:
		t.floats(codes, 2, 0x7C00, 0x7FFF)
	case FormatFP32:
		t.floats(codes, 4, 0x7F800000, 0x7FFFFFFF)
	}
}

func (t *tally) bytes(b []byte) {
	for ; len(b) >= 8; b = b[8:] {
		x := binary.LittleEndian.Uint64(b)
		t.codes[0][uint8(x)]++
		t.codes[1][uint8(x>>8)]++
		t.codes[2][uint8(x>>16)]++
		t.codes[3][uint8(x>>24)]++
		t.codes[0][uint8(x>>32)]++
		t.codes[1][uint8(x>>40)]++
		t.codes[2][uint8(x>>48)]++
		t.codes[3][uint8(x>>56)]++
	}
	for _, c := range b {
		t.codes[0][c]++
	}
}

// floats looks at values of size bytes whose magnitudes are the bits of mask and
// are not finite from top on.
func (t *tally) floats(b []byte, size int, top, mask uint32) {
	if len(b) >= size && t.values == 0 {
		t.first = load(b, size)
	}
	t.values += int64(len(b) / size)
	for ; len(b) >= size; b = b[size:] {
		x := load(b, size)
		m := x & mask
		if m == 0 {
			t.zeros++
		}
		if m >= top {
			t.bad++
		}
		t.varied = t.varied || x != t.first
	}
}

func load(b []byte, size int) uint32 {
	if size == 2 {
		return uint32(binary.LittleEndian.Uint16(b))
	}
	return binary.LittleEndian.Uint32(b)
}

// hasNibble tells whether one of sixteen four-bit codes has all the magnitude
// bits of want, 6 or 7.
func hasNibble(x uint64, want uint8) bool {
	y := x & (x << 1) & 0x4444444444444444 // bits 2 and 1 of a nibble, in bit 2
	if want == 7 {
		y &= x << 2
	}
	return y != 0
}

// scales sums up.
func (t *tally) scales() *Scales {
	s := &Scales{Verdict: "ok", Blocks: t.blocks, Smallest: Measure(math.Inf(1)), Global: 1}
	switch t.w.s.Format {
	case FormatNVFP4, FormatMXFP4:
		t.fourBits(s)
	case FormatMXFP8:
		t.microscaled(s)
	case FormatFP8:
		t.eightBits(s)
	default:
		t.plain(s)
	}
	if s.Blocks == 0 || math.IsInf(float64(s.Smallest), 1) {
		s.Smallest = 0
	}
	return s
}

func (s *Scales) find(when, broken bool, format string, args ...any) {
	if !when {
		return
	}
	s.Findings = append(s.Findings, fmt.Sprintf(format, args...))
	if broken {
		s.Verdict = "broken"
	} else if s.Verdict == "ok" {
		s.Verdict = "suspicious"
	}
}

// share sums the histogram of codes with the weight that each code has.
func (t *tally) share(of func(code uint8) int) Measure {
	var n, all int64
	per := 1
	if formatBits(t.w.s.Format) == 4 {
		per = 2
	}
	for c := range 256 {
		k := t.codes[0][c] + t.codes[1][c] + t.codes[2][c] + t.codes[3][c]
		n += k * int64(of(uint8(c)))
		all += k * int64(per)
	}
	return Measure(float64(n) / float64(max(all, 1)))
}

func nibbles(is func(magnitude uint8) bool) func(uint8) int {
	return func(c uint8) int { return btoi(is(c&7)) + btoi(is(c>>4&7)) }
}

func (t *tally) fourBits(s *Scales) {
	nv := t.w.s.Format == FormatNVFP4
	s.ZeroValues = t.share(nibbles(func(m uint8) bool { return m == 0 }))
	s.Clipped = t.share(nibbles(func(m uint8) bool { return m == 7 }))
	if t.blocks > 0 {
		s.Extreme = Measure(float64(t.full) / float64(t.blocks))
	}
	negative := t.blockScales(s, nv)
	s.find(s.NotFinite > 0, true, "%d block scales are NaN", s.NotFinite)
	s.find(negative > 0, true, "%d block scales are negative", negative)
	s.find(float64(s.ZeroValues) == 1, true, "all values are zero")
	if nv {
		t.global(s)
		s.find(10*s.Zero > s.Blocks, true, "%.0f %% of the blocks have a scale of zero", 100*float64(s.Zero)/float64(s.Blocks))
		// Each matrix has a block of its own there.
		s.find(s.Saturated > max(8, s.Blocks/100)+2*int64(len(t.w.globals)), true, "%.1f %% of the block scales are at the largest value: their blocks are clipped", 100*float64(s.Saturated)/float64(s.Blocks))
		s.find(s.Blocks >= 64 && s.Codes < 3, true, "the block scales take %d values in all: they do not follow the weights", s.Codes)
		s.find(s.Largest > 0 && s.Largest < 8, false, "the largest block scale is %.3g of 448: the global scale is far too large", float64(s.Largest))
		s.find(s.Blocks >= 64 && s.Extreme < 0.3, false, "%.0f %% of the blocks reach the largest code, where scales from the largest magnitude give nearly all of them", 100*float64(s.Extreme))
		return
	}
	s.exponents()
	s.find(s.Blocks >= 64 && s.Extreme < 0.3, false, "%.0f %% of the blocks reach the two largest codes, where scales from the largest magnitude give all of them", 100*float64(s.Extreme))
}

// blockScales counts the scales of blocks, of E4M3 in NVFP4 and E8M0 otherwise.
func (t *tally) blockScales(s *Scales, nv bool) (negative int64) {
	for c, n := range t.scale {
		if n == 0 {
			continue
		}
		v := DecodeE8M0(uint8(c))
		if nv {
			v = tableE4M3[c]
		}
		s.Codes++
		switch {
		case v != v:
			s.NotFinite += n
			continue
		case v == 0:
			s.Zero += n
		case v < 0:
			negative += n
		case nv && v == MaxE4M3:
			s.Saturated += n
		}
		s.Smallest, s.Largest = min(s.Smallest, Measure(v)), max(s.Largest, Measure(v))
	}
	return negative
}

// microscaled looks at MXFP8.
func (t *tally) microscaled(s *Scales) {
	t.eightBitCodes(s)
	t.blockScales(s, false)
	s.find(s.NotFinite > 0, true, "%d block scales are NaN", s.NotFinite)
	s.exponents()
}

// exponents judges scales that are powers of two.
func (s *Scales) exponents() {
	s.find(s.Largest > 1<<12, true, "the largest block scale is %.3g: no weight is that large", float64(s.Largest))
	s.find(s.Largest > 0 && s.Largest < 1e-18, true, "the largest block scale is %.3g: all weights vanish", float64(s.Largest))
	s.find(s.Blocks >= 1024 && s.Codes == 1, true, "all block scales are alike: they do not follow the weights")
}

// global looks at the scales of whole matrices.
func (t *tally) global(s *Scales) {
	all := make([]float64, len(t.w.globals))
	for i := range all {
		all[i] = float64(t.w.global(i))
		g := all[i]
		what := "the global scale"
		if len(all) > 1 {
			what = fmt.Sprintf("the global scale of expert %d", i)
		}
		s.find(g != g || math.IsInf(g, 0) || g <= 0, true, "%s is %v", what, g)
		s.find(g > 1 && !math.IsInf(g, 0), true, "%s multiplies by %.3g: no weight is that large, it may be the inverse", what, g)
		s.find(g > 0 && g < 1e-12, true, "%s multiplies by %.3g: all weights vanish", what, g)
	}
	s.Global = Measure(all[0])
	s.outliers(all, "global scale")
}

// outliers finds a scale that is far from all others of the same weight.
func (s *Scales) outliers(all []float64, what string) {
	if len(all) < 8 {
		return
	}
	sorted := slices.Clone(all)
	slices.Sort(sorted)
	median := sorted[len(sorted)/2]
	if top := sorted[len(sorted)-1]; median > 0 && top > 1e4*median {
		s.find(true, false, "the largest %s is %.3g times the median", what, top/median)
	}
}

// eightBitCodes looks at the codes of E4M3, and returns the largest magnitude.
func (t *tally) eightBitCodes(s *Scales) (top uint8) {
	s.ZeroValues = t.share(func(c uint8) int { return btoi(c&0x7F == 0) })
	s.Clipped = t.share(func(c uint8) int { return btoi(c&0x7F == 0x7E) })
	for c := range 256 {
		n := t.codes[0][c] + t.codes[1][c] + t.codes[2][c] + t.codes[3][c]
		switch m := uint8(c) & 0x7F; {
		case n == 0:
		case m == NaNE4M3:
			s.Bad += n
		default:
			top = max(top, m)
		}
	}
	s.find(s.Bad > 0, true, "%d values are NaN", s.Bad)
	s.find(float64(s.ZeroValues) == 1, true, "all values are zero")
	return top
}

func (t *tally) eightBits(s *Scales) {
	top := t.eightBitCodes(s)
	s.Blocks = int64(len(t.w.table))
	var table []float64
	negative, distinct := 0, map[float32]bool{}
	for _, v := range t.w.table {
		switch {
		case v-v != 0:
			s.NotFinite++
			continue
		case v == 0:
			s.Zero++
		case v < 0:
			negative++
		}
		if len(distinct) < 1000 {
			distinct[v] = true
		}
		table = append(table, float64(v))
		s.Smallest, s.Largest = min(s.Smallest, Measure(v)), max(s.Largest, Measure(v))
	}
	s.Codes = len(distinct)
	s.find(s.NotFinite > 0, true, "%d scales are NaN or infinite", s.NotFinite)
	s.find(negative > 0, true, "%d scales are negative", negative)
	s.find(s.Zero > 0, true, "%d of %d scales are zero", s.Zero, s.Blocks)
	s.find(s.Largest > 8, true, "the largest scale multiplies by %.3g: no weight is that large, it may be the inverse", float64(s.Largest))
	s.find(s.Largest > 0 && s.Largest < 1e-12, true, "the largest scale multiplies by %.3g: all weights vanish", float64(s.Largest))
	// Each block has a value of its own at the largest code.
	own := float64(s.Blocks) / float64(max(t.w.s.Params, 1))
	s.find(float64(s.Clipped) > 0.01+3*own, false, "%.1f %% of the values are at the largest code: they are clipped", 100*float64(s.Clipped))
	s.find(s.Blocks >= 256 && s.Codes == 1, false, "all %d scales are alike: they do not follow the weights", s.Blocks)
	s.find(t.w.s.Scale != nil && top > 0 && tableE4M3[top] < 16, false, "the largest code is %.3g of 448: the scale is far too large", tableE4M3[top])
	s.outliers(table, "scale")
}

// plain looks at values without scales. Vectors may be constant, matrices not.
func (t *tally) plain(s *Scales) {
	s.Bad = t.bad
	s.ZeroValues = Measure(float64(t.zeros) / float64(max(t.values, 1)))
	matrix := len(t.w.s.Shape) > 1 && t.w.Rows > 1 && t.w.Cols > 1
	s.find(t.bad > 0, true, "%d values are NaN or infinite", t.bad)
	s.find(matrix && t.values > 0 && t.zeros == t.values, true, "all values are zero")
	s.find(matrix && t.values > 1 && !t.varied && t.zeros < t.values, true, "all values are %v", t.constant())
}

func (t *tally) constant() float32 {
	switch t.w.s.Format {
	case FormatBF16:
		return DecodeBF16(uint16(t.first))
	case FormatFP16:
		return decodeFP16(uint16(t.first))
	}
	return math.Float32frombits(t.first)
}
