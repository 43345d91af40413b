package simserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/repromill/repromill/suites/endpoint/openai"
)

// generation is one answer on its way.
type generation struct {
	s       *Server
	q       request
	chat    bool
	rnd     *rand.Rand
	id      uint64
	prompt  int
	cached  int
	want    int
	text    []string
	finish  string
	arrived time.Time
	w       http.ResponseWriter
	flush   func()
	buf     bytes.Buffer
	enc     []byte
	wrote   []int64 // null mode: when each event with text was written
}

func (g *generation) run(w http.ResponseWriter, r *http.Request, prefix []uint64) {
	g.w = w
	next := g.null(r)
	if !g.s.cfg.Null {
		seq := &sequence{prompt: g.prompt, want: g.want, prefix: prefix, out: make(chan int, g.want+1), left: r.Context()}
		g.s.engine.submit(seq)
		g.cached = seq.cached
		next = func() bool {
			select {
			case _, ok := <-seq.out:
				return ok
			case <-r.Context().Done():
				return false
			}
		}
	}
	if !g.q.Stream {
		n := 0
		for next() {
			n++
		}
		g.whole(n)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	rc := http.NewResponseController(w)
	g.flush = func() { _ = rc.Flush() }
	if g.s.cfg.Null {
		g.s.truth.began()
		defer func() { g.s.truth.add(g.s.clock.At(g.arrived), g.wrote) }()
	}
	g.stream(next)
}

// null gives a token every ITL, the first after TTFT, on a schedule of its own.
func (g *generation) null(r *http.Request) func() bool {
	at, n, itl := time.Now().Add(g.s.cfg.TTFT), 0, g.s.cfg.ITL
	if g.q.NullITL > 0 {
		itl = time.Duration(g.q.NullITL)
	}
	return func() bool {
		if n >= g.want {
			return false
		}
		n++
		if d := time.Until(at); d > 0 {
			time.Sleep(d)
		}
		at = at.Add(itl)
		return r.Context().Err() == nil
	}
}

func (g *generation) stream(next func() bool) {
	f := g.s.cfg.Faults
	mid := max(1, g.want/2)
	closeMid, malformed, errorMid := g.rnd.Float64() < f.CloseMid, g.rnd.Float64() < f.Malformed, g.rnd.Float64() < f.ErrorMid
	if f.BigLine > 0 {
		fmt.Fprintf(g.w, ": %s\n\n", bytes.Repeat([]byte("x"), f.BigLine))
	}
	n, held := 0, 0
	for next() {
		if n == 0 && g.chat && !f.NoRole {
			g.event(-1, "", 0, "") // the role alone, as vLLM sends it when the first token is there
		}
		n++
		held++
		if held < f.PerChunk && n < g.want {
			continue
		}
		t := ""
		for _, w := range g.text[n-held : n] {
			t += w
		}
		g.event(n-held, t, n, "")
		if g.s.cfg.Null {
			g.wrote = append(g.wrote, g.s.clock.Now())
		}
		held = 0
		if n == mid && g.fault(closeMid, malformed, errorMid) {
			return
		}
	}
	if n < g.want {
		return // the client left, or the server stops
	}
	g.event(n, "", n, g.finish)
	if g.q.StreamOptions.IncludeUsage && !f.NoUsage {
		g.begin()
		fmt.Fprintf(&g.buf, `{"id":"sim-%d","object":%q,"model":%q,"choices":[],"usage":%s}`, g.id, g.object(), g.s.cfg.Model, g.usage(n))
		g.end()
	}
	if !f.NoDone {
		g.begin()
		g.buf.WriteString("[DONE]")
		g.end()
	}
}

func (g *generation) fault(closeMid, malformed, errorMid bool) bool {
	switch {
	case closeMid:
		panic(http.ErrAbortHandler)
	case malformed:
		g.begin()
		g.buf.WriteString(`{"choices":[{"delta":{"content":"cut`)
		g.end()
		return true
	case errorMid:
		g.begin()
		g.buf.WriteString(`{"error":{"message":"simulated failure","type":"InternalServerError","code":500}}`)
		g.end()
		return true
	}
	return false
}

func (g *generation) object() string {
	if g.chat {
		return "chat.completion.chunk"
	}
	return "text_completion"
}

// event writes one chunk: at is the index of its first token, -1 for the role.
func (g *generation) event(at int, text string, n int, finish string) {
	g.begin()
	b := &g.buf
	fmt.Fprintf(b, `{"id":"sim-%d","object":%q,"created":%d,"model":%q,"choices":[{"index":0,`, g.id, g.object(), g.arrived.Unix(), g.s.cfg.Model)
	g.enc = strconv.AppendQuoteToASCII(g.enc[:0], text) // words are ASCII and hold nothing to escape
	if enc, err := json.Marshal(text); g.s.cfg.Answer != nil && err == nil {
		g.enc = enc
	}
	switch {
	case !g.chat:
		fmt.Fprintf(b, `"text":%s,`, g.enc)
	case at < 0:
		b.WriteString(`"delta":{"role":"assistant","content":""},`)
	case finish != "" && text == "":
		b.WriteString(`"delta":{},`)
	case float64(at) < g.s.cfg.Faults.Reasoning*float64(g.want):
		fmt.Fprintf(b, `"delta":{"reasoning_content":%s},`, g.enc)
	default:
		fmt.Fprintf(b, `"delta":{"content":%s},`, g.enc)
	}
	if finish == "" {
		b.WriteString(`"logprobs":null,"finish_reason":null}]`)
	} else {
		fmt.Fprintf(b, `"logprobs":null,"finish_reason":%q}]`, finish)
	}
	if g.q.StreamOptions.Continuous && !g.s.cfg.Faults.NoUsage {
		fmt.Fprintf(b, `,"usage":%s`, g.usage(n))
	}
	if g.s.cfg.Null {
		fmt.Fprintf(b, `,"sent_monotonic_ns":%d`, g.s.clock.Now())
	}
	b.WriteByte('}')
	g.end()
}

func (g *generation) begin() {
	g.buf.Reset()
	g.buf.WriteString("data: ")
}

func (g *generation) end() {
	if g.s.cfg.Faults.CRLF {
		g.buf.WriteString("\r\n\r\n")
	} else {
		g.buf.WriteString("\n\n")
	}
	_, _ = g.w.Write(g.buf.Bytes())
	g.flush()
}

func (g *generation) usage(n int) string {
	if g.s.cfg.Faults.WrongUsage {
		n /= 2
	}
	reasoning := int(g.s.cfg.Faults.Reasoning * float64(n))
	return fmt.Sprintf(`{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d},"completion_tokens_details":{"reasoning_tokens":%d}}`,
		g.prompt, n, g.prompt+n, g.cached, reasoning)
}

// whole answers without a stream.
func (g *generation) whole(n int) {
	if n < g.want {
		return
	}
	t := ""
	for _, w := range g.text[:min(n, len(g.text))] {
		t += w
	}
	choice := map[string]any{"index": 0, "finish_reason": g.finish, "logprobs": nil}
	object := "text_completion"
	if g.chat {
		object = "chat.completion"
		choice["message"] = map[string]any{"role": "assistant", "content": t}
	} else {
		choice["text"] = t
	}
	openai.Reply(g.w, map[string]any{"id": fmt.Sprintf("sim-%d", g.id), "object": object, "created": g.arrived.Unix(), "model": g.s.cfg.Model, "choices": []any{choice}, "usage": json.RawMessage(g.usage(n))})
}
