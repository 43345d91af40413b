package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/samples"
)

// maxExamples is how many texts on which rules disagree are shown.
const maxExamples = 10

// ruleComparison is what several rules made of the same texts.
type ruleComparison struct {
	Rules    []string      `json:"rules"`
	Rows     int           `json:"rows"`
	Agree    int           `json:"agree"` // rows on which all rules extract the same and score the same
	Pairs    []rulePair    `json:"pairs"`
	Examples []ruleExample `json:"examples"` // the first rows on which they disagree

	texts map[string]int // how often a combination of answers is among the examples
}

// rulePair is two rules on the same texts.
type rulePair struct {
	A       string  `json:"a"`
	B       string  `json:"b"`
	Differ  int     `json:"differ"`   // rows with different answers or scores
	HigherA int     `json:"higher_a"` // rows that A scores higher
	HigherB int     `json:"higher_b"`
	Points  float64 `json:"points"` // mean score of A less that of B, in points of a hundred

	sum float64
}

// ruleExample is one text on which rules disagree.
type ruleExample struct {
	ItemID    string       `json:"item_id"`
	Arm       string       `json:"arm,omitempty"`
	Repeat    int          `json:"repeat"`
	Reference string       `json:"reference"`
	Answers   []ruleAnswer `json:"answers"` // in the order of the rules
	Ending    string       `json:"ending"`  // of the text
}

type ruleAnswer struct {
	Extracted *string        `json:"extracted"`
	StageName string         `json:"stage_name"`
	Outcome   suites.Outcome `json:"outcome"`
	Score     float64        `json:"score"`
}

func newRuleComparison(use []suites.Grader) *ruleComparison {
	c := &ruleComparison{Pairs: []rulePair{}, Examples: []ruleExample{}, texts: map[string]int{}}
	for i, g := range use {
		c.Rules = append(c.Rules, g.Rule().String())
		for _, h := range use[i+1:] {
			c.Pairs = append(c.Pairs, rulePair{A: g.Rule().String(), B: h.Rule().String()})
		}
	}
	return c
}

// differ reports whether two rules judge a text differently.
func differ(a, b suites.Grade) bool { return a.Extracted != b.Extracted || a.Score != b.Score }

// add takes the grades of one text, in the order of the rules.
func (c *ruleComparison) add(s samples.Sample, use []suites.Grader, grades []suites.Grade) {
	c.Rows++
	n, same := 0, true
	for i, a := range grades {
		for _, b := range grades[i+1:] {
			p := &c.Pairs[n]
			n++
			p.sum += a.Score - b.Score
			if !differ(a, b) {
				continue
			}
			same = false
			p.Differ++
			switch {
			case a.Score > b.Score:
				p.HigherA++
			case b.Score > a.Score:
				p.HigherB++
			}
		}
	}
	if same {
		c.Agree++
		return
	}
	c.example(s, use, grades)
}

// example keeps a text, if none has shown the same disagreement twice.
func (c *ruleComparison) example(s samples.Sample, use []suites.Grader, grades []suites.Grade) {
	var key strings.Builder
	e := ruleExample{ItemID: s.Item.ID, Arm: s.Arm, Repeat: s.Repeat, Reference: s.Item.Reference}
	for i, g := range grades {
		a := ruleAnswer{StageName: use[i].Rule().StageName(g.Stage), Outcome: g.Outcome, Score: g.Score}
		if g.Extracted != "" {
			a.Extracted = &g.Extracted
		}
		e.Answers = append(e.Answers, a)
		fmt.Fprintf(&key, "%d %v %v;", g.Stage, g.Score, slices.IndexFunc(grades, func(o suites.Grade) bool { return o.Extracted == g.Extracted }))
	}
	if len(c.Examples) == maxExamples || c.texts[key.String()] == 2 {
		return
	}
	c.texts[key.String()]++
	const ending = 60
	rs := []rune(strings.TrimSpace(s.Text))
	e.Ending = string(rs[max(0, len(rs)-ending):])
	c.Examples = append(c.Examples, e)
}

// finish works out the means.
func (c *ruleComparison) finish() {
	for i := range c.Pairs {
		if c.Rows > 0 {
			c.Pairs[i].Points = 100 * c.Pairs[i].sum / float64(c.Rows)
		}
	}
}

func (c *ruleComparison) print(out io.Writer) {
	fmt.Fprintf(out, "\n%d of %d texts are judged alike by all %d rules\n", c.Agree, c.Rows, len(c.Rules))
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "RULE\tAGAINST\tDIFFER\tFIRST HIGHER\tSECOND HIGHER\tPOINTS")
	for _, p := range c.Pairs {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%+.2f\n", p.A, p.B, p.Differ, p.HigherA, p.HigherB, p.Points)
	}
	w.Flush()
	if len(c.Examples) == 0 {
		return
	}
	fmt.Fprintln(out)
	fmt.Fprintf(w, "ITEM\tRIGHT\t%s\tTEXT ENDS\n", strings.ToUpper(strings.Join(c.Rules, "\t")))
	for _, e := range c.Examples {
		fmt.Fprintf(w, "%s\t%s", clean(e.ItemID), clean(head(e.Reference, 20)))
		for _, a := range e.Answers {
			got := "-"
			if a.Extracted != nil {
				got = head(*a.Extracted, 20) + " (" + a.StageName + ")"
			}
			fmt.Fprintf(w, "\t%s", clean(oneLine(got)))
		}
		fmt.Fprintf(w, "\t%s\n", clean(oneLine(e.Ending)))
	}
	w.Flush()
}

// head is the beginning of a text.
func head(s string, n int) string {
	if rs := []rune(s); len(rs) > n {
		return string(rs[:n-1]) + "…"
	}
	return s
}
