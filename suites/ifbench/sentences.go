package ifbench

import (
	"strings"

	"github.com/repromill/repromill/suites/instruct"
	"github.com/repromill/repromill/suites/instruct/punkt"
	"github.com/repromill/repromill/suites/pytext"
)

func sentenceSet() instruct.Set {
	return instruct.Set{
		"ratio:sentence_type":             instruct.Always(func(s string) bool { dot, ask, _ := ends(s); return dot == 2*ask }),
		"ratio:sentence_balance":          instruct.Always(func(s string) bool { dot, ask, cry := ends(s); return dot == ask && ask == cry }),
		"ratio:sentence_words":            instruct.Always(sameLength),
		"sentence:alliteration_increment": instruct.Always(alliteration),
		"sentence:keyword":                keywordInSentence,
		"sentence:increment":              number("small_n", increment),
	}
}

// ends counts sentences by their final mark.
func ends(s string) (dot, ask, cry int) {
	for _, x := range punkt.Sentences(s) {
		switch x[len(x)-1] {
		case '.':
			dot++
		case '?':
			ask++
		case '!':
			cry++
		}
	}
	return dot, ask, cry
}

func sameLength(s string) bool {
	all := punkt.Sentences(s)
	if len(all) != 3 {
		return false
	}
	n := pytext.Len(pytext.Strip(all[0]))
	return n == pytext.Len(pytext.Strip(all[1])) && n == pytext.Len(pytext.Strip(all[2]))
}

func alliteration(s string) bool {
	before := -1
	for _, x := range punkt.Sentences(s) {
		n, inside := 0, false
		last := rune(-1)
		for _, w := range pytext.Fields(pytext.Lower(x)) {
			if w = stripLeft(w); w == "" {
				continue
			}
			r := pytext.First(w)
			switch {
			case r != last:
				inside = false
			case inside:
				n++
			default:
				n, inside = n+2, true
			}
			last = r
		}
		if n <= before {
			return false
		}
		before = n
	}
	return true
}

func keywordInSentence(a instruct.Args) (instruct.Verifier, error) {
	word, err := a.Text("word")
	if err != nil {
		return nil, err
	}
	re := instruct.FoldedText(word)
	return ordinal("N", func(s string, n int) bool {
		all := punkt.Sentences(s)
		return len(all) >= n && instruct.WholeWord(re, all[n-1])
	})(a)
}

func increment(s string, by int) bool {
	before := -1
	for _, x := range punkt.Sentences(s) {
		n := len(pytext.Fields(bare(x)))
		if before >= 0 && n != before+by {
			return false
		}
		before = n
	}
	return true
}

// lines of an answer.
func lines(s string) []string { return strings.Split(s, "\n") }
