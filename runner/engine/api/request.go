package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"unicode"

	"github.com/repromill/repromill/runner/engine"
	"github.com/repromill/repromill/runner/engine/chat"
	"github.com/repromill/repromill/suites/endpoint/openai"
)

// request is what both kinds of completions ask for.
type request struct {
	Model    string           `json:"model"`
	Prompt   json.RawMessage  `json:"prompt"`
	Messages []openai.Message `json:"messages"`

	MaxTokens           *int                 `json:"max_tokens"`
	MaxCompletionTokens *int                 `json:"max_completion_tokens"`
	MinTokens           int                  `json:"min_tokens"`
	N                   *int                 `json:"n"`
	Temperature         *float64             `json:"temperature"`
	TopP                *float64             `json:"top_p"`
	TopK                *int                 `json:"top_k"`
	MinP                float64              `json:"min_p"`
	Seed                *int64               `json:"seed"`
	Stop                json.RawMessage      `json:"stop"`
	StopTokenIDs        []int32              `json:"stop_token_ids"`
	IgnoreEOS           bool                 `json:"ignore_eos"`
	SkipSpecial         *bool                `json:"skip_special_tokens"`
	AddSpecial          *bool                `json:"add_special_tokens"`
	Stream              bool                 `json:"stream"`
	StreamOptions       openai.StreamOptions `json:"stream_options"`
	Echo                bool                 `json:"echo"`
	Logprobs            json.RawMessage      `json:"logprobs"`
	TopLogprobs         *int                 `json:"top_logprobs"`
	TemplateKwargs      map[string]any       `json:"chat_template_kwargs"`
	AddGeneration       *bool                `json:"add_generation_prompt"`
	ContinueFinal       bool                 `json:"continue_final_message"`
	ReturnTokens        bool                 `json:"return_token_ids"`

	// What is not done, and refused unless it has no effect.
	Presence       float64         `json:"presence_penalty"`
	Frequency      float64         `json:"frequency_penalty"`
	Repetition     *float64        `json:"repetition_penalty"`
	LogitBias      map[string]any  `json:"logit_bias"`
	BestOf         *int            `json:"best_of"`
	Suffix         string          `json:"suffix"`
	BeamSearch     bool            `json:"use_beam_search"`
	Tools          []any           `json:"tools"`
	ResponseFormat json.RawMessage `json:"response_format"`
	GuidedJSON     json.RawMessage `json:"guided_json"`
	GuidedRegex    json.RawMessage `json:"guided_regex"`
	GuidedChoice   json.RawMessage `json:"guided_choice"`
	GuidedGrammar  json.RawMessage `json:"guided_grammar"`
	Structured     json.RawMessage `json:"structured_outputs"`
	PromptLogprobs json.RawMessage `json:"prompt_logprobs"`
	AllowedIDs     []any           `json:"allowed_token_ids"`
	BadWords       []any           `json:"bad_words"`
	Truncate       json.RawMessage `json:"truncate_prompt_tokens"`
	KeepStop       bool            `json:"include_stop_str_in_output"`
}

// refusal is an answer with a status other than 200.
type refusal struct {
	status  int
	kind    string
	message string
}

func (e *refusal) Error() string { return e.message }

func bad(format string, args ...any) error {
	return &refusal{http.StatusBadRequest, "BadRequestError", fmt.Sprintf(format, args...)}
}

// fail answers with an error.
func fail(w http.ResponseWriter, err error) {
	var r *refusal
	var q *engine.RequestError
	switch {
	case errors.As(err, &r):
		openai.Fail(w, r.status, r.kind, r.message)
	case errors.As(err, &q):
		openai.Fail(w, http.StatusBadRequest, "BadRequestError", q.Why)
	case errors.Is(err, engine.ErrBusy):
		w.Header().Set("Retry-After", "1")
		openai.Fail(w, http.StatusServiceUnavailable, "ServiceUnavailableError", "the server is busy: "+err.Error())
	default:
		openai.Fail(w, http.StatusInternalServerError, "InternalServerError", err.Error())
	}
}

// decode reads a request and checks what does not depend on its kind.
func (s *Server) decode(w http.ResponseWriter, r *http.Request) (*request, error) {
	var q request
	return &q, s.decodeInto(w, r, &q, &q)
}

// decodeInto reads a request into v, of which q is the part that is common.
func (s *Server) decodeInto(w http.ResponseWriter, r *http.Request, v any, q *request) error {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, openai.MaxBody)).Decode(v); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return &refusal{http.StatusRequestEntityTooLarge, "BadRequestError", fmt.Sprintf("the request is larger than %d bytes", large.Limit)}
		}
		if errors.Is(err, io.EOF) {
			return bad("the request is empty")
		}
		return bad("the request is no JSON of the expected shape: %v", err)
	}
	if q.Model != "" && q.Model != s.cfg.Name {
		return &refusal{http.StatusNotFound, "NotFoundError", fmt.Sprintf("The model `%s` does not exist.", q.Model)}
	}
	return q.unsupported()
}

// unsupported refuses what would change the answer and is not done.
func (q *request) unsupported() error {
	given := func(b json.RawMessage) bool { return len(b) > 0 && string(b) != "null" }
	var format struct {
		Type string `json:"type"`
	}
	_ = json.Unmarshal(q.ResponseFormat, &format) // what is no object has no type
	for name, asked := range map[string]bool{
		"presence_penalty": q.Presence != 0, "frequency_penalty": q.Frequency != 0,
		"repetition_penalty": q.Repetition != nil && *q.Repetition != 1, "logit_bias": len(q.LogitBias) > 0,
		"best_of": q.BestOf != nil && *q.BestOf > 1, "suffix": q.Suffix != "", "use_beam_search": q.BeamSearch, "tools": len(q.Tools) > 0,
		"response_format": given(q.ResponseFormat) && format.Type != "text",
		"guided_json":     given(q.GuidedJSON), "guided_regex": given(q.GuidedRegex), "guided_choice": given(q.GuidedChoice), "guided_grammar": given(q.GuidedGrammar),
		"structured_outputs": given(q.Structured), "prompt_logprobs": given(q.PromptLogprobs), "truncate_prompt_tokens": given(q.Truncate),
		"allowed_token_ids": len(q.AllowedIDs) > 0, "bad_words": len(q.BadWords) > 0, "include_stop_str_in_output": q.KeepStop,
		"echo in a chat": q.Echo && len(q.Messages) > 0,
	} {
		if asked {
			return bad("%s is not supported by this engine", name)
		}
	}
	return nil
}

// prompt is one prompt with its tokens.
type prompt struct {
	text string // of completions that echo it
	ids  []int32
}

// chatPrompt renders a conversation.
func (s *Server) chatPrompt(q *request) ([]prompt, error) {
	if s.template == nil {
		return nil, bad("%s", s.noChat)
	}
	if len(q.Messages) == 0 {
		return nil, bad("messages is empty")
	}
	messages := make([]chat.Message, len(q.Messages))
	for i := range q.Messages {
		text, err := q.Messages[i].Text()
		if err != nil {
			return nil, bad("%v", err)
		}
		messages[i] = chat.Message{Role: q.Messages[i].Role, Content: text}
	}
	text, err := s.render(q, messages)
	if err != nil {
		return nil, bad("%v", err)
	}
	// The template writes the beginning of the text itself.
	ids, err := s.encode(text, q.AddSpecial != nil && *q.AddSpecial)
	return []prompt{{text, ids}}, err
}

// render gives the text of a conversation. To continue its last message, what the
// template puts after that is cut off (huggingface/transformers
// src/transformers/utils/chat_template_utils.py).
func (s *Server) render(q *request, messages []chat.Message) (string, error) {
	extra := maps.Clone(q.TemplateKwargs)
	if extra == nil {
		extra = map[string]any{}
	}
	generate := q.AddGeneration == nil || *q.AddGeneration
	if q.ContinueFinal && generate {
		if q.AddGeneration != nil {
			return "", errors.New("continue_final_message and add_generation_prompt exclude each other")
		}
		generate = false
	}
	extra["add_generation_prompt"] = generate
	text, err := s.template.Render(messages, extra)
	if err != nil || !q.ContinueFinal {
		return text, err
	}
	last := messages[len(messages)-1].Content
	at := strings.LastIndex(text, strings.TrimSpace(last))
	if strings.TrimSpace(last) == "" || at < 0 {
		return "", errors.New("the last message cannot be continued: the template does not write it as it is")
	}
	end := at + len(strings.TrimSpace(last))
	if rest := last[len(strings.TrimRightFunc(last, unicode.IsSpace)):]; strings.HasPrefix(text[end:], rest) {
		end += len(rest)
	}
	return text[:end], nil
}

// encode refuses a text that cannot fit before it takes its time.
func (s *Server) encode(text string, special bool) ([]int32, error) {
	most := s.engine.Config().MaxModelLen
	if least := len(text) / s.tok.Longest(); least > most {
		return nil, bad("This model's maximum context length is %d tokens. However, your request has at least %d input tokens. Please reduce the length of the input messages.", most, least)
	}
	ids, err := s.tok.Encode(text, special)
	if err != nil {
		return nil, bad("%v", err)
	}
	return ids, nil
}

// maxChoices bounds the answers of one request.
const maxChoices = 256

// textPrompts reads a prompt: a text, tokens, or a list of either.
func (s *Server) textPrompts(q *request) ([]prompt, error) {
	special := q.AddSpecial == nil || *q.AddSpecial
	var text string
	var texts []string
	var ids []int32
	var lists [][]int32
	switch {
	case len(q.Prompt) == 0 || string(q.Prompt) == "null":
		return nil, bad("prompt is missing")
	case json.Unmarshal(q.Prompt, &text) == nil:
		texts = []string{text}
	case json.Unmarshal(q.Prompt, &ids) == nil:
		lists = [][]int32{ids}
	case json.Unmarshal(q.Prompt, &texts) == nil:
	case json.Unmarshal(q.Prompt, &lists) == nil:
	default:
		return nil, bad("prompt is neither a text, nor tokens, nor a list of either")
	}
	if n := len(texts) + len(lists); n == 0 || n > maxChoices {
		return nil, bad("%d prompts, want 1 to %d", n, maxChoices)
	}
	var out []prompt
	for _, t := range texts {
		ids, err := s.encode(t, special)
		if err != nil {
			return nil, err
		}
		out = append(out, prompt{t, ids})
	}
	for _, l := range lists {
		p := prompt{ids: l}
		if q.Echo {
			p.text = s.tok.Decode(l, false)
		}
		out = append(out, p)
	}
	return out, nil
}

// engineRequest is what the engine is asked for one prompt.
func (s *Server) engineRequest(q *request, p prompt, isChat bool) (engine.Request, error) {
	r := engine.Request{
		Prompt: p.ids, MinTokens: q.MinTokens, IgnoreEOS: q.IgnoreEOS, StopIDs: q.StopTokenIDs, Logprobs: -1,
		SkipSpecial: q.SkipSpecial == nil || *q.SkipSpecial, MaxTokens: 16,
	}
	room := s.engine.Config().MaxModelLen - len(p.ids)
	if isChat {
		r.MaxTokens = max(1, room)
	}
	switch {
	case q.MaxCompletionTokens != nil:
		r.MaxTokens = *q.MaxCompletionTokens
	case q.MaxTokens != nil:
		r.MaxTokens = *q.MaxTokens
	}
	r.Sampling = s.sampling(q)
	var one string
	if json.Unmarshal(q.Stop, &one) == nil && len(q.Stop) > 0 {
		if one != "" {
			r.Stop = []string{one}
		}
	} else if len(q.Stop) > 0 && json.Unmarshal(q.Stop, &r.Stop) != nil {
		return r, bad("stop is neither a text nor a list of texts")
	}
	var err error
	if r.Logprobs, err = q.wantedLogprobs(isChat); err != nil {
		return r, err
	}
	r.PromptLogprobs = q.Echo && !isChat && r.Logprobs >= 0
	if r.MaxTokens == 0 && q.Echo && !isChat {
		r.PromptLogprobs = true
	}
	return r, nil
}

func (s *Server) sampling(q *request) engine.Sampling {
	out := engine.Sampling{Temperature: 1, TopP: 1, MinP: q.MinP}
	if d := s.defaults; d.DoSample == nil || *d.DoSample {
		set(&out.Temperature, d.Temperature)
		set(&out.TopP, d.TopP)
		set(&out.TopK, d.TopK)
	}
	set(&out.Temperature, q.Temperature)
	set(&out.TopP, q.TopP)
	set(&out.TopK, q.TopK)
	if q.Seed != nil {
		seed := uint64(*q.Seed)
		out.Seed = &seed
	}
	return out
}

func set[T any](dst *T, v *T) {
	if v != nil {
		*dst = *v
	}
}

// wantedLogprobs is the number of alternatives; -1 for no probabilities. Chats
// say it with a flag and a number, completions with a number.
func (q *request) wantedLogprobs(isChat bool) (int, error) {
	text := strings.TrimSpace(string(q.Logprobs))
	if text == "" || text == "null" {
		text = "false"
	}
	var flag bool
	var n int
	switch {
	case isChat && json.Unmarshal([]byte(text), &flag) == nil:
		if !flag {
			return -1, nil
		}
		if q.TopLogprobs != nil {
			n = *q.TopLogprobs
		}
	case text == "false":
		return -1, nil
	case isChat || json.Unmarshal([]byte(text), &n) != nil:
		return -1, bad("logprobs is %.40s", text)
	}
	if n < 0 {
		return -1, bad("%d log-probabilities were asked for", n)
	}
	return n, nil
}
