package sku

import (
	"math"
	"strings"
	"testing"
)

func TestReadTokenPrices(t *testing.T) {
	got, err := ReadTokenPrices(strings.NewReader("Model , output_usd_per_m,input_usd_per_m,host\nlab/m,$2.50,0.5,here\n"))
	if err != nil || len(got) != 1 || got[0].In != 0.5 || got[0].Out != 2.5 || got[0].Host != "here" || got[0].Kind != "published" {
		t.Errorf("%+v, %v", got, err)
	}
	for text, want := range map[string]string{
		"": "no header", "model,input_usd_per_m\n": `"output_usd_per_m" is missing`, "model,input_usd_per_m,output_usd_per_m\n,1,2\n": "line 2: model is empty",
		"model,input_usd_per_m,output_usd_per_m\nm,-1,2\n": "input_usd_per_m", "model,input_usd_per_m,output_usd_per_m\nm,1,NaN\n": "output_usd_per_m",
	} {
		if _, err := ReadTokenPrices(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestDefaultTokenPrice(t *testing.T) {
	last := 0.0
	for _, params := range []float64{1e9, 7e9, 14e9, 32e9, 70e9, 100e9, 235e9, 671e9} {
		p, ok := DefaultTokenPrice(params)
		if !ok || p.Out <= last || p.Kind != "assumed" || p.AsOf == "" {
			t.Errorf("%g: %+v", params, p)
		}
		last = p.Out
	}
	if _, ok := DefaultTokenPrice(0); ok {
		t.Error("nothing is known of a model of unknown size")
	}
}

func FuzzReadTokenPrices(f *testing.F) {
	f.Add("model,input_usd_per_m,output_usd_per_m\nm,1,2\n")
	f.Add("\ufeffmodel,input_usd_per_m,output_usd_per_m,as_of\n\"m,1,2\n")
	f.Add("model,input_usd_per_m,output_usd_per_m\nm,1e400,0x1p-2\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ReadTokenPrices(strings.NewReader(text))
		for _, p := range got {
			if err == nil && (p.Model == "" || !(p.In >= 0) || !(p.Out >= 0) || math.IsInf(p.In+p.Out, 0)) {
				t.Errorf("%q: %+v", text, p)
			}
		}
	})
}
