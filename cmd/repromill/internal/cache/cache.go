// Package cache keeps the folders that make a second run fast within a size:
// what was used longest ago goes first, and what a run needs never.
package cache

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Item is one thing that can be made again.
type Item struct {
	Area  string    `json:"area"`
	Name  string    `json:"name"`
	Bytes int64     `json:"bytes"`
	Used  time.Time `json:"used,omitzero"`    // last; the zero time is long ago
	InUse string    `json:"in_use,omitempty"` // why it stays, whatever is asked
}

// Area is one kind of things, in a place of its own.
type Area interface {
	Name() string
	// Items lists what is there.
	Items(ctx context.Context) ([]Item, error)
	// Keep removes what was used longest ago until at most so many bytes are
	// left, and never what is in use. It returns how many were removed.
	Keep(ctx context.Context, bytes int64) (removed int64, err error)
}

// Budget says how many bytes each area may keep, so that the newest things
// of all areas together fit into keep bytes. What is in use counts first.
func Budget(items []Item, keep int64) map[string]int64 {
	sorted := slices.Clone(items)
	slices.SortStableFunc(sorted, func(a, b Item) int {
		switch {
		case (a.InUse != "") != (b.InUse != ""):
			if a.InUse != "" {
				return -1
			}
			return 1
		}
		return b.Used.Compare(a.Used)
	})
	out := map[string]int64{}
	var total int64
	for _, it := range sorted {
		total += it.Bytes
		if _, known := out[it.Area]; !known {
			out[it.Area] = 0
		}
		if total <= keep || it.InUse != "" {
			out[it.Area] += it.Bytes
			continue
		}
		keep = -1 // an older thing that happens to fit does not outlive a newer one
	}
	return out
}

// Total is the size of the items of an area, or of all areas for "".
func Total(items []Item, area string) (bytes int64, n int) {
	for _, it := range items {
		if area == "" || it.Area == area {
			bytes += it.Bytes
			n++
		}
	}
	return bytes, n
}

var units = map[string]float64{
	"": 1, "B": 1, "K": 1e3, "KB": 1e3, "M": 1e6, "MB": 1e6, "G": 1e9, "GB": 1e9, "T": 1e12, "TB": 1e12,
	"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40,
}

// ParseSize reads a size such as "20GB", "1.5 GiB" or "0".
func ParseSize(s string) (int64, error) {
	t := strings.TrimSpace(s)
	i := strings.IndexFunc(t, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if i < 0 {
		i = len(t)
	}
	n, err := strconv.ParseFloat(t[:i], 64)
	unit, known := units[strings.ToUpper(strings.TrimSpace(t[i:]))]
	if err != nil || !known || n*unit >= 1<<62 {
		return 0, fmt.Errorf("%q is no size", s)
	}
	return int64(n * unit), nil
}

// Size writes a number of bytes for people.
func Size(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}} {
		if n >= u.size {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.size), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
