// Package synthetic makes questions whose answers are known because they were
// made with them: multiple choice in MMLU-Pro's format, and look-ups in long
// texts. They are for models small enough for a laptop; a score says how well
// such a model does its sums, and how much of that a number format costs.
//
// Question n of a seed is the same whatever else is asked for, on every machine.
package synthetic

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/repromill/repromill/suites/mmlupro"
)

// options is how many options a question has, as many as MMLU-Pro's.
const options = 10

// kind makes one kind of question.
type kind struct {
	name string
	make func(r *rand.Rand) made
}

// made is a question without its options.
type made struct {
	question string
	working  string   // how one comes to the answer, ending in it; numbers have a blank before them, as in the question
	answer   string   // as it stands among the options
	near     []string // wrong answers that are close, most tempting first; may repeat
	fill     func(r *rand.Rand) string
}

// kinds in the order in which questions go through them.
var kinds = []kind{
	{"addition", addition}, {"subtraction", subtraction}, {"multiplication", multiplication}, {"remainder", remainder},
	{"sequence", sequence}, {"largest", largest}, {"lookup", lookup}, {"reversal", reversal}, {"counting", counting}, {"shift", shift},
}

// Questions returns the first n questions of a seed, in MMLU-Pro's format: ten
// options, the letter of the right one, and a worked solution that ends with the
// answer in a box. Kinds take turns.
func Questions(seed uint64, n int) []mmlupro.Question {
	out := make([]mmlupro.Question, n)
	for i := range out {
		out[i] = Question(seed, i)
	}
	return out
}

// Question returns question i of a seed.
func Question(seed uint64, i int) mmlupro.Question {
	r := rand.New(rand.NewPCG(seed, uint64(i)))
	k := kinds[i%len(kinds)]
	m := k.make(r)
	opts := []string{m.answer}
	for _, o := range m.near {
		if len(opts) < options && !slices.Contains(opts, o) {
			opts = append(opts, o)
		}
	}
	for len(opts) < options {
		if o := m.fill(r); !slices.Contains(opts, o) {
			opts = append(opts, o)
		}
	}
	r.Shuffle(len(opts), func(a, b int) { opts[a], opts[b] = opts[b], opts[a] })
	letter := string(rune('A' + slices.Index(opts, m.answer)))
	return mmlupro.Question{
		QuestionID: int64(i), Question: m.question, Options: opts, Answer: letter, Category: k.name,
		CoT: m.working + " (" + letter + ")\nAnswer: \\boxed{" + letter + "}",
	}
}

// around returns numbers that one gets by slips in the last digits, in random order.
func around(r *rand.Rand, n int) []string {
	deltas := []int{-1, 1, -10, 10, -2, 2, -11, 11, 9, -9, 3, -3}
	r.Shuffle(len(deltas), func(a, b int) { deltas[a], deltas[b] = deltas[b], deltas[a] })
	var out []string
	for _, d := range deltas {
		if n+d >= 0 {
			out = append(out, strconv.Itoa(n+d))
		}
	}
	return out
}

func numberBelow(limit int) func(*rand.Rand) string {
	return func(r *rand.Rand) string { return strconv.Itoa(r.IntN(limit)) }
}

func addition(r *rand.Rand) made {
	a, b := 2+r.IntN(78), 2+r.IntN(78)
	return made{fmt.Sprintf("What is %d + %d?", a, b), fmt.Sprintf("So %d + %d = %d", a, b, a+b), strconv.Itoa(a + b), around(r, a+b), numberBelow(160)}
}

func subtraction(r *rand.Rand) made {
	a, b := 2+r.IntN(98), 2+r.IntN(98)
	a, b = max(a, b), min(a, b)
	return made{fmt.Sprintf("What is %d - %d?", a, b), fmt.Sprintf("So %d - %d = %d", a, b, a-b), strconv.Itoa(a - b), around(r, a-b), numberBelow(100)}
}

func multiplication(r *rand.Rand) made {
	a, b := 2+r.IntN(8), 2+r.IntN(19)
	return made{fmt.Sprintf("What is %d x %d?", a, b), fmt.Sprintf("So %d x %d = %d", a, b, a*b), strconv.Itoa(a * b), around(r, a*b), numberBelow(180)}
}

func remainder(r *rand.Rand) made {
	m, q := 3+r.IntN(17), 1+r.IntN(7)
	rest := r.IntN(m)
	return made{fmt.Sprintf("What is the remainder of %d divided by %d?", q*m+rest, m), fmt.Sprintf("So %d = %d x %d + %d", q*m+rest, q, m, rest),
		strconv.Itoa(rest), around(r, rest), numberBelow(30)}
}

func sequence(r *rand.Rand) made {
	start, step := 1+r.IntN(60), 2+r.IntN(18)
	var terms []string
	for i := range 4 {
		terms = append(terms, strconv.Itoa(start+i*step))
	}
	next := start + 4*step
	return made{"Which number follows " + strings.Join(terms, ", ") + "?", fmt.Sprintf("So %d + %d = %d", next-step, step, next),
		strconv.Itoa(next), around(r, next), numberBelow(140)}
}

func largest(r *rand.Rand) made {
	var numbers []int
	for len(numbers) < 6 {
		if n := 10 + r.IntN(90); !slices.Contains(numbers, n) {
			numbers = append(numbers, n)
		}
	}
	var shown []string
	for _, n := range numbers {
		shown = append(shown, strconv.Itoa(n))
	}
	top := strconv.Itoa(slices.Max(numbers))
	return made{"Which is the largest of " + strings.Join(shown, ", ") + "?", "The largest is " + top, top, shown, func(r *rand.Rand) string { return strconv.Itoa(10 + r.IntN(90)) }}
}

func lookup(r *rand.Rand) made {
	keys := r.Perm(26)[:8]
	var pairs, values []string
	for _, k := range keys {
		v := strconv.Itoa(10 + r.IntN(90))
		for slices.Contains(values, v) {
			v = strconv.Itoa(10 + r.IntN(90))
		}
		values = append(values, v)
		pairs = append(pairs, fmt.Sprintf("%c = %s", 'a'+k, v))
	}
	at := r.IntN(len(keys))
	return made{fmt.Sprintf("If %s, what is %c?", strings.Join(pairs, ", "), 'a'+keys[at]), fmt.Sprintf("So %c = %s", 'a'+keys[at], values[at]),
		values[at], values, func(r *rand.Rand) string { return strconv.Itoa(10 + r.IntN(90)) }}
}

// word returns n letters of the first of the alphabet, with spaces between them.
func word(r *rand.Rand, n, alphabet int) []byte {
	w := make([]byte, n)
	for i := range w {
		w[i] = 'a' + byte(r.IntN(alphabet))
	}
	return w
}

func spaced(w []byte) string { return strings.Join(strings.Split(string(w), ""), " ") }

func reversal(r *rand.Rand) made {
	w := word(r, 5, 26)
	back := slices.Clone(w)
	slices.Reverse(back)
	var near []string
	for range 12 {
		v := slices.Clone(back)
		a, b := r.IntN(len(v)), r.IntN(len(v))
		v[a], v[b] = v[b], v[a]
		near = append(near, spaced(v))
	}
	return made{"What is " + spaced(w) + " backwards?", "Backwards it is " + spaced(back), spaced(back), near, func(r *rand.Rand) string { return spaced(word(r, 5, 26)) }}
}

func counting(r *rand.Rand) made {
	w := word(r, 8+r.IntN(9), 3)
	c := 'a' + byte(r.IntN(3))
	n := strings.Count(string(w), string(c))
	return made{fmt.Sprintf("How often does %c stand in %s?", c, spaced(w)), fmt.Sprintf("The number of %c is %d", c, n), strconv.Itoa(n),
		[]string{strconv.Itoa(n + 1), strconv.Itoa(max(n-1, 0)), strconv.Itoa(n + 2)}, numberBelow(17)}
}

func shift(r *rand.Rand) made {
	at, by := r.IntN(26), 2+r.IntN(12)
	to := (at + by) % 26
	letter := func(i int) string { return string(rune('a' + (i+26)%26)) }
	return made{fmt.Sprintf("Which letter comes %d after %s, going round after z?", by, letter(at)), "From " + letter(at) + " and " + strconv.Itoa(by) + " is " + letter(to),
		letter(to), []string{letter(to + 1), letter(to - 1), letter(to + 2), letter(to - 2)}, func(r *rand.Rand) string { return letter(r.IntN(26)) }}
}
