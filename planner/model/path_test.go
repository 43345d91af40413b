package model

import "testing"

func TestPaths(t *testing.T) {
	tests := []struct {
		algo       string
		capability int
		math       string
		sure       bool
	}{
		{"NVFP4", 70, "", true},
		{"NVFP4", 80, "w4a16", true},
		{"NVFP4", 90, "w4a16", true},
		{"NVFP4", 100, "w4a4", true},
		{"NVFP4", 103, "w4a4", true},
		{"NVFP4", 120, "w4a4", false},
		{"W4A16_NVFP4", 90, "w4a16", true},
		{"W4A16_NVFP4", 100, "w4a16", true},
		{"W4A16_NVFP4", 120, "w4a16", true},
		{"FP8", 80, "", true},
		{"FP8", 89, "w8a8", true},
		{"FP8", 100, "w8a8", true},
		{"FP8_PB_WO", 90, "w8a16", true},
		{"MXFP8", 100, "w8a8", true},
		{"MXFP8", 90, "w8a8", false},
		{"W4A16_AWQ", 80, "w4a16", true},
	}
	for _, tt := range tests {
		s, err := algorithm(tt.algo, 128)
		if err != nil {
			t.Fatal(err)
		}
		p := s.On(tt.capability)
		if p.Math != tt.math || p.Sure != tt.sure || p.Math == "" && p.Note == "" {
			t.Errorf("%s on %d: %+v, want %q, %v", tt.algo, tt.capability, p, tt.math, tt.sure)
		}
	}
	fp8 := &Scheme{Algo: "fp8", Weights: FormatFP8, Activations: FormatFP8, Rows: 128, Cols: 128}
	oss := &Scheme{Algo: "mxfp4", Weights: FormatMXFP4}
	if p := fp8.On(80); p.Math != "w8a16" {
		t.Errorf("fp8 on 8.0: %+v", p)
	}
	if a, b := oss.On(90), oss.On(100); !a.Sure || b.Sure || a.Math != "w4a16" {
		t.Errorf("mxfp4: %+v and %+v", a, b)
	}
	var none *Scheme
	if p := none.On(80); p.Math != "w16a16" || !p.Sure {
		t.Errorf("16 bits: %+v", p)
	}
}
