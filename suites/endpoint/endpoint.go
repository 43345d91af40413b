// Package endpoint asks OpenAI-compatible model servers: chat and completions,
// streamed or whole, with retries, adaptive concurrency and the server's identity.
package endpoint

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// Secret is a value that no format, JSON or log shows.
type Secret string

const redacted = "[redacted]"

// String implements fmt.Stringer.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return s.String() }

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// KeyFor is the key of an endpoint by the conventions of the environment:
// REPROMILL_API_KEY_<NAME>, with the name in capitals and _ for what is neither
// letter nor digit, then OPENAI_API_KEY.
func KeyFor(name string, getenv func(string) string) Secret {
	var b strings.Builder
	for _, r := range strings.ToUpper(name) {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
		} else {
			b.WriteByte('_')
		}
	}
	if v := getenv("REPROMILL_API_KEY_" + b.String()); v != "" {
		return Secret(v)
	}
	return Secret(getenv("OPENAI_API_KEY"))
}

// Config says what is asked and how. Only URL is needed.
type Config struct {
	URL   string // with or without /v1
	Model string // as the server names it; "" is the only model it serves
	Key   Secret
	// Whole asks for answers in one piece. A server that hangs is then noticed
	// late, at Timeouts.Total.
	Whole    bool
	Timeouts Timeouts
	Retry    Retry

	Transport http.RoundTripper // nil is one made for many connections to one host
	Now       func() time.Time
	Sleep     func(context.Context, time.Duration) error
	Jitter    func() float64 // 0 to 1
}

// Timeouts are caps on time. Zero means the default.
type Timeouts struct {
	Connect time.Duration // 10 s
	First   time.Duration // from the request to the first byte, which includes the server's queue: 15 min
	Idle    time.Duration // between two pieces of a streamed answer: 5 min
	Total   time.Duration // of one answer: 1 h
}

// Retry says how failures that may pass are met. Zero means the default.
type Retry struct {
	Attempts   int           // in all, of one request that fails by itself (cut, stalled, malformed, 5xx): 5
	Base       time.Duration // first backoff, doubled each time: 500 ms
	MaxBackoff time.Duration // longest backoff of our own: 30 s
	MaxWait    time.Duration // longest Retry-After to obey at once: 2 min
	Budget     time.Duration // all waiting of one request, for throttling too: 15 min
	// Share is how many retries there may be for each first request, over all
	// requests of the client, so that a failing server is not asked harder: 0.2.
	// Throttling does not count: the server says itself when to come again.
	Share float64
}

// MaxBody is the most bytes of one answer.
const MaxBody = 256 << 20

// Client asks one server for one model. It is safe for concurrent use.
type Client struct {
	c      Config
	base   string // with /v1
	root   string // without
	http   *http.Client
	budget budget
	// completionField is set when the server wants max_completion_tokens.
	completionField atomic.Bool
	model           atomic.Pointer[string]
}

// ConfigError is a mistake in an endpoint's address; it is the user's to correct.
type ConfigError struct{ Msg, Fix string }

func (e *ConfigError) Error() string { return e.Msg }

// UserError returns the fix.
func (e *ConfigError) UserError() string { return e.Fix }

// New checks the configuration. The error is a [*ConfigError].
func New(c Config) (*Client, error) {
	u, err := url.Parse(c.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, &ConfigError{fmt.Sprintf("%q is no address of an endpoint", redact(c.URL, c.Key)), "give http://HOST:PORT/v1"}
	}
	if u.User != nil {
		return nil, &ConfigError{"the endpoint's address holds credentials", "leave them out and set OPENAI_API_KEY"}
	}
	c.defaults()
	base := strings.TrimRight(u.String(), "/")
	cl := &Client{c: c, root: strings.TrimSuffix(base, "/v1")}
	cl.base = cl.root + "/v1"
	if !strings.HasSuffix(base, "/v1") && strings.Contains(u.Path, "/v") {
		cl.base = base // such as …/openai/v2
	}
	cl.budget.share = c.Retry.Share
	cl.budget.tokens = budgetStart
	if c.Transport == nil {
		c.Transport = &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: c.Timeouts.Connect, KeepAlive: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout: c.Timeouts.Connect, MaxIdleConns: 4096, MaxIdleConnsPerHost: 4096, IdleConnTimeout: 90 * time.Second,
			DisableCompression: true, // a compressed stream arrives late
			WriteBufferSize:    4 << 10, ReadBufferSize: 4 << 10,
		}
	}
	cl.http = &http.Client{Transport: c.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return cl, nil
}

func (c *Config) defaults() {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&c.Timeouts.Connect, 10*time.Second)
	set(&c.Timeouts.First, 15*time.Minute)
	set(&c.Timeouts.Idle, 5*time.Minute)
	set(&c.Timeouts.Total, time.Hour)
	set(&c.Retry.Base, 500*time.Millisecond)
	set(&c.Retry.MaxBackoff, 30*time.Second)
	set(&c.Retry.MaxWait, 2*time.Minute)
	set(&c.Retry.Budget, 15*time.Minute)
	if c.Retry.Attempts == 0 {
		c.Retry.Attempts = 5
	}
	if c.Retry.Share == 0 {
		c.Retry.Share = 0.2
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Sleep == nil {
		c.Sleep = sleep
	}
	if c.Jitter == nil {
		c.Jitter = rand.Float64
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// URL is the base address, without credentials.
func (c *Client) URL() string { return c.base }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Message is one turn.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Request is what is asked. Exactly one of Messages and Prompt is set.
type Request struct {
	Messages []Message
	Prompt   string // for the completions endpoint
	// Prefix begins the assistant's turn; vLLM and SGLang go on from it.
	Prefix      string
	Tools       json.RawMessage // OpenAI tool definitions
	Stop        []string
	MaxTokens   int // 0 is the server's bound
	Temperature *float64
	TopP        *float64
	TopK        *int
	Seed        *int64
	Extra       map[string]any // further fields of the body
}

// ToolCall is one call that the model made.
type ToolCall struct {
	ID        string
	Name      string
	Arguments string // as the model wrote it; need not be JSON
}

// Usage is what the server counted. Fields are 0 where it does not say.
type Usage struct {
	PromptTokens     int64
	CompletionTokens int64 // reasoning included
	ReasoningTokens  int64
	CachedTokens     int64
	// Wrong says what is wrong with the server's numbers; they are then estimates
	// of ours: a token for each four bytes.
	Wrong string
}

// Answer is what came back.
type Answer struct {
	Text         string // without reasoning
	Reasoning    string
	Refusal      string
	ToolCalls    []ToolCall
	FinishReason string
	Usage        Usage
	Model        string // as the server names what answered
	ID           string
	Sent         time.Time
	TTFT         time.Duration // to the first text or reasoning; of a whole answer its latency
	Latency      time.Duration // of the request that succeeded
	Retries      int           // requests before it
	Throttled    int           // of those, how many the server refused for now
}

// body is the request as JSON.
func (c *Client) body(r Request, model string) ([]byte, string, error) {
	m := map[string]any{}
	for k, v := range r.Extra {
		m[k] = v
	}
	m["model"] = model
	path := "/chat/completions"
	if r.Messages == nil {
		path = "/completions"
		m["prompt"] = r.Prompt
	} else if r.Prefix != "" {
		m["messages"] = append(r.Messages[:len(r.Messages):len(r.Messages)], Message{"assistant", r.Prefix})
		m["continue_final_message"], m["add_generation_prompt"] = true, false
	} else {
		m["messages"] = r.Messages
	}
	if r.MaxTokens > 0 {
		if c.completionField.Load() && r.Messages != nil {
			m["max_completion_tokens"] = r.MaxTokens
		} else {
			m["max_tokens"] = r.MaxTokens
		}
	}
	for k, set := range map[string]bool{"tools": len(r.Tools) > 0, "stop": len(r.Stop) > 0, "temperature": r.Temperature != nil, "top_p": r.TopP != nil, "top_k": r.TopK != nil, "seed": r.Seed != nil} {
		if set {
			m[k] = map[string]any{"tools": r.Tools, "stop": r.Stop, "temperature": r.Temperature, "top_p": r.TopP, "top_k": r.TopK, "seed": r.Seed}[k]
		}
	}
	if !c.c.Whole {
		m["stream"], m["stream_options"] = true, map[string]any{"include_usage": true}
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, "", fmt.Errorf("encode request: %w", err)
	}
	return b, path, nil
}

// redact takes a key out of a text that a server sent back.
func redact(s string, key Secret) string {
	if len(key) < 4 {
		return s
	}
	return strings.ReplaceAll(s, string(key), redacted)
}
