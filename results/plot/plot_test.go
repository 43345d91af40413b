package plot

import (
	"bytes"
	"image/png"
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
