package pytext_test

import (
	"slices"
	"testing"

	"github.com/repromill/repromill/suites/pytext"
)

// TestCases holds what CPython 3.11 gives.
func TestCases(t *testing.T) {
	for s, want := range map[string]struct {
		lower                      string
		allUpper, allLower, digits bool
	}{
		"":     {"", false, false, false},
		"AB1":  {"ab1", true, false, false},
		"ab-1": {"ab-1", false, true, false},
		"aB":   {"ab", false, false, false},
		"ǅ":    {"ǆ", false, false, false}, // title case
		"Ⅷ":    {"ⅷ", true, false, false},
		"ª":    {"ª", false, true, false},
		"İ":    {"i\u0307", true, false, false},
		"ΣΑΣ":  {"σας", true, false, false},
		"ΣΑ.Σ": {"σα.ς", true, false, false},
		"Σ":    {"σ", true, false, false},
		"ΑΣΑ":  {"ασα", true, false, false},
		"٣²":   {"٣²", false, false, true},
		"½":    {"½", false, false, false},
	} {
		if got := pytext.Lower(s); got != want.lower {
			t.Errorf("lower of %q is %q, want %q", s, got, want.lower)
		}
		if u, l, d := pytext.AllUpper(s), pytext.AllLower(s), pytext.AllDigits(s); u != want.allUpper || l != want.allLower || d != want.digits {
			t.Errorf("%q: upper %v, lower %v, digits %v, want %v", s, u, l, d, want)
		}
	}
}

func TestSpaces(t *testing.T) {
	const s = "\x1c a\u00a0b\x1fc\u2028\u200bd \u3000"
	if got, want := pytext.Fields(s), []string{"a", "b", "c", "\u200bd"}; !slices.Equal(got, want) {
		t.Errorf("fields %q, want %q", got, want)
	}
	if got := pytext.Strip(s); got != "a\u00a0b\x1fc\u2028\u200bd" {
		t.Errorf("stripped %q", got)
	}
	if got := pytext.Drop("a.b,c—d!", pytext.Punctuation); got != "abc—d" {
		t.Errorf("without punctuation %q", got)
	}
}
