package plot

import (
	"bytes"
	"image/png"
	"io"
	"math"
	"strings"
	"testing"
)

func layers() []Layer {
	return []Layer{
		{Name: "model.embed", Group: "bf16", Index: -1, Error: 0, Reference: 0},
		{Name: "layers.0.up", Group: "nvfp4", Index: 0, Error: 0.095, Reference: 0.094},
		{Name: "layers.1.up", Group: "nvfp4", Index: 1, Error: 7, Reference: 0.094, Flagged: true},
		{Name: "layers.1.q", Group: "fp8", Index: 1, Error: math.Inf(1), Reference: math.NaN(), Flagged: true},
	}
}

func TestLayers(t *testing.T) {
	var b bytes.Buffer
	if err := Layers(&b, ".svg", "a against b", layers()); err != nil {
		t.Fatal(err)
	}
	svg := b.String()
	for _, want := range []string{"<svg", "a against b", "layers.1.up", "layers.1.q", "nvfp4", "flagged"} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %q in the drawing", want)
		}
	}
	if strings.Contains(svg, "layers.0.up") || strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
		t.Error("a sound layer is named, or a number is none")
	}
	var again bytes.Buffer
	if err := Layers(&again, ".svg", "a against b", layers()); err != nil || again.String() != svg {
		t.Errorf("the same layers give another drawing, %v", err)
	}
	b.Reset()
	if err := Layers(&b, ".png", "x", layers()); err != nil {
		t.Fatal(err)
	}
	if img, err := png.Decode(&b); err != nil || img.Bounds().Dx() < 500 {
		t.Errorf("%v", err)
	}
}

func TestLayersOfOddInput(t *testing.T) {
	var b bytes.Buffer
	if err := Layers(&b, ".svg", "none", nil); err != nil {
		t.Errorf("no layers: %v", err)
	}
	if err := Layers(&b, ".svg", "one", layers()[:1]); err != nil {
		t.Errorf("one layer without error: %v", err)
	}
	if err := Layers(&b, ".gif", "x", nil); err == nil {
		t.Error("an unknown format: no error")
	}
}

func TestTradeoff(t *testing.T) {
	curves := []Curve{
		{"fp8", []Cell{{"c1", Range{100, 95, 105}, Range{99, 97, 101}, Range{0.1, 0.09, 0.12}}, {"c64", Range{2500, 2400, 2600}, Range{40, 39, 41}, Range{1.2, 1, 1.5}}}},
		{"nvfp4", []Cell{{"c1", Range{130, 130, 130}, Range{128, 128, 128}, Range{0.08, 0.08, 0.08}}, {"c64", Range{3400, 3300, 3500}, Range{52, 51, 53}, Range{}}, {"void", Range{}, Range{}, Range{}}}},
	}
	for _, ext := range Formats() {
		for name, c := range map[string][]Curve{"two": curves, "none": nil, "empty": {{Name: "x"}}} {
			var b bytes.Buffer
			if err := Tradeoff(&b, ext, "a title", "P99 TTFT", c); err != nil {
				t.Errorf("%s %s: %v", name, ext, err)
			}
			if ext != ".svg" || name != "two" {
				continue
			}
			for _, want := range []string{"a title", "P99 TTFT", "fp8", "nvfp4", "c64", "tokens/s to each user"} {
				if !strings.Contains(b.String(), want) {
					t.Errorf("%q is not in the drawing", want)
				}
			}
			if strings.Contains(b.String(), "NaN") {
				t.Error("NaN in the drawing")
			}
		}
	}
	if err := Tradeoff(io.Discard, ".pdf", "", "", nil); err == nil {
		t.Error("a format that is not known is drawn")
	}
}
