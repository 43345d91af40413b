package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/repromill/repromill/planner/model"
)

func random(r *rand.Rand, n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(r.NormFloat64())
	}
	return out
}

// matrix makes a matrix of a format, and the values that it stands for.
func matrix(t testing.TB, r *rand.Rand, f model.Format, rows, cols int) (*Matrix, []float32) {
	t.Helper()
	w := random(r, rows*cols)
	m := &Matrix{Rows: rows, Cols: cols, Format: f}
	switch f {
	case model.FormatFP32:
		for _, v := range w {
			m.Data = binary.LittleEndian.AppendUint32(m.Data, math.Float32bits(v))
		}
	case model.FormatBF16:
		for i, v := range w {
			c := model.EncodeBF16(v)
			m.Data = binary.LittleEndian.AppendUint16(m.Data, c)
			w[i] = model.DecodeBF16(c)
		}
	case model.FormatFP8:
		q, err := model.QuantizeFP8(w, rows, cols, rows, cols)
		if err != nil {
			t.Fatal(err)
		}
		m.Data, m.Scale = q.Data, q.Scales[0]
		for i := range rows {
			q.Dequantize(w[i*cols:][:cols], i)
		}
	case model.FormatNVFP4:
		q, err := model.QuantizeNVFP4(w, rows, cols, false)
		if err != nil {
			t.Fatal(err)
		}
		m.Data, m.Scales, m.Scale = q.Packed, q.Scales, q.Global
		for i := range rows {
			q.Dequantize(w[i*cols:][:cols], i)
		}
	}
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
	return m, w
}

var formats = []model.Format{model.FormatFP32, model.FormatBF16, model.FormatFP8, model.FormatNVFP4}

// plain runs a test with the assembly, where there is some, and without.
func plain(t *testing.T, name string, f func(t *testing.T)) {
	for _, asm := range []bool{true, false} {
		if asm && !accelerated {
			continue
		}
		t.Run(fmt.Sprintf("%s/assembly=%v", name, asm), func(t *testing.T) {
			defer func(was bool) { setAccelerated(was) }(accelerated)
			setAccelerated(asm)
			f(t)
		})
	}
}

// TestProducts holds products of all formats and shapes to sums in float64.
func TestProducts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, f := range formats {
		for _, shape := range [][2]int{{1, 16}, {4, 16}, {7, 48}, {33, 64}, {130, 208}, {5, 1040}} {
			m, w := matrix(t, r, f, shape[0], shape[1])
			m.Bias = random(r, m.Rows)
			for _, n := range []int{1, 2, 3, 4, 7} {
				x := random(r, n*m.Cols)
				plain(t, fmt.Sprintf("%s/%v/%d", f, shape, n), func(t *testing.T) {
					out := make([]float32, n*m.Rows)
					var s Scratch
					s.Rows(&Product{Matrix: m, X: x, Out: out}, 0, m.Rows)
					for b := range n {
						for row := range m.Rows {
							want, size := float64(m.Bias[row]), math.Abs(float64(m.Bias[row]))
							for c := range m.Cols {
								p := float64(w[row*m.Cols+c]) * float64(x[b*m.Cols+c])
								want, size = want+p, size+math.Abs(p)
							}
							// Cols/8 additions in each lane, each with half a unit of error.
							if d := math.Abs(float64(out[b*m.Rows+row]) - want); d > size*float64(m.Cols/8+8)*0x1p-24 {
								t.Fatalf("input %d row %d: %g, want %g", b, row, out[b*m.Rows+row], want)
							}
						}
					}
				})
			}
		}
	}
}

// TestBatchesDoNotChangeResults multiplies each input alone, among others, and
// in pieces of rows on two threads: the bits are the same.
func TestBatchesDoNotChangeResults(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	pool := NewPool(2)
	defer pool.Close()
	for _, f := range formats {
		m, _ := matrix(t, r, f, 612, 480)
		const n = 11
		x := random(r, n*m.Cols)
		together := make([]float32, n*m.Rows)
		pool.Multiply(Product{Matrix: m, X: x, Out: together})
		for b := range n {
			alone := make([]float32, m.Rows)
			var s Scratch
			s.Rows(&Product{Matrix: m, X: x[b*m.Cols:][:m.Cols], Out: alone}, 0, m.Rows)
			for i, v := range alone {
				if math.Float32bits(v) != math.Float32bits(together[b*m.Rows+i]) {
					t.Fatalf("%s: input %d row %d is %g alone and %g among others", f, b, i, v, together[b*m.Rows+i])
				}
			}
		}
	}
}

// TestDecode holds the decoding of all codes to that of planner/model.
func TestDecode(t *testing.T) {
	codes8, codes16 := make([]byte, 0, 256), make([]byte, 0, 1<<17)
	var want8, want16 []float32
	for c := range 256 {
		if c&0x7F != model.NaNE4M3 {
			codes8, want8 = append(codes8, byte(c)), append(want8, model.DecodeE4M3(byte(c)))
		}
	}
	for c := range 1 << 16 {
		codes16, want16 = binary.LittleEndian.AppendUint16(codes16, uint16(c)), append(want16, model.DecodeBF16(uint16(c)))
	}
	var codes4, scales []byte
	var want4 []float32
	for s := range 256 {
		if s&0x7F == model.NaNE4M3 {
			continue
		}
		scales = append(scales, byte(s))
		for c := range 8 {
			b := byte(c*2 | (c*2+1)<<4)
			codes4 = append(codes4, b)
			want4 = append(want4, model.DecodeE2M1(b)*model.DecodeE4M3(byte(s)), model.DecodeE2M1(b>>4)*model.DecodeE4M3(byte(s)))
		}
	}
	check := func(t *testing.T, want []float32, f model.Format, codes, scales []byte) {
		got := make([]float32, len(want))
		Decode(got, f, codes, scales)
		for i := range want {
			if got[i] != want[i] && !(got[i] != got[i] && want[i] != want[i]) {
				t.Fatalf("%s: value %d is %g, want %g", f, i, got[i], want[i])
			}
		}
	}
	plain(t, "all", func(t *testing.T) {
		check(t, want8, model.FormatFP8, codes8, nil)
		check(t, want16, model.FormatBF16, codes16, nil)
		check(t, want4, model.FormatNVFP4, codes4, scales)
	})
}

// TestRowScales has FP8 with a scale for each row, and inputs with scales.
func TestRowScales(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	m, w := matrix(t, r, model.FormatFP8, 9, 32)
	for i := range m.Rows {
		m.RowScales = append(m.RowScales, m.Scale*float32(i+1))
	}
	m.Scale = 0
	x, row := random(r, 2*m.Cols), make([]float32, m.Cols)
	plain(t, "all", func(t *testing.T) {
		out := make([]float32, 2*m.Rows)
		var s Scratch
		s.Rows(&Product{Matrix: m, X: x, Out: out, Scales: []float32{1, 0.5}}, 0, m.Rows)
		for b := range 2 {
			for i := range m.Rows {
				m.Row(row, i)
				want := 0.0
				for c, v := range row {
					if math.Abs(float64(v-w[i*m.Cols+c]*float32(i+1))) > 1e-4 {
						t.Fatalf("value %d of row %d is %g", c, i, v)
					}
					want += float64(v) * float64(x[b*m.Cols+c]) / float64(b+1)
				}
				if math.Abs(want-float64(out[b*m.Rows+i])) > 1e-3*(1+math.Abs(want)) {
					t.Errorf("input %d row %d: %g, want %g", b, i, out[b*m.Rows+i], want)
				}
			}
		}
	})
}

func TestRoundBF16(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	in := []float32{0, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), math.Float32frombits(0x7FFFFFFF), math.MaxFloat32, 1.00390625, 1.01171875, -1.00390625}
	for range 1000 {
		in = append(in, math.Float32frombits(r.Uint32()))
	}
	plain(t, "all", func(t *testing.T) {
		got := append([]float32(nil), in...)
		RoundBF16(got)
		for i, v := range in {
			if want := model.DecodeBF16(model.EncodeBF16(v)); got[i] != want && want == want || want != want && got[i] == got[i] {
				t.Fatalf("%x rounds to %g, want %g", math.Float32bits(v), got[i], want)
			}
		}
	})
}

// TestRoundInputs checks that rounding gives codes of the format times scales,
// each the nearest, with calibrated and with own scales.
func TestRoundInputs(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	const cols = 64
	for _, static := range []float32{0, 0.01} {
		x := random(r, cols)
		x[3] = 100
		m := &Matrix{Rows: 1, Cols: cols, Activations: model.FormatFP8, InputScale: static}
		got := append([]float32(nil), x...)
		scale := m.Round(got, 1, nil)[0]
		for i, v := range got {
			if want := model.DecodeE4M3(model.EncodeE4M3(x[i] * (1 / scale))); v != want {
				t.Fatalf("static %g: value %d is %g, want %g", static, i, v, want)
			}
		}
		if want := max(static, 100.0/448); static == 0 && scale != want {
			t.Fatalf("scale is %g, want %g", scale, want)
		}
		m.Activations = model.FormatNVFP4
		copy(got, x)
		scale = m.Round(got, 1, nil)[0]
		q, err := model.QuantizeNVFP4(x, 1, cols, false)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]float32, cols)
		q.Dequantize(want, 0)
		for i, v := range got {
			if static == 0 && math.Abs(float64(v*scale-want[i])) > 1e-5*math.Abs(float64(want[i])) {
				t.Fatalf("value %d is %g, want %g", i, v*scale, want[i])
			}
		}
	}
}

func TestAttention(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for _, dim := range []int{8, 20, 32, 40, 64, 128} {
		for _, n := range []int{1, 3, 16} {
			for _, group := range []int{1, 2, 3, 8} {
				q, k, v := random(r, group*dim), random(r, n*dim), random(r, n*dim)
				plain(t, fmt.Sprintf("%d/%d/%d", dim, n, group), func(t *testing.T) {
					scores := make([]float32, group*16)
					Scores(scores, 16, q, k, n, group, dim)
					for g := range group {
						var sum float64
						p := make([]float64, n)
						for i := range n {
							for d := range dim {
								p[i] += float64(q[g*dim+d]) * float64(k[i*dim+d])
							}
							if math.Abs(p[i]-float64(scores[g*16+i])) > 1e-4 {
								t.Fatalf("score %d of %d is %g, want %g", i, g, scores[g*16+i], p[i])
							}
							p[i] = math.Exp(p[i] * 0.1)
							sum += p[i]
						}
						s := scores[g*16:][:n]
						total := Exps(s, 0.1)
						out := make([]float32, dim)
						Mix(out, v, s, n, dim)
						for d := range dim {
							want := 0.0
							for i := range n {
								want += p[i] / sum * float64(v[i*dim+d])
							}
							if math.Abs(want-float64(out[d]/total)) > 1e-4 {
								t.Fatalf("output %d is %g, want %g", d, out[d], want)
							}
						}
					}
				})
			}
		}
	}
}

func TestExp(t *testing.T) {
	var in []float32
	for x := -120.0; x <= 0; x += 0.0137 {
		in = append(in, float32(x))
	}
	in = append(in, 0, -87, -87.1, -1e30, float32(math.Inf(-1)))
	nan := float32(math.NaN())
	plain(t, "exp", func(t *testing.T) {
		got := append([]float32(nil), in...)
		sum := Exps(got, 1)
		var all float64
		for i, x := range in {
			want := math.Exp(float64(x))
			all += want
			if math.Abs(float64(got[i])-want) > 3e-7*want && x > -87 || x < -87.2 && got[i] != 0 {
				t.Fatalf("exp(%g) = %g, want %g", x, got[i], want)
			}
		}
		if math.Abs(float64(sum)-all) > 1e-4*all {
			t.Errorf("sum %g, want %g", sum, all)
		}
		if broken := []float32{1, nan, 2, 3, 4, 5, 6, 7, 8}; Exps(broken, 1) == 0 {
			t.Error("a score that is not a number was lost")
		}
	})
	plain(t, "silu", func(t *testing.T) {
		x := []float32{0, 1, -1, 20, -20, 100, -100, 1e-8, -1e-8, 3, 4, 5, -3}
		got := append([]float32(nil), x...)
		SiLU(got)
		for i, v := range x {
			if want := float64(v) / (1 + math.Exp(-float64(v))); math.Abs(float64(got[i])-want) > 1e-6*math.Abs(want)+1e-35 {
				t.Errorf("SiLU(%g) = %g, want %g", v, got[i], want)
			}
		}
	})
}

func TestMatricesThatDoNotFit(t *testing.T) {
	for i, m := range []Matrix{
		{Rows: 0, Cols: 4, Format: model.FormatBF16},
		{Rows: 2, Cols: 4, Format: model.FormatBF16, Data: make([]byte, 15)},
		{Rows: 2, Cols: 8, Format: model.FormatNVFP4, Data: make([]byte, 8), Scales: make([]byte, 1)},
		{Rows: 2, Cols: 4, Format: model.FormatMXFP4, Data: make([]byte, 4)},
		{Rows: 2, Cols: 4, Format: model.FormatBF16, Data: make([]byte, 16), RowScales: make([]float32, 3)},
		{Rows: 2, Cols: 4, Format: model.FormatBF16, Data: make([]byte, 16), Bias: make([]float32, 1)},
		{Rows: 2, Cols: 4, Format: model.FormatBF16, Data: make([]byte, 16), Activations: model.FormatNVFP4},
		{Rows: 2, Cols: 4, Format: model.FormatBF16, Data: make([]byte, 16), Activations: model.FormatMXFP8},
	} {
		if m.Check() == nil {
			t.Errorf("matrix %d was taken", i)
		}
	}
}

func BenchmarkSingle(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, f := range formats {
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/threads=%d", f, threads), func(b *testing.B) {
				m, _ := matrix(b, r, f, 32768, 1024)
				x, out := random(r, m.Cols), make([]float32, m.Rows)
				pool := NewPool(threads)
				defer pool.Close()
				b.SetBytes(m.Bytes())
				for b.Loop() {
					pool.Multiply(Product{Matrix: m, X: x, Out: out})
				}
			})
		}
	}
}

func BenchmarkBatch(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	m, _ := matrix(b, r, model.FormatBF16, 3072, 1024)
	for _, n := range []int{1, 3, 12, 48, 192} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			x, out := random(r, n*m.Cols), make([]float32, n*m.Rows)
			pool := NewPool(2)
			defer pool.Close()
			for b.Loop() {
				pool.Multiply(Product{Matrix: m, X: x, Out: out})
			}
			b.ReportMetric(2*float64(n)*float64(m.Rows)*float64(m.Cols)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
