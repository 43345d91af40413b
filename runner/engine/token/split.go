package token

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/dlclark/regexp2"
)

// splitter divides a text into words.
type splitter interface {
	split(out []string, text string) ([]string, error)
}

// patternGPT2 is what ByteLevel splits by unless it is told not to
// (huggingface/tokenizers tokenizers/src/pre_tokenizers/byte_level.rs).
const patternGPT2 = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

// patternWhitespace is that of the pre-tokenizer Whitespace, \w+|[^\w\s]+, with
// the classes that \w has in Rust (Unicode Technical Standard 18, annex C).
const patternWhitespace = `[\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\u200c\u200d]+|[^\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\u200c\u200d\s]+`

// matchTime bounds the time that a pattern takes for one match.
const matchTime = 5 * time.Second

// byPattern splits by a regular expression.
type byPattern struct {
	re       *regexp2.Regexp
	behavior string
	invert   bool
}

func newPattern(pattern, behavior string, invert bool) (*byPattern, error) {
	switch behavior {
	case "Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous":
	default:
		return nil, badFile("its pre-tokenizer splits with the behaviour %.40q", behavior)
	}
	re, err := regexp2.Compile(pattern, regexp2.None)
	if err != nil {
		return nil, badFile("its pattern %.80q is not understood: %v", pattern, err)
	}
	re.MatchTimeout = matchTime
	return &byPattern{re, behavior, invert}, nil
}

// span is a part of a text, and whether it is a separator.
type span struct {
	text    string
	matched bool
}

func (p *byPattern) split(out []string, text string) ([]string, error) {
	runes := []rune(text)
	var spans []span
	add := func(from, to int, matched bool) {
		if to > from {
			spans = append(spans, span{string(runes[from:to]), matched != p.invert})
		}
	}
	at := 0
	m, err := p.re.FindRunesMatch(runes)
	for ; m != nil && err == nil; m, err = p.re.FindNextMatch(m) {
		add(at, m.Index, false)
		add(m.Index, m.Index+m.Length, true)
		at = m.Index + m.Length
	}
	if err != nil {
		return nil, fmt.Errorf("split text: %w", err)
	}
	add(at, len(runes), false)
	return p.join(out, spans), nil
}

// join treats separators as the behaviour asks (huggingface/tokenizers
// tokenizers/src/tokenizer/normalizer.rs, SplitDelimiterBehavior).
func (p *byPattern) join(out []string, spans []span) []string {
	var words []string
	previous := false
	for i := 0; i < len(spans); i++ {
		s := spans[i]
		switch {
		case p.behavior == "Removed" && s.matched:
		case p.behavior == "MergedWithPrevious" && s.matched && len(words) > 0 && !previous,
			p.behavior == "Contiguous" && i > 0 && s.matched == previous:
			words[len(words)-1] += s.text
		case p.behavior == "MergedWithNext" && s.matched && i+1 < len(spans) && !spans[i+1].matched:
			words = append(words, s.text+spans[i+1].text)
			i++
			s.matched = false
		default:
			words = append(words, s.text)
		}
		previous = s.matched
	}
	return append(out, words...)
}

// byDigits sets numbers apart, digit by digit or as a whole.
type byDigits struct{ each bool }

func (d byDigits) split(out []string, text string) ([]string, error) {
	from, was := 0, false
	for i, r := range text {
		is := unicode.IsNumber(r)
		if i > from && (is != was || is && d.each) {
			out = append(out, text[from:i])
			from = i
		}
		was = is
	}
	return append(out, text[from:]), nil
}

// bySpace splits at white space and leaves it out.
type bySpace struct{}

func (bySpace) split(out []string, text string) ([]string, error) {
	return append(out, strings.FieldsFunc(text, isSpace)...), nil
}

// prefixSpace puts a space before a text that has none.
type prefixSpace struct{}

func (prefixSpace) split(out []string, text string) ([]string, error) {
	if !strings.HasPrefix(text, " ") {
		text = " " + text
	}
	return append(out, text), nil
}
