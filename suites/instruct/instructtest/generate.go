// Package instructtest makes texts on which verifiers of instructions are held to
// what published code said of the same texts, once.
package instructtest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/repromill/repromill/suites/instruct"
)

// Kind is an instruction with arguments to try and the pieces that its texts are
// made of, beside those that all texts are made of.
type Kind struct {
	ID     string
	Args   []string // as JSON objects
	Pieces []string
	Joins  []string // between pieces; nil takes any white space
	Whole  []string // texts that are taken as they are
}

// Case is one text under one instruction.
type Case struct {
	ID   string          `json:"instruction_id"`
	Args json.RawMessage `json:"kwargs"`
	Text string          `json:"text"`
}

// pieces are what answers are made of and what trips programs that read them.
var pieces = []string{
	"The river was cold.", "It rained all day!", "Who knows?", "Dr. Smith met Mr. Jones at 5 p.m. on Monday.", "He said \"no.\" Then he left.", "e.g. apples, pears, etc. are fruit.",
	"U.S. exports fell 3.5 % in Jan. 2020.", "\"Why?\" she asked.", "wait... what", "Hello", "WORLD", "the quick brown fox", "A", "I", "a,b;c:d", "it's John's can't won't 'tis", "cannot gonna",
	"**bold** and *italic*", "* point one", "- point two", "*** ", "******", "<<A title>>", "<< >>", "[name]", "[]", "[a\nb]", "P.S. bye", "P.P.S more", "p. p. s", "Section 1", "SECTION 2",
	"{\"a\": 1}", "```json\n{\"a\": [1, 2]}\n```", "NaN", "\"", "''", "``", "“Quoted.”", "‘x’", "«da»", "My answer is yes.", "My answer is no.", "Any other questions?",
	"naïve café", "Straße", "ǅ", "İstanbul ılık", "ΣΑΣ", "日本語 です。", "東京", "hé\u0301", "👍", "🙂 ok", "👩\u200d🚀", "²³", "½", "٣", "x\u00a0y", "a\u2028b", "a\x1cb", "a\tb", "tab\t", "—dash–", "--", "1,000.5", "12", "3.",
	"Mrs. Brown", "St. Paul", "Ph.D. student", "i.e. this", "vs. that", "No. 5", "J. R. R. Tolkien", "a.b.c.", "(see fig. 2.)", "[1].", "end.)", "…", "?!", "!?!?", "!!!", "# Title", "1. one", "a) two", "Ａ", "ﬁ", "\ufeff", "don't", "'Twas", "more'n", "d'ye", "wanna go",
	"<i>x</i> y", "word word", "level radar", "and but or", "Emma", "Liam.", "100 %", "50/50", "one-two", "snake_case", "x=1", "@home", "#tag", "$5", "a&b", "C++", "\\n", "~", "^",
}

var joins = []string{" ", " ", " ", "\n", "\n\n", "", "  ", ". ", ", ", "\r\n", "\t", "\n \n", "! ", "? "}

// Cases makes n cases of every kind. The same seed makes the same cases.
func Cases(seed uint64, n int, kinds []Kind) []Case {
	var out []Case
	for k, kind := range kinds {
		r := rand.New(rand.NewPCG(seed, uint64(k)))
		for i := range n {
			c := Case{ID: kind.ID, Args: json.RawMessage("{}")}
			if len(kind.Args) > 0 {
				c.Args = json.RawMessage(kind.Args[i%len(kind.Args)])
			}
			c.Text = text(r, kind, i)
			out = append(out, c)
		}
	}
	return out
}

func pick(r *rand.Rand, from []string) string { return from[r.IntN(len(from))] }

func text(r *rand.Rand, k Kind, i int) string {
	if i < len(k.Whole) {
		return k.Whole[i]
	}
	if len(k.Whole) > 0 && r.IntN(3) == 0 {
		return mutate(r, pick(r, k.Whole))
	}
	own := k.Pieces
	if len(own) == 0 {
		own = pieces
	}
	between := k.Joins
	if between == nil || r.IntN(8) == 0 {
		between = joins
	}
	stray := r.IntN(3) * r.IntN(12) // how many of a hundred pieces are not the kind's own
	var b strings.Builder
	for j := range 1 + r.IntN(1<<(1+r.IntN(5))) {
		if j > 0 {
			b.WriteString(pick(r, between))
		}
		if r.IntN(100) < stray {
			b.WriteString(pick(r, pieces))
		} else {
			b.WriteString(pick(r, own))
		}
	}
	if r.IntN(12) == 0 {
		return mutate(r, b.String())
	}
	return b.String()
}

// mutate changes a text a little: at its ends, in one place, or in its case.
func mutate(r *rand.Rand, s string) string {
	rs := []rune(s)
	at := r.IntN(len(rs) + 1)
	switch r.IntN(9) {
	case 0:
		return " \n" + s
	case 1:
		return s + "\n"
	case 2:
		return "Sure!\n" + s
	case 3:
		return s + "\nHope this helps."
	case 4:
		return "Sure!\n\n" + s + "\n\nBye."
	case 5:
		return strings.ToUpper(s)
	case 6:
		return "**" + s + "**"
	case 7:
		return string(rs[:at]) + pick(r, pieces) + string(rs[at:])
	}
	to := min(len(rs), at+1+r.IntN(3))
	return string(rs[:at]) + string(rs[to:])
}

// Verdict is what was said of a case: followed strictly, loosely, both or neither.
// Broken means that the published code failed on it; Open that it said now one
// thing and now another.
type Verdict byte

// The verdicts as files have them.
const (
	Neither Verdict = '0'
	Strict  Verdict = '1' // without loose: only where the code contradicts itself
	Lax     Verdict = '2'
	Both    Verdict = '3'
	Broken  Verdict = 'E'
	Open    Verdict = 'u'
)

// Judge returns what set says of a case.
func Judge(set instruct.Set, c Case) (Verdict, error) {
	ref, err := json.Marshal(map[string]any{"instruction_id_list": []string{c.ID}, "kwargs": []json.RawMessage{c.Args}})
	if err != nil {
		return 0, err
	}
	v, err := set.Verifiers(string(ref))
	if err != nil {
		return 0, err
	}
	out := byte(Neither)
	if len(instruct.Loose(c.Text)) > 0 && !blank(c.Text) && v[0](c.Text) {
		out |= 1
	}
	if instruct.Follows(v[0], instruct.Loose(c.Text)) {
		out |= 2
	}
	return Verdict(out), nil
}

func blank(s string) bool { return !slices.Contains(instruct.Loose(s), s) }

// Write writes cases as JSON lines, for the published code to read.
func Write(w io.Writer, cases []Case) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, c := range cases {
		if err := enc.Encode(c); err != nil {
			return fmt.Errorf("write cases: %w", err)
		}
	}
	return nil
}

// Agreement is how often two verdicts on the cases of one kind were the same.
type Agreement struct {
	ID                        string
	Cases, Same, Broken, Open int
	Followed                  int // cases that both call followed, strictly
}

// Compare holds set to a file of outcomes, which has a line for every kind: its
// identifier and a verdict for each case in order. It reports every disagreement
// of kinds that are not in loose, which have a share that suffices.
func Compare(t *testing.T, set instruct.Set, cases []Case, outcomes io.Reader, loose map[string]float64) []*Agreement {
	t.Helper()
	want := map[string]string{}
	sc := bufio.NewScanner(outcomes)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		id, v, ok := strings.Cut(sc.Text(), " ")
		if ok && !strings.HasPrefix(id, "#") {
			want[id] = v
		}
	}
	var out []*Agreement
	by := map[string]*Agreement{}
	for _, c := range cases {
		a := by[c.ID]
		if a == nil {
			a = &Agreement{ID: c.ID}
			by[c.ID] = a
			out = append(out, a)
		}
		i := a.Cases
		if i >= len(want[c.ID]) {
			t.Fatalf("%s: no outcome of case %d", c.ID, i)
		}
		got, err := Judge(set, c)
		if err != nil {
			t.Fatalf("%s: %v", c.ID, err)
		}
		a.Cases++
		switch w := Verdict(want[c.ID][i]); {
		case w == Open:
			a.Open++
		case w == Broken:
			a.Broken++
			if got&1 != 0 {
				t.Errorf("%s %s on %q: followed, but the published code fails", c.ID, c.Args, c.Text)
			}
		case w == got:
			a.Same++
			if got&1 != 0 {
				a.Followed++
			}
		case loose[c.ID] == 0:
			t.Errorf("%s %s on %q: %c, published %c", c.ID, c.Args, c.Text, got, w)
		}
	}
	for _, a := range out {
		if n := a.Cases - a.Open - a.Broken; loose[a.ID] > 0 && float64(a.Same) < loose[a.ID]*float64(n) {
			t.Errorf("%s: the same on %d of %d cases, want %.0f %%", a.ID, a.Same, n, 100*loose[a.ID])
		}
	}
	return out
}
