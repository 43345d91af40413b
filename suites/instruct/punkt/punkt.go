// Package punkt splits English text into sentences and words as NLTK does, on
// which the verifiers of IFEval and IFBench rest.
//
// Sources: Kiss and Strunk, "Unsupervised Multilingual Sentence Boundary
// Detection", Computational Linguistics 32 (2006); nltk 3.9.2,
// nltk/tokenize/punkt.py. The abbreviations, collocations, sentence starters and
// orthographic contexts are those that NLTK learnt from English text, as
// github.com/neurosnap/sentences ships them.
package punkt

import (
	"fmt"
	"strings"
	"sync"

	"github.com/neurosnap/sentences"
	"github.com/neurosnap/sentences/data"

	"github.com/repromill/repromill/suites/pytext"
)

// Orthographic contexts in which a word was seen.
const (
	midUpper   = 1 << 2
	begLower   = 1 << 4
	anyUpper   = 1<<1 | 1<<2 | 1<<3
	anyLower   = 1<<4 | 1<<5 | 1<<6
	numberType = "##number##"
)

// english is what was learnt from English text. It is read when it is first
// needed, because it takes 30 ms.
var english = sync.OnceValue(func() *sentences.Storage {
	b, err := data.Asset("data/english.json")
	if err == nil {
		var s *sentences.Storage
		if s, err = sentences.LoadTraining(b); err == nil {
			s.SentStarters.Remove("she") // punkt_tab, which NLTK reads from 3.9 on, does not have it
			return s
		}
	}
	panic(fmt.Sprintf("read embedded model of English sentences: %v", err)) // part of the binary
})

// Sentences is nltk.sent_tokenize. White space between sentences is dropped, that
// before the first is kept.
func Sentences(text string) []string {
	slices := realign(text, breaks(text))
	out := make([]string, len(slices))
	for i, s := range slices {
		out[i] = text[s[0]:s[1]]
	}
	return out
}

// nonWord is _re_non_word_chars: what cannot stand within words.
func nonWord(r rune) bool { return strings.ContainsRune(`)";}]*:@'({[?!`, r) }

func endMark(c byte) bool { return c == '.' || c == '?' || c == '!' }

// candidate is a character that may end a sentence.
type candidate struct {
	word [2]int // the word before it
	at   int    // the character
	tail int    // end of what follows and belongs to the context
	next int    // beginning of the next token, -1 if none follows after white space
}

// candidates finds what period_context_re matches, without the words before.
func candidates(text string, f func(at, tail, next int)) {
	for i := 0; i < len(text); i++ {
		if !endMark(text[i]) || i+1 == len(text) {
			continue
		}
		r := pytext.First(text[i+1:])
		if nonWord(r) {
			f(i, i+1+len(string(r)), -1)
			continue
		}
		if !pytext.IsSpace(r) {
			continue
		}
		next := len(text) - len(pytext.StripLeft(text[i+1:]))
		if next == len(text) {
			return // only white space is left
		}
		end := strings.IndexFunc(text[next:], pytext.IsSpace)
		if end < 0 {
			end = len(text) - next
		}
		f(i, next+end, next)
	}
}

// breaks returns the sentences before closing marks are moved.
func breaks(text string) (out [][2]int) {
	last := 0
	decide := func(c candidate) {
		if !breaksSentence(text[c.word[0]:c.tail]) {
			return
		}
		out = append(out, [2]int{last, c.at + 1})
		last = c.at + 1
		if c.next >= 0 {
			last = c.next
		}
	}
	var prev candidate
	have := false
	candidates(text, func(at, tail, next int) {
		c := candidate{word: [2]int{prev.word[0], at}, at: at, tail: tail, next: next}
		// The word begins after the last white space since the candidate before. A
		// space right there, at index 0, does not count: so it is upstream.
		if k := strings.LastIndexAny(text[prev.word[1]:at], " \t\n\r\v\f"); k > 0 {
			c.word[0] = prev.word[1] + k + 1
		}
		if have && prev.word[1] <= c.word[0] {
			decide(prev)
		}
		prev, have = c, true
	})
	if have {
		decide(prev)
	}
	return append(out, [2]int{last, max(last, len(pytext.StripRight(text)))})
}

// realign moves closing quotes and brackets to the sentence that they close.
func realign(text string, in [][2]int) (out [][2]int) {
	moved := 0
	for i, s := range in {
		s[0] += moved
		moved = 0
		if i+1 < len(in) {
			next := in[i+1]
			if n := closing(text[next[0]:next[1]]); n > 0 {
				out = append(out, [2]int{s[0], next[0] + len(pytext.StripRight(text[next[0]:next[0]+n]))})
				moved = n
				continue
			}
		}
		if s[0] < s[1] {
			out = append(out, s)
		}
	}
	return out
}

// closing matches ["')\]}]+?(?:\s+|(?=--)|$) at the beginning of s and
// returns the length of the match.
func closing(s string) int {
	for i, r := range s {
		if i > 0 {
			rest := s[i:]
			if n := len(rest) - len(pytext.StripLeft(rest)); n > 0 {
				return i + n
			}
			if strings.HasPrefix(rest, "--") {
				return i
			}
		}
		if !strings.ContainsRune(`"')]}`, r) {
			return 0
		}
	}
	return len(s)
}

// token is a token of a candidate's context.
type token struct {
	text, typ             string
	stop, abbr, dots, end bool // end: it breaks a sentence
}

func newToken(s string, m *sentences.Storage) token {
	t := token{text: s, typ: pytext.Lower(s), stop: strings.HasSuffix(s, ".")}
	if numeric(t.typ) {
		t.typ = numberType
	}
	switch {
	case s == "." || s == "?" || s == "!":
		t.end = true
	case len(s) > 1 && strings.Trim(s, ".") == "":
		t.dots = true
	case t.stop && !strings.HasSuffix(s, ".."):
		w := pytext.Lower(s[:len(s)-1])
		t.abbr = m.AbbrevTypes.Has(w) || m.AbbrevTypes.Has(w[strings.LastIndexByte(w, '-')+1:])
		t.end = !t.abbr
	}
	return t
}

// bare is the type without its final stop.
func (t token) bare() string {
	if len(t.typ) > 1 && strings.HasSuffix(t.typ, ".") {
		return t.typ[:len(t.typ)-1]
	}
	return t.typ
}

// plain is the type without a stop that breaks a sentence.
func (t token) plain() string {
	if t.end {
		return t.bare()
	}
	return t.typ
}

// initial is _RE_INITIAL: one letter and a stop.
func (t token) initial() bool {
	r := pytext.First(t.text)
	return t.stop && len(t.text) == len(string(r))+1 && pytext.IsWord(r) && !isDigit(r)
}

// breaksSentence is text_contains_sentbreak: a token other than the last breaks.
func breaksSentence(context string) bool {
	m := english()
	var prev *token
	for line := range strings.SplitSeq(context, "\n") {
		for w := range tokens(line) {
			t := newToken(w, m)
			if prev != nil {
				if decide(prev, &t, m); prev.end {
					return true
				}
			}
			prev = &t
		}
	}
	return false
}

// decide is _second_pass_annotation: it judges a token by the one after it.
func decide(t, next *token, m *sentences.Storage) {
	if !t.stop {
		return
	}
	typ, nextTyp := t.bare(), next.plain()
	initial := t.initial()
	upper := pytext.IsUpper(pytext.First(next.text))
	if m.Collocations.Has(typ + "," + nextTyp) {
		t.end, t.abbr = false, true
		return
	}
	if (t.abbr || t.dots) && !initial {
		if starts(next, m) == yes || (upper && m.SentStarters.Has(nextTyp)) {
			t.end = true
			return
		}
	}
	if initial || typ == numberType {
		switch s := starts(next, m); {
		case s == no, s == unknown && initial && upper && m.OrthoContext[nextTyp]&anyLower == 0:
			t.end, t.abbr = false, true
		}
	}
}

type answer int

const (
	unknown answer = iota
	yes
	no
)

// starts is _ortho_heuristic: whether a token begins a sentence, by how it was
// written elsewhere.
func starts(t *token, m *sentences.Storage) answer {
	if len(t.text) == 1 && strings.Contains(";:,.!?", t.text) {
		return no
	}
	seen := m.OrthoContext[t.plain()]
	r := pytext.First(t.text)
	if pytext.IsUpper(r) && seen&anyLower != 0 && seen&midUpper == 0 {
		return yes
	}
	if pytext.IsLower(r) && (seen&anyUpper != 0 || seen&begLower == 0) {
		return no
	}
	return unknown
}
