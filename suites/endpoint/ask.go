package endpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Ask sends a request until it is answered, and returns the answer. The error is
// an [*Error] for what failed for good, else the context's.
func (c *Client) Ask(ctx context.Context, r Request) (Answer, error) {
	model, err := c.served(ctx)
	if err != nil {
		return Answer{}, err
	}
	c.budget.earn()
	var waited time.Duration
	retries, throttled, own := 0, 0, 0
	for {
		a, err := c.once(ctx, r, model)
		if err == nil {
			a.Retries, a.Throttled = retries, throttled
			return a, nil
		}
		var e *Error
		if !errors.As(err, &e) {
			return Answer{}, err
		}
		if e.Kind == Rejected && strings.Contains(e.Detail, "max_completion_tokens") && !c.completionField.Swap(true) {
			continue
		}
		wait, again := c.backoff(e, &own, retries)
		if !again || waited+wait > c.c.Retry.Budget {
			said := *e // several requests may wait for the same answer about the server
			said.Retries = retries
			return Answer{Retries: retries, Throttled: throttled}, &said
		}
		if err := c.c.Sleep(ctx, wait); err != nil {
			return Answer{}, context.Cause(ctx)
		}
		waited += wait
		retries++
		if e.Kind == Throttled {
			throttled++
		}
	}
}

// backoff says how long to wait before the next try, and whether there is one.
// own counts the tries that failed by themselves.
func (c *Client) backoff(e *Error, own *int, retries int) (time.Duration, bool) {
	if !e.retryable() {
		return 0, false
	}
	if e.Kind != Throttled {
		if *own++; *own >= c.c.Retry.Attempts || !c.budget.spend() {
			return 0, false
		}
	}
	wait := c.c.Retry.MaxBackoff
	if retries < 16 {
		wait = min(wait, c.c.Retry.Base<<retries)
	}
	wait = time.Duration(float64(wait) * (0.5 + c.c.Jitter()/2))
	if e.RetryAfter > 0 {
		// All who were refused come again a little apart.
		wait = max(wait, min(e.RetryAfter, c.c.Retry.MaxWait)+time.Duration(float64(e.RetryAfter)*0.1*c.c.Jitter()))
	}
	return wait, true
}

// budgetStart is how many retries there are before any request has earned one.
const budgetStart = 20

// budget bounds the retries over all requests.
type budget struct {
	mu     sync.Mutex
	share  float64
	tokens float64
}

func (b *budget) earn() {
	b.mu.Lock()
	b.tokens = min(b.tokens+b.share, 10*budgetStart)
	b.mu.Unlock()
}

func (b *budget) spend() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// watchdog ends a request that is silent for too long.
type watchdog struct {
	timer  *time.Timer
	idle   time.Duration
	cancel context.CancelCauseFunc
	mu     sync.Mutex
	what   string
	after  time.Duration
}

func newWatchdog(cancel context.CancelCauseFunc, t Timeouts) *watchdog {
	w := &watchdog{idle: t.Idle, cancel: cancel, what: "no answer began", after: t.First}
	w.timer = time.AfterFunc(t.First, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.cancel(&stallError{w.what, w.after})
	})
	return w
}

// fed is called for every piece that arrives.
func (w *watchdog) fed() {
	w.mu.Lock()
	w.what, w.after = "the answer stalled", w.idle
	w.mu.Unlock()
	w.timer.Reset(w.idle)
}

// once sends the request one time.
func (c *Client) once(parent context.Context, r Request, model string) (Answer, error) {
	body, path, err := c.body(r, model)
	if err != nil {
		return Answer{}, err
	}
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	total := time.AfterFunc(c.c.Timeouts.Total, func() { cancel(&stallError{"the answer took longer than allowed", c.c.Timeouts.Total}) })
	defer total.Stop()
	dog := newWatchdog(cancel, c.c.Timeouts)
	defer dog.timer.Stop()

	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		return Answer{}, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	c.authorise(req)
	sent := c.c.Now()
	res, err := c.http.Do(req)
	if err != nil {
		return Answer{}, c.broken(ctx, Unreachable, err)
	}
	defer res.Body.Close()
	in := &fedReader{io.LimitReader(res.Body, MaxBody), dog}
	if res.StatusCode != http.StatusOK {
		return Answer{}, c.refused(ctx, res, in)
	}
	p := &parser{client: c, sent: sent, max: r.MaxTokens, sentBytes: len(body)}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		err = p.stream(in)
	} else {
		err = p.whole(in, res.Header.Get("Content-Type"))
	}
	if err != nil {
		return Answer{}, c.broken(ctx, Cut, err)
	}
	// The rest of the stream, which is empty, lets the connection be used again.
	_, _ = io.CopyN(io.Discard, res.Body, 4<<10)
	return p.answer(r.Messages != nil), nil
}

func (c *Client) authorise(req *http.Request) {
	if c.c.Key != "" {
		req.Header.Set("Authorization", "Bearer "+string(c.c.Key))
	}
}

type fedReader struct {
	r   io.Reader
	dog *watchdog
}

func (f *fedReader) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	if n > 0 {
		f.dog.fed()
	}
	return n, err
}

// refused reads the body of an answer that is none.
func (c *Client) refused(ctx context.Context, res *http.Response, in io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(in, 64<<10))
	if err != nil && len(b) == 0 {
		return c.broken(ctx, Unreachable, err)
	}
	e := &Error{Kind: statusKind(res.StatusCode), Status: res.StatusCode, URL: c.base, RetryAfter: c.retryAfter(res.Header)}
	e.Detail = clipped(redact(errorText(b), c.c.Key))
	return e
}

// errorText is the message in an error's body: OpenAI's and vLLM's JSON, FastAPI's
// detail, or the text of a page.
func errorText(b []byte) string {
	var j struct {
		Error   json.RawMessage `json:"error"`
		Message string          `json:"message"`
		Detail  json.RawMessage `json:"detail"`
	}
	if json.Unmarshal(b, &j) == nil {
		var inner struct {
			Message string `json:"message"`
		}
		var text string
		switch {
		case json.Unmarshal(j.Error, &inner) == nil && inner.Message != "":
			return inner.Message
		case json.Unmarshal(j.Error, &text) == nil && text != "":
			return text
		case j.Message != "":
			return j.Message
		case len(j.Detail) > 0:
			return string(j.Detail)
		}
	}
	return string(b)
}

// retryAfter reads Retry-After (seconds or a date) and what OpenAI adds to it.
func (c *Client) retryAfter(h http.Header) time.Duration {
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil && ms > 0 && ms < 1e9 {
		return time.Duration(ms * float64(time.Millisecond))
	}
	v := strings.TrimSpace(h.Get("Retry-After"))
	if s, err := strconv.ParseFloat(v, 64); err == nil && s > 0 && s < 1e6 {
		return time.Duration(s * float64(time.Second))
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(t.Sub(c.c.Now()), 0)
	}
	return 0
}
