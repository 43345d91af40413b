package load_test

import (
	"math"
	"testing"

	"github.com/repromill/repromill/suites/load"
)

func TestMix(t *testing.T) {
	mix, err := load.ParseMix("0.8:256x64, 0.2:4096x256", 0)
	if err != nil {
		t.Fatal(err)
	}
	spec := load.Spec{Mode: load.Open, Rate: 10, Requests: 20_000, Mix: mix, Seed: 1}
	if spec.Lengths() != "mix-0.8:256x64,0.2:4096x256" {
		t.Error(spec.Lengths())
	}
	long := 0
	for _, r := range mustSchedule(t, spec).Requests {
		switch {
		case r.ISL == 256 && r.OSL == 64 && r.Class == "0":
		case r.ISL == 4096 && r.OSL == 256 && r.Class == "1":
			long++
		default:
			t.Fatalf("%+v", r)
		}
	}
	if math.Abs(float64(long)/20_000-0.2) > 0.01 {
		t.Errorf("%d long requests", long)
	}
}

func FuzzParseMix(f *testing.F) {
	f.Add("0.8:256x64,0.2:4096x256")
	f.Add("1:1x1,")
	f.Add("NaN:5x5")
	f.Add("1e999:5x5")
	f.Add("1:5x5x5")
	f.Fuzz(func(t *testing.T, s string) {
		mix, err := load.ParseMix(s, 0.5)
		if err != nil {
			return
		}
		if _, err := load.NewSchedule(load.Spec{Mode: load.Closed, Concurrency: 1, Requests: 3, Mix: mix}); err != nil {
			t.Errorf("%q is read and refused: %v", s, err)
		}
	})
}
