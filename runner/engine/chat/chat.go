// Package chat turns a conversation into the text that a model was trained on,
// by the Jinja template of its checkpoint. It is the only importer of the Jinja
// library.
//
// Templates come with the checkpoint and are run when it is loaded, on a probe:
// one that the library does not render is refused then, and so are chats with it.
// They see the conversation and nothing else; no files can be included.
package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nikolalohinski/gonja/v2/builtins"
	"github.com/nikolalohinski/gonja/v2/config"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/loaders"
)

// MaxTemplate bounds the size of a template, in bytes.
const MaxTemplate = 1 << 20

// TemplateError says why a conversation has no text: the template is none, or
// it refuses the conversation.
type TemplateError struct{ Why string }

func (e *TemplateError) Error() string { return "chat template: " + e.Why }

// Template is safe for concurrent use.
type Template struct {
	t     *exec.Template
	named map[string]any // bos_token and other special tokens
	now   func() time.Time
}

// Message is one turn of a conversation.
type Message struct {
	Role    string
	Content string
}

// Load reads a template. named are the special tokens by the names that
// tokenizer_config.json gives them. Its error is a [*TemplateError].
func Load(source string, named map[string]string, now func() time.Time) (t *Template, err error) {
	if len(source) > MaxTemplate {
		return nil, &TemplateError{fmt.Sprintf("it has %d bytes, more than %d", len(source), MaxTemplate)}
	}
	defer recovered(&err)
	loader, err := loaders.NewMemoryLoader(map[string]string{"/chat": source})
	if err != nil {
		return nil, &TemplateError{err.Error()}
	}
	cfg := config.New()
	cfg.TrimBlocks, cfg.LeftStripBlocks = true, true // as transformers sets them
	env := &exec.Environment{
		Context: exec.EmptyContext().Update(builtins.GlobalFunctions).Update(builtins.GlobalVariables),
		Filters: builtins.Filters, Tests: builtins.Tests, ControlStructures: builtins.ControlStructures, Methods: builtins.Methods,
	}
	x, err := exec.NewTemplate("/chat", cfg, loader, env)
	if err != nil {
		return nil, &TemplateError{err.Error()}
	}
	t = &Template{t: x, named: map[string]any{}, now: now}
	for k, v := range named {
		t.named[k] = v
	}
	if _, err := t.Render([]Message{{"user", "Hello"}}, nil); err != nil {
		return nil, err
	}
	return t, nil
}

// recovered turns a panic of the library into an error.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = &TemplateError{fmt.Sprintf("%.300v", p)}
	}
}

// Render gives the text of a conversation, ready for the assistant's answer.
// extra are further variables, such as enable_thinking. Its error is a
// [*TemplateError].
func (t *Template) Render(messages []Message, extra map[string]any) (text string, err error) {
	defer recovered(&err)
	list := make([]any, len(messages))
	for i, m := range messages {
		list[i] = map[string]any{"role": m.Role, "content": m.Content}
	}
	data := map[string]any{
		"messages": list, "add_generation_prompt": true, "tools": nil, "documents": nil,
		"raise_exception": func(e *exec.Evaluator, args *exec.VarArgs) *exec.Value {
			said := "it refuses the conversation"
			if len(args.Args) > 0 {
				said = args.Args[0].String()
			}
			return exec.AsValue(errors.New(said))
		},
		"strftime_now": func(e *exec.Evaluator, args *exec.VarArgs) *exec.Value {
			layout := "%Y-%m-%d"
			if len(args.Args) > 0 {
				layout = args.Args[0].String()
			}
			return exec.AsValue(strftime(t.now(), layout))
		},
	}
	for k, v := range t.named {
		data[k] = v
	}
	for k, v := range extra {
		data[k] = v
	}
	text, err = t.t.ExecuteToString(exec.NewContext(data))
	if err != nil {
		return "", &TemplateError{err.Error()}
	}
	return text, nil
}

// strftime knows the directives that templates use.
func strftime(t time.Time, layout string) string {
	return strings.NewReplacer("%%", "%", "%Y", t.Format("2006"), "%m", t.Format("01"), "%d", t.Format("02"), "%B", t.Format("January"),
		"%b", t.Format("Jan"), "%A", t.Format("Monday"), "%H", t.Format("15"), "%M", t.Format("04"), "%S", t.Format("05")).Replace(layout)
}

// Sources finds the template of a checkpoint and its special tokens, in
// tokenizer_config.json and chat_template.jinja; either may be nil. The file of
// its own wins.
func Sources(tokenizerConfig, jinja []byte) (source string, named map[string]string) {
	named = map[string]string{}
	var fields map[string]json.RawMessage
	_ = json.Unmarshal(tokenizerConfig, &fields) // a damaged file has no template
	for k, v := range fields {
		if !strings.HasSuffix(k, "_token") {
			continue
		}
		var text string
		var object struct {
			Content string `json:"content"`
		}
		if json.Unmarshal(v, &text) == nil && string(v) != "null" {
			named[k] = text
		} else if json.Unmarshal(v, &object) == nil && object.Content != "" {
			named[k] = object.Content
		}
	}
	if len(jinja) > 0 {
		return string(jinja), named
	}
	var many []struct {
		Name     string `json:"name"`
		Template string `json:"template"`
	}
	if json.Unmarshal(fields["chat_template"], &source) == nil {
		return source, named
	}
	if json.Unmarshal(fields["chat_template"], &many) == nil {
		for _, m := range many {
			if m.Name == "default" {
				return m.Template, named
			}
		}
	}
	return "", named
}
