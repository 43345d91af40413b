package claim

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner/inspect/markdown"
)

// Claim is one numeric statement with its place.
type Claim struct {
	Key       Key
	Text      string // the sentence, row or line
	Around    string // the paragraph that it stands in, for prose
	Value     *float64
	Lo, Hi    *float64 // a range, or one bound
	PlusMinus *float64 // stated uncertainty
	Unit      string   // "%", "x", "s", … as stated
	Relation  string   // absolute|ratio|difference
	Baseline  string
	Dataset   string
	Items     int  // test items, where the sentence states them
	Best      bool // the best of a series, not its last
	Decimals  int  // digits after the point as stated
	Line      int
	Source    Source
	Links     []string // addresses that its row links to
	// Settings are the options that the columns of its row name, with values.
	Settings []Setting
	Names    []string // what else its row says: the model, the data set, the setting
	// Group tells claims of one table or block from others; 0 in prose.
	Group int
}

// Setting is an option with its value.
type Setting struct{ Name, Value string }

// Source says what kind of text a claim stands in.
type Source string

// The kinds of text.
const (
	Prose  Source = "prose"
	Table  Source = "table"
	Output Source = "output"
)

var (
	sentenceRE = regexp.MustCompile(`[.!?](?:\s+|$)|;\s+|\n`)
	num        = `[-+−]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.\d+|\.\d+|\d+)(?:[eE][-+]?\d+)?`
	unitRE     = `\s*(?:\\?%|percentage points?\b|percent\b|points?\b|pp\b|[×x](?:[^A-Za-z0-9]|$)|\\times\b|[- ]?fold\b|times\b|ms\b|µs\b|seconds?\b|s\b|minutes?\b|hours?\b|GB\b|GiB\b|MB\b|tokens/s\b|tok/s\b|req/s\b)`
	numberRE   = regexp.MustCompile(`(` + num + `)(` + unitRE + `)?(?:\s*(?:–|—|--|-|to|~|and)\s*(` + num + `)(` + unitRE + `)?)?(?:\s*(?:±|\+/-|\\pm)\s*(` + num + `))?(` + unitRE + `)?`)
	abbrevRE   = regexp.MustCompile(`(?i)\b(e\.g|i\.e|vs|al|fig|sec|eq|approx|resp|cf|no|avg)\.$`)
	latexRE    = regexp.MustCompile(`\$|\\(?:mathbf|textbf|text|mathrm|bf)\b|[{}]`)
)

// number is one quantity in a sentence.
type number struct {
	start, end int
	lo, hi     float64
	ranged     bool
	pm         *float64
	unit       string
	decimals   int
}

// FromText finds the claims of a paragraph; line gives the line of an offset.
func FromText(text string, line func(offset int) int) []Claim {
	var out []Claim
	for _, s := range sentences(text) {
		raw := text[s[0]:s[1]]
		if len(raw) > 1500 || !strings.ContainsAny(raw, "0123456789") {
			continue
		}
		clean := cleanSentence(raw)
		for _, c := range fromSentence(clean) {
			c.Text = strings.TrimSpace(clean)
			c.Line = line(s[0] + locate(raw, c))
			c.Source = Prose
			out = append(out, c)
		}
	}
	return out
}

// locate is the offset in the raw sentence of the claim's first number.
func locate(raw string, c Claim) int {
	for _, v := range []*float64{c.Value, c.Lo, c.Hi} {
		if v == nil {
			continue
		}
		if i := strings.Index(raw, strconv.FormatFloat(*v, 'f', c.Decimals, 64)); i >= 0 {
			return i
		}
	}
	return 0
}

// cleanSentence strips markup that stands between words and numbers.
func cleanSentence(s string) string {
	s = latexRE.ReplaceAllString(s, "")
	s = strings.NewReplacer(`\%`, "%", `\times`, "×", `\sim`, "~", "\u00a0", " ", "\u202f", " ", "\u2009", " ", `\,`, "").Replace(s)
	return markdown.Plain(s)
}

func sentences(text string) [][2]int {
	var out [][2]int
	start := 0
	for _, m := range sentenceRE.FindAllStringIndex(text, -1) {
		if text[m[0]] == '.' && (abbrevRE.MatchString(text[max(start, m[0]-8):m[0]+1]) || m[1] < len(text) && text[m[1]] >= 'a' && text[m[1]] <= 'z') {
			continue
		}
		out = append(out, [2]int{start, m[0]})
		start = m[1]
	}
	return append(out, [2]int{start, len(text)})
}

func parseNumber(s string) (float64, bool) {
	s = strings.NewReplacer(",", "", "−", "-", "+", "").Replace(s)
	v, err := strconv.ParseFloat(s, 64)
	return v, err == nil
}

func unitOf(u string) string {
	switch u = strings.ToLower(strings.Trim(u, " -\\,.;)")); {
	case u == "":
		return ""
	case u == "%" || u == "percent":
		return "%"
	case u == "×" || u == "x" || u == "times" || u == "fold":
		return "x"
	case strings.HasPrefix(u, "percentage point") || u == "pp" || u == "point" || u == "points":
		return "points"
	case strings.HasPrefix(u, "second"):
		return "s"
	case strings.HasPrefix(u, "×") || strings.HasPrefix(u, "x"):
		return "x"
	}
	return u
}

// numbers lists the quantities of a sentence. Digits that belong to a name
// (P99, CIFAR-10, Llama-3, v2, Table 4, 2024) are no quantities.
func numbers(s string) []number {
	var out []number
	for _, m := range numberRE.FindAllStringSubmatchIndex(s, -1) {
		if !free(s, m[2]) {
			continue
		}
		group := func(i int) string {
			if m[2*i] < 0 {
				return ""
			}
			return s[m[2*i]:m[2*i+1]]
		}
		n := number{start: m[2], end: m[1]}
		var ok bool
		if n.lo, ok = parseNumber(group(1)); !ok {
			continue
		}
		n.unit = unitOf(group(2) + group(6))
		if group(2) != "" {
			n.unit = unitOf(group(2))
		}
		n.decimals = decimals(group(1))
		n.hi = n.lo
		if hi, ok := parseNumber(group(3)); ok && group(3) != "" {
			switch u := unitOf(group(4) + group(6)); {
			case hi > n.lo && !strings.Contains(s[m[2]:m[1]], " and ") && (n.unit == "" || u == n.unit || u == ""):
				n.hi, n.ranged = hi, true
				if n.unit == "" {
					n.unit = u
				}
			default:
				n.end = m[2*1+1]
				if m[4] >= 0 {
					n.end = m[5]
				}
			}
		}
		if pm, ok := parseNumber(group(5)); ok && group(5) != "" {
			n.pm = &pm
		}
		if n.end < len(s) && (letter(s[n.end]) && n.unit == "" || s[n.end] == '/' && n.unit == "") {
			continue
		}
		out = append(out, n)
	}
	return out
}

var nameBeforeRE = regexp.MustCompile(`(?i)(?:table|figure|fig\.?|section|sec\.?|eq\.?|equation|appendix|chapter|step|version|python|pytorch|torch|cuda|tensorflow|jax|arxiv:?|seed|page|no\.?|top|line|node|gpus?:)\s*[-=]?\s*$`)

func free(s string, i int) bool {
	if i == 0 {
		return true
	}
	if c := s[i-1]; letter(c) && !strings.HasSuffix(s[:i], "≈") && !strings.HasSuffix(s[:i], "≥") && !strings.HasSuffix(s[:i], "→") || c == '_' || c == '@' || c == '/' || c == '.' || c >= '0' && c <= '9' {
		return false
	}
	if s[i-1] == '-' && i > 1 && (letter(s[i-2]) || s[i-2] >= '0' && s[i-2] <= '9') {
		return false
	}
	if (s[i] == '-' || s[i] == '+') && i > 0 && (letter(s[i-1]) || s[i-1] >= '0' && s[i-1] <= '9') {
		return false
	}
	return !nameBeforeRE.MatchString(s[max(0, i-14):i])
}

func decimals(s string) int {
	if i := strings.IndexByte(s, '.'); i >= 0 {
		return len(strings.SplitN(s[i+1:], "e", 2)[0])
	}
	return 0
}

var (
	byRE         = regexp.MustCompile(`(?i)\bby\s+(?:about|around|approximately|roughly|nearly|over|up to|as much as|an average of|at least|more than|[~≈])?\s*$`)
	upToRE       = regexp.MustCompile(`(?i)(?:up to|as much as|at most)\s*$`)
	atLeastRE    = regexp.MustCompile(`(?i)(?:at least|more than|over|above|exceeding|[>≥])\s*$`)
	comparedRE   = regexp.MustCompile(`(?i)^[\s-]*(fewer|less|lower|smaller|cheaper|shorter|reduction|decrease|savings?|drop|higher|more|greater|larger|increase|better|improvement|gain|boost|faster|speed-?up|slower|worse)\b`)
	verbRE       = regexp.MustCompile(`(?i)\b(reduc\w*|lower\w*|cut\w*|decreas\w*|sav(?:es?|ed|ing)|shrink\w*|diminish\w*|improv\w*|increas\w*|boost\w*|rais\w*|enhanc\w*|outperform\w*)\b`)
	baselineRE   = regexp.MustCompile(`(?i)\b(?:compared (?:to|with)|relative to|versus|vs\.?|than|over)\s+((?:the |a |an )?[A-Za-z][\w\-]*(?:\s+[\w\-]+){0,5})`)
	connectRE    = regexp.MustCompile(`(?i)^\s*(?:of|is|was|are|were|=|:|→|->|reach\w*|achiev\w*|to|at|equals?|score[sd]?|around|about|approximately|only|roughly|up|[~≈>≥<≤(\s])*\s*$`)
	itemsRE      = regexp.MustCompile(`(?i)\b(\d{2,6}|\d{1,3},\d{3})\s+(?:questions|problems|test (?:items|examples|samples|images|cases)|examples|items)\b`)
	bestRE       = regexp.MustCompile(`(?i)\b(?:best|lowest|highest)\b`)
	absoluteVerb = regexp.MustCompile(`(?i)\bfrom\s*$`)
)

// fromSentence pairs the quantities of a sentence with the metrics it names.
func fromSentence(s string) []Claim {
	ns := numbers(s)
	if len(ns) == 0 {
		return nil
	}
	ms := Mentions(s)
	var out []Claim
	for i, n := range ns {
		prev := 0
		if i > 0 {
			prev = ns[i-1].end
		}
		next := len(s)
		if i+1 < len(ns) {
			next = ns[i+1].start
		}
		c, ok := relative(s, n, ms, prev, next)
		if !ok {
			c, ok = absolute(s, n, ms, prev, next)
		}
		if !ok {
			continue
		}
		c.Unit, c.PlusMinus, c.Decimals = n.unit, n.pm, n.decimals
		setValue(&c, s, n)
		c.Dataset = Dataset(s)
		if m := itemsRE.FindStringSubmatch(s); m != nil {
			if v, ok := parseNumber(m[1]); ok {
				c.Items = int(v)
			}
		}
		out = append(out, c)
	}
	return out
}

func setValue(c *Claim, s string, n number) {
	lo, hi := n.lo, n.hi
	before := s[max(0, n.start-20):n.start]
	switch {
	case n.ranged:
		c.Lo, c.Hi = &lo, &hi
	case upToRE.MatchString(before):
		c.Hi = &hi
	case atLeastRE.MatchString(before):
		c.Lo = &lo
	default:
		c.Value = &lo
	}
}

// relative reads "reduces M by N", "N fewer M" and "N reduction in M".
func relative(s string, n number, ms []Mention, prev, next int) (Claim, bool) {
	if n.unit != "%" && n.unit != "x" && n.unit != "points" {
		return Claim{}, false
	}
	before, after := s[prev:n.start], s[n.end:]
	c := Claim{Relation: "difference"}
	if n.unit == "x" {
		c.Relation = "ratio"
	}
	var m *Mention
	word := ""
	if cm := comparedRE.FindStringSubmatch(after); cm != nil {
		word = strings.ToLower(cm[1])
		m = nearestAfter(ms, n.end, min(next, n.end+90))
		if m == nil || gapHas(s, n.end, m.Start, ",") {
			if b := nearestBefore(ms, max(prev, n.start-60), n.start); b != nil {
				m = b
			}
		}
		if m == nil && (word == "faster" || strings.HasPrefix(word, "speed")) {
			m = &Mention{Key: Key{Base: "speedup"}}
		}
	} else if byRE.MatchString(before) {
		m = nearestBefore(ms, max(prev, n.start-110), n.start)
		if v := lastMatch(verbRE, before); v != "" {
			word = strings.ToLower(v)
		} else if v := lastMatch(verbRE, s[:n.start]); v != "" {
			word = strings.ToLower(v)
		}
	}
	if m == nil || word == "" {
		if n.unit == "x" { // "a 2.3× speedup", "speedup of 2.3×"
			if b := nearestBefore(ms, max(prev, n.start-30), n.start); b != nil && b.Key.Base == "speedup" {
				return Claim{Relation: "ratio", Key: b.Key, Baseline: baseline(s)}, true
			}
		}
		return Claim{}, false
	}
	c.Key = m.Key
	c.Key.Effect = effectOf(word)
	if c.Relation == "ratio" {
		c.Key.Effect = "ratio"
	}
	if c.Key.Base == "speedup" {
		c.Key.Effect = ""
	}
	if c.Relation == "ratio" && opposed(m.Key.Base, word) {
		return Claim{}, false // "2× more preemptions" is no claim of merit that a ratio could check
	}
	c.Baseline = baseline(s)
	return c, true
}

func effectOf(word string) string {
	switch {
	case strings.HasPrefix(word, "improv"), strings.HasPrefix(word, "enhanc"), strings.HasPrefix(word, "outperform"), word == "better", word == "gain":
		return "improvement"
	case strings.HasPrefix(word, "increas"), strings.HasPrefix(word, "boost"), strings.HasPrefix(word, "rais"), word == "higher", word == "more", word == "greater", word == "larger":
		return "increase"
	case word == "faster", strings.HasPrefix(word, "speed"):
		return "improvement"
	}
	return "reduction"
}

// opposed says that the change goes against what is better for the metric.
func opposed(base, word string) bool {
	e := effectOf(word)
	switch Better(base) {
	case "lower":
		return e == "increase" || word == "slower" || word == "worse"
	case "higher":
		return e == "reduction"
	}
	return false
}

func baseline(s string) string {
	if m := baselineRE.FindStringSubmatch(s); m != nil {
		return strings.TrimSpace(m[1])
	}
	return ""
}

// absolute reads "M of N", "M: N", "N% M".
func absolute(s string, n number, ms []Mention, prev, next int) (Claim, bool) {
	if absoluteVerb.MatchString(s[prev:n.start]) || n.unit == "x" || n.unit == "points" || n.unit == "hours" || strings.HasPrefix(n.unit, "minute") {
		return Claim{}, false
	}
	c := Claim{Relation: "absolute"}
	if m := nearestBefore(ms, max(prev, n.start-60), n.start); m != nil {
		c.Best = bestRE.MatchString(s[m.Start:m.End])
	}
	if m := nearestBefore(ms, max(prev, n.start-60), n.start); m != nil && connectRE.MatchString(s[m.End:n.start]) && plausible(m.Key, n) {
		c.Key = m.Key
		return c, true
	}
	if m := nearestAfter(ms, n.end, min(next, n.end+30)); m != nil && strings.Trim(s[n.end:m.Start], " ") == "" && plausible(m.Key, n) {
		c.Key = m.Key
		return c, true
	}
	return Claim{}, false
}

// plausible drops numbers that cannot be a value of the metric: counts beside
// a metric's name, and percentages of what has none.
func plausible(k Key, n number) bool {
	row := metricByBase[k.Base]
	switch {
	case row == nil:
		return false
	case row.percent:
		return n.unit == "%" || n.unit == "" && n.decimals > 0 && n.lo >= 0 && n.hi <= 100
	case n.unit == "%":
		return k.Base == "spearman" || k.Base == "score" || k.Base == "relative_l2_error"
	case k.Base == "score" || k.Base == "memory" || k.Base == "cost" || k.Base == "latency" || k.Base == "runtime":
		return n.unit != "" || n.decimals > 0
	}
	return n.decimals > 0 || n.unit != "" || k.Base == "return" && n.lo >= 10 || k.Base == "preemptions"
}

func nearestBefore(ms []Mention, from, to int) *Mention {
	for i := len(ms) - 1; i >= 0; i-- {
		if ms[i].End <= to && ms[i].Start >= from {
			return &ms[i]
		}
	}
	return nil
}

func nearestAfter(ms []Mention, from, to int) *Mention {
	for i := range ms {
		if ms[i].Start >= from && ms[i].End <= to+len("preemptions") && ms[i].Start < to {
			return &ms[i]
		}
	}
	return nil
}

func gapHas(s string, i, j int, what string) bool { return i < j && strings.Contains(s[i:j], what) }

func lastMatch(re *regexp.Regexp, s string) string {
	all := re.FindAllString(s, -1)
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1]
}

// Clean strips markup from a text as it is done before claims are read.
func Clean(s string) string { return cleanSentence(s) }

var (
	reachRE = regexp.MustCompile(`(?i)\b(?:gets?|reach(?:es)?|achieves?|obtains?|attains?|yields?)\s+(?:to\s+)?(about|around|approximately|roughly|~|≈)?\s*(\d{1,3}(?:\.\d+)?)\s*%`)
	// labelled are data sets whose results are stated as accuracy unless
	// another metric is named.
	labelled = map[string]bool{"MNIST": true, "sMNIST": true, "Fashion-MNIST": true, "CIFAR-10": true, "CIFAR-100": true, "SVHN": true, "ImageNet": true, "Tiny ImageNet": true, "STL-10": true, "Iris": true}
)

// FromBare finds a percentage that a paragraph says is reached without a metric
// beside it, for a data set of labelled items: that is an accuracy. about names
// the data set where the paragraph does not.
func FromBare(text, about string, line func(offset int) int) []Claim {
	data := first(Dataset(text), Dataset(about))
	if !labelled[data] {
		return nil
	}
	var out []Claim
	for _, se := range sentences(text) {
		s := text[se[0]:se[1]]
		m := reachRE.FindStringSubmatchIndex(s)
		if m == nil || len(Mentions(s)) > 0 {
			continue
		}
		v, ok := parseNumber(s[m[4]:m[5]])
		if !ok || v > 100 {
			continue
		}
		out = append(out, Claim{Key: Key{Base: "accuracy"}, Text: cleanSentence(s), Value: &v, Unit: "%", Relation: "absolute", Dataset: data,
			Decimals: decimals(s[m[4]:m[5]]), Line: line(se[0] + m[4]), Source: Prose})
	}
	return out
}
