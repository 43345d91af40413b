package punkt

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/repromill/repromill/suites/pytext"
)

// step is one of the replacements that the tokenizer makes in turn.
type step func(s string) string

// pad puts spaces around each of some characters.
func pad(chars string) step {
	return func(s string) string {
		i := strings.IndexAny(s, chars)
		if i < 0 {
			return s
		}
		var b strings.Builder
		b.WriteString(s[:i])
		for _, r := range s[i:] {
			if strings.ContainsRune(chars, r) {
				b.WriteByte(' ')
				b.WriteRune(r)
				b.WriteByte(' ')
			} else {
				b.WriteRune(r)
			}
		}
		return b.String()
	}
}

// replace replaces text by text.
func replace(old, by string) step {
	return func(s string) string { return strings.ReplaceAll(s, old, by) }
}

// sub replaces what a pattern matches, which has one of some characters in it.
func sub(chars, pattern, by string) step {
	re := regexp.MustCompile(pattern)
	return func(s string) string {
		if !strings.ContainsAny(s, chars) {
			return s
		}
		return re.ReplaceAllString(s, by)
	}
}

// finalStop is ([^\.])(\.)([closers]*)\s*$, with a gap before the closers or none.
// Only the last stop can match.
func finalStop(closers, gap string) step {
	return func(s string) string {
		i := strings.LastIndexByte(s, '.')
		if i < 1 || s[i-1] == '.' {
			return s
		}
		rest := strings.TrimLeft(s[i+1:], closers)
		if !pytext.Blank(rest) {
			return s
		}
		return s[:i] + " ." + gap + s[i+1:len(s)-len(rest)] + " "
	}
}

// openingQuote is ^" of the whole sentence.
func openingQuote(s string) string {
	if strings.HasPrefix(s, `"`) {
		return "``" + s[1:]
	}
	return s
}

// collapse is \s+ to one space.
func collapse(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	before := false
	for _, r := range s {
		space := pytext.IsSpace(r)
		switch {
		case !space:
			b.WriteRune(r)
		case !before:
			b.WriteByte(' ')
		}
		before = space
	}
	return b.String()
}

// The replacements of NLTKWordTokenizer, in its order.
var (
	openQuotes = []step{sub("«“‘„`", "([«“‘„]|`+)", " $1 "), openingQuote, replace("``", " `` "), sub(`"'`, `([ (\[{<])("|'{2})`, "$1 `` "), openApostrophes}
	marks      = []step{
		finalStop("])}>\"'»”’ ", " "),
		sub(":,", `([:,])([^\p{Nd}])`, " $1 $2"),
		sub(":,", `([:,])(\n?)\z`, " $1 $2"),
		sub(".", `(\.{2,})`, " $1 "),
		pad(";@#$%&"),
		finalStop("])}>\"'", ""),
		pad("?!"),
		sub("'", `([^'])' `, "$1 ' "),
		pad("*"),
		pad("][(){}<>"),
		replace("--", " -- "),
	}
	closeQuotes = []step{
		pad("»”’"),
		replace("''", " '' "),
		replace(`"`, " '' "),
		collapse,
		sub("'", `([^' ])('[sS]|'[mM]|'[dD]|') `, "$1 $2 "),
		sub("'", `([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) `, "$1 $2 "),
	}
)

// Words is nltk.word_tokenize: Penn Treebank's tokens of every sentence. Double
// quotes become two grave accents or two apostrophes, as they do there.
//
// Source: nltk 3.9.2, nltk/tokenize/destructive.py, NLTKWordTokenizer.
func Words(text string) []string {
	var out []string
	for _, s := range Sentences(text) {
		out = append(out, sentenceWords(s)...)
	}
	return out
}

func sentenceWords(s string) []string {
	s = apply(openQuotes, s)
	s = apply(marks, s)
	s = apply(closeQuotes, " "+s+" ")
	for _, p := range [][2]string{{"can", "not"}, {"d", "'ye"}, {"gim", "me"}, {"gon", "na"}, {"got", "ta"}, {"lem", "me"}, {"more", "'n"}, {"wan", "na"}} {
		s = contraction(s, p[0], p[1], p[0] == "wan")
	}
	for _, second := range []string{"is", "was"} {
		s = tis(s, second)
	}
	return pytext.Fields(s)
}

func apply(all []step, s string) string {
	for _, st := range all {
		s = st(s)
	}
	return s
}

// openApostrophes puts a space after an apostrophe before a single character that
// is no clitic: (?i)(\')(?!re|ve|ll|m|t|s|d|n)(\w)\b.
func openApostrophes(s string) string {
	if strings.IndexByte(s, '\'') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		b.WriteByte(s[i])
		if s[i] != '\'' || !wordAt(s, i+1) {
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i+1:])
		if !wordAt(s, i+1+n) && !strings.ContainsRune("mtsdnMTSDNſ", r) {
			b.WriteByte(' ')
		}
	}
	return b.String()
}

func wordBefore(s string, i int) bool {
	return i > 0 && pytext.IsWord(pytext.Last(s[:i]))
}

func wordAt(s string, i int) bool {
	return i < len(s) && pytext.IsWord(pytext.First(s[i:]))
}

// foldPrefix matches ASCII text whatever its case, as Python's IGNORECASE does,
// and returns the length of the match.
func foldPrefix(s, want string) (int, bool) {
	n := 0
	for _, w := range want {
		r, size := utf8.DecodeRuneInString(s[n:])
		if !foldEqual(r, w) {
			return 0, false
		}
		n += size
	}
	return n, true
}

// foldEqual compares with a lower-case ASCII character.
func foldEqual(r, lower rune) bool {
	switch {
	case r == lower, lower >= 'a' && lower <= 'z' && r == lower-'a'+'A':
		return true
	}
	switch lower {
	case 's':
		return r == 'ſ'
	case 'k':
		return r == '\u212a'
	case 'i':
		return r == 'İ' || r == 'ı'
	}
	return false
}

// contraction splits a word such as cannot: (?i)\b(first)(second)\b, with spaces
// around. space asks for a space after it instead of the second \b.
func contraction(s, first, second string, space bool) string {
	var b strings.Builder
	done := 0
	for i := 0; i < len(s); i++ {
		if s[i]|0x20 != first[0] || i < done || wordBefore(s, i) {
			continue
		}
		n, ok := foldPrefix(s[i:], first)
		if !ok {
			continue
		}
		m, ok := foldPrefix(s[i+n:], second)
		end := i + n + m
		if !ok || (space && (end == len(s) || !pytext.IsSpace(pytext.First(s[end:])))) || (!space && wordAt(s, end)) {
			continue
		}
		b.WriteString(s[done:i])
		b.WriteString(" " + s[i:i+n] + " " + s[i+n:end] + " ")
		done = end
	}
	if done == 0 {
		return s
	}
	b.WriteString(s[done:])
	return b.String()
}

// tis splits 'tis and 'twas: (?i) ('t)(is)\b.
func tis(s, second string) string {
	var b strings.Builder
	done := 0
	for i := 0; ; {
		k := strings.Index(s[i:], " '")
		if k < 0 {
			break
		}
		at := i + k
		i = at + 1
		n, ok := foldPrefix(s[at+2:], "t")
		if !ok {
			continue
		}
		mid := at + 2 + n
		m, ok := foldPrefix(s[mid:], second)
		if !ok || wordAt(s, mid+m) {
			continue
		}
		b.WriteString(s[done:at])
		b.WriteString(" " + s[at+1:mid] + " " + s[mid:mid+m] + " ")
		done = mid + m
		i = done
	}
	if done == 0 {
		return s
	}
	b.WriteString(s[done:])
	return b.String()
}
