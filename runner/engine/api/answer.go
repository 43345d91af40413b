package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"

	"github.com/repromill/repromill/runner/engine"
	"github.com/repromill/repromill/suites/endpoint/openai"
)

// usage counts tokens.
type usage struct {
	Prompt     int `json:"prompt_tokens"`
	Total      int `json:"total_tokens"`
	Completion int `json:"completion_tokens"`
}

// message is an answer, or the part of it that a chunk brings.
type message struct {
	Role    string  `json:"role,omitempty"`
	Content *string `json:"content,omitempty"`
}

// choice is one answer of several, or a part of it.
type choice struct {
	Index        int      `json:"index"`
	Message      *message `json:"message,omitempty"`
	Delta        *message `json:"delta,omitempty"`
	Text         *string  `json:"text,omitempty"`
	Logprobs     any      `json:"logprobs"`
	FinishReason *string  `json:"finish_reason"`
	StopReason   any      `json:"stop_reason"`
	TokenIDs     []int32  `json:"token_ids,omitempty"`
}

// completion is an answer, or a chunk of a stream.
type completion struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	Created int64    `json:"created"`
	Model   string   `json:"model"`
	Choices []choice `json:"choices"`
	Usage   *usage   `json:"usage,omitempty"`
}

// generation is a request on its way.
type generation struct {
	s       *Server
	q       *request
	isChat  bool
	prompts []prompt
	n       int // answers to each prompt
	head    completion
	streams []*engine.Stream
	used    usage
	cancel  context.CancelFunc
}

func (s *Server) chat(w http.ResponseWriter, r *http.Request)        { s.generate(w, r, true) }
func (s *Server) completions(w http.ResponseWriter, r *http.Request) { s.generate(w, r, false) }

func (s *Server) generate(w http.ResponseWriter, r *http.Request, isChat bool) {
	// The engine lets go of an answer as soon as its client does, or a part fails.
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	g, err := s.begin(ctx, w, r, isChat)
	if err != nil {
		fail(w, err)
		return
	}
	g.cancel = cancel
	if g.q.Stream {
		g.stream(ctx, w)
		return
	}
	g.whole(ctx, w)
}

// begin reads a request and hands its parts to the engine.
func (s *Server) begin(ctx context.Context, w http.ResponseWriter, r *http.Request, isChat bool) (*generation, error) {
	q, err := s.decode(w, r)
	if err != nil {
		return nil, err
	}
	g := &generation{s: s, q: q, isChat: isChat, n: 1}
	if isChat {
		g.prompts, err = s.chatPrompt(q)
	} else {
		g.prompts, err = s.textPrompts(q)
	}
	if err != nil {
		return nil, err
	}
	set(&g.n, q.N)
	if g.n < 1 || g.n*len(g.prompts) > maxChoices {
		return nil, bad("n is %d with %d prompts; at most %d answers are given to a request", g.n, len(g.prompts), maxChoices)
	}
	g.head = completion{ID: "cmpl-", Object: "text_completion", Created: s.now().Unix(), Model: s.cfg.Name}
	if isChat {
		g.head.ID, g.head.Object = "chatcmpl-", "chat.completion"
		if q.Stream {
			g.head.Object = "chat.completion.chunk"
		}
	}
	g.head.ID += s.id()
	for _, p := range g.prompts {
		er, err := s.engineRequest(q, p, isChat)
		if err != nil {
			return nil, err
		}
		g.used.Prompt += len(p.ids)
		for i := range g.n {
			one := er
			if er.Sampling.Seed != nil {
				seed := *er.Sampling.Seed + uint64(i)
				one.Sampling.Seed = &seed
			}
			st, err := s.engine.Submit(ctx, one)
			if err != nil {
				return nil, err
			}
			g.streams = append(g.streams, st)
		}
	}
	return g, nil
}

// prompt is that of an answer.
func (g *generation) prompt(index int) prompt { return g.prompts[index/g.n] }

func (g *generation) counted() *usage {
	u := g.used
	u.Total = u.Prompt + u.Completion
	return &u
}

// whole answers in one piece.
func (g *generation) whole(ctx context.Context, w http.ResponseWriter) {
	out := g.head
	out.Choices = make([]choice, len(g.streams))
	for i, st := range g.streams {
		var text strings.Builder
		var tokens []engine.Token
		c := choice{Index: i}
		for {
			p, ok := st.Next(ctx)
			if p.Err != nil {
				fail(w, fmt.Errorf("the answer broke off: %w", p.Err))
				return
			}
			if !ok {
				break
			}
			if g.q.Echo && !g.isChat && p.Prompt != nil {
				tokens = append(tokens, p.Prompt...)
			}
			text.WriteString(p.Text)
			tokens = append(tokens, p.Tokens...)
			g.used.Completion += len(p.Tokens)
			c.finish(&p)
			if g.q.ReturnTokens {
				for _, t := range p.Tokens {
					c.TokenIDs = append(c.TokenIDs, t.ID)
				}
			}
		}
		t := text.String()
		if g.isChat {
			c.Message = &message{"assistant", &t}
			c.Logprobs = g.s.chatLogprobs(tokens)
		} else {
			if g.q.Echo {
				t = g.prompt(i).text + t
			}
			c.Text = &t
			c.Logprobs = g.s.textLogprobs(tokens, 0)
		}
		out.Choices[i] = c
	}
	out.Usage = g.counted()
	openai.Reply(w, out)
}

func (c *choice) finish(p *engine.Piece) {
	if p.Finish != "" {
		c.FinishReason, c.StopReason = &p.Finish, p.StopReason
	}
}

// event is a piece of one of the answers.
type event struct {
	index int
	piece engine.Piece
}

// stream answers with events, those of several answers as they come.
func (g *generation) stream(ctx context.Context, w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	out := &events{w: w, rc: http.NewResponseController(w)}
	pieces := make(chan event)
	for i, st := range g.streams {
		go func() {
			for {
				p, ok := st.Next(ctx)
				if !ok && p.Err == nil {
					return
				}
				select {
				case pieces <- event{i, p}:
				case <-ctx.Done():
					return
				}
				if !ok || p.Err != nil || p.Finish != "" {
					return
				}
			}
		}()
	}
	offsets := make([]int, len(g.streams))
	begun := make([]bool, len(g.streams))
	for open := len(g.streams); open > 0; {
		var e event
		select {
		case e = <-pieces:
		case <-ctx.Done():
			return
		}
		if e.piece.Err != nil {
			out.send(openai.ErrorBody(http.StatusInternalServerError, "InternalServerError", "the answer broke off: "+e.piece.Err.Error()))
			g.cancel()
			return
		}
		if !begun[e.index] {
			begun[e.index] = true
			g.first(out, e.index, &offsets[e.index])
		}
		g.chunk(out, e, &offsets[e.index])
		if e.piece.Finish != "" {
			open--
		}
		if out.err != nil {
			g.cancel()
			return
		}
	}
	if g.q.StreamOptions.IncludeUsage {
		last := g.head
		last.Choices, last.Usage = []choice{}, g.counted()
		out.send(last)
	}
	out.raw("[DONE]")
}

// first writes what comes before the tokens: the role, or the prompt.
func (g *generation) first(out *events, index int, offset *int) {
	c := choice{Index: index}
	switch {
	case g.isChat:
		empty := ""
		c.Delta = &message{"assistant", &empty}
	case g.q.Echo:
		text := g.prompt(index).text
		c.Text = &text
		*offset = len([]rune(text))
	default:
		return
	}
	x := g.head
	x.Choices = []choice{c}
	out.send(x)
}

// chunk writes one piece.
func (g *generation) chunk(out *events, e event, offset *int) {
	c := choice{Index: e.index}
	p := &e.piece
	g.used.Completion += len(p.Tokens)
	c.finish(p)
	if g.q.ReturnTokens {
		for _, t := range p.Tokens {
			c.TokenIDs = append(c.TokenIDs, t.ID)
		}
	}
	tokens := p.Tokens
	if g.isChat {
		c.Delta = &message{Content: &p.Text}
		c.Logprobs = g.s.chatLogprobs(tokens)
	} else {
		c.Text = &p.Text
		from := *offset
		if g.q.Echo && p.Prompt != nil {
			tokens, from = append(p.Prompt, tokens...), 0
		}
		c.Logprobs = g.s.textLogprobs(tokens, from)
		*offset += len([]rune(p.Text))
	}
	x := g.head
	x.Choices = []choice{c}
	if g.q.StreamOptions.Continuous {
		x.Usage = g.counted()
	}
	out.send(x)
}

// events writes server-sent events; it keeps its first error.
type events struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	buf bytes.Buffer
	err error
}

func (o *events) send(v any) {
	o.buf.Reset()
	o.buf.WriteString("data: ")
	enc := json.NewEncoder(&o.buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil && o.err == nil {
		o.err = err
	}
	o.buf.WriteByte('\n') // the encoder has written one
	o.flush()
}

func (o *events) raw(text string) {
	o.buf.Reset()
	o.buf.WriteString("data: " + text + "\n\n")
	o.flush()
}

func (o *events) flush() {
	if o.err == nil {
		_, o.err = o.w.Write(o.buf.Bytes())
	}
	if o.err == nil {
		o.err = o.rc.Flush()
	}
}

// finite is a probability that JSON can write; vLLM sends -9999 for the least.
func finite(v float64) float64 {
	if math.IsNaN(v) || v < -9999 {
		return -9999
	}
	return v
}
