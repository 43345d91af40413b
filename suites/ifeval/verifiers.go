package ifeval

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/repromill/repromill/suites/instruct"
	"github.com/repromill/repromill/suites/instruct/punkt"
	"github.com/repromill/repromill/suites/pytext"
)

// verifiers are the 25 kinds of instructions.
func verifiers() instruct.Set {
	return instruct.Set{
		"keywords:existence":                            existence,
		"keywords:frequency":                            frequency,
		"keywords:forbidden_words":                      forbidden,
		"keywords:letter_frequency":                     letters,
		"language:response_language":                    responseLanguage,
		"length_constraints:number_sentences":           counted("relation", "num_sentences", func(s string) int { return len(punkt.Sentences(s)) }),
		"length_constraints:number_paragraphs":          paragraphs,
		"length_constraints:number_words":               counted("relation", "num_words", instruct.Words),
		"length_constraints:nth_paragraph_first_word":   firstWord,
		"detectable_content:number_placeholders":        atLeast("num_placeholders", matches(`\[.*?\]`)),
		"detectable_content:postscript":                 postscript,
		"detectable_format:number_bullet_lists":         bullets,
		"detectable_format:constrained_response":        instruct.Always(constrained),
		"detectable_format:number_highlighted_sections": atLeast("num_highlights", highlights),
		"detectable_format:multiple_sections":           sections,
		"detectable_format:json_format":                 instruct.Always(isJSON),
		"detectable_format:title":                       instruct.Always(title),
		"combination:two_responses":                     instruct.Always(twoResponses),
		"combination:repeat_prompt":                     repeatPrompt,
		"startend:end_checker":                          ending,
		"startend:quotation":                            instruct.Always(quoted),
		"change_case:capital_word_frequency":            counted("capital_relation", "capital_frequency", capitals),
		"change_case:english_capital":                   instruct.Always(func(s string) bool { return pytext.AllUpper(s) && speaks(s, "en") }),
		"change_case:english_lowercase":                 instruct.Always(func(s string) bool { return pytext.AllLower(s) && speaks(s, "en") }),
		"punctuation:no_comma":                          instruct.Always(func(s string) bool { return !strings.Contains(s, ",") }),
	}
}

func counted(relation, threshold string, count func(string) int) instruct.Maker {
	return func(a instruct.Args) (instruct.Verifier, error) {
		enough, err := a.Enough(relation, threshold)
		if err != nil {
			return nil, err
		}
		return func(s string) bool { return enough(count(s)) }, nil
	}
}

func atLeast(threshold string, count func(string) int) instruct.Maker {
	return func(a instruct.Args) (instruct.Verifier, error) {
		want, err := a.Count(threshold)
		return func(s string) bool { return count(s) >= want }, err
	}
}

func matches(pattern string) func(string) int {
	re := instruct.Pattern(pattern)
	return func(s string) int { return len(re.FindAllStringIndex(s, -1)) }
}

func existence(a instruct.Args) (instruct.Verifier, error) {
	words, err := a.Texts("keywords")
	if err != nil {
		return nil, err
	}
	var all []*regexp.Regexp
	for _, w := range words {
		all = append(all, instruct.Folded(w))
	}
	return func(s string) bool {
		return !slices.ContainsFunc(all, func(re *regexp.Regexp) bool { return !re.MatchString(s) })
	}, nil
}

func frequency(a instruct.Args) (instruct.Verifier, error) {
	word, err := a.Text("keyword")
	if err != nil {
		return nil, err
	}
	enough, err := a.Enough("relation", "frequency")
	if err != nil {
		return nil, err
	}
	re := instruct.Folded(pytext.Strip(word))
	return func(s string) bool { return enough(len(re.FindAllStringIndex(s, -1))) }, nil
}

func forbidden(a instruct.Args) (instruct.Verifier, error) {
	words, err := a.Texts("forbidden_words")
	if err != nil {
		return nil, err
	}
	var all []*regexp.Regexp
	for _, w := range words {
		all = append(all, instruct.Folded(w))
	}
	return func(s string) bool {
		return !slices.ContainsFunc(all, func(re *regexp.Regexp) bool { return instruct.WholeWord(re, s) })
	}, nil
}

// letters counts a character whatever its case. Of what is no letter from a to z
// upstream counts a random letter instead: two prompts of the data set ask for #
// and !, which are counted here.
func letters(a instruct.Args) (instruct.Verifier, error) {
	letter, err := a.Text("letter")
	if err != nil {
		return nil, err
	}
	enough, err := a.Enough("let_relation", "let_frequency")
	if err != nil {
		return nil, err
	}
	letter = pytext.Lower(letter)
	if pytext.Len(letter) != 1 {
		return nil, fmt.Errorf("argument letter is %q, want one character", letter)
	}
	return func(s string) bool { return enough(strings.Count(pytext.Lower(s), letter)) }, nil
}

func responseLanguage(a instruct.Args) (instruct.Verifier, error) {
	code, err := a.Text("language")
	if err != nil {
		return nil, err
	}
	if !known(code) {
		return nil, fmt.Errorf("language %q cannot be told from others", code)
	}
	return func(s string) bool { return speaks(s, code) }, nil
}

var divider = instruct.Pattern(`\s?\*\*\*\s?`)

func paragraphs(a instruct.Args) (instruct.Verifier, error) {
	want, err := a.Count("num_paragraphs")
	return func(s string) bool {
		parts := divider.Split(s, -1)
		n := len(parts)
		for i, p := range parts {
			if !pytext.Blank(p) {
				continue
			}
			if i != 0 && i != len(parts)-1 {
				return false
			}
			n--
		}
		return n == want
	}, err
}

func firstWord(a instruct.Args) (instruct.Verifier, error) {
	n, err := a.Count("num_paragraphs")
	if err != nil {
		return nil, err
	}
	nth, err := a.Count("nth_paragraph")
	if err != nil {
		return nil, err
	}
	word, err := a.Text("first_word")
	if err != nil {
		return nil, err
	}
	if nth < 1 || nth > n {
		return nil, fmt.Errorf("argument nth_paragraph is %d of %d", nth, n)
	}
	word = pytext.Lower(word)
	return func(s string) bool {
		parts := strings.Split(s, "\n\n")
		have := 0
		for _, p := range parts {
			if !pytext.Blank(p) {
				have++
			}
		}
		if nth > have || pytext.Blank(parts[nth-1]) {
			return false
		}
		first := strings.TrimLeft(strings.TrimLeft(pytext.Fields(parts[nth-1])[0], "'"), `"`)
		if i := strings.IndexAny(first, `.,?!'"`); i >= 0 {
			first = first[:i]
		}
		lower := ""
		for _, r := range first { // letter by letter, as upstream: no final sigma
			lower += pytext.Lower(string(r))
		}
		return have == n && lower == word
	}, nil
}

func postscript(a instruct.Args) (instruct.Verifier, error) {
	marker, err := a.Text("postscript_marker")
	if err != nil {
		return nil, err
	}
	var re *regexp.Regexp
	switch marker = pytext.Strip(marker); marker {
	case "P.P.S":
		re = instruct.Pattern(`p\.\s?p\.\s?s`)
	case "P.S.":
		re = instruct.Pattern(`p\.\s?s\.`)
	default:
		if re, err = regexp.Compile(pytext.Lower(marker)); err != nil {
			return nil, fmt.Errorf("argument postscript_marker: %w", err)
		}
	}
	return func(s string) bool { return re.MatchString(pytext.Lower(s)) }, nil
}

var (
	starred = matches(`(?m)^\s*\*[^\*].*$`)
	dashed  = matches(`(?m)^\s*-.*$`)
)

func bullets(a instruct.Args) (instruct.Verifier, error) {
	want, err := a.Count("num_bullets")
	return func(s string) bool { return starred(s)+dashed(s) == want }, err
}

func constrained(s string) bool {
	return strings.Contains(s, "My answer is yes.") || strings.Contains(s, "My answer is no.") || strings.Contains(s, "My answer is maybe.")
}

var (
	single = instruct.Pattern(`\*[^\n\*]*\*`)
	double = instruct.Pattern(`\*\*[^\n\*]*\*\*`)
)

func highlights(s string) int {
	n := 0
	for _, h := range single.FindAllString(s, -1) {
		if !pytext.Blank(strings.Trim(h, "*")) {
			n++
		}
	}
	for _, h := range double.FindAllString(s, -1) {
		if !pytext.Blank(strings.TrimSuffix(strings.TrimPrefix(h, "**"), "**")) {
			n++
		}
	}
	return n
}

func sections(a instruct.Args) (instruct.Verifier, error) {
	mark, err := a.Text("section_spliter")
	if err != nil {
		return nil, err
	}
	want, err := a.Count("num_sections")
	if err != nil {
		return nil, err
	}
	mark = pytext.Strip(mark)
	if _, err := regexp.Compile(mark); err != nil {
		return nil, fmt.Errorf("argument section_spliter: %w", err)
	}
	count := matches(`\s?` + mark + `\s?\d+\s?`)
	return func(s string) bool { return count(s) >= want }, nil
}

var titles = instruct.Pattern(`<<[^\n]+>>`)

func title(s string) bool {
	return slices.ContainsFunc(titles.FindAllString(s, -1), func(t string) bool {
		return !pytext.Blank(strings.TrimRight(strings.TrimLeft(t, "<"), ">"))
	})
}

func twoResponses(s string) bool {
	parts := strings.Split(s, "******")
	var valid []string
	for i, p := range parts {
		switch {
		case !pytext.Blank(p):
			valid = append(valid, pytext.Strip(p))
		case i != 0 && i != len(parts)-1:
			return false
		}
	}
	return len(valid) == 2 && valid[0] != valid[1]
}

func repeatPrompt(a instruct.Args) (instruct.Verifier, error) {
	prompt, err := a.Text("prompt_to_repeat")
	want := pytext.Lower(pytext.Strip(prompt))
	return func(s string) bool { return strings.HasPrefix(pytext.Lower(pytext.Strip(s)), want) }, err
}

func ending(a instruct.Args) (instruct.Verifier, error) {
	phrase, err := a.Text("end_phrase")
	want := pytext.Lower(pytext.Strip(phrase))
	return func(s string) bool {
		return strings.HasSuffix(pytext.Lower(strings.Trim(pytext.Strip(s), `"`)), want)
	}, err
}

func quoted(s string) bool {
	s = pytext.Strip(s)
	return pytext.Len(s) > 1 && s[0] == '"' && s[len(s)-1] == '"'
}

func capitals(s string) int {
	n := 0
	for _, w := range punkt.Words(s) {
		if pytext.AllUpper(w) {
			n++
		}
	}
	return n
}
