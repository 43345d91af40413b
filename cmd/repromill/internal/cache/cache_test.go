package cache

import (
	"maps"
	"testing"
	"time"
)

func day(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }

func TestBudget(t *testing.T) {
	items := []Item{
		{Area: "a", Name: "old", Bytes: 50, Used: day(1)},
		{Area: "a", Name: "new", Bytes: 30, Used: day(9)},
		{Area: "b", Name: "middle", Bytes: 40, Used: day(5)},
		{Area: "b", Name: "tiny and old", Bytes: 1, Used: day(2)},
		{Area: "c", Name: "needed", Bytes: 20, Used: day(1), InUse: "by a run"},
	}
	for _, tc := range []struct {
		keep int64
		want map[string]int64
	}{
		{1000, map[string]int64{"a": 80, "b": 41, "c": 20}},
		{91, map[string]int64{"a": 30, "b": 41, "c": 20}},
		{90, map[string]int64{"a": 30, "b": 40, "c": 20}},
		{51, map[string]int64{"a": 30, "b": 0, "c": 20}}, // the tiny one would fit, and is older than what went
		{0, map[string]int64{"a": 0, "b": 0, "c": 20}},
	} {
		if got := Budget(items, tc.keep); !maps.Equal(got, tc.want) {
			t.Errorf("keep %d: %v, want %v", tc.keep, got, tc.want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "20GB": 20e9, " 1.5 GiB ": 3 << 29, "7k": 7000, "512MiB": 512 << 20, "3": 3} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "GB", "-1GB", "1 parsec", "1e9", "1..2", "99999999999TB"} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("%q was read as %d", s, got)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"20GB", "1.5 GiB", "0", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseSize(s); err == nil && n < 0 {
			t.Errorf("%q is %d", s, n)
		}
	})
}
