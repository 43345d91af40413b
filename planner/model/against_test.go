package model

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// TestRoundingErrorIsThatOfTheCodes compares the short way with encoding and
// decoding each value, over sizes from subnormal to saturated.
func TestRoundingErrorIsThatOfTheCodes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for name, f := range map[string]struct {
		grid   grid
		encode func(float32) uint8
		decode func(uint8) float32
	}{
		"E2M1": {gridE2M1, EncodeE2M1, DecodeE2M1},
		"E4M3": {gridE4M3, EncodeE4M3, DecodeE4M3},
	} {
		for range 2000 {
			scale := float32(math.Exp2(float64(rng.IntN(24) - 16)))
			w := make([]float32, 1+rng.IntN(40))
			var want, size float64
			for i := range w {
				w[i] = scale * float32(rng.NormFloat64()*math.Exp2(float64(rng.IntN(20)-10)))
				if rng.IntN(4) == 0 { // on a midpoint
					w[i] = scale * (f.decode(uint8(i)&7) + f.decode(uint8(i)&7+1)) / 2
				}
				e := float64(f.decode(f.encode(w[i]/scale))*scale - w[i])
				want += e * e
				size += float64(w[i]) * float64(w[i])
			}
			if got := f.grid.roundingError(w, scale); math.Abs(got-want) > 1e-5*want+1e-12*size {
				t.Fatalf("%s with scale %g: %g, want %g for %v", name, scale, got, want, w)
			}
		}
	}
}

func TestRoundingErrorOfOddValues(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	if got := gridE2M1.roundingError([]float32{1, nan, inf, -inf, 1, 1, 1, 1}, 1); got != 0 {
		t.Errorf("what is not finite counts: %v", got)
	}
	if got := gridE2M1.roundingError([]float32{3, 4}, 0); got != 25 {
		t.Errorf("a scale of zero leaves everything: %v", got)
	}
	tiny := float32(math.Ldexp(1, -140))
	if got, want := gridE2M1.roundingError([]float32{8 * tiny}, tiny), math.Pow(2*float64(tiny), 2); math.Abs(got/want-1) > 1e-6 {
		t.Errorf("a scale below normal: %v, want %v", got, want)
	}
	if got := gridE4M3.roundingError([]float32{math.MaxFloat32, 1, 1, 1, 1, 1, 1, 1}, 1); math.IsInf(got, 0) || got < 1e76 {
		t.Errorf("squares beyond float32: %v", got)
	}
}

// TestDiffKeepsSmallAndLargeValues feeds sizes whose squares float32 cannot
// hold.
func TestDiffKeepsSmallAndLargeValues(t *testing.T) {
	for _, scale := range []float64{1e-30, 1e-12, 1, 1e25} {
		var d Diff
		base, got := make([]float32, 1000), make([]float32, 1000)
		for i := range base {
			base[i] = float32(scale)
			got[i] = float32(scale * 1.25)
		}
		d.Add(base, got)
		if math.Abs(d.Relative()-0.25) > 1e-4 || math.Abs(d.Cosine()-1) > 1e-6 || math.Abs(d.MaxAbs/scale-0.25) > 1e-4 {
			t.Errorf("%g: %v, %v, %v", scale, d.Relative(), d.Cosine(), d.MaxAbs)
		}
	}
}

func TestHasNibble(t *testing.T) {
	for c := range uint64(16) {
		for at := range 16 {
			x := uint64(0x1111111111111111)&^(15<<(4*at)) | c<<(4*at)
			if got, want := hasNibble(x, 7), c&7 == 7; got != want {
				t.Errorf("%x at %d: %v", c, at, got)
			}
			if got, want := hasNibble(x, 6), c&7 >= 6; got != want {
				t.Errorf("%x at %d for 6: %v", c, at, got)
			}
		}
	}
}

func TestMeasure(t *testing.T) {
	l := Layer{Name: "x", Error: &Error{SQNR: Measure(math.Inf(1)), Relative: 0.5, Cosine: Measure(math.NaN())}}
	b, err := json.Marshal(l)
	if err != nil || !strings.Contains(string(b), `"sqnr_db":null`) || !strings.Contains(string(b), `"cosine":null`) {
		t.Fatalf("%s, %v", b, err)
	}
	var back Layer
	if err := json.Unmarshal(b, &back); err != nil || !math.IsInf(float64(back.Error.SQNR), 1) || back.Error.Relative != 0.5 {
		t.Errorf("%+v, %v", back, err)
	}
}

// TestScansOfEveryFormat breaks scales and values of each format.
func TestScansOfEveryFormat(t *testing.T) {
	for _, tc := range []struct {
		name, layer string
		apply       func(s *side, n string)
		want        string
	}{
		{"FP8 per tensor inverted", "0.self_attn.q_proj", func(s *side, n string) {
			setFloats(s.bytes(n+".weight_scale"), func(x float32) float32 { return 1 / x })
		}, "it may be the inverse"},
		{"FP8 channel scale zero", "0.self_attn.k_proj", func(s *side, n string) { clear(s.bytes(n + ".weight_scale")[:4]) }, "1 of 64 scales are zero"},
		{"FP8 block scale infinite", "0.self_attn.v_proj", func(s *side, n string) {
			setFloats(s.bytes(n + ".weight_scale")[:4], func(float32) float32 { return float32(math.Inf(1)) })
		}, "NaN or infinite"},
		{"FP8 negative", "0.self_attn.v_proj", func(s *side, n string) {
			setFloats(s.bytes(n+".weight_scale"), func(x float32) float32 { return -x })
		}, "negative"},
		{"FP8 codes NaN", "0.self_attn.v_proj", func(s *side, n string) { s.bytes(n + ".weight")[5] = NaNE4M3 }, "1 values are NaN"},
		{"FP8 codes zero", "0.self_attn.q_proj", func(s *side, n string) { clear(s.bytes(n + ".weight")) }, "all values are zero"},
		{"FP8 clipped", "0.self_attn.q_proj", func(s *side, n string) {
			each(s.bytes(n+".weight"), func(i int, x byte) byte {
				if i%5 == 0 {
					return 0x7E
				}
				return x
			})
		}, "clipped"},
		{"FP8 scale far too large", "0.self_attn.q_proj", func(s *side, n string) {
			each(s.bytes(n+".weight"), func(_ int, x byte) byte { return x & 0xB7 })
		}, "far too large"},
		{"FP8 outlier", "0.self_attn.k_proj", func(s *side, n string) {
			setFloats(s.bytes(n + ".weight_scale")[:4], func(x float32) float32 { return 1e5 * x })
		}, "times the median"},
		{"MXFP4 NaN", "0.mlp.experts.gate", func(s *side, n string) { s.bytes(n + ".weight_scale")[3] = NaNE8M0 }, "1 block scales are NaN"},
		{"MXFP4 huge", "0.mlp.experts.gate", func(s *side, n string) { s.bytes(n + ".weight_scale")[3] = 160 }, "no weight is that large"},
		{"MXFP4 tiny", "0.mlp.experts.gate", func(s *side, n string) { clear(s.bytes(n + ".weight_scale")) }, "all weights vanish"},
		{"MXFP4 codes zero", "0.mlp.experts.gate", func(s *side, n string) { clear(s.bytes(n + ".weight_packed")) }, "all values are zero"},
		{"MXFP4 codes small", "0.mlp.experts.gate", func(s *side, n string) {
			each(s.bytes(n+".weight_packed"), func(_ int, x byte) byte { return x & 0x99 })
		}, "two largest codes"},
	} {
		_, got, _ := export(t, 77)
		name := "layers." + tc.layer
		tc.apply(got, name)
		l, err := Look{}.Scan(t.Context(), got.weights(t)[name])
		if err != nil || !strings.Contains(strings.Join(l.Reasons, "; "), tc.want) || l.Verdict == "ok" {
			t.Errorf("%s: %+v, %v", tc.name, l, err)
		}
	}
}

func TestScansOfPlainValues(t *testing.T) {
	ones := bytes.Repeat([]byte{0x80, 0x3F}, 64)
	for name, tc := range map[string]struct {
		dtype string
		b     []byte
		shape []int64
		want  string
	}{
		"zero matrix":     {"BF16", make([]byte, 128), []int64{8, 8}, "all values are zero"},
		"zero vector":     {"BF16", make([]byte, 128), []int64{64}, ""},
		"vector of ones":  {"BF16", ones, []int64{64}, ""},
		"matrix of ones":  {"BF16", ones, []int64{8, 8}, "all values are 1"},
		"not a number":    {"BF16", append(bytes.Clone(ones[:126]), 0xC0, 0x7F), []int64{64}, "1 values are NaN"},
		"infinite, fp32":  {"F32", floats(1, 2, 3, float32(math.Inf(-1))), []int64{2, 2}, "1 values are NaN"},
		"infinite, fp16":  {"F16", []byte{0, 0x7C, 1, 2, 3, 4, 5, 6}, []int64{2, 2}, "1 values are NaN"},
		"constant, fp16":  {"F16", bytes.Repeat([]byte{0, 0x3C}, 4), []int64{2, 2}, "all values are 1"},
		"constant, fp32":  {"F32", floats(2, 2, 2, 2), []int64{2, 2}, "all values are 2"},
		"sound":           {"F32", floats(1, 2, 3, 4), []int64{2, 2}, ""},
		"nothing at all":  {"F32", nil, []int64{0, 2}, ""},
		"zeros and a one": {"F32", floats(0, 0, 0, 1), []int64{2, 2}, ""},
	} {
		s := &side{}
		s.add("x.weight", tc.dtype, tc.b, tc.shape...)
		l, err := Look{}.Scan(t.Context(), s.weights(t)["x"])
		if err != nil || (tc.want == "") != (l.Verdict == "ok") || !strings.Contains(strings.Join(l.Reasons, ";"), tc.want) {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
}

// ram is a source of one file, or of none.
type ram struct {
	b    []byte
	fail error
}

type ramFile struct{ *bytes.Reader }

func (ramFile) Close() error  { return nil }
func (f ramFile) Size() int64 { return f.Reader.Size() }

func (r ram) Open(context.Context, string) (File, error) {
	if r.fail != nil {
		return nil, r.fail
	}
	return ramFile{bytes.NewReader(r.b)}, nil
}

func (s *side) sweepSide() Side {
	c := &Checkpoint{Census: TakeCensus(s.tensors), file: map[*Tensor]string{}}
	for i := range s.tensors {
		c.file[&s.tensors[i]] = "x.safetensors"
	}
	return Side{Checkpoint: c, Source: ram{b: s.data}, Page: 1000}
}

// TestSweep goes over a checkpoint, stops in the middle and goes on.
func TestSweep(t *testing.T) {
	base, got, names := export(t, 5)
	damages[0].apply(got, "layers.2.mlp.up_proj", nil)
	b := base.sweepSide()
	full := Sweep{Got: got.sweepSide(), Base: &b}
	want, err := full.Run(t.Context())
	if err != nil || len(want) != len(names) || want[0].Name != "layers.2.mlp.up_proj" || want[0].Verdict != "broken" || want[1].Verdict != "ok" {
		t.Fatalf("%d layers, first %+v, %v", len(want), want[0], err)
	}
	for _, workers := range []int{1, 3} {
		known := map[string]Layer{}
		stop := errors.New("stop here")
		part := full
		part.Workers = workers
		part.Keep = func(l Layer) error {
			if len(known) == 7 {
				return stop
			}
			known[l.Name] = l
			return nil
		}
		if _, err := part.Run(t.Context()); !errors.Is(err, stop) {
			t.Fatalf("%v", err)
		}
		fresh := 0
		part.Known, part.Keep = known, func(Layer) error { fresh++; return nil }
		again, err := part.Run(t.Context())
		if err != nil || fresh != len(names)-7 || fmt.Sprint(text(again)) != fmt.Sprint(text(want)) {
			t.Errorf("%d read again, %v", fresh, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := full.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	some := full
	some.Names = regexp.MustCompile(`up_proj`)
	if l, err := some.Run(t.Context()); err != nil || len(l) != 4 {
		t.Errorf("%d, %v", len(l), err)
	}
	broken := full
	broken.Got.Source = ram{fail: io.ErrClosedPipe}
	if _, err := broken.Run(t.Context()); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a source that breaks: %v", err)
	}
	short := full
	short.Got.Source = ram{b: got.data[:len(got.data)/2]}
	l, err := short.Run(t.Context())
	if err != nil || !slices.ContainsFunc(l, func(l Layer) bool { return l.Verdict == "unread" && len(l.Reasons) == 1 }) {
		t.Errorf("a file that ends: %v", err)
	}
}

func text(layers []Layer) string {
	b, _ := json.Marshal(layers)
	return string(b)
}

// TestSamplesAreDrawnBySeed reads a part, the same with the same seed.
func TestSamplesAreDrawnBySeed(t *testing.T) {
	s := &side{}
	s.add("x.weight", "F32", floats(gaussian(4096*16, 1)...), 4096, 16)
	w := s.weights(t)["x"]
	a, share := Look{Blocks: 4, Seed: 1}.spans(w)
	b, _ := Look{Blocks: 4, Seed: 1}.spans(w)
	c, _ := Look{Blocks: 4, Seed: 2}.spans(w)
	if len(a) != 4 || share != 4*16.0/4096 || !slices.Equal(a, b) || slices.Equal(a, c) {
		t.Errorf("%v %v %v, share %v", a, b, c, share)
	}
	l, err := Look{Blocks: 4}.Against(t.Context(), w, w)
	if err != nil || l.Verdict != "ok" || l.Error.Relative != 0 || l.Read != Measure(share) {
		t.Errorf("%+v, %v", l, err)
	}
}

// TestWidthsAreBounded refuses a row that memory should not hold.
func TestWidthsAreBounded(t *testing.T) {
	x := Tensor{Name: "x.weight", DType: "BF16", Shape: []int64{2, 1 << 40}, End: 1 << 42}
	c := TakeCensus([]Tensor{x})
	if _, err := OpenWeight(&c.Stored[0], func(*Tensor) io.ReaderAt { return bytes.NewReader(nil) }); err == nil {
		t.Error("no error")
	}
}

// TestExpertsAgainstAStack compares experts of their own with a base that holds
// them as one tensor.
func TestExpertsAgainstAStack(t *testing.T) {
	const experts, inner, hidden = 3, 32, 64
	base, got := &side{}, &side{}
	bf := func(w []float32) (b []byte) {
		for _, x := range w {
			b = binary.LittleEndian.AppendUint16(b, EncodeBF16(x))
		}
		return b
	}
	gateUp, down := gaussian(experts*2*inner*hidden, 1), gaussian(experts*hidden*inner, 2)
	base.add("model.language_model.layers.0.mlp.experts.gate_up_proj", "BF16", bf(gateUp), experts, 2*inner, hidden)
	base.add("model.language_model.layers.0.mlp.experts.down_proj", "BF16", bf(down), experts, hidden, inner)
	put := func(name string, w []float32, rows, cols int64) {
		q, err := QuantizeNVFP4(w, int(rows), int(cols), false)
		if err != nil {
			t.Fatal(err)
		}
		got.add(name+".weight", "U8", q.Packed, rows, cols/2)
		got.add(name+".weight_scale", "F8_E4M3", q.Scales, rows, cols/16)
		got.add(name+".weight_scale_2", "F32", floats(q.Global))
	}
	const size = inner * hidden
	for e := range experts {
		p := fmt.Sprintf("model.language_model.layers.0.mlp.experts.%d.", e)
		put(p+"gate_proj", gateUp[2*e*size:][:size], inner, hidden)
		put(p+"up_proj", gateUp[(2*e+1)*size:][:size], inner, hidden)
		put(p+"down_proj", down[e*size:][:size], hidden, inner)
	}
	got.add("model.language_model.layers.0.mlp.experts.9.down_proj.weight", "BF16", make([]byte, 2*size), hidden, inner)
	b := base.sweepSide()
	layers, err := (&Sweep{Got: got.sweepSide(), Base: &b}).Run(t.Context())
	if err != nil || len(layers) != 10 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	for _, l := range layers {
		if strings.Contains(l.Name, ".9.") {
			if l.Error != nil || !strings.Contains(l.Reasons[len(l.Reasons)-1], "no weight of this name") {
				t.Errorf("an expert that the stack has not: %+v", l)
			}
			continue
		}
		if l.Verdict != "ok" || l.Error == nil || math.Abs(float64(l.Error.Relative/l.Error.Rounding)-1) > 0.02 {
			t.Errorf("%+v", l)
		}
	}
}

// TestMXFP8 reads blocks of 32 with powers of two, and finds what is wrong.
func TestMXFP8(t *testing.T) {
	const rows, cols = 32, 64
	w := gaussian(rows*cols, 9)
	var bf, codes, scales []byte
	for i := 0; i < len(w); i += BlockMXFP4 {
		block := w[i:][:BlockMXFP4]
		for j := range block {
			block[j] = DecodeBF16(EncodeBF16(block[j]))
			bf = binary.LittleEndian.AppendUint16(bf, EncodeBF16(block[j]))
		}
		scale := EncodeE8M0(amax(block) / 256)
		scales = append(scales, scale)
		for _, x := range block {
			codes = append(codes, EncodeE4M3(x/DecodeE8M0(scale)))
		}
	}
	base, got := &side{}, &side{}
	base.add("x.weight", "BF16", bf, rows, cols)
	got.add("x.weight", "F8_E4M3", codes, rows, cols)
	got.add("x.weight_scale", "U8", scales, rows, cols/BlockMXFP4)
	l := compareAll(t, base, got)["x"]
	if l.Format != FormatMXFP8 || l.Verdict != "ok" || math.Abs(float64(l.Error.Relative/l.Error.Rounding)-1) > 1e-3 || l.Error.Relative > 0.04 {
		t.Errorf("%+v %+v", *l, *l.Error)
	}
	got.bytes("x.weight_scale")[3] = NaNE8M0
	got.bytes("x.weight")[3] = NaNE4M3
	if l, err := (Look{}).Scan(t.Context(), got.weights(t)["x"]); err != nil || l.Verdict != "broken" || len(l.Reasons) != 2 {
		t.Errorf("%+v, %v", l, err)
	}
}

// TestPagesAreReadOnce has several readers of one file, and one that fails first.
func TestPagesAreReadOnce(t *testing.T) {
	data := make([]byte, 100_000)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	var reads atomic.Int64
	f := &countedFile{ramFile{bytes.NewReader(data)}, &reads}
	p := newPages(10_000)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			r := &paged{p, fileKey{nil, "x"}, f}
			for i := range 500 {
				at := (i*977 + w) % 99_000
				b := make([]byte, 1000)
				if n, err := r.ReadAt(b, int64(at)); n != 1000 || err != nil || !bytes.Equal(b, data[at:at+1000]) {
					t.Errorf("%d bytes from %d, %v", n, at, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := reads.Load(); n != 10 {
		t.Errorf("%d reads", n)
	}
	r := &paged{p, fileKey{nil, "x"}, f}
	if n, err := r.ReadAt(make([]byte, 10), 99_995); n != 5 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	small := newPages(10)
	small.most = 2
	broken := &paged{small, fileKey{nil, "y"}, brokenFile{}}
	for range 2 {
		if _, err := broken.ReadAt(make([]byte, 5), 0); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%v", err)
		}
	}
	if len(small.pages) != 0 {
		t.Error("a page that could not be read is kept")
	}
}

type countedFile struct {
	ramFile
	n *atomic.Int64
}

func (c *countedFile) ReadAt(b []byte, at int64) (int, error) {
	c.n.Add(1)
	return c.ramFile.ReadAt(b, at)
}

type brokenFile struct{ failing }

func (brokenFile) Close() error { return nil }
func (brokenFile) Size() int64  { return 100 }
