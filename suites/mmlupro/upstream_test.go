package mmlupro_test

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/mmlupro"
)

var writeCases = flag.String("write-cases", "", "write the texts of TestUpstream to `FILE`, one JSON string a line, and stop")

// fragments are what the patterns look for, what stands near it in real answers,
// and what trips a reader that knows ASCII only.
var fragments = []string{
	"answer is (", "answer is ", "answer is  ", "Answer is (", "answer is\u00a0(", "answer is (", "answer is ((", "the answer is (B).", "answer is **(C)**", "answer is (K)", "answer is (b)", "answer is (E", "answer  is D",
	"nswer:", "Answer:", "answer:", "ANSWER:", "AAnswer:", "answer::", "Answer: ", "answer:\n", "Answer:\r\n", "answer:\t", "answer:\u2028", "answer:\x1c", "answer:\u0085", "answer:\u200b", "Answer **:** ", "**Answer:** ", "_Answer_ : ", "**Answer**: _", "Answer:**", "aNſwer: ", "anſwer:", "Answer\u00a0: ", "Answer__ :* ", "***Answer***: ",
	"A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "Z", "a", "j", "(A)", "(J)", "B.", "C)", "D,", "(F", "G:", "I'm", "I think", "A.", "é", "B\u0301", "\u0301", "éB", "Bé", "_C_", "C_", "ـA", "A٣", "D²", "½E", "日B本", "B日", "Ａ", "Ⓐ", "ƎF", "𝐀", "ſ", "İ", "ı", "\u212a", "ß",
	`\boxed{`, `\boxed{A}`, `\boxed{B}`, `\boxed{\text{C}}`, `\boxed{(D)}`, `\boxed{42}`, `\boxed{}`, `\boxed {E}`, `\boxed`, `\fbox{F}`, `\boxed{é}`, `\boxed{A B`, `\boxed{{G}}`, "{", "}", `\{`, `\}`, "$", `\text{`,
	" ", "  ", "\n", "\r\n", "\r", "\n\n", "\t", "\v", "\f", "\x1c", "\x1d", "\x1f", "\u00a0", "\u1680", "\u2003", "\u2028", "\u2029", "\u3000", "\u200b", "\ufeff", "\x00", ".", ",", "(", ")", "*", "**", "_", "-", ":", "'", "\"", "1", "٣", "x", "word", "so", "👍",
}

// texts makes n texts; the same seed makes the same ones.
func texts(seed uint64, n int) []string {
	r := rand.New(rand.NewPCG(seed, 2))
	pick := func() string { return fragments[r.IntN(len(fragments))] }
	out := make([]string, 0, n)
	for i := range n {
		var b strings.Builder
		if i%3 == 0 { // near a match of one of the first two stages
			b.WriteString(fragments[r.IntN(38)])
		}
		for range 1 + r.IntN(1<<(1+r.IntN(4))) {
			b.WriteString(pick())
		}
		switch {
		case i%400 == 7: // a runaway of one or two fragments
			unit := pick() + pick()
			b.WriteString(strings.Repeat(unit, 1+2000/len(unit)) + pick())
		case i%5000 == 11: // as long as answers get, with a statement at the end
			b.WriteString(strings.Repeat("so we go on, "+pick()+" ", 8000) + "\nthe answer is (" + string(rune('A'+r.IntN(11))) + ")")
		}
		out = append(out, b.String())
	}
	return out
}

// symbols encode a letter at a stage: eleven for each stage, the last of them for
// any other text.
const symbols = "ABCDEFGHIJ#KLMNOPQRST*UVWXYZabcd%efghijklmn&"

// TestUpstream holds each rule to what the published Python code gave on the same
// 30,000 texts. The outcomes have a line for each rule, a symbol for each text, and
// the SHA-256 of what was extracted where it is no letter from A to J.
//
// They were made with TIGER-AI-Lab/MMLU-Pro f418b11 (extract_answer of
// evaluate_from_local.py and evaluate_from_apiX.py), EleutherAI/
// lm-evaluation-harness 4e7e0d4 (RegexFilter with the task's pattern) and
// NVIDIA-NeMo/Skills 8b18f39 (eval_mcq) on CPython 3.11.
func TestUpstream(t *testing.T) {
	all := texts(2024, 30_000)
	if *writeCases != "" {
		f, err := os.Create(*writeCases)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		enc := json.NewEncoder(f)
		for _, s := range all {
			if err := enc.Encode(s); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	f, err := os.Open("testdata/upstream.txt.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zr, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	rules := map[string]suites.Grader{}
	for _, g := range mmlupro.Graders() {
		rules[g.Rule().Name] = g
	}
	sc := bufio.NewScanner(zr)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		name, rest, _ := strings.Cut(sc.Text(), " ")
		want, sum, _ := strings.Cut(rest, " ")
		g := rules[name]
		if g == nil || len(want) != len(all) {
			t.Fatalf("line of %q with %d outcomes", name, len(want))
		}
		delete(rules, name)
		others := sha256.New()
		found := 0
		for i, s := range all {
			got := g.Grade(item, s)
			if sym := symbol(got); sym != want[i] {
				t.Errorf("%s on text %d, %.300q: %q at stage %d (%c), published %c", name, i, s, got.Extracted, got.Stage, sym, want[i])
			} else if strings.IndexByte("#*%&", sym) >= 0 {
				others.Write([]byte(got.Extracted + "\n"))
			}
			if got.Stage != 0 {
				found++
			}
		}
		if h := hex.EncodeToString(others.Sum(nil)); h != sum {
			t.Errorf("%s: what it extracted beside letters has hash %s, published %s", name, h, sum)
		}
		t.Logf("%-13s found an answer in %d of %d texts", name, found, len(all))
	}
	if len(rules) > 0 {
		t.Errorf("no outcomes of %d rules", len(rules))
	}
}

// symbol encodes a grade.
func symbol(g suites.Grade) byte {
	if g.Stage == 0 {
		return '.'
	}
	at := 10
	if len(g.Extracted) == 1 && g.Extracted[0] >= 'A' && g.Extracted[0] <= 'J' {
		at = int(g.Extracted[0] - 'A')
	}
	return symbols[(g.Stage-1)*11+at]
}
