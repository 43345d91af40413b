package synthetic_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/mmlupro"
	"github.com/repromill/repromill/suites/suitetest"
	"github.com/repromill/repromill/suites/synthetic"
)

func TestConformance(t *testing.T) {
	for _, d := range []suites.Definition{synthetic.Choice(), synthetic.Lookup()} {
		t.Run(d.Suite, func(t *testing.T) {
			s, err := d.Open(context.Background(), suites.Env{})
			if err != nil {
				t.Fatal(err)
			}
			suitetest.Suite(t, s)
			items, err := s.Items(context.Background())
			if err != nil || len(items) != d.Questions {
				t.Errorf("%d items, %v, want %d", len(items), err, d.Questions)
			}
		})
	}
}

// TestFrozen holds the questions to what they were: scores of two versions of
// this program are compared item by item.
func TestFrozen(t *testing.T) {
	want := map[string]string{"synthetic-choice": "14e54e6c27835be6", "synthetic-lookup": "2a58e97ec95b0b55"}
	for _, d := range []suites.Definition{synthetic.Choice(), synthetic.Lookup()} {
		s, err := d.Open(context.Background(), suites.Env{})
		if err != nil {
			t.Fatal(err)
		}
		items, err := s.Items(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		for _, it := range items {
			fmt.Fprintln(h, it.SHA())
		}
		if got := fmt.Sprintf("%x", h.Sum(nil))[:16]; got != want[d.Suite] {
			t.Errorf("%s: items have changed: %s, want %s", d.Suite, got, want[d.Suite])
		}
	}
}

// solve answers a question from its text alone, without what made it.
func solve(t *testing.T, question string) string {
	t.Helper()
	var numbers []int
	for _, n := range regexp.MustCompile(`\d+`).FindAllString(question, -1) {
		v, err := strconv.Atoi(n)
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, v)
	}
	words := strings.Fields(strings.TrimSuffix(question, "?"))
	switch {
	case strings.Contains(question, "+"):
		return strconv.Itoa(numbers[0] + numbers[1])
	case strings.Contains(question, " - "):
		return strconv.Itoa(numbers[0] - numbers[1])
	case strings.Contains(question, " x ") && len(numbers) == 2:
		return strconv.Itoa(numbers[0] * numbers[1])
	case strings.Contains(question, "remainder"):
		return strconv.Itoa(numbers[0] % numbers[1])
	case strings.Contains(question, "follows"):
		return strconv.Itoa(2*numbers[3] - numbers[2])
	case strings.Contains(question, "largest"):
		return strconv.Itoa(slices.Max(numbers))
	case strings.HasPrefix(question, "If "):
		return regexp.MustCompile(`\b` + words[len(words)-1] + ` = (\d+)`).FindStringSubmatch(question)[1]
	case strings.Contains(question, "backwards"):
		letters := words[2 : len(words)-1]
		slices.Reverse(letters)
		return strings.Join(letters, " ")
	case strings.Contains(question, "How often"):
		return strconv.Itoa(strings.Count(strings.Join(words[6:], ""), words[3]))
	case strings.Contains(question, "Which letter"):
		from := words[5][0]
		return string(rune('a' + (int(from-'a')+numbers[0])%26))
	}
	t.Fatalf("no way to solve %q", question)
	return ""
}

// TestAnswers solves the questions independently.
func TestAnswers(t *testing.T) {
	g := mmlupro.Boxed()
	for _, q := range synthetic.Questions(7, 2000) {
		right := solve(t, q.Question)
		if len(q.Options) != 10 || slices.Index(q.Options, right) != int(q.Answer[0]-'A') {
			t.Fatalf("%q: right is %s, the options are %q and the answer %s", q.Question, right, q.Options, q.Answer)
		}
		seen := map[string]bool{}
		for _, o := range q.Options {
			if seen[o] {
				t.Fatalf("%q: option %q stands twice", q.Question, o)
			}
			seen[o] = true
		}
		item := suites.Item{ID: "x", Options: q.Options, Reference: q.Answer}
		if got := g.Grade(item, q.CoT); got.Outcome != suites.Correct {
			t.Fatalf("%q: the worked answer %q is graded %+v", q.Question, q.CoT, got)
		}
	}
}

func TestLookups(t *testing.T) {
	g := synthetic.Lookup().Graders[0]
	for i := range 300 {
		p := synthetic.MakePairs(7, i)
		item := suites.Item{ID: "x", Reference: strconv.Itoa(p.Numbers[p.At])}
		if got := g.Grade(item, p.Answer()); got.Outcome != suites.Correct {
			t.Fatalf("the worked answer %q is graded %+v", p.Answer(), got)
		}
		pair := strings.TrimPrefix(strings.SplitN(p.Answer(), "\n", 2)[0], "It is ")
		if n := strings.Count(p.Question(), "- "+pair+"\n"); n != 1 {
			t.Fatalf("the pair stands %d times in %q", n, p.Question())
		}
	}
}

func BenchmarkQuestion(b *testing.B) {
	for i := range b.N {
		synthetic.Question(1, i)
	}
}
