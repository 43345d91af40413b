package report

import (
	"bufio"
	"fmt"
	"strings"
)

// Suite is one benchmark with what came of it.
type Suite struct {
	ID          string       `json:"id"`
	Variant     string       `json:"variant,omitempty"`
	Rule        string       `json:"rule,omitempty"`    // name@version
	Refused     string       `json:"refused,omitempty"` // why it was not attempted
	Questions   int          `json:"questions,omitempty"`
	Repeats     int          `json:"repeats,omitempty"`
	Stopped     string       `json:"stopped,omitempty"` // why not all questions were asked
	Arms        []Arm        `json:"arms,omitempty"`
	Comparisons []Comparison `json:"comparisons,omitempty"`
	Ratios      []Ratio      `json:"ratios,omitempty"` // of a throughput suite
	Rounds      int          `json:"rounds,omitempty"` // starts of each arm's server
	Paid        Paid         `json:"paid,omitzero"`
	Warnings    []string     `json:"warnings,omitempty"`
}

// Arm is one model's answers to a suite, over the questions used.
type Arm struct {
	Name     string   `json:"name"`
	Model    string   `json:"model,omitempty"`
	Score    float64  `json:"score"` // a fraction: the mean over questions of the mean over repeats
	MajAt    *float64 `json:"maj_at_k,omitempty"`
	PassAt   *float64 `json:"pass_at_k,omitempty"`
	Answers  int      `json:"answers"`
	Outcomes []string `json:"outcomes"` // "truncated 3"
}

// Comparison is a candidate against the baseline. Scores are fractions.
type Comparison struct {
	Candidate   string   `json:"candidate"`
	Baseline    string   `json:"baseline"`
	Verdict     string   `json:"verdict"` // equivalent, worse, better, not_worse, undecided
	Margin      float64  `json:"margin"`
	Method      string   `json:"method"`
	Diff        float64  `json:"diff"`
	Lo          *float64 `json:"lo,omitempty"`
	Hi          *float64 `json:"hi,omitempty"`
	Level       *float64 `json:"level,omitempty"`
	BaseOnly    int      `json:"baseline_only"`  // questions on which the baseline scored higher
	CandOnly    int      `json:"candidate_only"` // questions on which the candidate scored higher
	Used        int      `json:"questions_used"`
	Saved       int      `json:"questions_saved"`
	Assumptions []string `json:"assumptions,omitempty"`
	Warnings    []string `json:"warnings,omitempty"`
	// Curve is how the difference and its interval stood at some of the looks.
	Curve []Look `json:"curve,omitempty"`
}

// Look is a comparison after N questions.
type Look struct {
	N    int      `json:"n"`
	Diff float64  `json:"diff"`
	Lo   *float64 `json:"lo,omitempty"`
	Hi   *float64 `json:"hi,omitempty"`
}

// Ratio is a candidate's figure over the baseline's.
type Ratio struct {
	Question       string   `json:"question"` // equal_configuration or best_at_floor
	Floor          float64  `json:"floor_tokens_per_s_per_user,omitempty"`
	Metric         string   `json:"metric"`
	Unit           string   `json:"unit"`
	Cell           string   `json:"cell,omitempty"` // of the baseline, "" over all
	CandidateCell  string   `json:"candidate_cell,omitempty"`
	Baseline       string   `json:"baseline"`
	Candidate      string   `json:"candidate"`
	BaselineValue  float64  `json:"baseline_value"`
	CandidateValue float64  `json:"candidate_value"`
	Ratio          float64  `json:"ratio"` // 0 where there is none
	Lo             *float64 `json:"lo,omitempty"`
	Hi             *float64 `json:"hi,omitempty"`
	Level          *float64 `json:"level,omitempty"`
	Processes      bool     `json:"of_processes,omitempty"` // the interval speaks of the processes measured, and not of servers as they come up
	Starts         int      `json:"starts"`
	Verdict        string   `json:"verdict"`
	Reason         string   `json:"reason,omitempty"`
}

// label says what is compared.
func (x *Ratio) label() string {
	switch {
	case x.Question == "best_at_floor":
		return fmt.Sprintf("best at %g tokens/s or more to each user", x.Floor)
	case x.Cell == "":
		return "all cells"
	}
	return x.Cell
}

// line says what came out.
func (x *Ratio) line() string {
	if x.Ratio == 0 {
		return fmt.Sprintf("%s: no ratio: %s", x.Metric, x.Reason)
	}
	s := fmt.Sprintf("%s: %s over %s %.3f", x.Metric, x.Candidate, x.Baseline, x.Ratio)
	if x.Lo != nil && x.Hi != nil && x.Level != nil {
		s += fmt.Sprintf(", %s %% interval %.3f to %.3f", Number(*x.Level*100, 3), *x.Lo, *x.Hi)
		if x.Processes {
			s += " of these very processes"
		}
	}
	s += fmt.Sprintf(" (%s against %s; %d starts): %s", WithUnit(Number(x.CandidateValue, 4), x.Unit), WithUnit(Number(x.BaselineValue, 4), x.Unit), x.Starts, words(x.Verdict))
	if x.Question == "best_at_floor" {
		s += fmt.Sprintf("; %s at %s, %s at %s", x.Candidate, x.CandidateCell, x.Baseline, x.Cell)
	}
	if x.Reason != "" && x.Verdict == "refused" {
		s += ": " + x.Reason
	}
	return s
}

// Paid is what was asked for.
type Paid struct {
	Requests int     `json:"requests,omitempty"`
	Repeated int     `json:"repeated,omitempty"` // again, because they were in flight at an interruption
	Void     int     `json:"void,omitempty"`     // of a server that was another
	Overrun  int     `json:"overrun,omitempty"`  // beyond the question that decided
	Tokens   int64   `json:"tokens,omitempty"`
	USD      float64 `json:"usd,omitempty"`
}

// title is the suite with how it was put.
func (s *Suite) title() string {
	how := strings.Trim(s.Variant+", "+s.Rule, ", ")
	return join(" ", s.ID, paren(how))
}

func percent(v float64) string { return fmt.Sprintf("%.2f %%", 100*v) }

// scores says what each arm scored, and how.
func (a *Arm) line(repeats int) string {
	text := fmt.Sprintf("%s over %s answers", percent(a.Score), Number(float64(a.Answers), 15))
	if a.MajAt != nil && a.PassAt != nil {
		text = fmt.Sprintf("avg@%d %s, maj@%d %s, pass@%d %s over %s answers", repeats, percent(a.Score), repeats, percent(*a.MajAt), repeats, percent(*a.PassAt), Number(float64(a.Answers), 15))
	}
	if len(a.Outcomes) > 0 {
		text += ": " + strings.Join(a.Outcomes, ", ")
	}
	if a.Model != "" {
		text += " (" + a.Model + ")"
	}
	return text
}

// difference says what the comparison found.
func (c *Comparison) difference() string {
	text := fmt.Sprintf("%s against %s: %+.2f points", c.Candidate, c.Baseline, 100*c.Diff)
	if c.Lo != nil && c.Hi != nil && c.Level != nil {
		text += fmt.Sprintf(", %s %% interval %+.2f to %+.2f", Number(*c.Level*100, 3), 100**c.Lo, 100**c.Hi)
	}
	return text + fmt.Sprintf(", margin %s", WithUnit(Number(100*c.Margin, 3), "points"))
}

// basis says what the verdict rests on.
func (c *Comparison) basis(questions int) string {
	return fmt.Sprintf("%s of %s questions used, %s saved; only %s right on %d, only %s on %d; method %s",
		Number(float64(c.Used), 15), Number(float64(questions), 15), Number(float64(c.Saved), 15), c.Baseline, c.BaseOnly, c.Candidate, c.CandOnly, c.Method)
}

// line says what was paid for that the verdict does not rest on.
func (p *Paid) line() string {
	if p.Requests == 0 {
		return ""
	}
	parts := []string{fmt.Sprintf("%s requests, %s tokens", Number(float64(p.Requests), 15), Number(float64(p.Tokens), 15))}
	for _, x := range []struct {
		n    int
		what string
	}{{p.Repeated, "asked again after an interruption"}, {p.Overrun, "beyond the decision"}, {p.Void, "void: the server was another"}} {
		if x.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", x.n, x.what))
		}
	}
	if p.USD > 0 {
		parts = append(parts, fmt.Sprintf("%.2f USD", p.USD))
	}
	return strings.Join(parts, "; ")
}

func (r *Report) suites(p *page) {
	for i := range r.Suites {
		s := &r.Suites[i]
		p.section(s.title())
		if s.Refused != "" {
			p.labelled(2, "not run", s.Refused, yellow, maxReason)
			continue
		}
		for j := range s.Comparisons {
			c := &s.Comparisons[j]
			p.labelled(2, "verdict", words(c.Verdict), colorOf(c.Verdict), maxReason)
			p.labelled(2, "", c.difference(), "", maxReason)
			p.labelled(2, "", c.basis(s.Questions), "", maxReason)
			for _, a := range c.Assumptions {
				p.labelled(2, "assumed", a, dim, maxReason)
			}
			for _, w := range c.Warnings {
				p.labelled(2, "note", w, yellow, maxReason)
			}
		}
		for j := range s.Ratios {
			x := &s.Ratios[j]
			name := x.label()
			if j > 0 && s.Ratios[j-1].label() == name {
				name = ""
			}
			p.labelled(2, name, x.line(), colorOf(x.Verdict), maxReason)
		}
		for j := range s.Arms {
			p.labelled(2, s.Arms[j].Name, s.Arms[j].line(s.Repeats), "", maxReason)
		}
		p.labelled(2, "stopped", s.Stopped, "", maxReason)
		p.labelled(2, "paid", s.Paid.line(), "", maxReason)
		for _, w := range s.Warnings {
			p.labelled(2, "note", w, yellow, maxReason)
		}
	}
}

func (r *Report) mdSuites(b *bufio.Writer) {
	for i := range r.Suites {
		s := &r.Suites[i]
		fmt.Fprintf(b, "\n## %s\n\n", markdown(s.title()))
		if s.Refused != "" {
			fmt.Fprintf(b, "Not run: %s\n", markdown(truncate(clean(s.Refused), maxReason)))
			continue
		}
		for j := range s.Comparisons {
			c := &s.Comparisons[j]
			fmt.Fprintf(b, "**%s.** %s; %s.\n\n", markdown(words(c.Verdict)), markdown(c.difference()), markdown(c.basis(s.Questions)))
			for _, a := range append(c.Assumptions, c.Warnings...) {
				fmt.Fprintf(b, "- %s\n", markdown(a))
			}
			fmt.Fprintln(b)
		}
		for j := range s.Ratios {
			fmt.Fprintf(b, "- %s: %s\n", markdown(s.Ratios[j].label()), markdown(s.Ratios[j].line()))
		}
		for j := range s.Arms {
			fmt.Fprintf(b, "- %s: %s\n", markdown(s.Arms[j].Name), markdown(s.Arms[j].line(s.Repeats)))
		}
		for _, line := range append([]string{s.Stopped, s.Paid.line()}, s.Warnings...) {
			if line != "" {
				fmt.Fprintf(b, "- %s\n", markdown(line))
			}
		}
	}
}

// speed says in words by which factor each candidate is faster: over all cells at
// equal configuration where there are several, else of the one cell.
func (s *Suite) speed() []string {
	var order []string
	best := map[string]*Ratio{}
	for i := range s.Ratios {
		x := &s.Ratios[i]
		if x.Question != "equal_configuration" || x.Ratio <= 0 || !strings.HasPrefix(x.Metric, "output_tokens") {
			continue
		}
		if best[x.Candidate] == nil {
			order = append(order, x.Candidate)
		}
		if best[x.Candidate] == nil || x.Cell == "" {
			best[x.Candidate] = x
		}
	}
	if len(order) == 0 {
		return []string{s.ID + " gives no ratio"}
	}
	out := make([]string, len(order))
	for i, name := range order {
		x := best[name]
		if out[i] = fmt.Sprintf("%s of %s %.2f times that of %s", s.ID, x.Candidate, x.Ratio, x.Baseline); x.Verdict == "refused" {
			out[i] = fmt.Sprintf("%s of %s %.2f, which is no claim", s.ID, x.Candidate, x.Ratio)
		}
	}
	return out
}

// compared says in words how the comparisons came out, "" if there are none.
func (r *Report) compared() string {
	n, equal := 0, 0
	var rest, faster []string
	for _, s := range r.Suites {
		if len(s.Ratios) > 0 {
			faster = append(faster, s.speed()...)
		}
		for _, c := range s.Comparisons {
			if n++; c.Verdict == "equivalent" {
				equal++
				continue
			}
			name := s.ID
			if len(s.Comparisons) > 1 {
				name += " of " + c.Candidate
			}
			rest = append(rest, name+" "+words(c.Verdict))
		}
	}
	if n == 0 {
		return strings.Join(faster, ", ")
	}
	rest = append(rest, faster...)
	return strings.Join(append([]string{fmt.Sprintf("%d of %s equivalent", equal, plural(n, "comparison"))}, rest...), ", ")
}
