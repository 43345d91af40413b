package model

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// side is a checkpoint in memory: tensors and their bytes.
type side struct {
	tensors []Tensor
	data    []byte
}

func (s *side) add(name, dtype string, b []byte, shape ...int64) {
	at := int64(len(s.data))
	s.data = append(s.data, b...)
	s.tensors = append(s.tensors, Tensor{name, dtype, shape, at, int64(len(s.data))})
}

func (s *side) bytes(name string) []byte {
	i := slices.IndexFunc(s.tensors, func(t Tensor) bool { return t.Name == name })
	return s.data[s.tensors[i].Begin:s.tensors[i].End]
}

func (s *side) locate(*Tensor) io.ReaderAt { return bytes.NewReader(s.data) }

func (s *side) weights(t testing.TB) map[string]*Weight {
	t.Helper()
	c := TakeCensus(s.tensors)
	if len(c.Problems) > 0 {
		t.Fatalf("problems %+v", c.Problems)
	}
	out := map[string]*Weight{}
	for i := range c.Stored {
		w, err := OpenWeight(&c.Stored[i], s.locate)
		if err != nil {
			t.Fatal(err)
		}
		out[c.Stored[i].Name] = w
	}
	return out
}

func floats(v ...float32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

const edge = 64 // the matrices are square, so that a transposed one fits

// export writes a base in BF16 and the same layers quantised: NVFP4 in both
// conventions, MXFP4, FP8 per tensor, per channel and per block, and experts.
func export(t testing.TB, seed uint64) (base, got *side, names []string) {
	t.Helper()
	base, got = &side{}, &side{}
	layer := func(name string, write func(w []float32)) {
		w := gaussian(edge*edge, seed*1000+uint64(len(names)))
		for i := range w { // outlier channels, as real weights have them
			if i%edge == 5 {
				w[i] *= 8
			}
		}
		var b []byte
		for i, x := range w {
			b = binary.LittleEndian.AppendUint16(b, EncodeBF16(x))
			w[i] = DecodeBF16(EncodeBF16(x))
		}
		base.add(name+".weight", "BF16", b, edge, edge)
		names = append(names, name)
		write(w)
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 4 {
		name := fmt.Sprintf("layers.%d.mlp.up_proj", i)
		layer(name, func(w []float32) {
			q, err := QuantizeNVFP4(w, edge, edge, false)
			must(err)
			got.add(name+".weight", "U8", q.Packed, edge, edge/2)
			got.add(name+".weight_scale", "F8_E4M3", q.Scales, edge, edge/16)
			got.add(name+".weight_scale_2", "F32", floats(q.Global))
		})
		name2 := fmt.Sprintf("layers.%d.mlp.down_proj", i)
		layer(name2, func(w []float32) {
			q, err := QuantizeNVFP4(w, edge, edge, true)
			must(err)
			got.add(name2+".weight_packed", "U8", q.Packed, edge, edge/2)
			got.add(name2+".weight_scale", "F8_E4M3", q.Scales, edge, edge/16)
			got.add(name2+".weight_global_scale", "F32", floats(q.Global), 1)
		})
		name3 := fmt.Sprintf("layers.%d.mlp.experts.gate", i)
		layer(name3, func(w []float32) {
			q, err := QuantizeMXFP4(w, edge, edge)
			must(err)
			got.add(name3+".weight_packed", "U8", q.Packed, edge, edge/2)
			got.add(name3+".weight_scale", "U8", q.Scales, edge, edge/32)
		})
		for kind, blocks := range map[string][2]int{"q": {edge, edge}, "k": {1, edge}, "v": {16, 16}} {
			name4 := fmt.Sprintf("layers.%d.self_attn.%s_proj", i, kind)
			layer(name4, func(w []float32) {
				q, err := QuantizeFP8(w, edge, edge, blocks[0], blocks[1])
				must(err)
				got.add(name4+".weight", "F8_E4M3", q.Data, edge, edge)
				shape := []int64{edge / int64(blocks[0]), edge / int64(blocks[1])}
				if len(q.Scales) == 1 {
					shape = nil
				}
				got.add(name4+".weight_scale", "F32", floats(q.Scales...), shape...)
			})
		}
	}
	slices.Sort(names)
	return base, got, names
}

// damage is one way in which an export goes wrong.
type damage struct {
	name  string
	layer string // names end so
	apply func(s *side, name string, rng *rand.Rand)
	// scan says that the scales alone give it away, without a base.
	scan bool
}

func each(b []byte, f func(i int, x byte) byte) {
	for i, x := range b {
		b[i] = f(i, x)
	}
}

func setFloats(b []byte, f func(x float32) float32) {
	for i := 0; i < len(b); i += 4 {
		x := math.Float32frombits(binary.LittleEndian.Uint32(b[i:]))
		binary.LittleEndian.PutUint32(b[i:], math.Float32bits(f(x)))
	}
}

func transpose(b []byte, rows, cols int) {
	t := slices.Clone(b)
	for r := range rows {
		for c := range cols {
			b[c*rows+r] = t[r*cols+c]
		}
	}
}

var damages = []damage{
	{"codes zeroed", "up_proj", func(s *side, n string, _ *rand.Rand) { clear(s.bytes(n + ".weight")) }, true},
	{"scales zeroed", "up_proj", func(s *side, n string, _ *rand.Rand) { clear(s.bytes(n + ".weight_scale")) }, true},
	{"global scale inverted", "up_proj", func(s *side, n string, _ *rand.Rand) {
		setFloats(s.bytes(n+".weight_scale_2"), func(x float32) float32 { return 1 / x })
	}, true},
	{"global scale inverted, other convention", "down_proj", func(s *side, n string, _ *rand.Rand) {
		setFloats(s.bytes(n+".weight_global_scale"), func(x float32) float32 { return 1 / x })
	}, true},
	{"global scale forgotten", "up_proj", func(s *side, n string, _ *rand.Rand) {
		setFloats(s.bytes(n+".weight_scale_2"), func(float32) float32 { return 1 })
	}, false},
	{"global scale doubled", "down_proj", func(s *side, n string, _ *rand.Rand) {
		setFloats(s.bytes(n+".weight_global_scale"), func(x float32) float32 { return 2 * x })
	}, false},
	{"global scale not a number", "up_proj", func(s *side, n string, _ *rand.Rand) {
		setFloats(s.bytes(n+".weight_scale_2"), func(float32) float32 { return float32(math.NaN()) })
	}, true},
	{"block scales saturated", "up_proj", func(s *side, n string, _ *rand.Rand) {
		each(s.bytes(n+".weight_scale"), func(int, byte) byte { return 0x7E })
	}, true},
	{"a block scale not a number", "down_proj", func(s *side, n string, r *rand.Rand) {
		b := s.bytes(n + ".weight_scale")
		b[r.IntN(len(b))] = NaNE4M3
	}, true},
	{"block scales shuffled", "up_proj", func(s *side, n string, r *rand.Rand) {
		b := s.bytes(n + ".weight_scale")
		r.Shuffle(len(b), func(i, j int) { b[i], b[j] = b[j], b[i] })
	}, false},
	{"block scales transposed", "down_proj", func(s *side, n string, _ *rand.Rand) { transpose(s.bytes(n+".weight_scale"), edge, edge/16) }, false},
	{"block scales all alike", "up_proj", func(s *side, n string, _ *rand.Rand) {
		each(s.bytes(n+".weight_scale"), func(int, byte) byte { return 0x60 })
	}, true},
	{"nibbles swapped", "up_proj", func(s *side, n string, _ *rand.Rand) {
		each(s.bytes(n+".weight"), func(_ int, x byte) byte { return x<<4 | x>>4 })
	}, false},
	{"signs flipped", "down_proj", func(s *side, n string, _ *rand.Rand) {
		each(s.bytes(n+".weight_packed"), func(_ int, x byte) byte { return x ^ 0x88 })
	}, false},
	{"rows rotated", "up_proj", func(s *side, n string, _ *rand.Rand) {
		b := s.bytes(n + ".weight")
		copy(b, append(slices.Clone(b[edge/2:]), b[:edge/2]...))
	}, false},
	{"layers swapped", "up_proj", func(s *side, n string, _ *rand.Rand) {
		other := "layers.0.mlp.up_proj"
		if n == other {
			other = "layers.1.mlp.up_proj"
		}
		for _, p := range []string{".weight", ".weight_scale", ".weight_scale_2"} {
			a, b := s.bytes(n+p), s.bytes(other+p)
			c := slices.Clone(a)
			copy(a, b)
			copy(b, c)
		}
	}, false},
	{"last rows missing", "down_proj", func(s *side, n string, _ *rand.Rand) {
		b := s.bytes(n + ".weight_packed")
		clear(b[len(b)*7/10:])
	}, false},
	{"one byte in fifty random", "up_proj", func(s *side, n string, r *rand.Rand) {
		each(s.bytes(n+".weight"), func(_ int, x byte) byte {
			if r.IntN(50) == 0 {
				return byte(r.Uint32())
			}
			return x
		})
	}, false},
	{"rounded towards zero", "up_proj", func(s *side, n string, _ *rand.Rand) {
		lower := func(c byte) byte { return c&8 | max(c&7, 1) - 1 }
		each(s.bytes(n+".weight"), func(_ int, x byte) byte { return lower(x&15) | lower(x>>4)<<4 })
	}, false},
	{"one expert of MXFP4 a power of two off", "gate", func(s *side, n string, _ *rand.Rand) {
		each(s.bytes(n+".weight_scale"), func(_ int, x byte) byte { return x + 1 })
	}, false},
	{"MXFP4 scales shuffled", "gate", func(s *side, n string, r *rand.Rand) {
		b := s.bytes(n + ".weight_scale")
		for i := range b { // a quarter too large, a quarter too small
			b[i] += byte(r.IntN(3)) - 1
		}
	}, false},
	{"FP8 scale inverted", "q_proj", func(s *side, n string, _ *rand.Rand) {
		setFloats(s.bytes(n+".weight_scale"), func(x float32) float32 { return 1 / x })
	}, true},
	{"FP8 transposed", "q_proj", func(s *side, n string, _ *rand.Rand) { transpose(s.bytes(n+".weight"), edge, edge) }, false},
	{"FP8 channel scales shifted", "k_proj", func(s *side, n string, _ *rand.Rand) {
		b := s.bytes(n + ".weight_scale")
		copy(b, append(slices.Clone(b[4:]), b[:4]...))
	}, false},
	{"FP8 block scales zero", "v_proj", func(s *side, n string, _ *rand.Rand) { clear(s.bytes(n + ".weight_scale")[:4]) }, true},
}

func compareAll(t testing.TB, base, got *side) map[string]*Layer {
	t.Helper()
	want, have := base.weights(t), got.weights(t)
	out := map[string]*Layer{}
	for name, w := range have {
		l, err := Against(t.Context(), want[name], w)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = l
	}
	return out
}

// TestDamageIsFound breaks one layer of a fresh checkpoint in each of the ways,
// five times over: the right layer has to be named, and no other.
func TestDamageIsFound(t *testing.T) {
	if len(damages) < 20 {
		t.Fatalf("%d kinds of damage", len(damages))
	}
	missed, scanned, scans := 0, 0, 0
	table := "\nkind of damage                            found  named first  by scales alone\n"
	for i, d := range damages {
		found, first, alone := 0, 0, 0
		for round := range uint64(5) {
			rng := rand.New(rand.NewPCG(uint64(i), round))
			base, got, names := export(t, uint64(i)*5+round)
			names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, d.layer) })
			hit := names[rng.IntN(len(names))]
			d.apply(got, hit, rng)
			layers := compareAll(t, base, got)
			if layers[hit].Verdict != "ok" {
				found++
			} else {
				missed++
				t.Errorf("%s in %s was not found: %+v", d.name, hit, *layers[hit])
			}
			ranked := []Layer{}
			for name, l := range layers {
				ranked = append(ranked, *l)
				if l.Verdict != "ok" && name != hit && d.name != "layers swapped" {
					t.Errorf("%s in %s: alarm for %s: %+v", d.name, hit, name, *l)
				}
			}
			Rank(ranked)
			// Of two that were swapped either may be the worse.
			if top := ranked[0].Name; top == hit || d.name == "layers swapped" && strings.HasSuffix(top, d.layer) {
				first++
			} else {
				t.Errorf("%s in %s: %s is ranked first", d.name, hit, top)
			}
			if d.scan {
				scans++
				s, err := (Look{}).Scan(t.Context(), got.weights(t)[hit])
				if err != nil {
					t.Fatal(err)
				}
				if len(s.Reasons) > 0 {
					scanned++
					alone++
				} else {
					t.Errorf("%s in %s: the scan finds nothing: %+v", d.name, hit, s)
				}
			}
		}
		scan := "-"
		if d.scan {
			scan = fmt.Sprintf("%d of 5", alone)
		}
		table += fmt.Sprintf("%-40s  %d of 5  %d of 5       %s\n", d.name, found, first, scan)
	}
	t.Log(table)
	t.Logf("%d kinds of damage, 5 layers each: %d missed; %d of %d found by scales alone", len(damages), missed, scanned, scans)
}

func TestNoAlarmOnCleanCheckpoints(t *testing.T) {
	for seed := range uint64(5) {
		base, got, _ := export(t, 500+seed)
		for name, l := range compareAll(t, base, got) {
			if l.Verdict != "ok" || math.Abs(float64(l.Error.Relative/l.Error.Rounding-1)) > 0.02 {
				t.Errorf("%s: %+v", name, *l)
			}
		}
		for name, w := range got.weights(t) {
			l, err := Look{}.Scan(t.Context(), w)
			if err != nil || l.Verdict != "ok" || len(l.Reasons) > 0 {
				t.Errorf("%s: %+v, %v", name, l, err)
			} else if w.s.Format == FormatNVFP4 && l.Scales.Extreme < 0.95 {
				t.Errorf("%s: %+v", name, l.Scales)
			}
		}
		for name, l := range compareAll(t, base, base) {
			if l.Verdict != "ok" || l.Error.Relative != 0 {
				t.Errorf("a base against itself, %s: %+v", name, *l)
			}
		}
	}
}

// TestFusedExperts reads a stack of experts, each with a global scale of its own.
func TestFusedExperts(t *testing.T) {
	const experts, out, in = 64, 32, 64
	base, got := &side{}, &side{}
	var bf, packed, scales []byte
	var globals []float32
	var values []float32
	for e := range experts {
		w := gaussian(out*in, uint64(e))
		for i := range w {
			w[i] *= float32(math.Exp2(float64(e % 12))) // very different sizes
			w[i] = DecodeBF16(EncodeBF16(w[i]))
			bf = binary.LittleEndian.AppendUint16(bf, EncodeBF16(w[i]))
		}
		q, err := QuantizeNVFP4(w, out, in, false)
		if err != nil {
			t.Fatal(err)
		}
		packed, scales, globals = append(packed, q.Packed...), append(scales, q.Scales...), append(globals, q.Global)
		values = append(values, all(out, in, q.Dequantize)...)
	}
	base.add("x.weight", "BF16", bf, experts, out, in)
	got.add("x.weight", "U8", packed, experts, out, in/2)
	got.add("x.weight_scale", "F8_E4M3", scales, experts, out, in/16)
	got.add("x.weight_scale_2", "F32", floats(globals...), experts)
	w := got.weights(t)["x"]
	if w.Rows != experts*out || w.Cols != in {
		t.Fatalf("%d×%d", w.Rows, w.Cols)
	}
	read := make([]float32, experts*out*in)
	if err := w.ReadRows(read, 0, w.Rows); err != nil || !slices.Equal(read, values) {
		t.Fatalf("values differ, %v", err)
	}
	if l := compareAll(t, base, got)["x"]; l.Verdict != "ok" || math.Abs(float64(l.Error.Relative/l.Error.Rounding-1)) > 0.001 {
		t.Errorf("%+v", *l)
	}
	// One of them holds the codes of another: in the whole stack it is lost.
	copy(got.bytes("x.weight")[7*out*in/2:], packed[:out*in/2])
	l := compareAll(t, base, got)["x"]
	if ratio(l.Error.Relative, l.Error.Rounding) > suspiciousRatio || l.Verdict != "broken" || l.Error.Worst.Matrix != 7 || !strings.Contains(l.Reasons[0], "expert 7") {
		t.Errorf("%+v %+v", *l, *l.Error.Worst)
	}
}

// TestFewLostRows breaks one row in two hundred of a large matrix.
func TestFewLostRows(t *testing.T) {
	const rows, cols = 4096, 1024
	w := gaussian(rows*cols, 3)
	base, got := &side{}, &side{}
	var bf []byte
	for i := range w {
		w[i] = DecodeBF16(EncodeBF16(w[i]))
		bf = binary.LittleEndian.AppendUint16(bf, EncodeBF16(w[i]))
	}
	q, err := QuantizeFP8(w, rows, cols, 1, cols)
	if err != nil {
		t.Fatal(err)
	}
	base.add("x.weight", "BF16", bf, rows, cols)
	got.add("x.weight", "F8_E4M3", q.Data, rows, cols)
	got.add("x.weight_scale", "F32", floats(q.Scales...), rows, 1)
	if l := compareAll(t, base, got)["x"]; l.Verdict != "ok" {
		t.Errorf("%+v", *l)
	}
	clear(got.bytes("x.weight")[1000*cols : 1020*cols])
	l := compareAll(t, base, got)["x"]
	if w := l.Error.Worst; l.Verdict != "broken" || w == nil || w.Row > 1000 || w.Row+w.Rows < 1020 {
		t.Errorf("%+v %+v", *l, w)
	}
}

func TestHalfOverAllCodes(t *testing.T) {
	for c, want := range values(5, 10, true) {
		if got := decodeFP16(uint16(c)); !sameFloat(got, want) {
			t.Fatalf("decode %#04x = %v, want %v", c, got, want)
		}
	}
}

func TestWeightsThatCannotBeRead(t *testing.T) {
	s := &side{}
	s.add("a.weight", "BF16", make([]byte, 32), 4, 4)
	s.add("b.weight", "BF16", make([]byte, 16), 2, 4)
	s.add("c.weight", "I64", make([]byte, 32), 4)
	c := TakeCensus(s.tensors)
	open := func(i int, locate Locate) *Weight {
		w, err := OpenWeight(&c.Stored[i], locate)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	if _, err := Against(t.Context(), open(0, s.locate), open(1, s.locate)); !errors.Is(err, ErrShape) {
		t.Errorf("shapes differ: %v", err)
	}
	if _, err := OpenWeight(&c.Stored[2], s.locate); err == nil {
		t.Error("integers are no weights: no error")
	}
	broken := func(*Tensor) io.ReaderAt { return failing{} }
	if _, err := Against(t.Context(), open(0, s.locate), open(0, broken)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a reader that breaks: %v", err)
	}
	short := func(*Tensor) io.ReaderAt { return bytes.NewReader(s.data[:20]) }
	if _, err := Against(t.Context(), open(0, s.locate), open(0, short)); err == nil {
		t.Error("a file that ends: no error")
	}
	if err := open(0, s.locate).ReadRows(make([]float32, 100), 3, 2); err == nil {
		t.Error("rows beyond the end: no error")
	}
}

func BenchmarkAgainst(b *testing.B) {
	const rows, cols = 2048, 4096
	w := gaussian(rows*cols, 1)
	base, got := &side{}, &side{}
	var bf []byte
	for _, x := range w {
		bf = binary.LittleEndian.AppendUint16(bf, EncodeBF16(x))
	}
	q, err := QuantizeNVFP4(w, rows, cols, false)
	if err != nil {
		b.Fatal(err)
	}
	base.add("x.weight", "BF16", bf, rows, cols)
	got.add("x.weight", "U8", q.Packed, rows, cols/2)
	got.add("x.weight_scale", "F8_E4M3", q.Scales, rows, cols/16)
	got.add("x.weight_scale_2", "F32", floats(q.Global))
	want, have := base.weights(b)["x"], got.weights(b)["x"]
	b.SetBytes(int64(len(base.data) + len(got.data)))
	for b.Loop() {
		if _, err := Against(b.Context(), want, have); err != nil {
			b.Fatal(err)
		}
	}
}
