package sku

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func within(a, b, tol float64) bool { return math.Abs(a/b-1) <= tol }

// A sparse figure is twice the dense one, so one that slipped in breaks the
// ratio between the formats of its GPU.
func TestDensePhysics(t *testing.T) {
	for _, s := range Catalogue() {
		if s.FP8.Value > 0 && !within(s.FP8.Value, 2*s.BF16.Value, 0.03) {
			t.Errorf("%s: FP8 %v is not twice BF16 %v", s.ID, s.FP8.Value, s.BF16.Value)
		}
		if s.FP4.Value > 0 {
			limit := 3.2 // Blackwell Ultra trades FP64 and INT8 for FP4
			if strings.Contains(s.FP4.Note, "accumulates") {
				limit = 4.1
			}
			if r := s.FP4.Value / s.FP8.Value; r < 2*0.97 || r > limit {
				t.Errorf("%s: FP4 is %.2f times FP8", s.ID, r)
			}
		}
		if has := s.Has("fp4"); has != strings.HasPrefix(s.NVFP4, "w4a4") {
			t.Errorf("%s: FP4 tensor cores %v but NVFP4 runs as %s", s.ID, has, s.NVFP4)
		}
		if s.Has("fp8") != (s.Capability >= 89) {
			t.Errorf("%s: FP8 %v at capability %d", s.ID, s.Has("fp8"), s.Capability)
		}
		// Operations per byte of HBM: a factor of two in either shows here.
		if r := s.BF16.Value / s.Bandwidth.Value; r < 30 || r > 480 {
			t.Errorf("%s: %v BF16 operations per byte", s.ID, r)
		}
	}
}

func TestHopperFamilySharesItsDie(t *testing.T) {
	get := func(id string) *SKU { s, err := Find(id); fatal(t, err); return s }
	for _, id := range []string{"h200", "gh200"} {
		if !within(get(id).FP8.Value, get("h100").FP8.Value, 0.03) {
			t.Errorf("%s and h100 differ in FP8", id)
		}
	}
	if get("b200").FP8.Value != get("b300").FP8.Value {
		t.Error("b200 and b300 differ in FP8")
	}
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestEveryCellHasKindAndSource(t *testing.T) {
	ids := map[string]bool{}
	for _, s := range Catalogue() {
		if ids[s.ID] || s.ID != strings.ToLower(s.ID) {
			t.Errorf("id %q", s.ID)
		}
		ids[s.ID] = true
		for name, c := range map[string]Cell{"memory": s.MemoryGB, "bandwidth": s.Bandwidth, "bf16": s.BF16, "fp8": s.FP8, "fp4": s.FP4, "link": s.Link, "power": s.PowerW} {
			if c.Value == 0 && (name == "fp8" || name == "fp4") {
				continue
			}
			if c.Value <= 0 || c.Kind == "" || c.Source == "" {
				t.Errorf("%s %s: %+v", s.ID, name, c)
			}
		}
	}
	for _, id := range strings.Fields("h100 h100-pcie h100-nvl h200 h200-nvl h20 gh200 b100 b200 b300 gb200 gb300 rtx-pro-6000 rtx-pro-4500 rtx-5090 gb10 v100 a100 a100-40gb l40s rtx-4090 rtx-4060") {
		if !ids[id] {
			t.Errorf("%s is missing", id)
		}
	}
}

func TestFind(t *testing.T) {
	for name, want := range map[string]string{
		"h100": "h100", "H100-SXM-80GB": "h100", "NVIDIA H100 80GB HBM3": "h100", "H100 PCIe": "h100-pcie", "NVIDIA H100 NVL": "h100-nvl", "H100-NVL-94GB": "h100-nvl",
		"H200-SXM-141GB": "h200", "H200 NVL": "h200-nvl", "B200-SXM-180GB": "b200", "NVIDIA B200": "b200", "A100-SXM4-80GB": "a100", "A100-SXM4-40GB": "a100-40gb",
		"A100-PCIE-80GB": "a100-pcie", "GB200-NVL72": "gb200", "B300-SXM-288GB": "b300", "GH200-96GB": "gh200", "GH200 144GB": "gh200-144gb",
		"NVIDIA RTX PRO 6000 Blackwell Server Edition": "rtx-pro-6000-server", "RTX-PRO-6000-96GB": "rtx-pro-6000", "L40S-48GB": "l40s", "GeForce RTX 5090": "rtx-5090",
		"Tesla V100-SXM2-16GB": "v100-16gb", "V100": "v100", "DGX Spark": "gb10", "H20-96GB": "h20",
		"GB200-SXM-186GB": "gb200", "b200_nvl": "b200", "NVIDIA GH200 480GB": "gh200", "NVIDIA GH200 144G HBM3e": "gh200-144gb", "NVIDIA DGX Spark (GB10)": "gb10",
	} {
		s, err := Find(name)
		if err != nil || s.ID != want {
			t.Errorf("Find(%q) = %v, %v; want %s", name, s, err, want)
		}
	}
	for name, near := range map[string]string{"h10": "h100", "b20": "b200", "rtx-5080": "rtx-5090", "mi300x": "", "": "", "h100-24gb": "h100", "a100-sxm-640gb": ""} {
		s, err := Find(name)
		var unknown *UnknownError
		if !errors.As(err, &unknown) {
			t.Errorf("Find(%q) = %v, %v", name, s, err)
			continue
		}
		if len(unknown.Near) != 3 || !strings.Contains(unknown.UserError(), unknown.Near[0]) {
			t.Errorf("%q: %q", name, unknown.UserError())
		}
		if near != "" && !slices.Contains(unknown.Near, near) {
			t.Errorf("%q suggests %v, want %s", name, unknown.Near, near)
		}
	}
}

func TestRateFallsBackToTheNextWiderFormat(t *testing.T) {
	h, err := Find("h100")
	fatal(t, err)
	if h.Rate("fp4") != h.FP8.Value || h.Rate("bf16") != h.BF16.Value {
		t.Errorf("fp4 %v, bf16 %v", h.Rate("fp4"), h.Rate("bf16"))
	}
	a, err := Find("a100")
	fatal(t, err)
	if a.Rate("fp8") != a.BF16.Value {
		t.Errorf("a100 fp8 = %v", a.Rate("fp8"))
	}
}

func TestPrices(t *testing.T) {
	for _, table := range []map[string]Price{onDemand, owned} {
		for id, p := range table {
			if s, err := Find(id); err != nil || s.ID != id {
				t.Errorf("price of unknown %s", id)
			}
			if p.Low <= 0 || p.Low > p.Mid || p.Mid > p.High || p.AsOf == "" || p.Source == "" {
				t.Errorf("%s: %+v", id, p)
			}
		}
	}
	for id, o := range owned {
		if d, ok := onDemand[id]; ok && d.Mid <= o.Mid {
			t.Errorf("%s: on-demand %v is not above owned %v", id, d.Mid, o.Mid)
		}
	}
	p, ok := DefaultPrice("h100", OnDemand)
	if !ok || p.Stale(time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)) || !p.Stale(time.Date(2027, 8, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("stale: %+v", p)
	}
	if _, ok := DefaultPrice("b100", OnDemand); ok {
		t.Error("a price out of thin air")
	}
	for _, usd := range []float64{-1, math.NaN(), math.Inf(1), 5000} {
		if _, err := UserPrice("h100", usd, OnDemand, "", "x"); err == nil {
			t.Errorf("price %v taken", usd)
		}
	}
}

func FuzzFind(f *testing.F) {
	for _, s := range []string{"h100", "H200-SXM-141GB", "NVIDIA RTX PRO 6000 Blackwell Server Edition", "99999999gb", "", "-", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		s, err := Find(name)
		if (s == nil) == (err == nil) {
			t.Fatalf("Find(%q) = %v, %v", name, s, err)
		}
	})
}
