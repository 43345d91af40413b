// Command lessons prints what the tiny model is trained on: questions of the
// synthetic suites with worked answers, one JSON object a line, without those
// that the suites ask.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/synthetic"
)

func main() {
	seed := flag.Uint64("seed", 1, "of the lessons; not that of the suites")
	from := flag.Int("from", 0, "first question")
	n := flag.Int("n", 1000, "how many questions")
	every := flag.Int("lookups", 12, "one in this many is a look-up in a long list")
	echoes := flag.Int("echoes", 0, "percent of the lessons that repeat what has no meaning")
	pool := flag.Int("pool", 1000, "words that echoes are made of")
	drills := flag.Int("drills", 0, "percent of the lessons that are drills in finding things again")
	test := flag.Bool("test", false, "print the questions of the suites instead")
	flag.Parse()
	if err := run(*seed, *from, *n, *every, *echoes, *drills, *pool, *test); err != nil {
		fmt.Fprintln(os.Stderr, "lessons:", err)
		os.Exit(1)
	}
}

type lesson struct {
	Category string `json:"category"`
	Prompt   string `json:"prompt"`
	// Answer is what is to be said, in parts: the first is to be learnt, the second
	// is given, and so on in turn.
	Answer []string `json:"answer"`
}

func run(seed uint64, from, n, every, echoes, drills, pool int, test bool) error {
	if seed == synthetic.TestSeed && !test {
		return fmt.Errorf("seed %d is that of the suites; take another", seed)
	}
	w := bufio.NewWriter(os.Stdout)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	asked := map[string]bool{}
	ctx := context.Background()
	for _, def := range []suites.Definition{synthetic.Choice(), synthetic.Lookup()} {
		s, err := def.Open(ctx, suites.Env{})
		if err != nil {
			return err
		}
		items, err := s.Items(ctx)
		if err != nil {
			return err
		}
		for _, it := range items {
			p, err := s.Prompt(it, 0)
			if err != nil {
				return err
			}
			text := p.Messages[0].Content
			asked[text] = true
			if test {
				if err := enc.Encode(lesson{it.Category, text, []string{it.Reference}}); err != nil {
					return err
				}
			}
		}
	}
	all := vocabulary()
	for i := from; i < from+n && !test; i++ {
		l := teach(seed, i, every, echoes, drills, pool, all)
		if asked[l.Prompt] {
			continue
		}
		if err := enc.Encode(l); err != nil {
			return err
		}
	}
	return w.Flush()
}

// teach returns lesson i of a seed.
func teach(seed uint64, i, every, echoes, drills, pool int, all []string) lesson {
	r := rand.New(rand.NewPCG(seed, 1<<41|uint64(i)))
	switch at := r.IntN(100); {
	case at < echoes:
		return echo(r, all, pool)
	case at < echoes+drills:
		return drill(r, seed, i)
	}
	if every > 0 && i%every == every-1 {
		p := synthetic.MakePairs(seed, i)
		return lesson{"long", p.Question(), []string{p.Answer()}}
	}
	q := synthetic.Question(seed, i)
	return lesson{q.Category, synthetic.ChoicePrompt(q.Question, q.Options), []string{q.CoT}}
}

// echo is a drill without any words around it: twelve pairs of numbers, letters and
// names, and then the pairs in another order. What followed something once follows
// it again; a model that has found this out learns the rest soon, and from less
// dense lessons it does not find it out. Nothing else helps here, as all words of an
// echo are different and each may stand anywhere. It is found out sooner among few
// words, and holds for those alone that were among them: so the pool is the first 64
// words, and later all.
func echo(r *rand.Rand, all []string, pool int) lesson {
	words := make([]string, 24)
	for i, at := range r.Perm(min(pool, len(all)))[:len(words)] {
		words[i] = all[at]
	}
	answer := []string{""}
	for _, at := range r.Perm(len(words) / 2) {
		answer = append(answer, words[2*at], words[2*at+1])
	}
	return lesson{"echo", strings.Join(words, ""), answer}
}

// vocabulary is all that is ever to be found again, in an order of its own.
func vocabulary() (all []string) {
	for i := range 10 {
		all = append(all, fmt.Sprintf(" (%c)", 'A'+i))
	}
	for i := range 190 {
		all = append(all, fmt.Sprintf(" %d", i))
	}
	for i := range 26 {
		all = append(all, fmt.Sprintf(" %c", 'a'+i))
	}
	for i := range synthetic.Names {
		all = append(all, " "+synthetic.Name(i))
	}
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(all), func(a, b int) { all[a], all[b] = all[b], all[a] })
	return all
}

// drill goes through all that a list holds in another order: a name or an option
// is given, and what stands after it is to be said. Finding an answer again is
// what a small model learns last, and one question exercises it once; a drill does
// ten times, and wastes nothing on what cannot be known.
func drill(r *rand.Rand, seed uint64, i int) lesson {
	answer := []string{""}
	if i%3 == 0 {
		p := synthetic.MakePairs(seed, i)
		n := min(len(p.Names), 6+r.IntN(24))
		p.Names, p.Numbers, p.At = p.Names[:n], p.Numbers[:n], 0
		for _, at := range r.Perm(n) {
			answer = append(answer, "- "+p.Names[at], fmt.Sprintf(" %d\n", p.Numbers[at]))
		}
		list, _, _ := strings.Cut(p.Question(), "\nWhich number")
		return lesson{"drill", list + "\nWhich numbers?", answer}
	}
	q := synthetic.Question(seed, i)
	for _, at := range r.Perm(len(q.Options)) {
		answer = append(answer, "- "+q.Options[at], fmt.Sprintf(" (%c)\n", 'A'+at))
	}
	return lesson{"drill", synthetic.ChoicePrompt("Which letters?", q.Options), answer}
}
