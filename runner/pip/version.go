package pip

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Version is a version as PEP 440 orders them.
type Version struct {
	Text    string
	epoch   int
	release []int
	pre     int // 0 for dev alone, 1 a, 2 b, 3 rc, 4 final
	preN    int
	post    int // -1 for none
	dev     int // a large number for none
}

const noDev = 1 << 30

var versionRE = regexp.MustCompile(`(?i)^v?(?:(\d{1,6})!)?(\d{1,12}(?:\.\d{1,12})*)(?:[-_.]?(alpha|beta|preview|pre|a|b|c|rc)[-_.]?(\d{0,9}))?(?:-(\d{1,9})|[-_.]?(?:post|rev|r)[-_.]?(\d{0,9}))?(?:[-_.]?dev[-_.]?(\d{0,9}))?(?:\+[a-z0-9]+(?:[-_.][a-z0-9]+)*)?$`)

// ParseVersion reads a version; ok is false for what PEP 440 does not allow.
// The local part ("+cu118") does not take part in comparisons.
func ParseVersion(s string) (v Version, ok bool) {
	m := versionRE.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return Version{}, false
	}
	v = Version{Text: strings.TrimSpace(s), pre: 4, post: -1, dev: noDev}
	v.epoch, _ = strconv.Atoi(m[1])
	for part := range strings.SplitSeq(m[2], ".") {
		n, _ := strconv.Atoi(part)
		v.release = append(v.release, n)
	}
	lower := strings.ToLower(s)
	switch strings.ToLower(m[3]) {
	case "a", "alpha":
		v.pre = 1
	case "b", "beta":
		v.pre = 2
	case "c", "rc", "pre", "preview":
		v.pre = 3
	}
	v.preN, _ = strconv.Atoi(m[4])
	if m[5] != "" || strings.Contains(lower, "post") || m[6] != "" {
		v.post, _ = strconv.Atoi(m[5] + m[6])
	}
	if strings.Contains(lower, "dev") {
		v.dev, _ = strconv.Atoi(m[7])
		if v.pre == 4 && v.post < 0 {
			v.pre = 0 // 1.0.dev1 comes before 1.0a1
		}
	}
	return v, true
}

// Compare orders two versions.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.epoch, w.epoch), compareRelease(v.release, w.release), cmp.Compare(v.pre, w.pre),
		cmp.Compare(v.preN, w.preN), cmp.Compare(v.post, w.post), cmp.Compare(v.dev, w.dev))
}

func compareRelease(a, b []int) int {
	for i := range max(len(a), len(b)) {
		var x, y int
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return cmp.Compare(x, y)
		}
	}
	return 0
}

// Pre says that a version is none that is meant for everybody.
func (v Version) Pre() bool { return v.pre < 4 || v.dev != noDev }

var specifierRE = regexp.MustCompile(`^(===|==|~=|!=|<=|>=|<|>)\s*(\S+)$`)

// Allows says whether a version satisfies a list of clauses such as
// ">=1.2,<2"; ok is false when the list cannot be read. An empty list allows
// everything.
func Allows(clauses string, v Version) (allowed, ok bool) {
	clauses = strings.Trim(strings.TrimSpace(clauses), "()")
	if clauses == "" {
		return true, true
	}
	for c := range strings.SplitSeq(clauses, ",") {
		m := specifierRE.FindStringSubmatch(strings.TrimSpace(c))
		if m == nil {
			return false, false
		}
		text, star := strings.CutSuffix(m[2], ".*")
		w, ok := ParseVersion(text)
		if !ok {
			return false, false
		}
		if !clause(m[1], star, v, w) {
			return false, true
		}
	}
	return true, true
}

func clause(op string, star bool, v, w Version) bool {
	prefix := func(n int) bool {
		n = min(n, len(w.release))
		return v.epoch == w.epoch && slices.Equal(pad(v.release, n)[:n], w.release[:n])
	}
	switch op {
	case "==", "===":
		if star {
			return prefix(len(w.release))
		}
		return v.Compare(w) == 0
	case "!=":
		return !clause("==", star, v, w)
	case "~=":
		return v.Compare(w) >= 0 && prefix(max(1, len(w.release)-1))
	case ">=":
		return v.Compare(w) >= 0
	case "<=":
		return v.Compare(w) <= 0
	case ">":
		return v.Compare(w) > 0
	}
	return v.Compare(w) < 0
}

func pad(a []int, n int) []int {
	for len(a) < n {
		a = append(slices.Clone(a), 0)
	}
	return a
}

// Pin splits a requirement that fixes one version: "torch==1.10.1+cu113 ; marker"
// gives "torch" and "1.10.1+cu113".
func Pin(requirement string) (name, version string, ok bool) {
	m := pinRE.FindStringSubmatch(requirement)
	if m == nil {
		return "", "", false
	}
	return Normalise(m[1]), m[2], true
}

var pinRE = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*={2,3}\s*([^\s,;*]+)\s*(?:;.*)?$`)
