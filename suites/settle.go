package suites

import "strings"

// Ending is how a request ended, as far as it bears on the outcome.
type Ending struct {
	FinishReason string // as the server gave it: stop, length, content_filter, …
	Refusal      bool   // the server marked the answer as a refusal
	Failed       bool   // no answer was received
}

// cut reports whether the token limit ended the answer.
func (e Ending) cut() bool { return e.FinishReason == "length" || e.FinishReason == "max_tokens" }

// Settle corrects a grade's outcome by how the request ended, and leaves the
// score as the rule gave it, except that a failed request scores 0: what a rule
// awards to a cut or empty answer is part of the rule, but a reader must be able
// to tell a lack of budget from a lack of knowledge.
//
// An answer that was stated before the limit was reached stands. One that only
// a weak fallback found in a cut text, which is a stray letter more often than
// not, counts as truncated.
func Settle(g Grade, text string, e Ending) Grade {
	found := g.Outcome == Correct || g.Outcome == Wrong
	switch {
	case e.Failed:
		g.Outcome, g.Score = Error, 0
	case e.Refusal || e.FinishReason == "content_filter":
		if !found || g.Weak {
			g.Outcome = Refused
		}
	case e.cut() && (!found || g.Weak):
		g.Outcome = Truncated
	case strings.TrimSpace(text) == "":
		g.Outcome = Empty
	}
	return g
}
