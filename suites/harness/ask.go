package harness

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/endpoint"
)

// request is a suite's prompt as it is sent.
func request(p suites.Prompt, s suites.Sampling, seed int64) endpoint.Request {
	r := endpoint.Request{Prompt: p.Text, Prefix: p.Prefix, Stop: p.Stop, Tools: p.Tools, MaxTokens: s.MaxTokens,
		Temperature: s.Temperature, TopP: s.TopP, TopK: s.TopK, Extra: s.Extra}
	for _, m := range p.Messages {
		r.Messages = append(r.Messages, endpoint.Message{Role: m.Role, Content: m.Content})
	}
	if p.MaxTokens > 0 {
		r.MaxTokens = p.MaxTokens
	}
	if s.Temperature == nil || *s.Temperature > 0 {
		r.Seed = &seed
	}
	return r
}

// fill puts an answer into a record.
func fill(rec *suites.Record, a endpoint.Answer, tools bool) {
	rec.Text, rec.Reasoning, rec.FinishReason = a.Text, a.Reasoning, a.FinishReason
	if tools {
		t := suites.ToolAnswer{Content: a.Text}
		for _, c := range a.ToolCalls {
			t.Calls = append(t.Calls, suites.ToolCall{Name: c.Name, Arguments: c.Arguments})
		}
		rec.Text = t.Text()
	}
	if a.Refusal != "" {
		rec.Refusal = true
		if rec.Text == "" {
			rec.Text = a.Refusal
		}
	}
	u := a.Usage
	rec.PromptTokens, rec.OutputTokens, rec.ReasoningTokens, rec.CachedTokens, rec.UsageWrong = u.PromptTokens, u.CompletionTokens, u.ReasoningTokens, u.CachedTokens, u.Wrong
	rec.TTFT, rec.Latency, rec.Retries = a.TTFT.Seconds(), a.Latency.Seconds(), a.Retries
	if !a.Sent.IsZero() {
		rec.Asked = a.Sent.UTC()
	}
}

// ask gets the answer for a record, the judge's reply included. A request that
// failed for good by itself is a record too; the error is one that concerns more
// than the request.
func (e *engine) ask(ctx context.Context, t task) (rec suites.Record, refused bool, err error) {
	it := e.l.items[t.pos]
	seed := Seed(e.c.Seed, it.ID, t.repeat)
	seen := e.s.sight(e.c.Arms[t.arm].Name)
	rec = suites.Record{Key: suites.Key{Suite: e.c.Name, Arm: e.c.Arms[t.arm].Name, ItemID: it.ID, Repeat: t.repeat},
		ItemSHA: e.shas[t.pos], PromptSHA: t.prompt.SHA(), Seed: seed, ServerID: seen.id, Check: seen.checks, Asked: e.c.Now().UTC()}
	a, err := e.c.Arms[t.arm].Server.Ask(ctx, request(t.prompt, e.c.Sampling, seed))
	if err = e.failed(ctx, &rec, err); err != nil || rec.Error != "" {
		var down *endpoint.Error
		return rec, errors.As(err, &down) && down.Down(), err
	}
	fill(&rec, a, len(t.prompt.Tools) > 0)
	if e.judged == nil {
		return rec, a.Throttled > 0, nil
	}
	return rec, a.Throttled > 0, e.judge(ctx, it, &rec)
}

// failed tells a failure of one request, which becomes part of its record, from
// one that concerns the server or the run.
func (e *engine) failed(ctx context.Context, rec *suites.Record, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var f *endpoint.Error
	if !errors.As(err, &f) || f.Down() || f.Fatal() {
		return err
	}
	rec.Error, rec.Retries = f.Error(), f.Retries
	return nil
}

// judge asks what the suite's judge says of an answer.
func (e *engine) judge(ctx context.Context, it suites.Item, rec *suites.Record) error {
	p, want := e.judged.JudgePrompt(suites.AskedAs(e.c.Suite, it, rec.Repeat), rec.Text)
	if !want {
		return nil
	}
	a, err := e.c.Judge.Ask(ctx, request(p, e.c.JudgeSampling, rec.Seed))
	if err != nil {
		if err = e.failed(ctx, rec, err); err == nil {
			rec.Error = "judge: " + rec.Error
		}
		return err
	}
	rec.Judgement = a.Text
	rec.JudgeTokens = a.Usage.PromptTokens + a.Usage.CompletionTokens
	return nil
}

// grade is what a record is worth. It depends on the record alone.
func grade(s suites.Suite, it suites.Item, r suites.Record) suites.Grade {
	var g suites.Grade
	it = suites.AskedAs(s, it, r.Repeat)
	if j, ok := s.(suites.Judged); ok {
		g = j.GradeJudged(it, r.Text, r.Judgement)
	} else {
		g = s.Grader().Grade(it, r.Text)
	}
	text := r.Text
	if strings.HasPrefix(text, `{"content":`) && strings.Contains(text, `"tool_calls":`) {
		if t, err := suites.ParseToolAnswer(text); err == nil && len(t.Calls) == 0 {
			text = t.Content // an answer that calls a tool is not empty, one that does neither is
		}
	}
	return suites.Settle(g, text, suites.Ending{FinishReason: r.FinishReason, Refusal: r.Refusal, Failed: r.Error != ""})
}

// tokens is all that an answer took.
func tokens(r suites.Record) int64 { return r.PromptTokens + r.OutputTokens + r.JudgeTokens }

func (a Arm) usd(r suites.Record) float64 {
	return (float64(r.PromptTokens)*a.USDIn + float64(r.OutputTokens)*a.USDOut) / 1e6
}

// prompts builds what is asked for a unit.
func (e *engine) prompts(unit int) (suites.Prompt, error) {
	pos, repeat := e.l.unit(unit)
	p, err := e.c.Suite.Prompt(e.l.items[pos], repeat)
	if err != nil {
		return p, err
	}
	if (p.Messages == nil) == (p.Text == "") {
		return p, fmt.Errorf("prompt for question %s has neither messages nor text, or both", e.l.items[pos].ID)
	}
	return p, nil
}
