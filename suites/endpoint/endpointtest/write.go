package endpointtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

func words(n int, s string) int {
	if n != 0 {
		return n
	}
	return len(strings.Fields(s))
}

func (r Reply) usage(a Asked) map[string]any {
	reasoning := len(strings.Fields(r.Reasoning))
	out := words(r.Output, r.Text) + reasoning + len(strings.Fields(r.Refusal)) + 8*len(r.Calls)
	in := words(r.Prompt, a.Prompt)
	return map[string]any{"prompt_tokens": in, "completion_tokens": out, "total_tokens": in + out,
		"completion_tokens_details": map[string]int{"reasoning_tokens": reasoning}, "prompt_tokens_details": map[string]int{"cached_tokens": 0}}
}

func (r Reply) message(role bool) map[string]any {
	m := map[string]any{}
	if role {
		m["role"] = "assistant"
	}
	m["content"] = r.Text
	if r.Null {
		m["content"] = nil
	}
	if r.Reasoning != "" {
		m[r.field()] = r.Reasoning
	}
	if r.Refusal != "" {
		m["refusal"] = r.Refusal
	}
	if r.Calls != nil {
		m["tool_calls"] = r.calls()
	}
	return m
}

func (r Reply) field() string {
	if r.ReasoningField != "" {
		return r.ReasoningField
	}
	return "reasoning_content"
}

func (r Reply) calls() (out []any) {
	for i, c := range r.Calls {
		out = append(out, map[string]any{"index": i, "id": fmt.Sprintf("call_%d", i), "type": "function", "function": map[string]string{"name": c.Name, "arguments": c.Arguments}})
	}
	return out
}

func (r Reply) finish() string {
	switch {
	case r.Finish != "":
		return r.Finish
	case r.Calls != nil:
		return "tool_calls"
	}
	return "stop"
}

// Write answers a request, streamed or whole as it asks.
func Write(w http.ResponseWriter, a Asked, r Reply, model string) {
	if !a.Stream {
		choice := map[string]any{"index": 0, "finish_reason": r.finish(), "logprobs": nil}
		if a.Chat {
			choice["message"] = r.message(true)
		} else {
			choice["text"] = r.Text
		}
		out := map[string]any{"id": "cmpl-1", "object": "chat.completion", "model": model, "choices": []any{choice}}
		if !r.NoUsage {
			out["usage"] = r.usage(a)
		}
		write(w, out)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	send := func(v map[string]any) {
		b, _ := json.Marshal(v)
		fmt.Fprintf(w, "data: %s\n\n", b)
	}
	chunk := func(delta map[string]any, finish any) map[string]any {
		choice := map[string]any{"index": 0, "delta": delta, "finish_reason": finish}
		if !a.Chat {
			choice = map[string]any{"index": 0, "text": delta["content"], "finish_reason": finish}
		}
		return map[string]any{"id": "cmpl-1", "object": "chat.completion.chunk", "model": model, "choices": []any{choice}}
	}
	if a.Chat {
		send(chunk(map[string]any{"role": "assistant", "content": ""}, nil))
	}
	for _, p := range pieces(r.Reasoning) {
		send(chunk(map[string]any{r.field(): p}, nil))
	}
	if !r.Null {
		for _, p := range pieces(r.Text) {
			send(chunk(map[string]any{"content": p}, nil))
		}
	}
	if r.Refusal != "" {
		send(chunk(map[string]any{"refusal": r.Refusal}, nil))
	}
	for i, c := range r.Calls {
		send(chunk(map[string]any{"tool_calls": []any{map[string]any{"index": i, "id": fmt.Sprintf("call_%d", i), "function": map[string]string{"name": c.Name, "arguments": ""}}}}, nil))
		for _, p := range pieces(c.Arguments) {
			send(chunk(map[string]any{"tool_calls": []any{map[string]any{"index": i, "function": map[string]string{"arguments": p}}}}, nil))
		}
	}
	send(chunk(map[string]any{}, r.finish()))
	if !r.NoUsage {
		send(map[string]any{"id": "cmpl-1", "model": model, "choices": []any{}, "usage": r.usage(a)})
	}
	fmt.Fprint(w, "data: [DONE]\n\n")
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
}

// pieces cuts a text into at most eight pieces at blanks.
func pieces(s string) []string {
	if s == "" {
		return nil
	}
	size := max(len(s)/8, 1)
	var out []string
	for len(s) > size {
		i := strings.IndexByte(s[size:], ' ')
		if i < 0 {
			break
		}
		out, s = append(out, s[:size+i]), s[size+i:]
	}
	return append(out, s)
}
