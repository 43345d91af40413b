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
	drills := flag.Int("drills", 0, "percent of the lessons that are drills in finding things again")
	test := flag.Bool("test", false, "print the questions of the suites instead")
	flag.Parse()
	if err := run(*seed, *from, *n, *every, *drills, *test); err != nil {
		fmt.Fprintln(os.Stderr, "lessons:", err)
		os.Exit(1)
	}
}

type lesson struct {
	Category string `json:"category"`
	Prompt   string `json:"prompt"`
	Answer   string `json:"answer"`
}

func run(seed uint64, from, n, every, drills int, test bool) error {
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
				if err := enc.Encode(lesson{it.Category, text, it.Reference}); err != nil {
					return err
				}
			}
		}
	}
	for i := from; i < from+n && !test; i++ {
		l := teach(seed, i, every, drills)
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
func teach(seed uint64, i, every, drills int) lesson {
	r := rand.New(rand.NewPCG(seed, 1<<41|uint64(i)))
	if r.IntN(100) < drills {
		return drill(r, seed, i)
	}
	if every > 0 && i%every == every-1 {
		p := synthetic.MakePairs(seed, i)
		return lesson{"long", p.Question(), p.Answer()}
	}
	q := synthetic.Question(seed, i)
	return lesson{q.Category, synthetic.ChoicePrompt(q.Question, q.Options), q.CoT}
}

// drill asks for everything that a list holds, one after the other. Finding an
// answer among the options is what a small model learns last, and one question
// exercises it once; a drill does ten times.
func drill(r *rand.Rand, seed uint64, i int) lesson {
	var lines []string
	if i%3 == 0 {
		p := synthetic.MakePairs(seed, i)
		n := min(len(p.Names), 8+r.IntN(12))
		p.Names, p.Numbers = p.Names[:n], p.Numbers[:n]
		for _, at := range r.Perm(n) {
			p.At = at
			lines = append(lines, p.Answer())
		}
		list, _, _ := strings.Cut(p.Question(), "\nWhich number")
		return lesson{"drill", list + "\nWhich numbers?", strings.Join(lines, "\n")}
	}
	q := synthetic.Question(seed, i)
	q.Options = q.Options[:2+r.IntN(len(q.Options)-1)]
	for _, at := range r.Perm(len(q.Options)) {
		lines = append(lines, fmt.Sprintf("It is %s (%c)", q.Options[at], 'A'+at))
	}
	return lesson{"drill", synthetic.ChoicePrompt("Which letters?", q.Options), strings.Join(lines, "\n")}
}
