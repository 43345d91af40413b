package model

import (
	"regexp"
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
	parts    map[string]bool // of names without a dot
	patterns []*regexp.Regexp
}

func (m *matcher) add(list []string) {
	for _, s := range list {
		switch {
		case s == "":
		case strings.HasPrefix(s, "re:"):
			if re, err := regexp.Compile("^(?:" + s[3:] + ")"); err == nil {
				m.patterns = append(m.patterns, re)
			}
		case strings.ContainsAny(s, "*?"):
			m.patterns = append(m.patterns, glob(s))
		default:
			if m.names == nil {
				m.names, m.parts = map[string]bool{}, map[string]bool{}
			}
			m.names[s] = true
			if !strings.Contains(s, ".") {
				m.parts[s] = true
			}
		}
	}
}

// glob makes a pattern whose stars cross dots, as those of Python's fnmatch do,
// and that also matches a parent of the name.
func glob(s string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString("^(?:")
	for _, r := range s {
		switch r {
		case '*':
			b.WriteString(".*")
		case '?':
			b.WriteByte('.')
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	b.WriteString(`)(?:\.|$)`)
	return regexp.MustCompile(b.String())
}

func (m *matcher) matches(name string) bool {
	if m.names != nil {
		for rest, i := name, 0; ; {
			dot := strings.IndexByte(rest, '.')
			if dot < 0 {
				if m.parts[rest] || m.names[name] {
					return true
				}
				break
			}
			if m.parts[rest[:dot]] || m.names[name[:i+dot]] || m.names[rest] {
				return true
			}
			rest, i = rest[dot+1:], i+dot+1
		}
	}
	for _, re := range m.patterns {
		if re.MatchString(name) {
			return true
		}
	}
	return false
}
