package model

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// values decodes a format by its definition in words, bit by bit, without the
// tables and shifts of the package.
func values(exp, man int, hasInf bool) []float64 {
	bits := 1 + exp + man
	out := make([]float64, 1<<bits)
	bias := math.Pow(2, float64(exp-1)) - 1
	for c := range out {
		digit := func(i int) float64 { return float64(c >> (bits - 1 - i) & 1) }
		e, f := 0.0, 0.0
		for i := 1; i <= exp; i++ {
			e = 2*e + digit(i)
		}
		for i := exp + 1; i < bits; i++ {
			f = 2*f + digit(i)
		}
		all := e == math.Pow(2, float64(exp))-1
		v := math.Pow(2, e-bias) * (1 + f/math.Pow(2, float64(man)))
		switch {
		case hasInf && all && f == 0:
			v = math.Inf(1)
		case hasInf && all:
			v = math.NaN()
		case !hasInf && exp == 4 && all && f == 7:
			v = math.NaN()
		case e == 0:
			v = math.Pow(2, 1-bias) * f / math.Pow(2, float64(man))
		}
		if digit(0) == 1 {
			v = math.Copysign(v, -1)
		}
		out[c] = v
	}
	return out
}

// nearest is the definition of rounding: the code with the least distance, of
// two at the same distance the even one, and the largest finite one beyond it.
func nearest(table []float64, x float64) int {
	// Far away all distances look alike in floating point; the order is the same
	// from anywhere beyond the largest value.
	x = math.Copysign(min(math.Abs(x), 2*MaxE5M2), x)
	best, distance := -1, math.Inf(1)
	for c, v := range table {
		if math.IsNaN(v) || math.IsInf(v, 0) || math.Signbit(v) != math.Signbit(x) {
			continue
		}
		if d := math.Abs(v - x); d < distance || d == distance && c%2 == 0 {
			best, distance = c, d
		}
	}
	return best
}

func sameFloat(a float32, b float64) bool {
	if math.IsNaN(b) {
		return a != a
	}
	return float64(a) == b && math.Signbit(float64(a)) == math.Signbit(b)
}

func TestSmallFormatsOverAllCodes(t *testing.T) {
	formats := []struct {
		name   string
		table  []float64
		decode func(uint8) float32
		encode func(float32) uint8
		nan    func(sign uint8) uint8
	}{
		{"E2M1", values(2, 1, false), DecodeE2M1, EncodeE2M1, func(uint8) uint8 { return 7 }},
		{"E4M3", values(4, 3, false), DecodeE4M3, EncodeE4M3, func(s uint8) uint8 { return s | NaNE4M3 }},
		{"E5M2", values(5, 2, true), DecodeE5M2, EncodeE5M2, func(s uint8) uint8 { return s | NaNE5M2 }},
	}
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			for c, want := range f.table {
				if got := f.decode(uint8(c)); !sameFloat(got, want) {
					t.Fatalf("decode %#02x = %v, want %v", c, got, want)
				}
				if finite := !math.IsNaN(want) && !math.IsInf(want, 0); finite && f.encode(float32(want)) != uint8(c) {
					t.Fatalf("encode %v = %#02x, want %#02x", want, f.encode(float32(want)), c)
				}
			}
			check := func(x float32) {
				t.Helper()
				if got, want := f.encode(x), nearest(f.table, float64(x)); int(got) != want {
					t.Fatalf("encode %v (%#08x) = %#02x, want %#02x", x, math.Float32bits(x), got, want)
				}
			}
			inf := float32(math.Inf(1))
			sorted := slices.DeleteFunc(slices.Clone(f.table), func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
			slices.Sort(sorted)
			for i, a := range sorted {
				// Every value, the middle to the next, and the float32 on both sides.
				for _, x := range []float64{a, (a + sorted[min(i+1, len(sorted)-1)]) / 2} {
					check(float32(x))
					check(math.Nextafter32(float32(x), inf))
					check(math.Nextafter32(float32(x), -inf))
				}
			}
			for _, x := range []float32{inf, -inf, math.MaxFloat32, math.SmallestNonzeroFloat32, -math.SmallestNonzeroFloat32, 1e-30, -3e-39} {
				check(x)
			}
			rng := rand.New(rand.NewPCG(1, 2))
			for range 10_000 {
				if x := math.Float32frombits(rng.Uint32()); x == x {
					check(x)
				}
				check(float32(rng.NormFloat64()))
			}
			nan := math.Float32bits(float32(math.NaN()))
			if got := f.encode(math.Float32frombits(nan)); got != f.nan(0) {
				t.Errorf("encode NaN = %#02x, want %#02x", got, f.nan(0))
			}
			if got := f.encode(math.Float32frombits(nan | 1<<31)); got != f.nan(0x80) {
				t.Errorf("encode -NaN = %#02x, want %#02x", got, f.nan(0x80))
			}
		})
	}
}

func TestE8M0OverAllCodes(t *testing.T) {
	for c := range 255 {
		want := math.Pow(2, float64(c)-127)
		got := DecodeE8M0(uint8(c))
		if float64(got) != want {
			t.Fatalf("decode %d = %v, want %v", c, got, want)
		}
		if back := EncodeE8M0(got); int(back) != c {
			t.Fatalf("encode %v = %d, want %d", got, back, c)
		}
		if c > 0 { // the largest value below is one code lower
			if below := EncodeE8M0(math.Nextafter32(got, 0)); int(below) != c-1 {
				t.Fatalf("encode below %v = %d, want %d", got, below, c-1)
			}
			if above := EncodeE8M0(math.Nextafter32(got, math.MaxFloat32)); int(above) != c {
				t.Fatalf("encode above %v = %d, want %d", got, above, c)
			}
		}
	}
	nan := float32(math.NaN())
	if v := DecodeE8M0(255); v == v {
		t.Error("255 is a number")
	}
	for _, x := range []float32{nan, -1, float32(math.Inf(1)), float32(math.Inf(-1)), -math.SmallestNonzeroFloat32} {
		if EncodeE8M0(x) != NaNE8M0 {
			t.Errorf("encode %v = %d, want NaN", x, EncodeE8M0(x))
		}
	}
	for _, x := range []float32{0, float32(math.Copysign(0, -1)), math.SmallestNonzeroFloat32} {
		if EncodeE8M0(x) != 0 {
			t.Errorf("encode %v = %d, want 0", x, EncodeE8M0(x))
		}
	}
}

func TestBF16OverAllCodes(t *testing.T) {
	for c := range 1 << 16 {
		v := DecodeBF16(uint16(c))
		if v != v {
			if e := DecodeBF16(EncodeBF16(v)); e == e {
				t.Fatalf("NaN %#04x became %v", c, e)
			}
			continue
		}
		if got := EncodeBF16(v); int(got) != c {
			t.Fatalf("encode %v = %#04x, want %#04x", v, got, c)
		}
		next := uint16(c + 1)
		w := DecodeBF16(next)
		if c&0x7FFF >= 0x7F7F || w != w {
			continue // the next code is an infinity
		}
		middle := float32((float64(v) + float64(w)) / 2)
		even := uint16(c)
		if c%2 == 1 {
			even = next
		}
		if got := EncodeBF16(middle); got != even {
			t.Fatalf("encode %v = %#04x, want the even of %#04x and %#04x", middle, got, c, next)
		}
		if got := EncodeBF16(math.Nextafter32(middle, v)); got != uint16(c) {
			t.Fatalf("below the middle of %#04x: %#04x", c, got)
		}
		if got := EncodeBF16(math.Nextafter32(middle, w)); got != next {
			t.Fatalf("above the middle of %#04x: %#04x", c, got)
		}
	}
	if got := DecodeBF16(EncodeBF16(math.MaxFloat32)); !math.IsInf(float64(got), 1) {
		t.Errorf("the largest float32 became %v", got)
	}
	if got := DecodeBF16(EncodeBF16(math.Float32frombits(0x7F800001))); got == got {
		t.Error("a NaN whose payload is cut off became an infinity")
	}
}

func BenchmarkEncodeE4M3(b *testing.B) { benchEncode(b, EncodeE4M3) }
func BenchmarkEncodeE2M1(b *testing.B) { benchEncode(b, EncodeE2M1) }

func benchEncode(b *testing.B, encode func(float32) uint8) {
	w := gaussian(1<<16, 1)
	b.SetBytes(int64(4 * len(w)))
	var sink uint8
	for b.Loop() {
		for _, x := range w {
			sink ^= encode(x)
		}
	}
	_ = sink
}

// gaussian is n normal numbers with standard deviation 0.02, as weights have.
func gaussian(n int, seed uint64) []float32 {
	rng := rand.New(rand.NewPCG(seed, 7))
	w := make([]float32, n)
	for i := range w {
		w[i] = float32(rng.NormFloat64() * 0.02)
	}
	return w
}
