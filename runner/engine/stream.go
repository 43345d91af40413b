package engine

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/repromill/repromill/runner/engine/decoder"
	"github.com/repromill/repromill/runner/engine/token"
)

// Piece is what a step adds to an answer.
type Piece struct {
	Text   string
	Tokens []Token // those computed; their text may come with a later piece
	Prompt []Token // with the first piece, where they were asked for
	Finish string  // stop or length, with the last piece
	// StopReason is the stop string or token that ended the answer; nil for the
	// end that the model has by itself.
	StopReason any
	Err        error // the answer has broken off
}

// Token is one token with its probability, where that was asked for.
type Token struct {
	ID      int32
	Text    string
	Logprob *Logprob // nil for the first of a prompt
	Top     []Logprob
}

// Stream is an answer on its way. It keeps what its reader has not taken yet,
// which max_tokens bounds.
type Stream struct {
	mu    sync.Mutex
	queue []Piece
	over  bool
	ready chan struct{}
}

func newStream() *Stream { return &Stream{ready: make(chan struct{}, 1)} }

func (s *Stream) push(p Piece, over bool) {
	s.mu.Lock()
	if !s.over {
		s.queue = append(s.queue, p)
		s.over = over
	}
	s.mu.Unlock()
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

func (s *Stream) end(p Piece) { s.push(p, true) }

// Next waits for the next piece; false when the answer is over or ctx ends.
func (s *Stream) Next(ctx context.Context) (Piece, bool) {
	for {
		s.mu.Lock()
		if len(s.queue) > 0 {
			p := s.queue[0]
			s.queue = s.queue[1:]
			s.mu.Unlock()
			return p, true
		}
		over := s.over
		s.mu.Unlock()
		if over {
			return Piece{}, false
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return Piece{Err: ctx.Err()}, false
		}
	}
}

// sequence is a request inside of the engine.
type sequence struct {
	ctx    context.Context
	e      *Engine
	req    Request
	tokens []int32 // the prompt, then the answer
	place  decoder.Sequence
	rand   *rand.Rand
	text   *token.Decoder
	held   string // text that may be the beginning of a stop string
	longer int    // bytes of the longest stop string, less one
	stream *Stream

	prompt  []Token // with probabilities, gathered chunk by chunk
	arrived time.Time
	last    time.Time // when the last token came
	finish  string
}

func newSequence(ctx context.Context, e *Engine, r Request) *sequence {
	seed, second := e.cfg.Seed, e.serial
	if r.Sampling.Seed != nil {
		seed, second = *r.Sampling.Seed, 0
	}
	s := &sequence{
		ctx: ctx, e: e, req: r, tokens: slices.Clone(r.Prompt), rand: rand.New(rand.NewPCG(seed, second)),
		text: e.cfg.Tokenizer.Decoder(r.SkipSpecial), stream: newStream(), arrived: e.cfg.Now(),
	}
	for _, stop := range r.Stop {
		s.longer = max(s.longer, len(stop)-1)
	}
	return s
}

// made is the number of tokens of the answer.
func (s *sequence) made() int { return len(s.tokens) - len(s.req.Prompt) }

// wantsPrompt tells whether logits of the prompt are still to be gathered. The
// last ones give the first token of the answer.
func (s *sequence) wantsPrompt() bool {
	return s.req.PromptLogprobs && len(s.prompt) < len(s.req.Prompt)
}

// advance takes the logits of a step, of its last tokens. It returns what they
// add to the answer; nil for a part of the prompt.
func (s *sequence) advance(rows [][]float32) *Piece {
	if len(rows) == 0 {
		return nil
	}
	if s.wantsPrompt() {
		s.gather(rows)
	}
	if s.place.Len() < len(s.tokens) {
		return nil
	}
	p := new(Piece)
	if s.made() == 0 {
		p.Prompt = s.prompt
	}
	if s.req.MaxTokens == 0 {
		s.finish, p.Finish = "length", "length"
		return p
	}
	logits := rows[len(rows)-1]
	if s.made() < s.req.MinTokens {
		logits = s.withoutEnds(logits)
	}
	id := s.req.Sampling.choose(logits, s.rand)
	p.Tokens = []Token{s.token(logits, id)}
	s.tokens = append(s.tokens, id)
	s.write(p, id)
	s.finish = p.Finish
	return p
}

// gather takes the probabilities of the prompt's tokens: each row says what
// follows its token. After a preemption rows that are known come again.
func (s *sequence) gather(rows [][]float32) {
	first := s.place.Len() - len(rows)
	for i, row := range rows {
		at := first + i
		if at == 0 && len(s.prompt) == 0 {
			id := s.req.Prompt[0]
			s.prompt = append(s.prompt, Token{ID: id, Text: s.e.cfg.Tokenizer.Decode([]int32{id}, false)})
		}
		if next := at + 1; next == len(s.prompt) && next < len(s.req.Prompt) {
			s.prompt = append(s.prompt, s.token(row, s.req.Prompt[next]))
		}
	}
}

// token describes a token by the logits that it was chosen from.
func (s *sequence) token(logits []float32, id int32) Token {
	t := Token{ID: id}
	if s.req.Logprobs < 0 {
		return t
	}
	t.Text = s.e.cfg.Tokenizer.Decode([]int32{id}, false)
	own, top := logprobs(logits, id, s.req.Logprobs)
	t.Logprob, t.Top = &own, top
	return t
}

// withoutEnds makes tokens that end an answer impossible.
func (s *sequence) withoutEnds(logits []float32) []float32 {
	out := slices.Clone(logits)
	for _, id := range slices.Concat(s.e.cfg.EOS, s.req.StopIDs) {
		if id >= 0 && int(id) < len(out) {
			out[id] = -1e30
		}
	}
	return out
}

// write adds the text of a token, but for what may become a stop string, and
// says whether the answer ends.
func (s *sequence) write(p *Piece, id int32) {
	n := s.made()
	eos := !s.req.IgnoreEOS && slices.Contains(s.e.cfg.EOS, id)
	if named := slices.Contains(s.req.StopIDs, id); (eos || named) && n > s.req.MinTokens {
		if named && !eos {
			p.StopReason = id
		}
		p.Text, p.Finish = s.held+s.text.Flush(), "stop"
		return
	}
	s.held += s.text.Add(id)
	if n == s.req.MaxTokens {
		s.held += s.text.Flush()
	}
	if at, stop := s.findStop(); at >= 0 && n > s.req.MinTokens {
		p.Text, p.Finish, p.StopReason = s.held[:at], "stop", stop
		return
	}
	if n == s.req.MaxTokens {
		p.Text, p.Finish = s.held, "length"
		return
	}
	cut := max(0, len(s.held)-s.longer)
	for cut > 0 && cut < len(s.held) && !utf8.RuneStart(s.held[cut]) {
		cut--
	}
	p.Text, s.held = s.held[:cut], s.held[cut:]
}

// findStop is the place of the first stop string in the text that is held.
func (s *sequence) findStop() (at int, stop string) {
	at = -1
	for _, x := range s.req.Stop {
		if i := strings.Index(s.held, x); i >= 0 && (at < 0 || i < at) {
			at, stop = i, x
		}
	}
	return at, stop
}
