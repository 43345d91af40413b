// Package api serves an engine over HTTP in the protocol of vLLM's
// OpenAI-compatible server: chat and text completions, streams with usage,
// probabilities, tokenization and metrics under vLLM's names.
//
// What the engine does not do (tools, images, penalties, guided decoding) is
// refused with status 400 and never ignored.
package api

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/runner/engine"
	"github.com/repromill/repromill/runner/engine/chat"
	"github.com/repromill/repromill/runner/engine/decoder"
	"github.com/repromill/repromill/runner/engine/token"
)

// Config says what is served and how. Source is required.
type Config struct {
	Source model.Source // of the checkpoint
	Root   string       // where it lies, as /v1/models says it
	Name   string       // of the model in requests; "" means Root
	// ChatTemplate replaces the checkpoint's; "" keeps it.
	ChatTemplate string
	Version      string // of the program
	Load         decoder.LoadConfig
	// Engine needs no Model and Tokenizer.
	Engine engine.Config
}

// Server is an http.Handler. [Server.Run] must be running while it serves.
type Server struct {
	cfg      Config
	engine   *engine.Engine
	model    *decoder.Model
	tok      *token.Tokenizer
	template *chat.Template
	noChat   string // why there is no template
	defaults sampling
	began    time.Time
	now      func() time.Time
	mux      *http.ServeMux
}

// sampling is what generation_config.json says for requests that say nothing,
// as in vLLM.
type sampling struct {
	Temperature *float64 `json:"temperature"`
	TopP        *float64 `json:"top_p"`
	TopK        *int     `json:"top_k"`
	DoSample    *bool    `json:"do_sample"`
}

// Open loads a checkpoint. Errors are those of [decoder.Load], [token.Load] and
// [engine.New]; a chat template that cannot be used is none: text completions are
// served all the same.
func Open(ctx context.Context, cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, now: cfg.Engine.Now}
	if s.now == nil {
		s.now = time.Now
	}
	s.cfg.Name = cmp.Or(cfg.Name, cfg.Root, "model")
	s.began = s.now()
	var err error
	if s.model, err = decoder.Load(ctx, cfg.Source, cfg.Load); err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for name, most := range map[string]int64{"tokenizer.json": token.MaxFile, "tokenizer_config.json": model.MaxConfig, "chat_template.jinja": chat.MaxTemplate, "generation_config.json": model.MaxConfig} {
		if files[name], err = decoder.ReadSmall(ctx, cfg.Source, name, most); err != nil {
			return nil, err
		}
	}
	if files["tokenizer.json"] == nil {
		return nil, &token.BadFileError{Why: "there is none in the folder"}
	}
	if s.tok, err = token.Load(files["tokenizer.json"]); err != nil {
		return nil, err
	}
	s.chatTemplate(files["tokenizer_config.json"], files["chat_template.jinja"])
	_ = json.Unmarshal(files["generation_config.json"], &s.defaults) // a damaged file says nothing
	ecfg := cfg.Engine
	ecfg.Model, ecfg.Tokenizer = s.model, s.tok
	_, named := chat.Sources(files["tokenizer_config.json"], nil)
	if id, ok := s.tok.ID(named["eos_token"]); ok {
		ecfg.EOS = append(ecfg.EOS, id)
	}
	if s.engine, err = engine.New(ecfg); err != nil {
		return nil, err
	}
	s.routes()
	return s, nil
}

func (s *Server) chatTemplate(tokenizerConfig, jinja []byte) {
	source, named := chat.Sources(tokenizerConfig, jinja)
	source = cmp.Or(s.cfg.ChatTemplate, source)
	if source == "" {
		s.noChat = "the model has no chat template; ask /v1/completions, or give one with --chat-template"
		return
	}
	var err error
	if s.template, err = chat.Load(source, named, s.now); err != nil {
		s.template, s.noChat = nil, fmt.Sprintf("the model's chat template cannot be rendered here (%v); ask /v1/completions, or give one with --chat-template", err)
	}
}

// Run computes until ctx ends; its error is that of [engine.Engine.Run].
func (s *Server) Run(ctx context.Context) error { return s.engine.Run(ctx) }

// Engine is what computes.
func (s *Server) Engine() *engine.Engine { return s.engine }

// Model is what is served.
func (s *Server) Model() *decoder.Model { return s.model }

// Name is the name of the model in requests.
func (s *Server) Name() string { return s.cfg.Name }

// NoChat says why chats are refused; "" when they are not.
func (s *Server) NoChat() string { return s.noChat }

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }
