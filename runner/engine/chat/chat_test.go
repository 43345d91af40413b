package chat

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

var noon = func() time.Time { return time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC) }

// TestAgainstTransformers holds texts to those that transformers renders;
// testdata/golden.py made them.
func TestAgainstTransformers(t *testing.T) {
	b, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name     string            `json:"name"`
		Template string            `json:"template"`
		Named    map[string]string `json:"named"`
		Messages []Message         `json:"messages"`
		Extra    map[string]any    `json:"extra"`
		Want     string            `json:"want"`
		Error    string            `json:"error"`
	}
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 20 {
		t.Fatalf("%d cases", len(cases))
	}
	for _, c := range cases {
		x, err := Load(c.Template, c.Named, noon)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		got, err := x.Render(c.Messages, c.Extra)
		if c.Error != "" {
			if err == nil || !strings.Contains(err.Error(), c.Error) {
				t.Errorf("%s: %q, %v; want the error %q", c.Name, got, err, c.Error)
			}
			continue
		}
		if err != nil || got != c.Want {
			t.Errorf("%s:\n%q, want\n%q (%v)", c.Name, got, c.Want, err)
		}
	}
}

func TestTemplatesThatAreRefused(t *testing.T) {
	for name, source := range map[string]string{
		"not closed":    "{% for m in messages %}",
		"a file":        "{% include '/etc/hostname' %}",
		"an import":     "{% import '/etc/hostname' as x %}",
		"unknown tag":   "{% generation %}x{% endgeneration %}",
		"unknown name":  "{{ messages | no_such_filter }}",
		"always raises": "{{ raise_exception('never') }}",
		"huge":          strings.Repeat("x", MaxTemplate+1),
	} {
		if _, err := Load(source, nil, noon); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
}

// TestContentIsNotATemplate: what clients send is text.
func TestContentIsNotATemplate(t *testing.T) {
	x, err := Load("{{ messages[0].content }}", nil, noon)
	if err != nil {
		t.Fatal(err)
	}
	const text = "{{ messages }}{% for x in range(1000000000) %}{% endfor %} <b>&amp;</b>"
	if got, err := x.Render([]Message{{"user", text}}, nil); err != nil || got != text {
		t.Errorf("%q %v", got, err)
	}
}

func TestSources(t *testing.T) {
	for _, c := range []struct{ config, jinja, want, eos string }{
		{`{"chat_template":"a","eos_token":"</s>"}`, "", "a", "</s>"},
		{`{"chat_template":"a","eos_token":{"content":"<e>"}}`, "b", "b", "<e>"},
		{`{"chat_template":[{"name":"tool_use","template":"x"},{"name":"default","template":"c"}],"eos_token":null}`, "", "c", ""},
		{`{`, "", "", ""},
		{``, "d", "d", ""},
	} {
		got, named := Sources([]byte(c.config), []byte(c.jinja))
		if got != c.want || named["eos_token"] != c.eos {
			t.Errorf("%s and %s: %q, %v", c.config, c.jinja, got, named)
		}
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add("{% for m in messages %}{{ m['content'] | trim }}{% endfor %}", "hello")
	f.Add("{{ messages[-1].content.split(' ')[0] }}{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}", "a b")
	f.Fuzz(func(t *testing.T, source, content string) {
		// What takes long is not what is looked for.
		if len(source) > 200 || strings.Contains(source, "range") || strings.Contains(source, "*") {
			return
		}
		x, err := Load(source, nil, noon)
		if err == nil {
			_, _ = x.Render([]Message{{"user", content}}, nil)
		}
	})
}
