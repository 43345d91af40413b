// Package pytext does to text what Python's str and re do, as far as published
// graders depend on it: which characters are spaces, letters and digits, and what
// is upper or lower case. Go's own functions differ on rare characters.
package pytext

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Punctuation is Python's string.punctuation.
const Punctuation = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

// Space, NotSpace, Digit, Word and NotWord are classes for Go's regular
// expressions that match what \s, \S, \d, \w and \W do in Python.
const (
	Space    = `[\t-\r\x{1c}-\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]`
	NotSpace = `[^\t-\r\x{1c}-\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]`
	Digit    = `\p{Nd}`
	Word     = `[\p{L}\p{N}_]`
	NotWord  = `[^\p{L}\p{N}_]`
)

// IsSpace is str.isspace of one character, and \s. Python also has the four
// information separators, U+001C to U+001F.
func IsSpace(r rune) bool { return unicode.IsSpace(r) || (r >= 0x1c && r <= 0x1f) }

// IsWord is \w: str.isalnum and the underscore.
func IsWord(r rune) bool { return r == '_' || IsAlnum(r) }

// IsAlnum is str.isalnum of one character.
func IsAlnum(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) }

// IsAlpha is str.isalpha of one character.
func IsAlpha(r rune) bool { return unicode.IsLetter(r) }

// IsUpper and IsLower are str.isupper and str.islower of one character.
func IsUpper(r rune) bool { return unicode.IsUpper(r) || unicode.Is(unicode.Other_Uppercase, r) }

// IsLower is str.islower of one character.
func IsLower(r rune) bool { return unicode.IsLower(r) || unicode.Is(unicode.Other_Lowercase, r) }

// AllUpper is str.isupper: some character has a case and none is lower or title.
func AllUpper(s string) bool { return allCased(s, IsUpper, IsLower) }

// AllLower is str.islower.
func AllLower(s string) bool { return allCased(s, IsLower, IsUpper) }

func allCased(s string, want, not func(rune) bool) bool {
	some := false
	for _, r := range s {
		if not(r) || unicode.IsTitle(r) {
			return false
		}
		some = some || want(r)
	}
	return some
}

// otherDigits are the characters that str.isdigit takes and \d does not, such as
// superscripts: Numeric_Type=Digit of the Unicode Character Database.
var otherDigits = &unicode.RangeTable{
	R16: []unicode.Range16{{0xb2, 0xb3, 1}, {0xb9, 0xb9, 1}, {0x1369, 0x1371, 1}, {0x19da, 0x19da, 1}, {0x2070, 0x2070, 1}, {0x2074, 0x2079, 1},
		{0x2080, 0x2089, 1}, {0x2460, 0x2468, 1}, {0x2474, 0x247c, 1}, {0x2488, 0x2490, 1}, {0x24ea, 0x24ea, 1}, {0x24f5, 0x24fd, 1}, {0x24ff, 0x24ff, 1},
		{0x2776, 0x277e, 1}, {0x2780, 0x2788, 1}, {0x278a, 0x2792, 1}},
	R32:         []unicode.Range32{{0x10a40, 0x10a43, 1}, {0x10e60, 0x10e68, 1}, {0x11052, 0x1105a, 1}, {0x1f100, 0x1f10a, 1}},
	LatinOffset: 2,
}

// AllDigits is str.isdigit.
func AllDigits(s string) bool {
	for _, r := range s {
		if !unicode.IsDigit(r) && !unicode.Is(otherDigits, r) {
			return false
		}
	}
	return s != ""
}

// Fields is str.split without arguments.
func Fields(s string) []string { return strings.FieldsFunc(s, IsSpace) }

// Strip is str.strip without arguments.
func Strip(s string) string { return strings.TrimFunc(s, IsSpace) }

// StripLeft is str.lstrip without arguments.
func StripLeft(s string) string { return strings.TrimLeftFunc(s, IsSpace) }

// StripRight is str.rstrip without arguments.
func StripRight(s string) string { return strings.TrimRightFunc(s, IsSpace) }

// Blank reports whether nothing is left of s when it is stripped.
func Blank(s string) bool { return Strip(s) == "" }

// Len is len of a str: its characters.
func Len(s string) int { return utf8.RuneCountInString(s) }

// First and Last return the first and last character, utf8.RuneError of "".
func First(s string) rune { r, _ := utf8.DecodeRuneInString(s); return r }

// Last returns the last character, utf8.RuneError of "".
func Last(s string) rune { r, _ := utf8.DecodeLastRuneInString(s); return r }

// Drop is str.translate with a table that deletes the ASCII characters given.
func Drop(s, chars string) string {
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf && strings.IndexByte(chars, byte(r)) >= 0 {
			return -1
		}
		return r
	}, s)
}

// Lower is str.lower. Unlike Go's, it makes two characters of İ, and ς of a Σ that
// ends a word.
func Lower(s string) string {
	if !strings.ContainsAny(s, "İΣ") {
		return strings.ToLower(s)
	}
	rs := []rune(s)
	var b strings.Builder
	before := false // a cased letter stands before, case-ignorable ones apart
	for i, r := range rs {
		switch {
		case r == 'İ':
			b.WriteString("i\u0307")
		case r == 'Σ' && before && !casedFollows(rs[i+1:]):
			b.WriteRune('ς')
		default:
			b.WriteRune(unicode.ToLower(r))
		}
		if !ignorable(r) {
			before = cased(r)
		}
	}
	return b.String()
}

// casedFollows looks past case-ignorable characters; runs of those are short in
// any text that has a Σ before them, and bounded for those that have not.
func casedFollows(rs []rune) bool {
	for i, r := range rs {
		if i == 64 {
			return false
		}
		if !ignorable(r) {
			return cased(r)
		}
	}
	return false
}

func cased(r rune) bool { return IsUpper(r) || IsLower(r) || unicode.IsTitle(r) }

// ignorable is Case_Ignorable of the Unicode Character Database.
func ignorable(r rune) bool {
	return unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf, unicode.Lm, unicode.Sk) || strings.ContainsRune("'.:·͵՟״‘’‧︓﹒﹕＇．：", r)
}
