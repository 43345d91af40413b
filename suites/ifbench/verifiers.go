package ifbench

import (
	"fmt"
	"strings"

	"github.com/repromill/repromill/suites/instruct"
	"github.com/repromill/repromill/suites/instruct/punkt"
	"github.com/repromill/repromill/suites/pytext"
)

// unsupported are the two kinds of instructions that cannot be reproduced, with
// the reason.
var unsupported = map[string]string{
	"words:start_verb":         "it rests on the weights of NLTK's part-of-speech tagger",
	"words:odd_even_syllables": "it rests on the dictionary of the package syllapy",
}

// verifiers are the other 56, by what they look at; those two say why they cannot
// be made.
func verifiers() instruct.Set {
	all := instruct.Set{}
	for _, part := range []instruct.Set{countSet(), wordSet(), sentenceSet(), formatSet(), customSet()} {
		for id, mk := range part {
			all[id] = mk
		}
	}
	for id, why := range unsupported {
		all[id] = func(instruct.Args) (instruct.Verifier, error) {
			return nil, fmt.Errorf("it cannot be verified: %s", why)
		}
	}
	return all
}

// strip takes ASCII punctuation and spaces off both ends, as most verifiers do.
func strip(s string) string { return strings.Trim(s, pytext.Punctuation+" ") }

func stripLeft(s string) string { return strings.TrimLeft(s, pytext.Punctuation+" ") }

func stripRight(s string) string { return strings.TrimRight(s, pytext.Punctuation+" ") }

// bare drops all ASCII punctuation.
func bare(s string) string { return pytext.Drop(s, pytext.Punctuation) }

// number makes a verifier of an argument that is a count.
func number(name string, f func(s string, n int) bool) instruct.Maker {
	return func(a instruct.Args) (instruct.Verifier, error) {
		n, err := a.Count(name)
		return func(s string) bool { return f(s, n) }, err
	}
}

// ordinal is number for an argument that counts from 1.
func ordinal(name string, f func(s string, n int) bool) instruct.Maker {
	return func(a instruct.Args) (instruct.Verifier, error) {
		n, err := a.Count(name)
		if err == nil && n == 0 {
			err = fmt.Errorf("argument %s is 0", name)
		}
		return func(s string) bool { return f(s, n) }, err
	}
}

func countSet() instruct.Set {
	return instruct.Set{
		"count:word_count_range":  wordRange,
		"count:unique_word_count": number("N", func(s string, n int) bool { return uniqueWords(s) >= n }),
		"count:conjunctions":      number("small_n", func(s string, n int) bool { return conjunctions(s) >= n }),
		"count:person_names":      number("N", func(s string, n int) bool { return names(s) >= n }),
		"count:numbers":           number("N", func(s string, n int) bool { return len(digits.FindAllStringIndex(bare(s), -1)) == n }),
		"count:punctuation":       instruct.Always(everyMark),
		"count:words_japanese":    ordinal("N", japanese),
		"count:pronouns":          number("N", func(s string, n int) bool { return pronouns(s) >= n }),
		"count:keywords_multiple": keywordsMultiple,
		"ratio:stop_words":        number("percentage", stopWords),
		"ratio:overlap":           overlap,
	}
}

var digits = instruct.Pattern(`\d+`)

func wordRange(a instruct.Args) (instruct.Verifier, error) {
	lo, err := a.Count("min_words")
	if err != nil {
		return nil, err
	}
	hi, err := a.Count("max_words")
	return func(s string) bool { n := instruct.Words(s); return lo <= n && n <= hi }, err
}

func uniqueWords(s string) int {
	seen := map[string]bool{}
	for _, w := range pytext.Fields(pytext.Lower(s)) {
		seen[strip(w)] = true
	}
	return len(seen)
}

var isConjunction = set("and but for nor or so yet")

func set(words string) map[string]bool {
	out := map[string]bool{}
	for _, w := range strings.Fields(words) {
		out[w] = true
	}
	return out
}

// conjunctions counts different ones. "And" and "and," are two of them: upstream
// compares the words as they were written.
func conjunctions(s string) int {
	seen := map[string]bool{}
	for _, w := range pytext.Fields(s) {
		if isConjunction[pytext.Lower(strip(w))] {
			seen[w] = true
		}
	}
	return len(seen)
}

var people = strings.Fields("Emma Liam Sophia Jackson Olivia Noah Ava Lucas Isabella Mason Mia Ethan Charlotte Alexander Amelia Benjamin Harper Leo Zoe Daniel Chloe Samuel Lily " +
	"Matthew Grace Owen Abigail Gabriel Ella Jacob Scarlett Nathan Victoria Elijah Layla Nicholas Audrey David Hannah Christopher Penelope Thomas Nora Andrew Aria Joseph Claire Ryan Stella Jonathan")

func names(s string) int {
	n := 0
	for _, name := range people {
		if wholeWord(s, name) {
			n++
		}
	}
	return n
}

// wholeWord reports whether an ASCII word stands in s between two \b.
func wholeWord(s, word string) bool {
	for at := 0; ; {
		k := strings.Index(s[at:], word)
		if k < 0 {
			return false
		}
		if at += k; instruct.Boundary(s, at) && instruct.Boundary(s, at+len(word)) {
			return true
		}
		at++
	}
}

var isPronoun = set(`i me we us you he him she her it they them my mine our ours your yours his hers its their theirs myself ourselves yourself yourselves himself herself itself
	themselves this that these those who whom whose which what whoever whomever whatever whichever anybody anyone anything everybody everyone everything nobody nothing somebody someone
	something each either neither both all some any none`)

func pronouns(s string) int {
	n := 0
	for _, w := range punkt.Words(pytext.Lower(strings.ReplaceAll(s, "/", " "))) {
		if isPronoun[w] {
			n++
		}
	}
	return n
}

func everyMark(s string) bool {
	if !strings.Contains(s, "!?") && !strings.Contains(s, "?!") && !strings.Contains(s, "‽") {
		return false
	}
	rest := strings.Replace(s, "?!", "", 1)
	if rest == s {
		rest = strings.Replace(s, "!?", "", 1)
	}
	for _, m := range ".,!?;:" {
		if !strings.ContainsRune(rest, m) {
			return false
		}
	}
	return true
}

func japanese(s string, n int) bool {
	for i, w := range pytext.Fields(s) {
		if w = strip(w); (i+1)%n != 0 || w == "" || pytext.AllDigits(w) {
			continue
		}
		if !strings.ContainsFunc(w, func(r rune) bool { return r >= 0x3040 && r <= 0x30ff || r >= 0x4e00 && r <= 0x9fff }) {
			return false
		}
	}
	return true
}

func keywordsMultiple(a instruct.Args) (instruct.Verifier, error) {
	var words []string
	for i := range 5 {
		w, err := a.Text(fmt.Sprintf("keyword%d", i+1))
		if err != nil {
			return nil, err
		}
		words = append(words, pytext.Lower(pytext.Strip(w)))
	}
	return func(s string) bool {
		s = pytext.Lower(s)
		for i, n := range []int{1, 2, 3, 5, 7} {
			if strings.Count(s, words[i]) != n {
				return false
			}
		}
		return true
	}, nil
}

// isStop is NLTK's list of English stop words, without those that have an
// apostrophe, which no token of \w+ has.
var isStop = set(`a about above after again against ain all am an and any are aren as at be because been before being below between both but by can couldn d did didn do does doesn
	doing don down during each few for from further had hadn has hasn have haven having he her here hers herself him himself his how i if in into is isn it its itself just ll m ma me
	mightn more most mustn my myself needn no nor not now o of off on once only or other our ours ourselves out over own re s same shan she should shouldn so some such t than that the
	their theirs them themselves then there these they this those through to too under until up ve very was wasn we were weren what when where which while who whom why will with won
	wouldn y you your yours yourself yourselves`)

func stopWords(s string, percent int) bool {
	words, stops := 0, 0
	for w := range strings.FieldsFuncSeq(s, func(r rune) bool { return !pytext.IsWord(r) }) {
		words++
		if isStop[pytext.Lower(w)] {
			stops++
		}
	}
	return words > 0 && float64(stops)/float64(words)*100 <= float64(percent)
}

type trigram [3]rune

func trigrams(s string) map[trigram]bool {
	out := map[trigram]bool{}
	var g trigram
	n := 0
	for _, r := range s {
		g = trigram{g[1], g[2], r}
		if n++; n >= 3 {
			out[g] = true
		}
	}
	return out
}

// overlap compares the trigrams of characters with those of a reference, within
// two points.
func overlap(a instruct.Args) (instruct.Verifier, error) {
	ref, err := a.Text("reference_text")
	if err != nil {
		return nil, err
	}
	percent, err := a.Count("percentage")
	want := trigrams(ref)
	return func(s string) bool {
		have := trigrams(s)
		if len(have) == 0 {
			return false
		}
		both := 0
		for g := range have {
			if want[g] {
				both++
			}
		}
		share := float64(both) / float64(len(have)) * 100
		return float64(percent-2) <= share && share <= float64(percent+2)
	}, err
}
