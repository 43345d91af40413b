// Package openai is the server's side of the protocol of vLLM's OpenAI-compatible
// server: what the simulated server and the embedded engine say in the same words.
package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
)

// MaxBody bounds a request, in bytes.
const MaxBody = 64 << 20

// StreamOptions of a request.
type StreamOptions struct {
	IncludeUsage bool `json:"include_usage"`
	Continuous   bool `json:"continuous_usage_stats"`
}

// Message is one turn of a conversation, as it is sent.
type Message struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

// Text is the content of a message: a string, or a list of parts of which the
// texts count. With parts of other kinds there is an error beside the text.
func (m *Message) Text() (string, error) {
	var t string
	if len(m.Content) == 0 || json.Unmarshal(m.Content, &t) == nil {
		return t, nil
	}
	var parts []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	if err := json.Unmarshal(m.Content, &parts); err != nil {
		return "", errors.New("the content of a message is neither a text nor a list of parts")
	}
	var err error
	for _, p := range parts {
		if p.Type != "text" && p.Type != "" {
			err = fmt.Errorf("a part of type %.40q is not understood; this model reads text", p.Type)
		}
		t += p.Text
	}
	return t, err
}

// Fail answers with an error in the form of OpenAI.
func Fail(w http.ResponseWriter, status int, kind, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(ErrorBody(status, kind, message)) // the client has gone, or has it
}

// ErrorBody is the object that tells an error, also in the midst of a stream.
func ErrorBody(status int, kind, message string) any {
	return map[string]any{"error": map[string]any{"message": message, "type": kind, "param": nil, "code": status}}
}

// Reply answers with JSON.
func Reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client has gone, or has it
}

// Page is a page of metrics in the Prometheus text format.
type Page struct {
	Labels string // of every sample: engine="0",model_name="…"
	buf    bytes.Buffer
}

// NewPage returns a page with the labels that vLLM gives its samples.
func NewPage(model string) *Page {
	return &Page{Labels: `engine="0",model_name=` + strconv.Quote(model)}
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

func (p *Page) head(name, kind, help string) {
	fmt.Fprintf(&p.buf, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// One adds a gauge or a counter.
func (p *Page) One(name, kind, help string, v float64) {
	p.head(name, kind, help)
	fmt.Fprintf(&p.buf, "%s{%s} %s\n", name, p.Labels, number(v))
}

// Labelled adds samples that differ in one label.
func (p *Page) Labelled(name, kind, help, label string, values []string, v func(value string) float64) {
	p.head(name, kind, help)
	for _, value := range values {
		fmt.Fprintf(&p.buf, "%s{%s,%s=%q} %s\n", name, p.Labels, label, value, number(v(value)))
	}
}

// Info adds a gauge of 1 that carries its facts as labels.
func (p *Page) Info(name, help, labels string) {
	p.head(name, "gauge", help)
	fmt.Fprintf(&p.buf, "%s{%s} 1\n", name, labels)
}

// Histogram adds one: counts of values up to each bound, not summed up, and one
// count beyond.
func (p *Page) Histogram(name, help string, bounds []float64, counts []int64, sum float64, count int64) {
	p.head(name, "histogram", help)
	var n int64
	for i, b := range bounds {
		if i < len(counts) {
			n += counts[i]
		}
		fmt.Fprintf(&p.buf, "%s_bucket{%s,le=%q} %d\n", name, p.Labels, number(b), n)
	}
	fmt.Fprintf(&p.buf, "%s_bucket{%s,le=\"+Inf\"} %d\n%s_count{%s} %d\n%s_sum{%s} %s\n", name, p.Labels, count, name, p.Labels, count, name, p.Labels, number(sum))
}

// Serve answers with the page.
func (p *Page) Serve(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(p.buf.Bytes()) // the client has gone, or has it
}
