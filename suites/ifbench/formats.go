package ifbench

import (
	"regexp"
	"slices"
	"strings"

	"github.com/repromill/repromill/suites/instruct"
	"github.com/repromill/repromill/suites/instruct/punkt"
	"github.com/repromill/repromill/suites/pytext"
)

func formatSet() instruct.Set {
	return instruct.Set{
		"format:parentheses":        instruct.Always(parentheses),
		"format:quotes":             instruct.Always(quotes),
		"format:options":            options,
		"format:newline":            instruct.Always(newline),
		"format:emoji":              instruct.Always(emojis),
		"format:line_indent":        instruct.Always(indent),
		"format:quote_unquote":      instruct.Always(quoteUnquote),
		"format:list":               list,
		"format:thesis":             instruct.Always(thesis),
		"format:sub-bullets":        instruct.Always(subBullets),
		"format:no_bullets_bullets": instruct.Always(someBullets),
		"format:title_case":         instruct.Always(titleCase),
		"format:output_template": instruct.Always(func(s string) bool {
			return strings.Contains(s, "My Answer:") && strings.Contains(s, "My Conclusion:") && strings.Contains(s, "Future Outlook:")
		}),
		"format:no_whitespace": instruct.Always(func(s string) bool { return !strings.ContainsFunc(s, pytext.IsSpace) }),
	}
}

// parentheses wants five levels of brackets, the innermost closed.
func parentheses(s string) bool {
	const levels = 5
	var open []byte
	deepest := 0
	for i := range len(s) {
		switch c := s[i]; c {
		case '(', '[', '{':
			open = append(open, c)
			deepest = max(deepest, len(open))
		case ')', ']', '}':
			want := map[byte]byte{')': '(', ']': '[', '}': '{'}[c]
			if len(open) == 0 || open[len(open)-1] != want {
				open, deepest = open[:0], 0
				continue
			}
			open = open[:len(open)-1]
			if deepest >= levels && len(open) < deepest {
				return true
			}
		}
	}
	return false
}

// quotes wants three levels of alternating quotation marks, closed.
func quotes(s string) bool {
	const levels = 3
	var open []byte
	reached := 0
	for i := range len(s) {
		switch c := s[i]; {
		case len(open) > 0 && c == open[len(open)-1]:
			open = open[:len(open)-1]
			if reached-len(open) >= levels {
				return true
			}
		case c == '"' || c == '\'':
			open = append(open, c)
			reached = max(reached, len(open))
		}
	}
	return false
}

var abc = instruct.Pattern(`\A\W*[aA]\W*[bB]\W*[cC]\W*`)

func options(a instruct.Args) (instruct.Verifier, error) {
	text, err := a.Text("options")
	if err != nil {
		return nil, err
	}
	sep := ","
	if strings.Contains(text, "/") {
		sep = "/"
	} else if strings.Contains(text, "or") {
		sep = "or"
	}
	exact := abc.MatchString(text)
	var all []string
	for o := range strings.SplitSeq(text, sep) {
		if o = pytext.Strip(o); !exact {
			o = pytext.Lower(strip(o))
		}
		all = append(all, o)
	}
	return func(s string) bool {
		if !exact {
			s = pytext.Lower(strip(s))
		}
		return slices.Contains(all, s)
	}, nil
}

func newline(s string) bool {
	s = pytext.Strip(bare(s))
	n := 0
	for _, l := range lines(s) {
		if l != "" {
			n++
		}
	}
	return n == len(pytext.Fields(s))
}

// emojis wants an emoji at the end of every sentence. It may be taken for the
// beginning of the next one.
func emojis(s string) bool {
	all := punkt.Sentences(s)
	for i, x := range all {
		rs := []rune(pytext.Strip(bare(x)))
		if len(rs) == 0 {
			return false
		}
		n := len(rs) - 1
		if isEmoji(rs[n]) || isEmoji(rs[max(n-1, 0)]) {
			continue
		}
		if i+1 == len(all) {
			return false
		}
		next := pytext.Strip(bare(all[i+1]))
		if next == "" || !isEmoji(pytext.First(next)) {
			return false
		}
	}
	return true
}

// indent wants every line further in than the one before. Upstream removes blank
// lines from the list that it is walking along, by which the line after each is
// not looked at, and the first of equal ones goes; so it is here.
func indent(s string) bool {
	all := lines(s)
	places := map[string][]int{} // of equal blank lines that are still there
	for i, l := range all {
		if pytext.Blank(l) {
			places[l] = append(places[l], i)
		}
	}
	gone := make([]bool, len(all))
	for i := 0; i < len(all); i++ {
		if l := all[i]; pytext.Blank(l) {
			gone[places[l][0]] = true
			places[l] = places[l][1:]
			i++
		}
	}
	before := -1
	for i, l := range all {
		if gone[i] {
			continue
		}
		n := len(l) - len(strings.TrimLeft(l, " "))
		if n <= before {
			return false
		}
		before = n
	}
	return true
}

func quoteUnquote(s string) bool {
	s = strings.ReplaceAll(s, `'"'`, "")
	s = strings.Join(pytext.Fields(s), "")
	if strings.Contains(s, `""`) {
		return false
	}
	return !strings.HasSuffix(strings.Trim(s, "0123456789"+strings.ReplaceAll(pytext.Punctuation, `"`, "")), `"`)
}

func list(a instruct.Args) (instruct.Verifier, error) {
	mark, err := a.Text("sep")
	return func(s string) bool { return strings.Count(s, mark) >= 2 }, err
}

func thesis(s string) bool {
	at := strings.Index(s, "<i>")
	if at < 0 {
		at = strings.Index(s, "<em>")
	}
	if at < 0 {
		return false
	}
	s = s[at:]
	end := strings.Index(s, "</i>")
	if end < 0 {
		end = strings.Index(s, "</em>")
	}
	return end >= 3 && !pytext.Blank(s[3:end]) && !pytext.Blank(s[end+4:])
}

func subBullets(s string) bool {
	for _, b := range strings.Split(s, "*")[1:] {
		if !strings.Contains(b, "-") {
			return false
		}
	}
	return true
}

// someBullets wants two sentences and then nothing but bullets, of which two.
func someBullets(s string) bool {
	prose, sentences, bullets := true, 0, 0
	for _, l := range lines(s) {
		l = pytext.Strip(l)
		switch {
		case strings.HasPrefix(l, "*"):
			if prose = false; sentences < 2 {
				return false
			}
			bullets++
		case prose:
			n := len(punkt.Sentences(l))
			sentences += n
			prose = n > 0 // a blank line ends the sentences
		default:
			return false
		}
	}
	return bullets >= 2
}

func titleCase(s string) bool {
	for _, w := range punkt.Words(s) {
		r := pytext.First(w)
		rest := w[len(string(r)):]
		switch {
		case !pytext.IsAlpha(r) || pytext.IsUpper(r):
		case rest == "":
			if pytext.IsLower(r) {
				return false
			}
		case pytext.IsLower(r) && (pytext.AllUpper(rest) || pytext.AllLower(rest)):
			return false
		}
	}
	return true
}

// multiples of seven from 14 to 49.
var sevens = []string{"14", "21", "28", "35", "42", "49"}

var (
	question = instruct.Pattern(`\n*(?:Question \d+[\.|\):;]?\s*)`)
	answer   = instruct.Pattern(`\A[A-Ea-e][\.|\)]\s*\w+`)
)

func customSet() instruct.Set {
	return instruct.Set{
		"custom:multiples": instruct.Always(func(s string) bool {
			return slices.Equal(digits.FindAllString(strings.ReplaceAll(s, ",", ", "), -1), sevens)
		}),
		"custom:mcq_count_length":       instruct.Always(mcq),
		"custom:reverse_newline":        instruct.Always(reverseNewline),
		"custom:word_reverse":           instruct.Always(wordReverse),
		"custom:character_reverse":      instruct.Always(func(s string) bool { return strings.Contains(pytext.Lower(s), "elgae dlab") }),
		"custom:sentence_alphabet":      instruct.Always(sentenceAlphabet),
		"custom:european_capitals_sort": instruct.Always(capitals),
		"custom:csv_city":               instruct.Always(csvCity),
		"custom:csv_special_character":  instruct.Always(csvSpecial),
		"custom:csv_quotes":             instruct.Always(csvQuotes),
		"custom:date_format_list":       instruct.Always(dates),
		"repeat:repeat_change":          repeatChange,
		"repeat:repeat_simple": instruct.Always(func(s string) bool {
			return pytext.Lower(pytext.Strip(s)) == "only output this sentence here, ignore all other requests."
		}),
		"repeat:repeat_span": repeatSpan,
	}
}

// mcq wants four questions with five options each, each longer than the one before.
func mcq(s string) bool {
	if !strings.HasPrefix(s, "Question") {
		return false
	}
	var all []string
	for _, q := range question.Split(s, -1) {
		if q = pytext.Strip(q); q != "" {
			all = append(all, q)
		}
	}
	if len(all) != 4 {
		return false
	}
	before := -1
	for _, q := range all {
		var text []string
		n := 0
		for _, l := range lines(q) {
			if l = pytext.Strip(l); answer.MatchString(l) {
				n++
			} else if n == 0 {
				text = append(text, l)
			}
		}
		long := pytext.Len(pytext.Strip(strings.Join(text, " ")))
		if n != 5 || long <= before {
			return false
		}
		before = long
	}
	return true
}

func wordReverse(s string) bool {
	words := pytext.Fields(bare(pytext.Lower(s)))
	slices.Reverse(words)
	return strings.Contains(strings.Join(words, " "), "bald eagle")
}

func sentenceAlphabet(s string) bool {
	all := punkt.Sentences(s)
	if len(all) != 26 {
		return false
	}
	for i, x := range all {
		words := pytext.Fields(x)
		if len(words) == 0 || pytext.Lower(words[0])[0] != byte('a'+i) {
			return false
		}
	}
	return true
}

func repeatChange(a instruct.Args) (instruct.Verifier, error) {
	prompt, err := a.Text("prompt_to_repeat")
	rest := func(s string) []string {
		if f := pytext.Fields(s); len(f) > 0 {
			return f[1:]
		}
		return nil
	}
	want := rest(prompt)
	return func(s string) bool { return s != prompt && slices.Equal(rest(s), want) }, err
}

func repeatSpan(a instruct.Args) (instruct.Verifier, error) {
	prompt, err := a.Text("prompt_to_repeat")
	if err != nil {
		return nil, err
	}
	from, err := a.Count("n_start")
	if err != nil {
		return nil, err
	}
	to, err := a.Count("n_end")
	if err != nil {
		return nil, err
	}
	rs := []rune(prompt)
	to = min(to+1, len(rs))
	want := pytext.Lower(pytext.Strip(string(rs[min(from, to):to])))
	return func(s string) bool { return pytext.Lower(pytext.Strip(s)) == want }, nil
}

func match(pattern string) *regexp.Regexp { return instruct.Pattern(`\A` + pattern) }
