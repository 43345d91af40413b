package ifbench

import (
	"strings"

	"github.com/repromill/repromill/suites/instruct"
	"github.com/repromill/repromill/suites/instruct/punkt"
	"github.com/repromill/repromill/suites/pytext"
)

func wordSet() instruct.Set {
	return instruct.Set{
		"words:alphabet":                   instruct.Always(alphabet),
		"words:vowel":                      instruct.Always(vowels),
		"words:consonants":                 instruct.Always(consonants),
		"words:palindrome":                 instruct.Always(palindromes),
		"words:prime_lengths":              instruct.Always(primes),
		"words:repeats":                    number("small_n", repeats),
		"words:last_first":                 instruct.Always(lastFirst),
		"words:paragraph_last_first":       instruct.Always(paragraphLastFirst),
		"words:no_consecutive":             instruct.Always(noConsecutive),
		"words:keywords_specific_position": keywordAt,
		"words:words_position":             keywordAtEnds,
	}
}

func alphabet(s string) bool {
	words := pytext.Fields(strip(bare(s)))
	if len(words) == 0 {
		return false
	}
	first := pytext.Lower(string(pytext.First(words[0])))
	if len(first) != 1 || first[0] < 'a' || first[0] > 'z' {
		return false
	}
	want := first[0]
	for _, w := range words[1:] {
		if w = pytext.Lower(strip(w)); w == "" {
			continue
		}
		if want++; want > 'z' {
			want = 'a'
		}
		if w[0] != want {
			return false
		}
	}
	return true
}

func vowels(s string) bool {
	s = pytext.Strip(s)
	if strings.Contains(s, "\n") {
		return false
	}
	s = pytext.Lower(s)
	n := 0
	for _, v := range "aeiou" {
		if strings.ContainsRune(s, v) {
			n++
		}
	}
	return n <= 3
}

func consonants(s string) bool {
	for _, w := range pytext.Fields(pytext.Lower(s)) {
		cluster, before := false, false
		for _, r := range w {
			c := r >= 'b' && r <= 'z' && !strings.ContainsRune("eiou", r)
			cluster = cluster || c && before
			before = c
		}
		if !cluster {
			return false
		}
	}
	return true
}

func palindromes(s string) bool {
	n := 0
	for _, w := range pytext.Fields(pytext.Lower(bare(s))) {
		rs := []rune(w)
		if len(rs) < 5 {
			continue
		}
		same := true
		for i, j := 0, len(rs)-1; i < j; i, j = i+1, j-1 {
			same = same && rs[i] == rs[j]
		}
		if same {
			n++
		}
	}
	return n >= 10
}

var isPrime = map[int]bool{2: true, 3: true, 5: true, 7: true, 11: true, 13: true, 17: true, 19: true, 23: true, 29: true, 31: true, 37: true, 41: true, 43: true,
	47: true, 53: true, 59: true, 61: true, 67: true, 71: true, 73: true, 79: true, 83: true, 89: true, 97: true}

func primes(s string) bool {
	for _, w := range pytext.Fields(bare(s)) {
		if !isPrime[pytext.Len(w)] {
			return false
		}
	}
	return true
}

func repeats(s string, most int) bool {
	count := map[string]int{}
	for _, w := range pytext.Fields(bare(pytext.Lower(s))) {
		if count[w]++; count[w] > most {
			return false
		}
	}
	return true
}

func lastFirst(s string) bool {
	sentences := punkt.Sentences(s)
	for i := 1; i < len(sentences); i++ {
		last, first := pytext.Fields(stripRight(sentences[i-1])), pytext.Fields(stripLeft(sentences[i]))
		if len(last) == 0 || len(first) == 0 || pytext.Lower(last[len(last)-1]) != pytext.Lower(first[0]) {
			return false
		}
	}
	return true
}

func paragraphLastFirst(s string) bool {
	for p := range strings.SplitSeq(s, "\n") {
		words := pytext.Fields(strip(pytext.Lower(pytext.Strip(p))))
		if len(words) > 0 && words[0] != words[len(words)-1] {
			return false
		}
	}
	return true
}

func noConsecutive(s string) bool {
	before := rune(-1)
	for _, w := range pytext.Fields(bare(pytext.Lower(s))) {
		r := pytext.First(w)
		if r == before {
			return false
		}
		before = r
	}
	return true
}

func keywordAt(a instruct.Args) (instruct.Verifier, error) {
	word, err := a.Text("keyword")
	if err != nil {
		return nil, err
	}
	want := pytext.Lower(pytext.Strip(word))
	var m int
	sentence := ordinal("n", func(s string, n int) bool {
		sentences := punkt.Sentences(s)
		if len(sentences) < n {
			return false
		}
		at := 0
		for _, w := range punkt.Words(sentences[n-1]) {
			if !strings.ContainsFunc(w, pytext.IsAlnum) {
				continue
			}
			if at++; at == m {
				return pytext.Lower(w) == want
			}
		}
		return false
	})
	if _, err := ordinal("m", func(string, int) bool { return true })(a); err != nil {
		return nil, err
	}
	if m, err = a.Count("m"); err != nil {
		return nil, err
	}
	return sentence(a)
}

// keywordAtEnds wants a word second and second to last, a final mark not counted.
func keywordAtEnds(a instruct.Args) (instruct.Verifier, error) {
	word, err := a.Text("keyword")
	want := pytext.Lower(pytext.Strip(word))
	return func(s string) bool {
		words := punkt.Words(s)
		n := len(words)
		if n < 2 {
			return false
		}
		back := n - 2
		if strings.Contains(pytext.Punctuation, words[n-1]) {
			back--
		}
		return back >= 0 && pytext.Lower(words[1]) == want && pytext.Lower(words[back]) == want
	}, err
}
