package ifeval

import (
	"encoding/json"
	"strings"

	"github.com/repromill/repromill/suites/pytext"
)

// maxDigits is how many digits an integer may have before Python refuses it.
const maxDigits = 4300

// isJSON reports whether a text is JSON, in one Markdown fence if it likes.
func isJSON(s string) bool {
	s = pytext.Strip(s)
	for _, fence := range []string{"```json", "```Json", "```JSON", "```"} {
		s = strings.TrimPrefix(s, fence)
	}
	return loads(pytext.Strip(strings.TrimSuffix(s, "```")))
}

// loads reports whether Python's json.loads takes s. It also takes NaN, Infinity
// and -Infinity, and it refuses integers of more than 4,300 digits.
func loads(s string) bool {
	if !strings.Contains(s, "NaN") && !strings.Contains(s, "Infinity") && len(s) <= maxDigits {
		return json.Valid([]byte(s))
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		n := 1
		switch c := s[i]; {
		case c == '"':
			for n = 1; i+n < len(s) && s[i+n] != '"'; n++ {
				if s[i+n] == '\\' {
					n++
				}
			}
			n = min(n+1, len(s)-i)
		case strings.HasPrefix(s[i:], "-Infinity"):
			b.WriteString(" 0 ")
			i += len("-Infinity")
			continue
		case strings.HasPrefix(s[i:], "Infinity"), strings.HasPrefix(s[i:], "NaN"):
			b.WriteString(" 0 ")
			i += len("NaN")
			if c == 'I' {
				i += len("Infinity") - len("NaN")
			}
			continue
		case c >= '0' && c <= '9':
			for n = 1; i+n < len(s) && s[i+n] >= '0' && s[i+n] <= '9'; n++ {
			}
			fraction := i+n < len(s) && strings.IndexByte(".eE", s[i+n]) >= 0
			part := i > 0 && strings.IndexByte(".eE+", s[i-1]) >= 0
			if n > maxDigits && !fraction && !part {
				return false
			}
		}
		b.WriteString(s[i : i+n])
		i += n
	}
	return json.Valid([]byte(b.String()))
}
