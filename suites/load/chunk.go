package load

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// chunk is one event of a streamed answer, of the chat or completions protocol.
// Source: vllm-project/vllm, vllm/entrypoints/openai/protocol.py
// (ChatCompletionStreamResponse, CompletionStreamResponse, UsageInfo).
type chunk struct {
	Choices []struct {
		Delta struct {
			Content          *string         `json:"content"`
			Reasoning        *string         `json:"reasoning"`
			ReasoningContent *string         `json:"reasoning_content"`
			Refusal          *string         `json:"refusal"`
			ToolCalls        json.RawMessage `json:"tool_calls"`
		} `json:"delta"`
		Text   *string `json:"text"`
		Finish *string `json:"finish_reason"`
	} `json:"choices"`
	Usage *struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		PromptMore *struct {
			Cached *int `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
		CompletionMore *struct {
			Reasoning *int `json:"reasoning_tokens"`
		} `json:"completion_tokens_details"`
	} `json:"usage"`
	Error json.RawMessage `json:"error"`
	Stamp int64           `json:"sent_monotonic_ns"` // of the null server: when it wrote the event
}

// answer takes the events of one answer into its record.
type answer struct {
	rec   *Record
	epoch int64 // the cell's start, of the clock
	count int   // completion tokens counted as it goes
	lag   *Lag  // of the cell; may be nil
	c     chunk // kept between events, to spare allocations
}

func (a *answer) event(data []byte, at int64) error {
	if bytes.Equal(data, []byte("[DONE]")) {
		return nil // the body's end follows, and the connection can be kept
	}
	c := &a.c
	clear(c.Choices[:cap(c.Choices)])
	*c = chunk{Choices: c.Choices[:0]}
	if err := json.Unmarshal(data, c); err != nil {
		return fmt.Errorf("event is no chunk of an answer: %w", err)
	}
	if len(c.Error) > 0 && string(c.Error) != "null" {
		return fmt.Errorf("the server said in the stream: %s", clip(c.Error))
	}
	t := at - a.epoch
	r := a.rec
	if c.Stamp > 0 {
		r.ReadLag = max(r.ReadLag, at-c.Stamp)
		if a.lag != nil {
			a.lag.add(at - c.Stamp)
		}
	}
	text := false
	if len(c.Choices) > 0 {
		first(&r.FirstChoice, t)
		ch := &c.Choices[0]
		switch {
		case filled(ch.Delta.Content) || filled(ch.Text) || filled(ch.Delta.Refusal):
			first(&r.FirstContent, t)
			text = true
		case filled(ch.Delta.Reasoning) || filled(ch.Delta.ReasoningContent):
			first(&r.FirstReasoning, t)
			text = true
		case len(ch.Delta.ToolCalls) > 2 && string(ch.Delta.ToolCalls) != "null":
			first(&r.FirstTool, t)
			text = true
		case ch.Finish == nil && r.FirstText < 0:
			first(&r.FirstRole, t)
		}
		if ch.Finish != nil {
			r.Finish = *ch.Finish
		}
	}
	if text {
		if r.FirstText < 0 {
			r.FirstText = t
		} else {
			r.Gaps = append(r.Gaps, int32(min((t-r.LastText)/1000, 1<<31-1)))
		}
		r.LastText = t
		r.Chunks++
	}
	a.usage(c, text)
	return nil
}

// usage takes the counts of a chunk: the last one's, or those so far.
func (a *answer) usage(c *chunk, text bool) {
	u := c.Usage
	if u == nil {
		return
	}
	r := a.rec
	r.ISL, r.OSL = u.Prompt, u.Completion
	if u.PromptMore != nil && u.PromptMore.Cached != nil {
		r.CachedInput = *u.PromptMore.Cached
	}
	if u.CompletionMore != nil && u.CompletionMore.Reasoning != nil {
		r.Reasoning = *u.CompletionMore.Reasoning
	}
	if text {
		if len(r.Tokens) == r.Chunks-1 { // counted from the first chunk on
			r.Tokens = append(r.Tokens, int32(max(0, u.Completion-a.count)))
		}
		a.count = u.Completion
	}
}

func first(at *int64, t int64) {
	if *at < 0 {
		*at = t
	}
}

func filled(s *string) bool { return s != nil && *s != "" }

func clip(b []byte) string {
	const most = 300
	if len(b) > most {
		return string(bytes.ToValidUTF8(b[:most], nil)) + "…"
	}
	return string(b)
}
