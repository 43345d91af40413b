package model

import (
	"regexp"
	"slices"
	"strings"
)

// matcher holds the names and patterns of modules of an ignore list. The
// dialects are mixed in practice, so each entry is taken for what it looks
// like: "re:" and a regular expression that has to match at the beginning
// (compressed-tensors), a pattern with stars for the whole name or a parent
// (Model Optimizer, gpt-oss), or a name that is the module, one of its parents,
// or a part of its path ("gate" means the module gate, never gate_proj).
type matcher struct {
	names    map[string]bool
	parts    map[string]bool // names without a dot
	prefixes []string        // of patterns with one star at the end; sorted, none a prefix of another
	globs    []string
	patterns []*regexp.Regexp
}

func newMatcher(lists ...[]string) matcher {
	m := matcher{names: map[string]bool{}, parts: map[string]bool{}}
	var prefixes []string
	for _, s := range slices.Concat(lists...) {
		switch star := strings.IndexAny(s, "*?"); {
		case s == "":
		case strings.HasPrefix(s, "re:"):
			if re, err := regexp.Compile("^(?:" + s[3:] + ")"); err == nil {
				m.patterns = append(m.patterns, re)
			}
		case star >= 0 && star == len(s)-1 && s[star] == '*':
			prefixes = append(prefixes, s[:star])
		case star >= 0:
			m.globs = append(m.globs, s)
		case strings.Contains(s, "."):
			m.names[s] = true
		default:
			m.parts[s] = true
		}
	}
	slices.Sort(prefixes)
	for _, p := range prefixes {
		if n := len(m.prefixes); n == 0 || !strings.HasPrefix(p, m.prefixes[n-1]) {
			m.prefixes = append(m.prefixes, p)
		}
	}
	return m
}

func (m *matcher) matches(name string) bool {
	if len(m.names)+len(m.parts) > 0 && m.onPath(name) {
		return true
	}
	if len(m.prefixes) > 0 {
		at, found := slices.BinarySearch(m.prefixes, name)
		if found || at > 0 && strings.HasPrefix(name, m.prefixes[at-1]) {
			return true
		}
	}
	for _, g := range m.globs {
		if glob(g, name) {
			return true
		}
	}
	for _, re := range m.patterns {
		if re.MatchString(name) {
			return true
		}
	}
	return false
}

// onPath looks for the name, its parents, its endings and its parts.
func (m *matcher) onPath(name string) bool {
	rest, at := name, 0 // rest is name[at:]
	for {
		if m.names[rest] {
			return true
		}
		dot := strings.IndexByte(rest, '.')
		if dot < 0 {
			return m.parts[rest]
		}
		if m.parts[rest[:dot]] || m.names[name[:at+dot]] {
			return true
		}
		rest, at = rest[dot+1:], at+dot+1
	}
}

// glob matches a pattern whose stars cross dots, as those of Python's fnmatch
// do, with a name or one of its parents.
func glob(pattern, name string) bool {
	p, n := 0, 0
	star, retry := -1, 0
	for {
		switch {
		case p == len(pattern) && (n == len(name) || name[n] == '.'):
			return true
		case p < len(pattern) && pattern[p] == '*':
			star, retry = p, n
			p++
		case p < len(pattern) && n < len(name) && (pattern[p] == '?' || pattern[p] == name[n]):
			p, n = p+1, n+1
		case star >= 0 && retry < len(name):
			retry++
			p, n = star+1, retry
		default:
			return false
		}
	}
}
