package ruler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/results/schema/schematest"
	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/data"
	"github.com/repromill/repromill/suites/suitetest"
)

// pieces counts like a tokenizer: a piece for up to four letters or three digits,
// and one for every other sign but a blank.
func pieces(text string) int {
	n, letters, digits := 0, 0, 0
	for i := range len(text) {
		c := text[i]
		switch {
		case c|0x20 >= 'a' && c|0x20 <= 'z':
			if letters%4 == 0 {
				n++
			}
			letters, digits = letters+1, 0
		case c >= '0' && c <= '9':
			if digits%3 == 0 {
				n++
			}
			letters, digits = 0, digits+1
		default:
			if letters, digits = 0, 0; c != ' ' {
				n++
			}
		}
	}
	return n
}

func count(_ context.Context, text string) (int, error) { return pieces(text), nil }

// The stand-ins have the shape of the data sets.
func standInEssays() (out []essayRow) {
	for i := range 40 {
		out = append(out, essayRow{fmt.Sprintf("Essay %d begins here. Dr. Smith said \"No.\" He left!  What came\nof it, e.g. this? i think 3.5 is enough of %s.", i, strings.Repeat("words and ", i))})
	}
	return out
}

func standInSquad() (out []squadRow) {
	for i := range 400 {
		r := squadRow{Title: fmt.Sprint("Article ", i/20), Context: fmt.Sprintf("Paragraph %d says that the capital of land %d is city%d. %s", i/2, i, i, strings.Repeat("And more of it. ", 8)), Question: fmt.Sprintf("What is the capital of land %d?", i)}
		r.Answers.Text = []string{}
		if i%3 != 0 {
			r.Answers.Text = []string{fmt.Sprintf("city%d", i), fmt.Sprintf("the city%d", i)}
		}
		out = append(out, r)
	}
	return out
}

func standInHotpot() (out []hotpotRow) {
	for i := range 400 {
		h := hotpotRow{Question: fmt.Sprintf("Who founded town %d?", i), Answer: fmt.Sprintf("founder %d", i)}
		for j := range 10 {
			h.Context.Title = append(h.Context.Title, fmt.Sprintf("Town %d", i*3+j))
			h.Context.Sentences = append(h.Context.Sentences, []string{fmt.Sprintf("Town %d lies somewhere.", i*3+j), fmt.Sprintf(" It was founded by founder %d.", i*3+j)})
		}
		out = append(out, h)
	}
	return out
}

func sources(t testing.TB) (*essay, map[source]*corpus) {
	t.Helper()
	var texts []string
	for _, r := range standInEssays() {
		texts = append(texts, r.Text)
	}
	e, err := newEssay(texts)
	if err != nil {
		t.Fatal(err)
	}
	squadCorpus, err := newSquad(standInSquad())
	if err != nil {
		t.Fatal(err)
	}
	hotpotCorpus, err := newHotpot(standInHotpot())
	if err != nil {
		t.Fatal(err)
	}
	return e, map[source]*corpus{squad: squadCorpus, hotpot: hotpotCorpus}
}

func ready(t testing.TB, length int, text bool) *Data {
	t.Helper()
	d := &Data{style: &styles[0], m: &maker{seed: 7, budget: length - 50, example: 14}}
	if text {
		d.style = &styles[1]
	}
	d.m.essay, d.m.corpora = sources(t)
	return d
}

func TestKinds(t *testing.T) {
	if len(kinds) != 13 {
		t.Fatalf("%d kinds", len(kinds))
	}
	d := ready(t, 4096, false)
	z := &sizer{m: d.m, count: count}
	for i := range kinds {
		k := &kinds[i]
		t.Run(k.name, func(t *testing.T) {
			list, err := z.kind(t.Context(), k, 20)
			if err != nil {
				t.Fatal(err)
			}
			budget := d.m.budget - k.reply
			seen := map[string]bool{}
			for _, it := range list {
				m := k.make(d.m, k, it.Index, it.Size)
				if again := k.make(d.m, k, it.Index, it.Size); again.sha() != m.sha() {
					t.Fatalf("%s is not the same twice", it.ID)
				}
				if n := pieces(m.input + m.prefix); n != it.Tokens || n > budget {
					t.Errorf("%s has %d tokens, kept are %d of %d", it.ID, n, it.Tokens, budget)
				}
				if seen[it.SHA] {
					t.Errorf("%s is another question again", it.ID)
				}
				seen[it.SHA] = true
				for i, w := range it.Want {
					if i > 0 && k.needs == squad {
						continue // another spelling
					}
					if k.needs != hotpot && !strings.Contains(m.input, w) { // HotpotQA has answers such as yes
						t.Errorf("%s does not hold its answer %q", it.ID, w)
					}
				}
			}
			// The budget is used: only whole documents may leave more than a tenth.
			full := 0
			for _, it := range list {
				if it.Tokens > budget*9/10 {
					full++
				}
			}
			if full < len(list)*3/4 && k.name != "qa_1" {
				t.Errorf("only %d of %d questions use the budget of %d: %d tokens", full, len(list), budget, list[0].Tokens)
			}
		})
	}
	t.Logf("%d calls of the tokenizer", z.calls.Load())
}

// TestNeedles checks what the eight kinds ask: as many needles as there are to be,
// and each key once.
func TestNeedles(t *testing.T) {
	d := ready(t, 4096, false)
	for name, c := range map[string]struct{ needles, want int }{
		"niah_single_1": {1, 1}, "niah_single_2": {1, 1}, "niah_single_3": {1, 1}, "niah_multikey_1": {4, 1},
		"niah_multikey_2": {61, 1}, "niah_multikey_3": {61, 1}, "niah_multivalue": {4, 4}, "niah_multiquery": {4, 4},
	} {
		k := kindOf(name)
		size := 60
		if k.hay == "essay" {
			size = 1200
		}
		m := k.make(d.m, k, 3, size)
		if got := strings.Count(m.input, "One of the special magic "+k.value+" for "); got != c.needles || len(m.want) != c.want {
			t.Errorf("%s: %d needles and %d answers, want %d and %d", name, got, len(m.want), c.needles, c.want)
		}
		for _, w := range m.want {
			if strings.Count(m.input, w) != 1 {
				t.Errorf("%s: answer %s stands %d times", name, w, strings.Count(m.input, w))
			}
		}
		if single := c.want == 1; strings.HasPrefix(m.input, "A special magic ") != single || strings.HasSuffix(m.prefix, " text is") != single || strings.HasSuffix(m.prefix, " text are") == single {
			t.Errorf("%s: %q … %q", name, m.input[:40], m.prefix)
		}
	}
}

func TestVariables(t *testing.T) {
	d := ready(t, 4096, false)
	m := d.m.variables(kindOf("vt"), 5, 40)
	_, own, _ := strings.Cut(m.input, "\n\nMemorize")
	var value string
	for _, line := range strings.Split(own, "\n") {
		if strings.HasPrefix(line, "VAR ") {
			f := strings.Fields(line)
			if value == "" {
				value = f[3]
			} else if f[3] != "VAR" {
				t.Errorf("a second value: %q", line)
			}
		}
	}
	if len(m.want) != 5 || strings.Count(own, "VAR ") != 9 || !strings.Contains(own, "assigned the value "+value+" in") || !strings.Contains(m.prefix, "5 variables are assigned the value "+value) {
		t.Errorf("%v, %q", m.want, m.prefix)
	}
	at := -1
	for _, w := range m.want { // handed on in the order of the text
		if i := strings.Index(own, "VAR "+w+" ="); i <= at {
			t.Errorf("%s stands out of order", w)
		} else {
			at = i
		}
	}
	if !strings.HasPrefix(m.input, "Memorize and track") || strings.Count(m.input, " Answer: According to the chain(s)") != 1 {
		t.Errorf("no worked example: %.100q", m.input)
	}
}

func TestWordCounts(t *testing.T) {
	d := ready(t, 4096, false)
	tally := func(text string) map[string]int {
		out := map[string]int{}
		for _, w := range strings.Fields(text) {
			out[w]++
		}
		return out
	}
	m := d.m.frequent(kindOf("fwe"), 1, 2000)
	n := tally(m.input)
	if !(n["..."] > n[m.want[0]] && n[m.want[0]] > n[m.want[1]] && n[m.want[1]] > n[m.want[2]] && n[m.want[2]] > 60) {
		t.Errorf("... %d times, then %d, %d, %d", n["..."], n[m.want[0]], n[m.want[1]], n[m.want[2]])
	}
	c := d.m.common(kindOf("cwe"), 1, 9000) // more than there are words
	_, own, _ := strings.Cut(c.input, "\nBelow is")
	list := map[string]int{}
	for _, s := range strings.Split(own, ". ")[2:] {
		i := strings.LastIndexByte(s, ' ')
		if i > 0 {
			list[s[:i]]++
		}
	}
	for _, w := range c.want {
		if list[w] != 30 && list[w] != 29 { // the last of the list stands before the question
			t.Errorf("%s stands %d times", w, list[w])
		}
	}
	if len(list) < 8990 {
		t.Errorf("%d different words", len(list))
	}
}

func TestEssay(t *testing.T) {
	e, err := newEssay([]string{strings.Repeat("One two three. Four five! Six seven? ", 20)})
	if err != nil {
		t.Fatal(err)
	}
	if got := e.with(7, []string{"NEEDLE."}, []int{0}); got != " NEEDLE. One two three. Four five! Six seven?" {
		t.Errorf("%q", got)
	}
	if got := e.with(7, []string{"NEEDLE."}, []int{50}); got != "One two three. NEEDLE. Four five! Six seven?" {
		t.Errorf("%q", got)
	}
	if got := e.with(6, []string{"N1.", "N2."}, []int{67, 100}); got != "One two three. Four five! N1. Six N2. " {
		t.Errorf("%q", got)
	}
	if got := e.with(2*len(e.words)+1, nil, nil); len(strings.Fields(got)) != 2*len(e.words)+1 {
		t.Errorf("repeated to %d words", len(strings.Fields(got)))
	}
	for text, want := range map[string]bool{"end. Next": true, "Dr. Who": false, "end.\" Next": true, "3. Next": true, "it. and": false, "so! and": true, "J. Smith": false, "U.S. Army": false, "(no.) \"Next": false, "way). Next": true} {
		word, next, _ := strings.Cut(text, " ")
		if got := endsSentence(word, next); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// TestFrozen makes questions, opens them again without a tokenizer, and refuses
// what cannot be made again.
func TestFrozen(t *testing.T) {
	var calls atomic.Int64
	env := suites.Env{Variant: "4k-made", Seed: 3, Dir: t.TempDir(), Files: files, Count: func(_ context.Context, text string) (int, error) {
		calls.Add(1)
		return pieces(text), nil
	}, Limit: func(context.Context) (int, error) { return 4096, nil }}
	first, err := open(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	if n := calls.Load(); n > 6*perKind*2 {
		t.Errorf("%d calls of the tokenizer for %d questions", n, 6*perKind)
	}
	suitetest.Suite(t, first)
	calls.Store(0)
	env.Limit = nil
	second, err := open(t.Context(), env)
	if err != nil || calls.Load() != 0 {
		t.Fatalf("opened again with %d calls: %v", calls.Load(), err)
	}
	a, _ := first.Items(t.Context())
	b, _ := second.Items(t.Context())
	if len(a) != 600 || !slices.EqualFunc(a, b, func(x, y suites.Item) bool { return x.SHA() == y.SHA() }) {
		t.Errorf("%d and %d questions differ", len(a), len(b))
	}
	for _, it := range []suites.Item{a[0], a[250], a[599]} {
		p, err := first.Prompt(it, 0)
		q, err2 := second.Prompt(it, 0)
		if err != nil || err2 != nil || p.SHA() != q.SHA() || p.Prefix == "" || p.Prefix != strings.TrimSpace(p.Prefix) || p.MaxTokens == 0 {
			t.Errorf("%s: %v %v", it.ID, err, err2)
		}
	}
	env.Seed = 4
	if _, err := open(t.Context(), env); err == nil || !strings.Contains(err.Error(), "another generator") {
		t.Errorf("another seed: %v", err)
	}
	env.Seed = 3
	name := filepath.Join(env.Dir, "questions.jsonl")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), `"size":`, `"size":1`, 1)
	if err := os.WriteFile(name, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	third, err := open(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	c, _ := third.Items(t.Context())
	if _, err := third.Prompt(c[0], 0); err == nil || !strings.Contains(err.Error(), "not the one") {
		t.Errorf("another size: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	env := suites.Env{Variant: "8k-made", Dir: t.TempDir(), Files: files, Count: count, Limit: func(context.Context) (int, error) { return 4096, nil }}
	for want, change := range map[string]func(*suites.Env){
		"served with a context of 4096": func(*suites.Env) {},
		"no endpoint is at hand":        func(e *suites.Env) { e.Limit, e.Count = nil, nil },
		"no variant":                    func(e *suites.Env) { e.Variant = "3k" },
	} {
		e := env
		change(&e)
		if _, err := open(t.Context(), e); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestSearch(t *testing.T) {
	for name, cost := range map[string]func(int) int{
		"line": func(n int) int { return 100 + 7*n }, "steps": func(n int) int { return 300 * (n / 10) },
		"curve": func(n int) int { return n + n*n/5000 }, "flat start": func(n int) int { return max(900, 3*n) },
	} {
		for _, budget := range []int{1000, 4000, 131_000} {
			calls := 0
			size, _, err := search(5, budget, func(n int) (int, error) { calls++; return cost(n), nil })
			if err != nil || cost(size) > budget || cost(size) < budget-slack(budget) && cost(size+1) <= budget {
				t.Errorf("%s, %d: size %d costs %d, one more %d, %v", name, budget, size, cost(size), cost(size+1), err)
			}
			if calls > 25 || name == "line" && calls > 5 {
				t.Errorf("%s, %d: %d calls", name, budget, calls)
			}
		}
	}
	if _, _, err := search(5, 10, func(int) (int, error) { return 11, nil }); err == nil {
		t.Error("nothing fits, and nobody says so")
	}
}

func all(list ...string) suites.Item {
	b, _ := json.Marshal(list)
	return suites.Item{ID: "vt/0001", Category: "vt", Reference: string(b)}
}

func TestOfficial(t *testing.T) {
	it := all("ABCDE", "FGHIJ")
	qa := it
	qa.Category = "qa_1"
	suitetest.Grader(t, Official(), []suitetest.Case{
		{Name: "all", Item: it, Text: "abcde and fghij", Want: suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 1, Extracted: "ABCDE, FGHIJ"}},
		{Name: "half", Item: it, Text: "FGHIJ", Want: suites.Grade{Outcome: suites.Wrong, Score: .5, Stage: 2, Extracted: "FGHIJ"}},
		{Name: "none", Item: it, Text: "KLMNO", Want: suites.Grade{Outcome: suites.Wrong, Stage: 3, Weak: true}},
		{Name: "blank", Item: it, Text: "\n", Want: suites.Grade{Outcome: suites.Empty}},
		{Name: "one spelling of an answer", Item: qa, Text: "it is fghij", Want: suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 2, Extracted: "FGHIJ"}},
	})
	suitetest.Grader(t, All(), []suitetest.Case{{Name: "half of the spellings", Item: qa, Text: "it is fghij", Want: suites.Grade{Outcome: suites.Wrong, Score: .5, Stage: 2, Extracted: "FGHIJ"}}})
	suitetest.Grader(t, Part(), []suitetest.Case{{Name: "any", Item: it, Text: "it is fghij", Want: suites.Grade{Outcome: suites.Correct, Score: 1, Stage: 2, Extracted: "FGHIJ"}}})
	for _, bad := range []suites.Item{{Reference: "[]"}, all("a", " "), {Reference: ""}} {
		if Official().(suites.Checker).Check(bad) == nil {
			t.Errorf("%q can be graded", bad.Reference)
		}
	}
}

func FuzzGraders(f *testing.F) {
	f.Add("ABCDE", `["abcde"]`)
	f.Add("\xff", "[")
	f.Add("İ", `["i"]`)
	f.Fuzz(func(t *testing.T, text, reference string) {
		it := suites.Item{Category: "qa_2", Reference: reference}
		for _, g := range Graders() {
			if g.(suites.Checker).Check(it) == nil {
				suitetest.Sound(t, g, it, text)
			}
		}
	})
}

// FuzzEssay puts a sentence into any text: it stands there once, and no word of the
// text is lost.
func FuzzEssay(f *testing.F) {
	f.Add("One. Two! Three", uint16(50), uint8(40))
	f.Add("\u2028\xff . ' \" )", uint16(7), uint8(100))
	f.Fuzz(func(t *testing.T, text string, size uint16, depth uint8) {
		e, err := newEssay([]string{text + strings.Repeat(" word.", 100)})
		if err != nil {
			t.Fatal(err)
		}
		n := int(size)%2000 + 1
		got := e.with(n, []string{"NEEDLE!"}, []int{int(depth) % 101})
		if words := len(strings.Fields(got)); words != n+1 || !strings.Contains(got, " NEEDLE! ") {
			t.Errorf("%d words of %d at %d %%", words, n, depth%101)
		}
	})
}

func BenchmarkRunaway(b *testing.B) {
	for name, unit := range map[string]string{"prefixes": "ABCD ", "letters": "A", "accents": "é"} {
		text := strings.Repeat(unit, 160_000/len(unit))
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				Official().Grade(all("ABCDE", "FGHIJ", strings.Repeat("A", 200)+"B"), text)
			}
		})
	}
}

// BenchmarkMake makes prompts of 131,072 tokens.
func BenchmarkMake(b *testing.B) {
	d := ready(b, 131072, false)
	for i := range kinds {
		k := &kinds[i]
		size, _, err := search(k.least, d.m.budget-k.reply, func(n int) (int, error) {
			m := k.make(d.m, k, 0, n)
			return pieces(m.input + m.prefix), nil
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(k.name, func(b *testing.B) {
			for b.Loop() {
				k.make(d.m, k, 0, size)
			}
		})
	}
}

// BenchmarkSizing makes all questions of 32,768 tokens and reports how many prompts
// the tokenizer saw for each.
func BenchmarkSizing(b *testing.B) {
	d := ready(b, 32768, false)
	for b.Loop() {
		z := &sizer{m: d.m, count: count}
		list, err := z.all(b.Context(), d.style.kinds(), 10)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(z.calls.Load())/float64(len(list)), "calls/question")
	}
}

// TestOpenData reads essays and questions from Parquet files of the shape of the
// data sets, lists of lists within structs included, and asks all thirteen kinds.
func TestOpenData(t *testing.T) {
	dir := t.TempDir()
	write := func(f data.File, rows func(w io.Writer) error) {
		t.Helper()
		var b bytes.Buffer
		if err := rows(&b); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, "huggingface.co", "datasets", filepath.FromSlash(f.Repo), "resolve", f.Commit, filepath.FromSlash(f.Path))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(files[0], func(w io.Writer) error { return schematest.WriteRows(w, standInEssays()) })
	write(files[1], func(w io.Writer) error { return schematest.WriteRows(w, standInSquad()) })
	write(files[2], func(w io.Writer) error { return schematest.WriteRows(w, standInHotpot()) })
	c, err := fetch.New(fetch.Config{Mirror: dir})
	if err != nil {
		t.Fatal(err)
	}
	env := suites.Env{Hub: data.New(data.Config{Client: c}), Variant: "4k-completions", Seed: 1, Dir: t.TempDir(), Files: files, Count: count}
	s, err := open(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	items, err := s.Items(t.Context())
	if err != nil || len(items) != 13*perKind {
		t.Fatalf("%d questions, %v", len(items), err)
	}
	suitetest.Suite(t, s)
	for i := 0; i < len(items); i += perKind {
		p, err := s.Prompt(items[i], 0)
		if err != nil || p.Text == "" || p.Prefix != "" || p.MaxTokens > 128 {
			t.Errorf("%s: %v", items[i].ID, err)
		}
	}
	if i := slices.IndexFunc(items, func(it suites.Item) bool { return it.Category == "qa_1" }); items[i].Cluster == "" {
		t.Error("questions over one paragraph are not told apart from others")
	}
	// Without its data a kind is refused, and says so.
	if err := os.RemoveAll(filepath.Join(dir, "huggingface.co", "datasets", "hotpotqa")); err != nil {
		t.Fatal(err)
	}
	var user interface{ UserError() string }
	if _, err := open(t.Context(), env); !errors.As(err, &user) || !strings.Contains(err.Error(), "qa_2 is made of hotpotqa/hotpot_qa") {
		t.Errorf("without HotpotQA: %v", err)
	}
}
