package plot

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"math"
	"strings"
	"testing"
)

func ptr(v float64) *float64 { return &v }

const evil = "</text><script>alert(1)</script>\x00\u202e&<>\"'"

func figures() map[string]*Figure {
	var looks []Look
	for n := 16; n <= 400; n += 16 {
		w := 20 / math.Sqrt(float64(n))
		looks = append(looks, Look{n, 0.2, ptr(0.2 - w), ptr(0.2 + w)})
	}
	return map[string]*Figure{
		"claims": Claims([]Stated{
			{Name: evil, Verdict: "aligned", Ink: Green, Lo: 31, Hi: 42, TolLo: 31, TolHi: 42, Measured: ptr(36.5), MLo: ptr(35), MHi: ptr(38), MeasuredText: "36.5 %", Href: "#claim-c1"},
			{Name: "equal", Verdict: "inconclusive", Ink: Orange, Lo: 5, Hi: 5, TolLo: 5, TolHi: 5},
			{Name: "zero", Verdict: "not attempted", Ink: Muted},
		}),
		"cost":     Cost([]Spent{{Name: evil, Estimated: "8 s", Used: "7.9 s", P10: ptr(2), P50: ptr(8), P90: ptr(38), Measured: ptr(7.9)}, {Name: "none"}}),
		"paired":   Paired([]Compared{{Name: evil, Verdict: "equivalent", Ink: Green, Diff: -0.2, Lo: ptr(-0.7), Hi: ptr(0.3), Margin: 1}, {Name: "fixed", Diff: 4, Margin: 1, Ink: Red}}),
		"evidence": Evidence(looks, 1, 12032, "equivalent"),
		"frontier": Frontier([]Point{{Arm: "fp8", X: 10, Y: 100}, {Arm: "fp8", X: 20, Y: 180, Label: "32"}, {Arm: evil, X: 9, Y: 160}, {Arm: "fp8", X: 30, Y: 90, Dominated: true}}, "TPOT, ms", "tokens/s/GPU"),
		"spark":    Sparkline([]Night{{Value: 1}, {Value: math.NaN()}, {Value: 2}, {Value: 1.5, Ink: Red}}, evil),
		"card":     VerdictCard(Card{Title: strings.Repeat("A very long title ", 20), Subject: evil, Verdict: "partially aligned", Ink: Orange, Tally: "1 of 2", Lines: [][3]string{{evil, "a", "b"}}, Notice: evil, Foot: "run X"}),
		"nothing":  Evidence(nil, 1, 0, ""), "no points": Frontier(nil, "", ""), "no nights": Sparkline(nil, ""), "no claims": Claims(nil),
		"infinite": Cost([]Spent{{Name: "x", Measured: ptr(math.Inf(1)), P50: ptr(math.NaN())}}),
	}
}

// TestFiguresAreDrawn holds that every figure is well-formed, that no text of a
// stranger's becomes markup, and that SVG and PNG have the same size.
func TestFiguresAreDrawn(t *testing.T) {
	for name, f := range figures() {
		for _, theme := range []Theme{nil, Light()} {
			var b bytes.Buffer
			if err := f.SVG(&b, theme); err != nil {
				t.Fatal(err)
			}
			if s := b.String(); strings.Contains(s, "<script") || strings.Contains(s, "\u202e") || strings.Contains(s, "NaN") || strings.Contains(s, "Inf") || strings.Contains(s, `style="`) {
				t.Errorf("%s: %s", name, s)
			}
			dec := xml.NewDecoder(&b)
			for {
				if _, err := dec.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}
		if f.H < 1 {
			continue
		}
		var b bytes.Buffer
		if err := f.PNG(&b, Light()); err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(&b)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := img.Bounds().Dx(), int(2*f.W); got != want {
			t.Errorf("%s: %d pixels wide, want %d", name, got, want)
		}
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		s    scale
		n    int
		want string
	}{
		{scale{0, 10, 0, 1}, 5, "0 2 4 6 8 10 "}, {scale{-1, 1, 0, 1}, 4, "−1 −0.5 0 0.5 1 "}, {scale{31, 66, 0, 1}, 4, "40 50 60 "}, {scale{3, 3, 0, 1}, 5, "3 "},
	} {
		got := ""
		for _, v := range c.s.ticks(c.n) {
			got += short(v) + " "
		}
		if got != c.want {
			t.Errorf("ticks of %v: %s, want %s", c.s, got, c.want)
		}
	}
}
