package token

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// byteRunes are the printable characters that byte-level vocabularies write for
// bytes: themselves where they are printable, and those from U+0100 on for the
// others in order (openai/gpt-2 src/encoder.py, bytes_to_unicode).
var byteRunes, runeBytes = func() (to [256]rune, from map[rune]byte) {
	from = map[rune]byte{}
	next := rune(256)
	for b := range 256 {
		r := rune(b)
		if b < '!' || b > '~' && b < 0xA1 || b == 0xAD {
			r = next
			next++
		}
		to[b], from[r] = r, byte(b)
	}
	return to, from
}()

func toByteLevel(w string) string {
	var b strings.Builder
	for i := range len(w) {
		b.WriteRune(byteRunes[w[i]])
	}
	return b.String()
}

// fromByteLevel gives the bytes of a token. One with a character that stands for
// no byte is an added one, and stands for itself.
func fromByteLevel(token string) []byte {
	out := make([]byte, 0, len(token))
	for _, r := range token {
		b, ok := runeBytes[r]
		if !ok {
			return []byte(token)
		}
		out = append(out, b)
	}
	return out
}

func isSpace(r rune) bool { return unicode.IsSpace(r) }

func isWord(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r) }

// alone tells whether no letter or digit stands right before or after a part of
// a text.
func alone(text string, begin, end int) bool {
	before, _ := utf8.DecodeLastRuneInString(text[:begin])
	after, _ := utf8.DecodeRuneInString(text[end:])
	return !(begin > 0 && isWord(before)) && !(end < len(text) && isWord(after))
}
