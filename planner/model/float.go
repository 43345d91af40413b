package model

import "math"

// The largest finite values of the small formats.
const (
	MaxE2M1 = 6
	MaxE4M3 = 448
	MaxE5M2 = 57344
)

// Codes that are not a number.
const (
	NaNE4M3 = 0x7F
	NaNE5M2 = 0x7F
	NaNE8M0 = 0xFF
)

var (
	tableE2M1 = [16]float32{0, 0.5, 1, 1.5, 2, 3, 4, 6, float32(math.Copysign(0, -1)), -0.5, -1, -1.5, -2, -3, -4, -6}
	tableE4M3 = decodeTable(4, 3, func(mag uint8) float32 {
		if mag == NaNE4M3 {
			return float32(math.NaN())
		}
		return 0
	})
	tableE5M2 = decodeTable(5, 2, func(mag uint8) float32 {
		switch {
		case mag == 0x7C:
			return float32(math.Inf(1))
		case mag > 0x7C:
			return float32(math.NaN())
		}
		return 0
	})
)

// decodeTable lists the values of all codes of a format with one sign bit, an
// exponent with the usual bias, and a fraction. special gives the value of
// magnitudes that are not finite numbers, and 0 for all others.
func decodeTable(exp, man uint, special func(mag uint8) float32) (t [256]float32) {
	bias := 1<<(exp-1) - 1
	for c := range t {
		mag := uint8(c) & 0x7F
		v := special(mag)
		if v == 0 {
			e, m := int(mag>>man), float64(mag&(1<<man-1))
			if e == 0 {
				v = float32(math.Ldexp(m, 1-bias-int(man)))
			} else {
				v = float32(math.Ldexp(m+float64(int(1)<<man), e-bias-int(man)))
			}
		}
		if c >= 0x80 {
			v = -v
		}
		t[c] = v
	}
	return t
}

// DecodeE2M1 is the value of the low four bits of a code: ±{0, .5, 1, 1.5, 2,
// 3, 4, 6}. The format has no infinities and no NaN (OCP Microscaling Formats
// v1.0, 5.3.3).
func DecodeE2M1(code uint8) float32 { return tableE2M1[code&15] }

// DecodeE4M3 is the value of a code of E4M3FN: no infinities, NaN is S.1111.111
// (OCP 8-bit Floating Point Specification v1.0).
func DecodeE4M3(code uint8) float32 { return tableE4M3[code] }

// DecodeE5M2 is the value of a code of E5M2, which keeps IEEE's infinities and
// NaNs (OCP 8-bit Floating Point Specification v1.0).
func DecodeE5M2(code uint8) float32 { return tableE5M2[code] }

// DecodeE8M0 is 2^(code-127), and NaN for 255: a scale without sign, zero or
// fraction (OCP Microscaling Formats v1.0, 5.4.1).
func DecodeE8M0(code uint8) float32 {
	switch code {
	case 0:
		return math.Float32frombits(1 << 22) // 2^-127 is subnormal in float32
	case NaNE8M0:
		return float32(math.NaN())
	}
	return math.Float32frombits(uint32(code) << 23)
}

// DecodeBF16 is the value of the upper half of a float32.
func DecodeBF16(code uint16) float32 { return math.Float32frombits(uint32(code) << 16) }

// EncodeBF16 rounds to the nearest BF16, ties to even. Values beyond the
// largest finite one round to infinity as in IEEE 754; NaN stays NaN.
func EncodeBF16(f float32) uint16 {
	b := math.Float32bits(f)
	if b&0x7FFFFFFF > 0x7F800000 {
		return uint16(b>>16) | 0x40 // quiet, and never an infinity
	}
	return uint16((b + 0x7FFF + b>>16&1) >> 16)
}

// EncodeE2M1 rounds to the nearest E2M1, ties to the even code, and saturates
// at ±6. The format has no NaN: it becomes +6, as the conversion instruction of
// Blackwell does (PTX ISA, cvt.rn.satfinite.e2m1x2).
func EncodeE2M1(f float32) uint8 {
	b := math.Float32bits(f)
	sign := uint8(b >> 28 & 8)
	b &= 0x7FFFFFFF
	if b > 0x7F800000 {
		return 7
	}
	return sign | uint8(roundE2M1(b))
}

// roundE2M1 is the code of a magnitude, given as the bits of a float32 that is
// not NaN: the number of midpoints that it lies above, where a midpoint belongs
// to its even neighbour. Comparing as integers leaves no branch to mispredict.
func roundE2M1(b uint32) uint32 {
	const (
		m0 = 0x3E800000     // 0.25, to 0
		m1 = 0x3F400000 - 1 // 0.75, to 1
		m2 = 0x3FA00000     // 1.25, to 1
		m3 = 0x3FE00000 - 1 // 1.75, to 2
		m4 = 0x40200000     // 2.5, to 2
		m5 = 0x40600000 - 1 // 3.5, to 4
		m6 = 0x40A00000     // 5, to 4
	)
	return (m0-b)>>31 + (m1-b)>>31 + (m2-b)>>31 + (m3-b)>>31 + (m4-b)>>31 + (m5-b)>>31 + (m6-b)>>31
}

// EncodeE4M3 rounds to the nearest E4M3FN, ties to even, and saturates at ±448,
// also for infinities. NaN stays NaN with its sign.
func EncodeE4M3(f float32) uint8 {
	return encode8(f, 3, 1-7, 0x7E, NaNE4M3)
}

// EncodeE5M2 rounds to the nearest E5M2, ties to even, and saturates at ±57344,
// also for infinities. NaN stays NaN with its sign.
func EncodeE5M2(f float32) uint8 {
	return encode8(f, 2, 1-15, 0x7B, NaNE5M2)
}

// encode8 rounds to a format of eight bits with man bits of fraction and the
// least normal exponent emin. largest is the code of the largest finite value.
func encode8(f float32, man uint, emin int, largest, nan uint8) uint8 {
	b := math.Float32bits(f)
	sign := uint8(b >> 24 & 0x80)
	b &= 0x7FFFFFFF
	if b > 0x7F800000 {
		return sign | nan
	}
	// The code of a magnitude is a fixed-point number: its exponent above emin,
	// then its fraction, and a carry out of the fraction is right as it is.
	exp := int(b>>23) - 127
	var code uint32
	if exp >= emin {
		drop := 23 - man
		code = (b + 1<<(drop-1) - 1 + b>>drop&1) >> drop
		base := uint32(emin+127-1) << man
		code -= base
	} else {
		// Subnormal: the significand in units of 2^(emin-man).
		drop := uint(23-int(man)) + uint(min(emin-exp, 31))
		sig := uint64(b&0x7FFFFF | 1<<23)
		if b>>23 == 0 {
			sig = uint64(b & 0x7FFFFF) // too small for any of the formats
		}
		if drop < 63 {
			code = uint32((sig + 1<<(drop-1) - 1 + sig>>drop&1) >> drop)
		}
	}
	if code > uint32(largest) {
		return sign | largest
	}
	return sign | uint8(code)
}

// EncodeE8M0 is the largest power of two that is not above f: the shared scale
// of a block is taken down so (OCP Microscaling Formats v1.0, 6.3). Values below
// 2^-127, zero among them, become 2^-127, values of 2^128 and above cannot
// occur in float32, and negative values, infinities and NaN become NaN.
func EncodeE8M0(f float32) uint8 {
	b := math.Float32bits(f)
	switch {
	case b == 1<<31:
		return 0
	case b >= 0x7F800000: // infinity, NaN and every negative number
		return NaNE8M0
	}
	return uint8(b >> 23)
}
