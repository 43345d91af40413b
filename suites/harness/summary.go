package harness

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/compare"
	"github.com/repromill/repromill/suites/endpoint"
)

// Answer is an accepted answer with all that is known of it.
type Answer struct {
	suites.Record
	Item     suites.Item // as its repeat was asked
	Grade    suites.Grade
	Stage    string // name of the rule's stage that found the answer, "" if none did
	Position int    // of the question in the declared order
}

// Answers calls f for every answer that a result rests on, in the order in which
// they were accepted. It needs no servers.
func Answers(ctx context.Context, c Config, res Result, f func(Answer) error) error {
	if err := c.defaults(); err != nil {
		return err
	}
	l, err := arrange(ctx, &c)
	if err != nil {
		return err
	}
	if l.sha != res.DatasetSHA {
		return &UserError{fmt.Sprintf("the questions of suite %s are not those that were asked", c.Name), "restore its data set at the commit of the plan"}
	}
	_, _, err = each(&c, l, func(t task, a Answer) error {
		if t.unit >= res.Units {
			return nil
		}
		return f(a)
	})
	return err
}

// each calls f for every valid answer, graded.
func each(c *Config, l *layout, f func(t task, a Answer) error) (looks []Look, void int, err error) {
	dirs := c.From
	if dirs == nil {
		dirs = []string{c.Dir}
	}
	rule := c.Suite.Grader().Rule()
	first := map[string]endpoint.Identity{} // by arm
	for _, dir := range dirs {
		own, err := readLooks(dir)
		if err != nil {
			return looks, void, err
		}
		others := others(first, own)
		looks = append(looks, marked(own, others)...)
		foreign := 0
		n, err := replay(dir, own, func(r suites.Record) error {
			if others[r.Arm] != "" {
				foreign++
				return nil
			}
			pos, known := l.at[r.ItemID]
			a := c.arm(r.Arm)
			if !known || a < 0 || r.Repeat < 0 || r.Repeat >= l.repeats {
				return fmt.Errorf("read answers: %+v is no question of this run", r.Key)
			}
			it := l.items[pos]
			out := Answer{Record: r, Item: suites.AskedAs(c.Suite, it, r.Repeat), Grade: grade(c.Suite, it, r), Position: l.first + pos}
			if out.Grade.Stage > 0 {
				out.Stage = rule.StageName(out.Grade.Stage)
			}
			return f(task{unit: l.index(pos, r.Repeat), arm: a, pos: pos, repeat: r.Repeat}, out)
		})
		if void += n + foreign; err != nil {
			return looks, void, err
		}
	}
	return looks, void, nil
}

// tally is all answers, by cell.
type tally struct {
	c         *Config
	l         *layout
	there     []bool
	scores    []float64
	outcomes  []suites.Outcome
	extracted []string
	tokens    [][3]int64
}

// summarise makes the result from the answers.
func summarise(c *Config, l *layout, stopped string) (Result, error) {
	res := Result{Suite: c.Name, Variant: c.Variant, Rule: c.Suite.Grader().Rule().String(), DatasetSHA: l.sha, Seed: c.Seed,
		Questions: l.total, Repeats: l.repeats, Shard: c.Shard, Stopped: stopped, Arms: []ArmResult{}, Comparisons: []Compared{}}
	cells := l.units() * len(c.Arms)
	t := &tally{c, l, make([]bool, cells), make([]float64, cells), make([]suites.Outcome, cells), make([]string, cells), make([][3]int64, cells)}
	var err error
	for i := range t.there {
		t.there[i] = !c.asks(i % len(c.Arms)) // what is not asked here is not missing here
	}
	res.Looks, res.Paid.Void, err = each(c, l, func(k task, a Answer) error {
		i := c.cell(k.unit, k.arm)
		if t.there[i] {
			return nil
		}
		t.there[i], t.scores[i], t.outcomes[i], t.extracted[i] = true, a.Grade.Score, a.Grade.Outcome, a.Item.Vote(a.Grade.Extracted)
		if a.Grade.Outcome == suites.Error {
			t.scores[i] = math.NaN()
		}
		t.tokens[i] = [3]int64{a.PromptTokens, a.OutputTokens, a.ReasoningTokens}
		res.Paid.Tokens += tokens(a.Record)
		res.Paid.USD += c.Arms[k.arm].usd(a.Record)
		res.Paid.Retries += a.Retries
		return nil
	})
	if err != nil {
		return Result{}, err
	}
	for res.Units < l.units() && !slices.Contains(t.there[c.cell(res.Units, 0):c.cell(res.Units+1, 0)], false) {
		res.Units++
	}
	res.Units = l.whole(res.Units)
	res.Warnings = strangers(c, res.Looks)
	if err := t.compare(&res); err != nil {
		return Result{}, err
	}
	res.Used = l.questions(res.Units)
	for i := range c.Arms {
		if c.asks(i) {
			res.Arms = append(res.Arms, t.arm(i, res.Units))
		}
	}
	for i := c.cell(res.Units, 0); i < cells; i++ {
		if t.there[i] && c.asks(i%len(c.Arms)) {
			res.Paid.Overrun++
		}
	}
	return res, t.paid(&res)
}

// compare decides, and takes off the result what comes after the decision.
func (t *tally) compare(res *Result) error {
	c, l := t.c, t.l
	// What a shard alone comes to decides nothing: that is for all of them.
	if len(c.Arms) < 2 || !(c.Terms.Margin > 0) || res.Units == 0 || c.Shard.Of > 1 || c.Only != "" {
		return nil
	}
	m, err := compare.Find(c.Terms.Method)
	if err != nil {
		return err
	}
	_, looks := m.(compare.Sequential)
	if !looks && c.From != nil && res.Units < l.units() {
		// Between shards it would be asked again and again, and find what it looks for.
		res.Warnings = append(res.Warnings, fmt.Sprintf("%s decides once, over all questions: arms are compared when all shards are there", m.Name()))
		return nil
	}
	used := 0
	for a := range c.Arms[1:] {
		var pairs []compare.Pair
		var at []int
		for pos := range l.questions(res.Units) {
			if p, ok := pair(l, c, t.scores, pos, a+1, res.Units); ok {
				pairs, at = append(pairs, p), append(at, pos)
			}
		}
		if dropped := l.questions(res.Units) - len(pairs); dropped > 0 {
			res.Warnings = append(res.Warnings, fmt.Sprintf("%d questions have no answer of %s or %s, because requests failed, and are left out", dropped, c.Arms[0].Name, c.Arms[a+1].Name))
		}
		if looks && c.From != nil && res.Units < l.units() {
			// One run that asks all of it looks at these places and at no others.
			n := len(pairs) - len(pairs)%c.Terms.Look
			pairs, at = pairs[:n], at[:n]
		}
		if len(pairs) == 0 {
			continue
		}
		terms := c.Terms.Options
		terms.Trace = true
		r, err := m.Compare(pairs, terms)
		if err != nil {
			return err
		}
		used = max(used, at[r.Used-1]+1)
		if r.Verdict == compare.Undecided {
			used = l.questions(res.Units)
		}
		res.Comparisons = append(res.Comparisons, Compared{c.Arms[0].Name, c.Arms[a+1].Name, r})
	}
	if !l.wide && used > 0 {
		res.Units = used * l.repeats
	}
	return nil
}

// arm sums up one arm over the first units.
func (t *tally) arm(a, units int) ArmResult {
	l := t.l
	out := ArmResult{Arm: t.c.Arms[a].Name, Outcomes: map[suites.Outcome]int{}}
	scores, answers, right := make([][]float64, len(l.items)), make([][]string, len(l.items)), make([]string, len(l.items))
	for u := range units {
		i := t.c.cell(u, a)
		pos, _ := l.unit(u)
		out.Outcomes[t.outcomes[i]]++
		out.Answers++
		out.Prompt, out.Output, out.Reasoning = out.Prompt+t.tokens[i][0], out.Output+t.tokens[i][1], out.Reasoning+t.tokens[i][2]
		if t.outcomes[i] == suites.Error {
			continue
		}
		scores[pos] = append(scores[pos], t.scores[i])
		answers[pos] = append(answers[pos], t.extracted[i])
		if t.scores[i] == 1 {
			right[pos] = t.extracted[i]
		}
	}
	out.Score = suites.Mean(scores)
	if l.repeats < 2 {
		return out
	}
	var maj, pass, n float64
	for pos, list := range answers {
		if len(list) == 0 {
			continue
		}
		n++
		if slices.Contains(scores[pos], 1) {
			pass++
			if right[pos] != "" && suites.Majority(list) == right[pos] {
				maj++
			}
		}
	}
	if n > 0 {
		maj, pass = maj/n, pass/n
		out.MajAt, out.PassAt = &maj, &pass
	}
	return out
}

// paid counts the requests.
func (t *tally) paid(res *Result) error {
	dirs := t.c.From
	if dirs == nil {
		dirs = []string{t.c.Dir}
	}
	for _, dir := range dirs {
		distinct := map[[2]int]bool{}
		if err := readSent(dir, func(unit, arm int) {
			res.Paid.Requests++
			distinct[[2]int{unit, arm}] = true
		}); err != nil {
			return err
		}
		res.Paid.Repeated -= len(distinct)
	}
	res.Paid.Seconds = worked(res.Looks).Seconds()
	res.Paid.Repeated = max(res.Paid.Repeated+res.Paid.Requests-res.Paid.Void, 0)
	return nil
}
