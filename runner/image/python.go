package image

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// released are the days on which minor versions of Python 3 came out
// (devguide.python.org/versions).
var released = []struct{ minor, year, month int }{
	{6, 2016, 12}, {7, 2018, 6}, {8, 2019, 10}, {9, 2020, 10}, {10, 2021, 10}, {11, 2022, 10}, {12, 2023, 10}, {13, 2024, 10}, {14, 2025, 10},
}

var clauseRE = regexp.MustCompile(`^\s*(===?|~=|>=|<=|!=|<|>|=|\^|~)?\s*v?(\d+)(?:\.(\d+))?`)

// allowsMinor says whether Python 3.minor satisfies a declared version such as
// "3.10", "3.10.4", ">=3.8,<3.12" or "^3.9". What cannot be read it allows.
func allowsMinor(want string, minor int) bool {
	for c := range strings.SplitSeq(want, ",") {
		m := clauseRE.FindStringSubmatch(c)
		if m == nil {
			continue
		}
		major, _ := strconv.Atoi(m[2])
		n, _ := strconv.Atoi(m[3])
		if major != 3 {
			if strings.HasPrefix(m[1], "<") && major > 3 || strings.HasPrefix(m[1], ">") && major < 3 {
				continue
			}
			return false
		}
		patch := strings.Count(c, ".") > 1 && !strings.HasSuffix(strings.TrimSpace(c), "*")
		bare := m[3] == ""
		ok := true
		switch m[1] {
		case "", "=", "==", "===":
			ok = bare || minor == n
		case "~=":
			ok = minor == n || !patch && minor >= n
		case ">=", "^":
			ok = minor >= n
		case "~":
			ok = minor == n
		case ">":
			ok = minor > n || patch && minor == n
		case "<=":
			ok = bare || minor <= n
		case "<":
			ok = minor < n || patch && minor == n
		case "!=":
			ok = patch || bare || minor != n
		}
		if !ok {
			return false
		}
	}
	return true
}

// pythonOrder lists the minor versions that a declaration allows, the best
// first: a plain version alone; else the newest that the authors could have
// used for half a year, then older, then newer ones. Python 2 gives nothing.
func pythonOrder(want string, when *time.Time) (out []string) {
	best := 12
	if when != nil {
		best = released[0].minor
		for _, r := range released {
			if time.Date(r.year, time.Month(r.month+6), 1, 0, 0, 0, 0, time.UTC).Before(*when) {
				best = r.minor
			}
		}
	}
	var list []int
	for _, r := range released {
		if allowsMinor(want, r.minor) {
			list = append(list, r.minor)
		}
	}
	slices.SortStableFunc(list, func(a, b int) int { return pythonRank(a, best) - pythonRank(b, best) })
	for _, n := range list {
		out = append(out, "3."+strconv.Itoa(n))
	}
	return out
}

// pythonRank prefers the best, then slightly newer, then older versions: wheels
// of a time are published for the Pythons before it too, but interpreters that
// are no longer maintained are hard to get.
func pythonRank(minor, best int) int {
	if minor >= best {
		return 2 * (minor - best)
	}
	return 2*(best-minor) + 1
}
