package model

import (
	"math"
	"math/rand/v2"
	"testing"
)

func all(rows, cols int, row func(dst []float32, row int)) []float32 {
	out := make([]float32, rows*cols)
	for r := range rows {
		row(out[r*cols:][:cols], r)
	}
	return out
}

// TestNVFP4ByHand works one block out on paper: amax 6·448 gives the global
// scale 1, so the second block's scale is 12/6 = 2.
func TestNVFP4ByHand(t *testing.T) {
	w := make([]float32, 32)
	w[0], w[1] = 2688, -1344
	w[16], w[17], w[18], w[19], w[20] = 12, -12, 1, 0.4, 5
	for _, inverse := range []bool{false, true} {
		q, err := QuantizeNVFP4(w, 1, 32, inverse)
		if err != nil {
			t.Fatal(err)
		}
		if q.Global != 1 || DecodeE4M3(q.Scales[0]) != 448 || DecodeE4M3(q.Scales[1]) != 2 {
			t.Fatalf("scales %v, %v, %v", q.Global, DecodeE4M3(q.Scales[0]), DecodeE4M3(q.Scales[1]))
		}
		// 6 and -3 in the low and the high nibble; 6 and -6; 0.5 and 0.2 → 0;
		// 2.5 lies between 2 and 3 and goes to the even code.
		want := []byte{0x7 | 0xD<<4, 0, 0, 0, 0, 0, 0, 0, 0x7 | 0xF<<4, 0x1, 0x4, 0, 0, 0, 0, 0}
		if string(q.Packed) != string(want) {
			t.Fatalf("codes % x, want % x", q.Packed, want)
		}
		got := make([]float32, 32)
		q.Dequantize(got, 0)
		for i, v := range map[int]float32{0: 2688, 1: -1344, 16: 12, 17: -12, 18: 1, 19: 0, 20: 4} {
			if got[i] != v {
				t.Errorf("value %d = %v, want %v", i, got[i], v)
			}
		}
	}
}

func TestGlobalScaleConventionsAreInverse(t *testing.T) {
	w := gaussian(64*128, 3)
	m, _ := QuantizeNVFP4(w, 64, 128, false)
	c, _ := QuantizeNVFP4(w, 64, 128, true)
	if p := float64(m.Global) * float64(c.Global); math.Abs(p-1) > 1e-6 {
		t.Fatalf("product of the global scales is %v", p)
	}
	var d Diff
	d.Add(all(64, 128, m.Dequantize), all(64, 128, c.Dequantize))
	if d.Relative() > 0.01 {
		t.Errorf("the conventions give different matrices: %v", d.Relative())
	}
	wrong := *c
	wrong.Inverse = false // what reading one convention as the other does
	d = Diff{}
	d.Add(w, all(64, 128, wrong.Dequantize))
	if d.Relative() < 1000 {
		t.Errorf("an inverted global scale went unseen: %v", d.Relative())
	}
}

// TestEveryValueIsNearest checks every element against all values that its
// block could hold.
func TestEveryValueIsNearest(t *testing.T) {
	w := gaussian(16*64, 4)
	nv, _ := QuantizeNVFP4(w, 16, 64, false)
	mx, _ := QuantizeMXFP4(w, 16, 64)
	check := func(name string, got []float32, scale func(i int) float32) {
		for i, x := range w {
			best := math.Inf(1)
			for c := range 16 {
				best = min(best, math.Abs(float64(DecodeE2M1(uint8(c)))*float64(scale(i))-float64(x)))
			}
			if d := math.Abs(float64(got[i]) - float64(x)); d > best+1e-6*math.Abs(float64(x)) {
				t.Fatalf("%s value %d: %v became %v, %v away; %v is possible", name, i, x, got[i], d, best)
			}
		}
	}
	check("NVFP4", all(16, 64, nv.Dequantize), func(i int) float32 { return nv.scale(nv.Scales[i/16]) })
	check("MXFP4", all(16, 64, mx.Dequantize), func(i int) float32 { return DecodeE8M0(mx.Scales[i/32]) })
}

func TestErrorOfFormats(t *testing.T) {
	// Gaussian weights: about 20.4 dB for NVFP4, 18.6 dB for MXFP4, 31 dB for
	// E4M3. The bands are wide enough for any seed and exclude a wrong scale.
	const rows, cols = 256, 512
	w := gaussian(rows*cols, 5)
	sqnr := func(got []float32) float64 {
		var d Diff
		d.Add(w, got)
		return d.SQNR()
	}
	nv, _ := QuantizeNVFP4(w, rows, cols, false)
	mx, _ := QuantizeMXFP4(w, rows, cols)
	tensor, _ := QuantizeFP8(w, rows, cols, rows, cols)
	channel, _ := QuantizeFP8(w, rows, cols, 1, cols)
	block, _ := QuantizeFP8(w, rows, cols, 128, 128)
	for _, c := range []struct {
		name   string
		got    float64
		lo, hi float64
	}{
		{"NVFP4", sqnr(all(rows, cols, nv.Dequantize)), 19.5, 21.5},
		{"MXFP4", sqnr(all(rows, cols, mx.Dequantize)), 17.5, 19.8},
		{"FP8 tensor", sqnr(all(rows, cols, tensor.Dequantize)), 30, 33},
		{"FP8 channel", sqnr(all(rows, cols, channel.Dequantize)), 30, 33},
		{"FP8 block", sqnr(all(rows, cols, block.Dequantize)), 30, 33},
	} {
		if c.got < c.lo || c.got > c.hi {
			t.Errorf("%s: %.2f dB, want %.1f to %.1f", c.name, c.got, c.lo, c.hi)
		}
	}
}

func TestFP8Blocks(t *testing.T) {
	// 130 × 200 leaves ragged blocks at both edges.
	const rows, cols = 130, 200
	w := gaussian(rows*cols, 6)
	w[129*cols+199] = 1000
	q, err := QuantizeFP8(w, rows, cols, 128, 128)
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Check(); err != nil || len(q.Scales) != 4 {
		t.Fatalf("%d scales, %v", len(q.Scales), err)
	}
	if q.Scales[3] != float32(1000)/448 || q.Scales[0] > 0.001 {
		t.Errorf("scales %v", q.Scales)
	}
	got := all(rows, cols, q.Dequantize)
	if got[129*cols+199] != 1000 {
		t.Errorf("the outlier became %v", got[129*cols+199])
	}
	var d Diff
	d.Add(w[:128*cols], got[:128*cols])
	if d.Relative() > 0.05 {
		t.Errorf("the outlier spoilt other blocks: %v", d.Relative())
	}
}

func TestQuantizedZerosAndOddInput(t *testing.T) {
	zero := make([]float32, 64)
	nv, _ := QuantizeNVFP4(zero, 2, 32, false)
	mx, _ := QuantizeMXFP4(zero, 2, 32)
	fp, _ := QuantizeFP8(zero, 2, 32, 1, 32)
	for _, got := range [][]float32{all(2, 32, nv.Dequantize), all(2, 32, mx.Dequantize), all(2, 32, fp.Dequantize)} {
		for i, x := range got {
			if x != 0 {
				t.Fatalf("zero %d became %v", i, x)
			}
		}
	}
	// A block far below the matrix's largest value underflows to zeros.
	tiny := make([]float32, 32)
	tiny[0], tiny[16] = 1, 1e-9
	nv, _ = QuantizeNVFP4(tiny, 1, 32, false)
	if got := all(1, 32, nv.Dequantize); got[0] != 1 || got[16] != 0 {
		t.Errorf("%v and %v", got[0], got[16])
	}
	for _, c := range []struct{ n, rows, cols int }{{32, 1, 31}, {24, 1, 24}, {0, 0, 0}, {16, -1, -16}, {1 << 20, 1 << 62, 1 << 62}} {
		if _, err := QuantizeNVFP4(make([]float32, c.n), c.rows, c.cols, false); err == nil {
			t.Errorf("%+v: no error", c)
		}
	}
	if _, err := QuantizeFP8(zero, 2, 32, 0, 1); err == nil {
		t.Error("blocks of no rows: no error")
	}
	for _, q := range []interface{ Check() error }{
		&NVFP4{Rows: 2, Cols: 16, Packed: make([]byte, 16), Scales: make([]byte, 1)},
		&MXFP4{Rows: 1, Cols: 32, Packed: make([]byte, 15), Scales: make([]byte, 1)},
		&FP8{Rows: 2, Cols: 16, BlockRows: 1, BlockCols: 16, Data: make([]byte, 32), Scales: make([]float32, 1)},
		&FP8{Rows: 2, Cols: 16, Data: make([]byte, 32), Scales: make([]float32, 1)},
	} {
		if q.Check() == nil {
			t.Errorf("%+v: no error", q)
		}
	}
}

func TestAmax(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	for _, c := range []struct {
		w    []float32
		want float32
	}{
		{nil, 0}, {[]float32{-3}, 3}, {[]float32{1, -2, 1.5}, 2}, {[]float32{nan, 1, -2, nan}, 2},
		{[]float32{nan}, 0}, {[]float32{1, inf, 2}, -inf}, {[]float32{1, nan, 2}, 2}, {[]float32{1, 2, nan}, 2},
	} {
		if got := amax(c.w); got != c.want {
			t.Errorf("%v: %v, want %v", c.w, got, c.want)
		}
	}
}

func TestDiff(t *testing.T) {
	var d Diff
	d.Add([]float32{3, 0}, []float32{3, 4})
	d.Add([]float32{0, 1}, []float32{float32(math.NaN()), 1})
	if d.N != 4 || d.NotFinite != 1 || d.MaxAbs != 4 {
		t.Errorf("%+v", d)
	}
	if got, want := d.Relative(), math.Sqrt(16.0/10); math.Abs(got-want) > 1e-15 {
		t.Errorf("relative %v, want %v", got, want)
	}
	if got, want := d.Cosine(), 10/math.Sqrt(10*26.0); math.Abs(got-want) > 1e-15 {
		t.Errorf("cosine %v, want %v", got, want)
	}
	var none Diff
	none.Add(make([]float32, 3), make([]float32, 3))
	if none.Relative() != 0 || none.Cosine() != 1 || !math.IsInf(none.SQNR(), 1) {
		t.Errorf("zeros: %v, %v, %v", none.Relative(), none.Cosine(), none.SQNR())
	}
	var from Diff
	from.Add([]float32{0}, []float32{1})
	if !math.IsInf(from.Relative(), 1) || from.Cosine() != 0 {
		t.Errorf("from zero: %v, %v", from.Relative(), from.Cosine())
	}
	// A shuffled matrix is as different as any other.
	w := gaussian(4096, 8)
	s := append([]float32(nil), w...)
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
	var far Diff
	far.Add(w, s)
	if far.Relative() < 1.2 || math.Abs(far.Cosine()) > 0.1 {
		t.Errorf("shuffled: %v, %v", far.Relative(), far.Cosine())
	}
}

func BenchmarkDequantizeNVFP4(b *testing.B) {
	w := gaussian(1024*1024, 1)
	q, _ := QuantizeNVFP4(w, 1024, 1024, false)
	dst := make([]float32, 1024)
	b.SetBytes(int64(len(q.Packed) + len(q.Scales)))
	for b.Loop() {
		for r := range 1024 {
			q.Dequantize(dst, r)
		}
	}
}

// BenchmarkAgainstBase is the inner loop of a comparison: dequantise, read the
// base's BF16, and accumulate. Its bytes are those of both checkpoints.
func BenchmarkAgainstBase(b *testing.B) {
	w := gaussian(1024*1024, 1)
	q, _ := QuantizeNVFP4(w, 1024, 1024, false)
	base := make([]uint16, len(w))
	for i, x := range w {
		base[i] = EncodeBF16(x)
	}
	got, want := make([]float32, 1024), make([]float32, 1024)
	b.SetBytes(int64(len(q.Packed) + len(q.Scales) + 2*len(base)))
	for b.Loop() {
		var d Diff
		for r := range 1024 {
			q.Dequantize(got, r)
			for i, c := range base[r*1024:][:1024] {
				want[i] = DecodeBF16(c)
			}
			d.Add(want, got)
		}
	}
}
