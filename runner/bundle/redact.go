package bundle

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

// Redactor takes out of texts what looks like a secret. The zero value knows the
// forms of well-known tokens; [NewRedactor] knows the secrets of an environment
// too.
type Redactor struct{ values []string }

const redacted = "[redacted]"

var (
	secretName = regexp.MustCompile(`(?i)(?:^|_)(?:api_?key|token|secret|passw(?:or)?d|access_key(?:_id)?|webhook(?:_url)?)$`)
	// Each pattern's first group, where it has one, is kept.
	secretForms = []*regexp.Regexp{
		regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]{1,20}://)[^/\s:@"'\\<>]*:[^/\s@"'\\<>]+@`),
		regexp.MustCompile(`\bhf_[A-Za-z0-9]{30,}`),
		regexp.MustCompile(`\bsk-[A-Za-z0-9_-]{20,}`),
		regexp.MustCompile(`\bgh[pousr]_[A-Za-z0-9]{36,}`),
		regexp.MustCompile(`\bgithub_pat_[A-Za-z0-9_]{22,}`),
		regexp.MustCompile(`\bglpat-[A-Za-z0-9_-]{20,}`),
		regexp.MustCompile(`\brpm_[A-Za-z0-9]+_[A-Za-z0-9]{20,}`), // package runner/access
		regexp.MustCompile(`\bpypi-[A-Za-z0-9_-]{50,}`),
		regexp.MustCompile(`\bA(?:KIA|SIA)[0-9A-Z]{16}\b`),
		regexp.MustCompile(`\bxox[abeprs]-[A-Za-z0-9-]{10,}`),
		regexp.MustCompile(`(https://hooks\.slack\.com/services/)[A-Za-z0-9/]{20,}`),
		regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}`),
		regexp.MustCompile(`(?i)(\bbearer\s+)[A-Za-z0-9._~+/-]{16,}=*`),
		regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----`),
		regexp.MustCompile(`(\b[A-Z][A-Z0-9_]*(?:TOKEN|SECRET|PASSWORD|API_KEY|ACCESS_KEY)=)[^\s"'\\,;]{6,}`),
		regexp.MustCompile(`(?i)(--?(?:api[-_]?key|auth[-_]?token|access[-_]?token|hf[-_]?token|password|secret)(?:=|\s+|\\?",\s*\\?"))[^\s"'\\,;]{6,}`),
	}
)

// NewRedactor takes the values of an environment's variables whose names say that
// they are secrets.
func NewRedactor(env map[string]string) *Redactor {
	r := &Redactor{}
	for name, v := range env {
		// A path to a secret is none, and a short word stands everywhere.
		if secretName.MatchString(name) && len(v) >= 8 && !strings.HasPrefix(v, "/") && v != redacted {
			r.values = append(r.values, v)
		}
	}
	slices.SortFunc(r.values, func(a, b string) int { return cmp.Or(len(b)-len(a), cmp.Compare(a, b)) })
	r.values = slices.Compact(r.values)
	return r
}

// Text returns s without secrets, and how many were taken out.
func (r *Redactor) Text(s string) (string, int) {
	if len(s) < 8 {
		return s, 0
	}
	n := 0
	for _, v := range r.values {
		if c := strings.Count(s, v); c > 0 {
			s, n = strings.ReplaceAll(s, v, redacted), n+c
		}
	}
	for _, re := range secretForms {
		if !re.MatchString(s) {
			continue
		}
		s = re.ReplaceAllStringFunc(s, func(hit string) string {
			keep := ""
			if m := re.FindStringSubmatch(hit); len(m) > 1 {
				keep = m[1]
			}
			if strings.TrimPrefix(hit, keep) == redacted || strings.HasPrefix(strings.TrimPrefix(hit, keep), redacted) {
				return hit
			}
			n++
			if strings.HasSuffix(hit, "@") {
				return keep + redacted + "@"
			}
			return keep + redacted
		})
	}
	return s, n
}
