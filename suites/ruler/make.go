package ruler

import (
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
)

// The words of keys and lists are those of the Python package wonderwords 3.0.1
// (MIT, see words/LICENSE), which the published generator uses.
var (
	//go:embed words/nouns.txt
	nounText string
	//go:embed words/adjectives.txt
	adjectiveText string
	//go:embed words/verbs.txt
	verbText string
)

// dictionary is the lists as they are used.
type dictionary struct{ nouns, adjectives, all []string }

var words = sync.OnceValue(func() dictionary {
	d := dictionary{nouns: strings.Fields(oneWord(nounText)), adjectives: strings.Fields(oneWord(adjectiveText))}
	all := slices.Concat(d.nouns, d.adjectives, strings.Fields(oneWord(verbText)))
	slices.Sort(all)
	d.all = slices.Compact(all)
	for _, list := range [][]string{d.nouns, d.adjectives, d.all} {
		for i, w := range list {
			list[i] = strings.ReplaceAll(w, "\u00a0", " ")
		}
	}
	return d
})

// oneWord keeps the few entries of two words together while a list is cut.
func oneWord(list string) string { return strings.ReplaceAll(list, " ", "\u00a0") }

// maker makes questions. It is pure: the same seed, kind, index and size give the
// same bytes.
type maker struct {
	seed    uint64
	budget  int // tokens of prompt and answer together
	example int // lines of the worked example of variable tracking
	essay   *essay
	corpora map[source]*corpus
}

// made is a question with the beginning of its answer.
type made struct {
	input, prefix string
	want          []string
	cluster       string
}

func (d made) sha() [32]byte { return sha256.Sum256([]byte(d.input + "\x00" + d.prefix)) }

func (m *maker) rng(kind string, index int) *rand.Rand {
	b := binary.BigEndian.AppendUint64([]byte("repromill ruler\x00"), m.seed)
	b = binary.BigEndian.AppendUint64(b, uint64(index))
	sum := sha256.Sum256(append(b, kind...))
	return rand.New(rand.NewPCG(binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:])))
}

// sample returns k different numbers below n in random order.
func sample(r *rand.Rand, n, k int) []int {
	if k > n/4 {
		return r.Perm(n)[:k]
	}
	seen := map[int]bool{}
	out := make([]int, 0, k)
	for len(out) < k {
		if i := r.IntN(n); !seen[i] {
			seen[i] = true
			out = append(out, i)
		}
	}
	return out
}

// fresh draws until it has something that is not in use.
func fresh(used map[string]bool, draw func() string) string {
	for {
		if s := draw(); !used[s] {
			used[s] = true
			return s
		}
	}
}

func compound(r *rand.Rand) string {
	d := words()
	return d.adjectives[r.IntN(len(d.adjectives))] + "-" + d.nouns[r.IntN(len(d.nouns))]
}

func draw(r *rand.Rand, what string) string {
	switch what {
	case "numbers":
		return fmt.Sprint(1_000_000 + r.IntN(9_000_000))
	case "uuids":
		var b [16]byte
		binary.BigEndian.PutUint64(b[:8], r.Uint64())
		binary.BigEndian.PutUint64(b[8:], r.Uint64())
		b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // version 4
		return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	}
	return compound(r)
}

const noise = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."

func needle(what, key, value string) string {
	return fmt.Sprintf("One of the special magic %s for %s is: %s.", what, key, value)
}

// needles makes the eight kinds of needles in a haystack. Size is the words of the
// essays, or the lines of another haystack.
//
// Source: NVIDIA/RULER c3f5e3b, scripts/data/synthetic/niah.py.
func (m *maker) needles(k *kind, index, size int) made {
	r := m.rng(k.name, index)
	used := map[string]bool{}
	var keys, hidden []string
	values := map[string][]string{}
	for range k.keys {
		key := fresh(used, func() string { return draw(r, k.key) })
		keys = append(keys, key)
		for range k.values {
			v := fresh(used, func() string { return draw(r, k.value) })
			values[key] = append(values[key], v)
			hidden = append(hidden, needle(k.value, key, v))
		}
	}
	r.Shuffle(len(hidden), func(i, j int) { hidden[i], hidden[j] = hidden[j], hidden[i] })
	var context string
	if k.hay == "essay" {
		context = m.essay.with(size, hidden, depths(r, len(hidden)))
	} else {
		line := func() string { return noise }
		if k.hay == "needle" {
			line = func() string {
				key := fresh(used, func() string { return draw(r, k.key) })
				return needle(k.value, key, fresh(used, func() string { return draw(r, k.value) }))
			}
		}
		context = strings.Join(insert(size, line, sample(r, size, len(hidden)), hidden), "\n")
	}
	var query []string
	d := made{}
	for _, i := range sample(r, k.keys, k.queries) {
		query = append(query, keys[i])
		d.want = append(d.want, values[keys[i]]...)
	}
	asked := query[0]
	if n := len(query); n > 1 {
		asked = strings.Join(query[:n-1], ", ") + ", and " + query[n-1]
	}
	d.input = fmt.Sprintf("Some special magic %[1]s are hidden within the following text. Make sure to memorize it. I will quiz you about the %[1]s afterwards.\n%[2]s\n"+
		"What are all the special magic %[1]s for %[3]s mentioned in the provided text?", k.value, context, asked)
	d.prefix = fmt.Sprintf(" The special magic %s for %s mentioned in the provided text are", k.value, asked)
	if k.queries*k.values == 1 {
		one := strings.TrimSuffix(k.value, "s")
		d.input = fmt.Sprintf("A special magic %[1]s is hidden within the following text. Make sure to memorize it. I will quiz you about the %[1]s afterwards.\n%[2]s\n"+
			"What is the special magic %[1]s for %[3]s mentioned in the provided text?", one, context, asked)
		d.prefix = fmt.Sprintf(" The special magic %s for %s mentioned in the provided text is", one, asked)
	}
	return d
}

// insert returns size lines with others put in before the lines at the places at,
// of which the last in the text comes first in list.
func insert(size int, line func() string, at []int, list []string) []string {
	slices.SortFunc(at, func(a, b int) int { return b - a })
	put := map[int]string{}
	for i, p := range at {
		put[p] = list[i]
	}
	out := make([]string, 0, size+len(list))
	for i := range size {
		if s, ok := put[i]; ok {
			out = append(out, s)
		}
		out = append(out, line())
	}
	return out
}

// depths draws different ones of 40 depths in percent, evenly spaced from 0 to 100
// and rounded, in order.
func depths(r *rand.Rand, n int) []int {
	var out []int
	for _, i := range sample(r, 40, n) {
		out = append(out, int(math.RoundToEven(float64(i)*100/39)))
	}
	slices.Sort(out)
	return out
}

// hops is how often a value is handed on in variable tracking.
const hops = 4

// variables makes variable tracking, with a worked example before it. Size is the
// lines of the haystack.
//
// Source: NVIDIA/RULER c3f5e3b, scripts/data/synthetic/variable_tracking.py.
func (m *maker) variables(k *kind, index, size int) made {
	r := m.rng(k.name, index)
	d := m.tracked(r, m.rng(k.name+"/example", 0), 3, m.example)
	shown := d.input + d.prefix + " " + strings.Join(d.want, " ") + "\n"
	d = m.tracked(r, r, 5, size)
	d.input = shown + "\n" + d.input
	return d
}

// tracked makes one chain. The places come from a source of their own.
func (m *maker) tracked(r, places *rand.Rand, letters, size int) made {
	used := map[string]bool{}
	var d made
	for range hops + 1 {
		d.want = append(d.want, fresh(used, func() string {
			name := make([]byte, letters)
			for i := range name {
				name[i] = byte('A' + r.IntN(26))
			}
			return string(name)
		}))
	}
	value := fmt.Sprint(10000 + r.IntN(89999))
	chain := []string{fmt.Sprintf("VAR %s = %s", d.want[0], value)}
	for i := range hops {
		chain = append(chain, fmt.Sprintf("VAR %s = VAR %s ", d.want[i+1], d.want[i]))
	}
	at := sample(places, size, len(chain))
	slices.Reverse(chain) // the first assignment stands first
	context := strings.Join(insert(size, func() string { return noise }, at, chain), "\n")
	d.input = "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n" + context +
		"\nQuestion: Find all variables that are assigned the value " + value + " in the text above."
	d.prefix = fmt.Sprintf(" Answer: According to the chain(s) of variable assignment in the text above, %d variables are assigned the value %s, they are: ", hops+1, value)
	return d
}

const commonWords = 10

// common makes the list of words of which ten come thirty times and the others
// three times, with a worked example before it. Size is the different words.
//
// Source: NVIDIA/RULER c3f5e3b, scripts/data/synthetic/common_words_extraction.py.
func (m *maker) common(k *kind, index, size int) made {
	r := m.rng(k.name, index)
	ask := func(size, often, seldom int) made {
		list := vocabulary(r, size)
		var all []string
		for i, w := range list {
			n := seldom
			if i < commonWords {
				n = often
			}
			for range n {
				all = append(all, w)
			}
		}
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		return made{want: list[:commonWords], prefix: " Answer: The top 10 words that appear most often in the list are:",
			input: "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that appear most often.\n" +
				numbered(all) + "\nQuestion: What are the 10 most common words in the above list?"}
	}
	shown := ask(40, 10, 3)
	d := ask(size, 30, 3)
	d.input = shown.input + shown.prefix + " " + numbered(shown.want) + "\n" + d.input
	return d
}

func numbered(list []string) string {
	var b strings.Builder
	for i, w := range list {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%d. %s", i+1, w)
	}
	return b.String()
}

// vocabulary draws different words, and compounds of two where the list has not as
// many.
func vocabulary(r *rand.Rand, n int) []string {
	all := words().all
	out := make([]string, 0, n)
	for _, i := range sample(r, len(all), min(n, len(all))) {
		out = append(out, all[i])
	}
	used := map[string]bool{}
	for len(out) < n {
		out = append(out, fresh(used, func() string { return compound(r) }))
	}
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// frequent makes the coded text whose words follow a zeta distribution with
// exponent 2; the most frequent one is noise. Size is its words before rounding.
//
// Source: NVIDIA/RULER c3f5e3b, scripts/data/synthetic/freq_words_extraction.py.
func (m *maker) frequent(k *kind, index, size int) made {
	r := m.rng(k.name, index)
	used := map[string]bool{}
	codes := make([]string, 0, m.budget/50)
	for range max((m.budget-k.reply)/50, 8) {
		codes = append(codes, fresh(used, func() string {
			var w [6]byte
			for i := range w {
				w[i] = byte('a' + r.IntN(26))
			}
			return string(w[:])
		}))
	}
	codes[0] = "..."
	const zeta = math.Pi * math.Pi / 6
	var all []string
	for i, w := range codes {
		for range int(float64(size) / float64((i+1)*(i+1)) / zeta) {
			all = append(all, w)
		}
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return made{want: codes[1:4], prefix: " Answer: According to the coded text above, the three most frequently appeared words are:",
		input: "Read the following coded text and track the frequency of each coded word. Find the three most frequently appeared coded words. " + strings.Join(all, " ") +
			"\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three most frequently appeared words in the above coded text?"}
}

// answers makes questions over documents, of which one or two hold the answer.
// Size is the documents.
//
// Source: NVIDIA/RULER c3f5e3b, scripts/data/synthetic/qa.py.
func (m *maker) answers(k *kind, index, size int) made {
	r := m.rng(k.name, index)
	c := m.corpora[k.needs]
	q := c.questions[index%len(c.questions)]
	use := slices.Clone(q.docs)
	switch more := size - len(use); {
	case more <= 0:
	case more <= len(q.near):
		for _, i := range sample(r, len(q.near), more) {
			use = append(use, q.near[i])
		}
	default:
		use = append(use, q.near...)
		taken := map[int]bool{}
		for _, i := range use {
			taken[i] = true
		}
		for _, i := range sample(r, len(c.docs), min(size, len(c.docs))) {
			if len(use) < size && !taken[i] {
				use = append(use, i)
			}
		}
	}
	r.Shuffle(len(use), func(i, j int) { use[i], use[j] = use[j], use[i] })
	const ask = "Answer the question based on the given documents. Only give me the answer and do not output any other words."
	var b strings.Builder
	b.WriteString(ask + "\n\nThe following are given documents.")
	for i, doc := range use {
		fmt.Fprintf(&b, "\n\nDocument %d:\n%s", i+1, c.docs[doc])
	}
	b.WriteString("\n\n" + ask + "\n\nQuestion: " + q.text)
	return made{input: b.String(), prefix: " Answer:", want: q.answers, cluster: q.cluster}
}
