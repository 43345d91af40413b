package endpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/repromill/repromill/suites/endpoint/sse"
)

// content is a text, null, or a list of parts of which the texts count.
type content string

func (c *content) UnmarshalJSON(b []byte) error {
	switch {
	case string(b) == "null":
		return nil
	case len(b) > 0 && b[0] == '[':
		var parts []struct {
			Text string `json:"text"`
		}
		if err := json.Unmarshal(b, &parts); err != nil {
			return err
		}
		for _, p := range parts {
			*c += content(p.Text)
		}
		return nil
	}
	return json.Unmarshal(b, (*string)(c))
}

// message is a message, or the part of one that a chunk brings.
type message struct {
	Content          content `json:"content"`
	Reasoning        content `json:"reasoning"`
	ReasoningContent content `json:"reasoning_content"`
	Refusal          content `json:"refusal"`
	ToolCalls        []struct {
		Index    *int   `json:"index"`
		ID       string `json:"id"`
		Function struct {
			Name      string  `json:"name"`
			Arguments anyText `json:"arguments"`
		} `json:"function"`
	} `json:"tool_calls"`
}

// anyText is a string, or whatever JSON a server puts in its place.
type anyText string

func (t *anyText) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, (*string)(t))
	}
	if string(b) != "null" {
		*t = anyText(b)
	}
	return nil
}

// packet is a whole answer, or a chunk of one.
type packet struct {
	ID      string `json:"id"`
	Model   string `json:"model"`
	Choices []struct {
		Index        int      `json:"index"`
		Message      *message `json:"message"`
		Delta        *message `json:"delta"`
		Text         content  `json:"text"`
		FinishReason *string  `json:"finish_reason"`
	} `json:"choices"`
	Usage *struct {
		Prompt     float64 `json:"prompt_tokens"`
		Completion float64 `json:"completion_tokens"`
		Details    *struct {
			Reasoning float64 `json:"reasoning_tokens"`
		} `json:"completion_tokens_details"`
		PromptDetails *struct {
			Cached float64 `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
	} `json:"usage"`
	Error  json.RawMessage `json:"error"`
	Object string          `json:"object"`
}

// parser puts an answer together.
type parser struct {
	client    *Client
	sent      time.Time
	max       int
	sentBytes int

	text, reasoning, refusal strings.Builder
	calls                    []ToolCall
	args                     []*strings.Builder
	finish                   string
	usage                    *Usage
	model, id                string
	first, end               time.Time
	choices                  int
}

func (p *parser) malformed(format string, args ...any) error {
	return &Error{Kind: Malformed, URL: p.client.base, Detail: clipped(redact(fmt.Sprintf(format, args...), p.client.c.Key))}
}

// stream reads an answer that comes as events.
func (p *parser) stream(in io.Reader) error {
	events := sse.NewReader(in)
	for {
		ev, err := events.Next()
		if errors.Is(err, io.EOF) {
			if p.finish != "" { // [DONE] is left out by some servers
				break
			}
			return &Error{Kind: Cut, URL: p.client.base, Detail: fmt.Sprintf("the stream ended after %d bytes of text, without a finish reason", p.text.Len()+p.reasoning.Len())}
		}
		if err != nil {
			return err
		}
		if data := bytes.TrimSpace(ev.Data); string(data) == "[DONE]" {
			if p.finish == "" {
				return &Error{Kind: Cut, URL: p.client.base, Detail: "the stream is done without a finish reason"}
			}
			break
		} else if len(data) > 0 {
			if err := p.packet(data, true); err != nil {
				return err
			}
		}
	}
	p.end = p.client.c.Now()
	return nil
}

// whole reads an answer that comes in one piece.
func (p *parser) whole(in io.Reader, contentType string) error {
	b, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	p.end = p.client.c.Now()
	if t := bytes.TrimSpace(b); len(t) > 0 && t[0] == '<' || strings.HasPrefix(contentType, "text/html") {
		return p.malformed("the endpoint answered with a page, not JSON: %.200s", t)
	}
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("data:")) { // an event stream under another name
		return p.stream(bytes.NewReader(b))
	}
	if err := p.packet(b, false); err != nil {
		return err
	}
	if p.choices == 0 {
		return p.malformed("an answer without choices: %.200s", b)
	}
	return nil
}

func (p *parser) packet(b []byte, chunk bool) error {
	var k packet
	if err := decode(b, &k); err != nil {
		return p.malformed("%v in %.100q", err, b)
	}
	if len(k.Error) > 0 && string(k.Error) != "null" || k.Object == "error" {
		// A failure in the midst of an answer: the server is there, this try is lost.
		return &Error{Kind: Cut, URL: p.client.base, Detail: clipped(redact(errorText(b), p.client.c.Key))}
	}
	if k.Model != "" {
		p.model = k.Model
	}
	if k.ID != "" {
		p.id = k.ID
	}
	for _, c := range k.Choices {
		if c.Index != 0 {
			continue
		}
		p.choices++
		m := c.Delta
		if m == nil {
			m = c.Message
		}
		if m == nil {
			m = &message{Content: c.Text}
		}
		p.take(m, chunk)
		if c.FinishReason != nil && *c.FinishReason != "" {
			p.finish = *c.FinishReason
		}
	}
	if u := k.Usage; u != nil {
		p.usage = &Usage{PromptTokens: int64(u.Prompt), CompletionTokens: int64(u.Completion)}
		if u.Details != nil {
			p.usage.ReasoningTokens = int64(u.Details.Reasoning)
		}
		if u.PromptDetails != nil {
			p.usage.CachedTokens = int64(u.PromptDetails.Cached)
		}
	}
	return nil
}

func (p *parser) take(m *message, chunk bool) {
	r := m.Reasoning
	if r == "" { // servers that give both give the same text twice
		r = m.ReasoningContent
	}
	if p.first.IsZero() && (m.Content != "" || r != "" || len(m.ToolCalls) > 0) {
		p.first = p.client.c.Now()
	}
	p.text.WriteString(string(m.Content))
	p.reasoning.WriteString(string(r))
	p.refusal.WriteString(string(m.Refusal))
	for n, t := range m.ToolCalls {
		i := n
		if t.Index != nil {
			i = *t.Index
		} else if chunk {
			i = max(len(p.calls)-1, 0)
			if t.ID != "" && len(p.calls) > 0 && t.ID != p.calls[i].ID {
				i++
			}
		}
		if i < 0 || i > len(p.calls) || i >= 1024 { // calls come in order
			i = max(min(len(p.calls), 1023)-1, 0)
		}
		if i == len(p.calls) {
			p.calls, p.args = append(p.calls, ToolCall{}), append(p.args, &strings.Builder{})
		}
		if t.ID != "" {
			p.calls[i].ID = t.ID
		}
		p.calls[i].Name += t.Function.Name
		p.args[i].WriteString(string(t.Function.Arguments))
	}
}

func (p *parser) answer(chat bool) Answer {
	a := Answer{Text: p.text.String(), Reasoning: p.reasoning.String(), Refusal: p.refusal.String(), ToolCalls: p.calls,
		FinishReason: p.finish, Model: p.model, ID: p.id, Sent: p.sent, Latency: p.end.Sub(p.sent), TTFT: p.end.Sub(p.sent)}
	for i := range a.ToolCalls {
		a.ToolCalls[i].Arguments = p.args[i].String()
	}
	if !p.first.IsZero() && p.first.Before(p.end) {
		a.TTFT = p.first.Sub(p.sent)
	}
	a.Usage = p.counted(a)
	if chat {
		a.Text, a.Reasoning = splitThinking(a.Text, a.Reasoning)
	}
	return a
}

// counted is the server's usage where it can be true, else an estimate.
func (p *parser) counted(a Answer) Usage {
	out := int64(len(a.Text) + len(a.Reasoning) + len(a.Refusal))
	for _, c := range a.ToolCalls {
		out += int64(len(c.Name) + len(c.Arguments))
	}
	guess := Usage{PromptTokens: int64(p.sentBytes) / 4, CompletionTokens: (out + 3) / 4}
	u := p.usage
	switch {
	case u == nil:
		guess.Wrong = "the server gives none"
	case u.PromptTokens < 0 || u.CompletionTokens < 0 || u.ReasoningTokens < 0 || u.CachedTokens < 0:
		guess.Wrong = "negative"
	case u.CompletionTokens == 0 && out > 0:
		guess.Wrong = fmt.Sprintf("0 tokens for %d bytes of text", out)
	case u.CompletionTokens > 1<<40 || u.PromptTokens > 1<<40:
		guess.Wrong = "impossibly many"
	case p.max > 0 && u.CompletionTokens > int64(p.max)+1024:
		// Some servers count a token or a few beyond the bound.
		guess.Wrong = fmt.Sprintf("%d tokens where %d were allowed", u.CompletionTokens, p.max)
	case out > 1000+200*u.CompletionTokens:
		guess.Wrong = fmt.Sprintf("%d tokens for %d bytes of text", u.CompletionTokens, out)
	default:
		return *u
	}
	return guess
}
