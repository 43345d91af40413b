package endpoint_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/repromill/repromill/suites/endpoint"
	"github.com/repromill/repromill/suites/endpoint/endpointtest"
)

func server(t testing.TB, c endpointtest.Config) *endpointtest.Server {
	t.Helper()
	if c.Model == "" {
		c.Model = "m"
	}
	if c.Answer == nil {
		c.Answer = func(endpointtest.Asked) endpointtest.Reply { return endpointtest.Reply{Text: "the answer is (A)"} }
	}
	s := endpointtest.New(c)
	t.Cleanup(s.Close)
	return s
}

func client(t testing.TB, s *endpointtest.Server, change func(*endpoint.Config)) *endpoint.Client {
	t.Helper()
	cfg := endpoint.Config{URL: s.URL + "/v1", Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }}
	if change != nil {
		change(&cfg)
	}
	c, err := endpoint.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func hello() endpoint.Request {
	return endpoint.Request{Messages: []endpoint.Message{{Role: "user", Content: "hello there"}}, MaxTokens: 100}
}

func TestAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		reply endpointtest.Reply
		want  endpoint.Answer
	}{
		"text":              {endpointtest.Reply{Text: "a b c"}, endpoint.Answer{Text: "a b c", FinishReason: "stop"}},
		"reasoning_content": {endpointtest.Reply{Text: "a", Reasoning: "x y"}, endpoint.Answer{Text: "a", Reasoning: "x y", FinishReason: "stop"}},
		"reasoning":         {endpointtest.Reply{Text: "a", Reasoning: "x y", ReasoningField: "reasoning"}, endpoint.Answer{Text: "a", Reasoning: "x y", FinishReason: "stop"}},
		"think tags":        {endpointtest.Reply{Text: "<think>\nx y\n</think>\n\na"}, endpoint.Answer{Text: "a", Reasoning: "x y", FinishReason: "stop"}},
		"closing tag only":  {endpointtest.Reply{Text: "x y\n</think>\n\na"}, endpoint.Answer{Text: "a", Reasoning: "x y", FinishReason: "stop"}},
		"cut while thinking": {endpointtest.Reply{Text: "<think>x y answer is (B)", Finish: "length"},
			endpoint.Answer{Reasoning: "x y answer is (B)", FinishReason: "length"}},
		"null content": {endpointtest.Reply{Null: true, Reasoning: "x", Finish: "length"}, endpoint.Answer{Reasoning: "x", FinishReason: "length"}},
		"refusal":      {endpointtest.Reply{Null: true, Refusal: "no"}, endpoint.Answer{Refusal: "no", FinishReason: "stop"}},
		"tool calls": {endpointtest.Reply{Null: true, Calls: []endpointtest.Call{{Name: "f", Arguments: `{"a": 1, "b": "x y z"}`}, {Name: "g", Arguments: `not json`}}},
			endpoint.Answer{FinishReason: "tool_calls", ToolCalls: []endpoint.ToolCall{{ID: "call_0", Name: "f", Arguments: `{"a": 1, "b": "x y z"}`}, {ID: "call_1", Name: "g", Arguments: "not json"}}}},
		"long": {endpointtest.Reply{Text: strings.Repeat("word ", 40_000), Output: 40_000}, endpoint.Answer{Text: strings.Repeat("word ", 40_000), FinishReason: "stop"}},
	} {
		s := server(t, endpointtest.Config{Answer: func(endpointtest.Asked) endpointtest.Reply { return c.reply }})
		for _, whole := range []bool{false, true} {
			got, err := client(t, s, func(cfg *endpoint.Config) { cfg.Whole = whole }).Ask(context.Background(), hello())
			if err != nil {
				t.Errorf("%s, whole %v: %v", name, whole, err)
				continue
			}
			if got.Text != c.want.Text || got.Reasoning != c.want.Reasoning || got.Refusal != c.want.Refusal || got.FinishReason != c.want.FinishReason || fmt.Sprint(got.ToolCalls) != fmt.Sprint(c.want.ToolCalls) {
				t.Errorf("%s, whole %v:\n got %.300q\nwant %.300q", name, whole, fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", c.want))
			}
			if (got.Usage.PromptTokens != 2 && name != "long") || got.TTFT <= 0 || got.Latency < got.TTFT || got.Model != "m" {
				t.Errorf("%s, whole %v: %+v", name, whole, got)
			}
		}
	}
}

func TestCompletionsAndWhatIsSent(t *testing.T) {
	var asked endpointtest.Asked
	s := server(t, endpointtest.Config{Answer: func(a endpointtest.Asked) endpointtest.Reply {
		asked = a
		return endpointtest.Reply{Text: " x </think> y"}
	}})
	c := client(t, s, nil)
	temp, k, seed := 0.0, 20, int64(7)
	a, err := c.Ask(context.Background(), endpoint.Request{Prompt: "say", Stop: []string{"Q:"}, MaxTokens: 5, Temperature: &temp, TopK: &k, Seed: &seed, Extra: map[string]any{"min_p": 0.1}})
	if err != nil || a.Text != " x </think> y" || asked.Chat || asked.Prompt != "say" || *asked.Seed != 7 || asked.Max != 5 {
		t.Errorf("%+v, %v; asked %+v", a, err, asked)
	}
	for field, want := range map[string]string{"stop": `["Q:"]`, "temperature": "0", "top_k": "20", "min_p": "0.1", "stream_options": `{"include_usage":true}`} {
		if got := string(asked.Body[field]); got != want {
			t.Errorf("%s is sent as %s, want %s", field, got, want)
		}
	}
	if _, there := asked.Body["top_p"]; there {
		t.Error("what is not set was sent")
	}
	r := hello()
	r.Prefix = "Answer:"
	r.Tools = json.RawMessage(`[{"type":"function"}]`)
	if _, err := c.Ask(context.Background(), r); err != nil || asked.Prefix != "Answer:" || string(asked.Body["add_generation_prompt"]) != "false" || asked.Body["tools"] == nil {
		t.Errorf("%v; asked %+v", err, asked)
	}
}

// TestFaults lets the server fail in a way and then recover.
func TestFaults(t *testing.T) {
	raw := func(contentType, body string) func(int, http.ResponseWriter, *http.Request) bool {
		return func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n > 1 {
				return false
			}
			w.Header().Set("Content-Type", contentType)
			io.WriteString(w, body)
			return true
		}
	}
	status := func(code int, body string) func(int, http.ResponseWriter, *http.Request) bool {
		return func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n > 1 {
				return false
			}
			w.WriteHeader(code)
			io.WriteString(w, body)
			return true
		}
	}
	const sse = "text/event-stream"
	for name, fault := range map[string]func(int, http.ResponseWriter, *http.Request) bool{
		"HTML with 200":      raw("text/html", "<html><body>Sign in</body></html>"),
		"HTML with 502":      status(502, "<html>Bad Gateway</html>"),
		"500":                status(500, `{"error":{"message":"EngineDeadError"}}`),
		"503 without body":   status(503, ""),
		"cut stream":         raw(sse, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"half\"},\"finish_reason\":null}]}\n\n"),
		"done without end":   raw(sse, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"half\"}}]}\n\ndata: [DONE]\n\n"),
		"broken JSON":        raw(sse, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"ha\n\n"),
		"error in a stream":  raw(sse, "data: {\"error\":{\"message\":\"out of memory\"}}\n\n"),
		"empty body":         raw("application/json", ""),
		"no choices":         raw("application/json", `{"choices":[]}`),
		"JSON of other kind": raw("application/json", `[1,2]`),
		"connection dropped": func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n > 1 {
				return false
			}
			conn, _, _ := w.(http.Hijacker).Hijack()
			conn.Close()
			return true
		},
		"stall": func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n > 1 {
				return false
			}
			w.Header().Set("Content-Type", sse)
			io.WriteString(w, "data: {}\n\n")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := server(t, endpointtest.Config{Fault: fault})
			a, err := client(t, s, func(c *endpoint.Config) { c.Timeouts.Idle = 300 * time.Millisecond }).Ask(context.Background(), hello())
			if err != nil || a.Text != "the answer is (A)" || a.Retries != 2 || s.Requests() != 3 {
				t.Errorf("%+v, %v after %d requests", a, err, s.Requests())
			}
		})
	}
}

func TestFailuresForGood(t *testing.T) {
	for name, c := range map[string]struct {
		fault    func(int, http.ResponseWriter, *http.Request) bool
		change   func(*endpoint.Config)
		kind     endpoint.Kind
		requests int
	}{
		"bad request": {func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(400)
			io.WriteString(w, `{"object":"error","message":"This model's maximum context length is 10 tokens"}`)
			return true
		}, nil, endpoint.Rejected, 1},
		"wrong model": {nil, func(c *endpoint.Config) { c.Model = "other" }, endpoint.Unknown, 1},
		"wrong key":   {nil, func(c *endpoint.Config) { c.Key = "sk-wrong-secret" }, endpoint.Denied, 1},
		"always cut": {func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", "text/event-stream")
			return true
		}, nil, endpoint.Cut, 5},
		"429 for ever": {func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Retry-After", "60")
			w.WriteHeader(429)
			return true
		}, nil, endpoint.Throttled, 15},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := endpointtest.Config{Fault: c.fault}
			if name == "wrong key" {
				cfg.Key = "sk-right"
			}
			s := server(t, cfg)
			_, err := client(t, s, c.change).Ask(context.Background(), hello())
			var e *endpoint.Error
			if !errors.As(err, &e) || e.Kind != c.kind || e.UserError() == "" {
				t.Fatalf("%v, want %s", err, c.kind)
			}
			// Jitter moves how many waits fit into the budget.
			if got := s.Requests(); got > c.requests || got < c.requests*3/4 {
				t.Errorf("%d requests, want %d", got, c.requests)
			}
			if strings.Contains(err.Error(), "sk-wrong-secret") {
				t.Errorf("the key stands in the message: %v", err)
			}
		})
	}
}

func TestRetryAfterIsObeyed(t *testing.T) {
	for header, want := range map[string]time.Duration{"7": 7 * time.Second, "Thu, 01 Jan 2026 00:00:09 GMT": 9 * time.Second} {
		var waits []time.Duration
		s := server(t, endpointtest.Config{Fault: func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n > 0 {
				return false
			}
			w.Header().Set("Retry-After", header)
			w.WriteHeader(429)
			return true
		}})
		c := client(t, s, func(c *endpoint.Config) {
			c.Now = func() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }
			c.Sleep = func(_ context.Context, d time.Duration) error { waits = append(waits, d); return nil }
		})
		a, err := c.Ask(context.Background(), hello())
		if err != nil || a.Throttled != 1 || len(waits) != 1 || waits[0] < want || waits[0] > want*12/10 {
			t.Errorf("%s: waited %v, %v", header, waits, err)
		}
	}
}

// TestAFailingServerIsNotAskedHarder: the retries of many requests have one
// budget.
func TestAFailingServerIsNotAskedHarder(t *testing.T) {
	s := server(t, endpointtest.Config{Fault: func(_ int, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(500); return true }})
	c := client(t, s, func(c *endpoint.Config) { c.Model = "m" })
	const n = 100
	for range n {
		if _, err := c.Ask(context.Background(), hello()); err == nil {
			t.Fatal("answered")
		}
	}
	if got := s.Requests(); got < n || got > n*13/10+20 {
		t.Errorf("%d requests for %d questions", got, n)
	}
}

func TestWrongUsage(t *testing.T) {
	for name, c := range map[string]struct {
		reply endpointtest.Reply
		wrong bool
	}{
		"right":    {endpointtest.Reply{Text: "a b c"}, false},
		"none":     {endpointtest.Reply{Text: "a b c", NoUsage: true}, true},
		"negative": {endpointtest.Reply{Text: "a b c", Output: -5}, true},
		"too many": {endpointtest.Reply{Text: "a b c", Output: 900_000}, true},
		"too few":  {endpointtest.Reply{Text: strings.Repeat("abcdefgh ", 5000), Output: 1}, true},
	} {
		s := server(t, endpointtest.Config{Answer: func(endpointtest.Asked) endpointtest.Reply { return c.reply }})
		a, err := client(t, s, nil).Ask(context.Background(), hello())
		if err != nil || (a.Usage.Wrong != "") != c.wrong || a.Usage.CompletionTokens <= 0 {
			t.Errorf("%s: %+v, %v", name, a.Usage, err)
		}
	}
}

func TestNaNInTheAnswer(t *testing.T) {
	s := server(t, endpointtest.Config{Fault: func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		io.WriteString(w, `{"choices":[{"index":0,"message":{"content":"NaN is \"not\" a number: -Infinity"},"logprobs":{"content":[{"logprob":NaN},{"logprob":-Infinity},{"logprob":-0.5}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":9}}`)
		return true
	}})
	a, err := client(t, s, nil).Ask(context.Background(), hello())
	if err != nil || a.Text != `NaN is "not" a number: -Infinity` || a.Usage.CompletionTokens != 9 {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	key := endpoint.KeyFor("fp8-arm", func(n string) string {
		return map[string]string{"REPROMILL_API_KEY_FP8_ARM": "sk-one", "OPENAI_API_KEY": "sk-two"}[n]
	})
	if string(key) != "sk-one" {
		t.Errorf("key %q", string(key))
	}
	b, _ := json.Marshal(map[string]any{"k": key})
	if s := fmt.Sprintf("%v %s %q %+v %#v %s", key, key, key, endpoint.Config{Key: key}, endpoint.Config{Key: key}, b); strings.Contains(s, "sk-") {
		t.Errorf("shown: %s", s)
	}
	if _, err := endpoint.New(endpoint.Config{URL: "http://user:pass@h/v1"}); err == nil || strings.Contains(err.Error(), "pass@") {
		t.Errorf("credentials in the address: %v", err)
	}
	for _, bad := range []string{"", "localhost:8000", "ftp://h", "http://", "http://h/v1?x=1"} {
		if _, err := endpoint.New(endpoint.Config{URL: bad}); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestIdentity(t *testing.T) {
	start := time.Unix(1_780_000_000, 0).UTC()
	s := server(t, endpointtest.Config{Model: "org/m", Version: "0.15.0", Started: start, KVDtype: "fp8", MaxLen: 4096})
	c := client(t, s, nil)
	a, err := c.Identity(context.Background())
	if err != nil || a.Engine != "vllm" || a.Version != "0.15.0" || a.Model != "org/m" || a.KVDtype != "fp8" || !a.StartTime.Equal(start) || a.KVTokens != 16384 || a.MaxModelLen != 4096 {
		t.Fatalf("%+v, %v", a, err)
	}
	if n, err := c.Tokenize(context.Background(), "one two three"); err != nil || n != 3 {
		t.Errorf("%d tokens, %v", n, err)
	}
	s.Become("org/m", "0.15.0", start.Add(time.Hour))
	b, err := c.Identity(context.Background())
	if ch := b.Since(a); err != nil || !ch.Changed() || ch.Material || b.ID() == a.ID() {
		t.Errorf("a restart: %v, %v", ch, err)
	}
	s.Become("org/m", "0.16.0", start.Add(time.Hour))
	b, _ = c.Identity(context.Background())
	if ch := b.Since(a); !ch.Material || !strings.Contains(ch.String(), "version: 0.15.0 → 0.16.0") {
		t.Errorf("another version: %v", ch)
	}
	if ch := (endpoint.Identity{Model: "org/m"}).Since(a); ch.Changed() {
		t.Errorf("what is not seen has changed: %v", ch)
	}
	s.Close()
	if _, err := c.Identity(context.Background()); err == nil {
		t.Error("a server that is gone has an identity")
	}
}

func TestGivingUpIsQuick(t *testing.T) {
	s := server(t, endpointtest.Config{Answer: func(endpointtest.Asked) endpointtest.Reply { return endpointtest.Reply{Text: "x", Delay: time.Minute} }})
	c := client(t, s, nil)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { time.Sleep(50 * time.Millisecond); cancel() }()
	if _, err := c.Ask(ctx, hello()); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestGateFindsCapacity asks a server that works on 32 requests at once.
func TestGateFindsCapacity(t *testing.T) {
	var mu sync.Mutex
	now := time.Unix(0, 0)
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	g := endpoint.NewGate(endpoint.GateConfig{Now: clock, Start: 4, Max: 1024})
	// Simulated: a server with slots, each answer takes one second of a slot.
	simulate := func(slots, rounds int, refuseAbove int) {
		for range rounds {
			n := 0
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			for g.Acquire(ctx) == nil {
				n++
			}
			mu.Lock()
			now = now.Add(time.Duration(max(1, float64(n)/float64(slots)) * float64(time.Second)))
			mu.Unlock()
			for i := range n {
				g.Release(endpoint.Feedback{Refused: refuseAbove > 0 && i >= refuseAbove, Work: 10})
			}
		}
	}
	simulate(32, 60, 0)
	if l := g.Limit(); l < 20 || l > 64 {
		t.Errorf("with 32 slots the limit is %d", l)
	}
	simulate(256, 300, 0)
	if l := g.Limit(); l < 150 {
		t.Errorf("with 256 slots the limit is %d: it did not recover", l)
	}
	simulate(256, 60, 40)
	if l := g.Limit(); l > 80 || l < 16 {
		t.Errorf("refused above 40, the limit is %d", l)
	}
	simulate(8, 200, 0)
	if l := g.Limit(); l > 32 {
		t.Errorf("with 8 slots the limit is %d", l)
	}
	simulate(256, 400, 0)
	if l := g.Limit(); l < 150 {
		t.Errorf("with 256 slots again the limit is %d: it froze", l)
	}
}

func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		`{"choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}]}`,
		"data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":-3,\"function\":{\"arguments\":{\"a\":1}}}]},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]",
		`{"choices":[{"message":{"content":[{"type":"text","text":"x"}]}}],"usage":{"prompt_tokens":1e300,"completion_tokens":NaN}}`, "<html>", "{", "data:\n\n",
	} {
		f.Add(s)
	}
	var body string
	s := server(f, endpointtest.Config{Fault: func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		if strings.HasPrefix(body, "data:") {
			w.Header().Set("Content-Type", "text/event-stream")
		}
		io.WriteString(w, body)
		return true
	}})
	c := client(f, s, func(c *endpoint.Config) { c.Model, c.Retry.Attempts = "m", 1 })
	f.Fuzz(func(t *testing.T, in string) {
		body = in
		a, err := c.Ask(context.Background(), hello())
		if err == nil && (a.Usage.CompletionTokens < 0 || a.Usage.PromptTokens < 0) {
			t.Errorf("%+v", a.Usage)
		}
	})
}

func FuzzMetrics(f *testing.F) {
	f.Add([]byte("# HELP\na{b=\"c\\\"d\",e=\"\"} 1 2\nx NaN\n"))
	f.Fuzz(func(t *testing.T, in []byte) { endpoint.ParseMetrics(in) })
}
