package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/runner/engine"
	"github.com/repromill/repromill/runner/engine/enginetest"
	"github.com/repromill/repromill/suites/endpoint"
)

// serve serves the small model.
func serve(t testing.TB, change func(dir string, c *Config)) (*Server, string) {
	t.Helper()
	dir := enginetest.Folder(t, enginetest.Tiny)
	cfg := Config{Source: model.Folder(dir), Root: dir, Name: "tiny", Version: "1.2.3", Engine: engine.Config{Threads: 2, MaxBatch: 64}}
	if change != nil {
		change(dir, &cfg)
	}
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	srv := httptest.NewServer(s)
	t.Cleanup(func() {
		srv.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s, srv.URL
}

// post sends a body and returns status and answer.
func post(t testing.TB, url, body string) (int, map[string]any) {
	t.Helper()
	res, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatalf("%s answers %s", url, b)
	}
	return res.StatusCode, out
}

// TestClient asks through the client that the suites use.
func TestClient(t *testing.T) {
	s, url := serve(t, nil)
	c, err := endpoint.New(endpoint.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	id, err := c.Identity(t.Context())
	if err != nil || id.Engine != "repromill" || id.Version != "1.2.3" || id.Model != "tiny" || id.MaxModelLen != 256 || id.Kernel == "" ||
		id.StartTime.IsZero() || id.KVTokens != int64(s.Engine().Blocks()*16) {
		t.Errorf("identity %+v %v", id, err)
	}
	if n, err := c.Tokenize(t.Context(), "naïve"); err != nil || n != 6 {
		t.Errorf("%d tokens %v", n, err)
	}
	zero, seed := 0.0, int64(7)
	for _, whole := range []bool{false, true} {
		c, err := endpoint.New(endpoint.Config{URL: url, Whole: whole})
		if err != nil {
			t.Fatal(err)
		}
		a, err := c.Ask(t.Context(), endpoint.Request{Messages: []endpoint.Message{{Role: "user", Content: "Hello"}}, MaxTokens: 12, Temperature: &zero})
		// <|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n
		if err != nil || a.Usage.PromptTokens != 24 || a.Usage.CompletionTokens != 12 || a.FinishReason != "length" || a.Model != "tiny" {
			t.Errorf("%+v %v", a, err)
		}
		b, err := c.Ask(t.Context(), endpoint.Request{Prompt: "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n", MaxTokens: 12, Temperature: &zero})
		if err != nil || b.Text != a.Text {
			t.Errorf("chat %q, completion %q, %v", a.Text, b.Text, err)
		}
		one, err1 := c.Ask(t.Context(), endpoint.Request{Prompt: "x", MaxTokens: 12, Seed: &seed})
		two, err2 := c.Ask(t.Context(), endpoint.Request{Prompt: "x", MaxTokens: 12, Seed: &seed})
		if err1 != nil || err2 != nil || one.Text != two.Text {
			t.Errorf("the same seed gives %q and %q (%v, %v)", one.Text, two.Text, err1, err2)
		}
		// The client's way to begin the assistant's turn.
		p, err := c.Ask(t.Context(), endpoint.Request{Messages: []endpoint.Message{{Role: "user", Content: "Hello"}}, Prefix: "The answer", MaxTokens: 2, Temperature: &zero})
		if err != nil || p.Usage.PromptTokens != 24+10 {
			t.Errorf("%+v %v", p.Usage, err)
		}
		c.Close()
	}
	m, err := c.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]float64{"vllm:generation_tokens_total": 2 * (12*4 + 2), "vllm:num_requests_running": 0, "vllm:kv_cache_usage_perc": 0,
		"vllm:request_success_total": 10, "vllm:e2e_request_latency_seconds_count": 10} {
		if got, ok := m.Sum(name); !ok || got != want {
			t.Errorf("%s is %g, want %g", name, got, want)
		}
	}
}

// TestRefused sends what is wrong: each is answered with a status and a message
// that says what.
func TestRefused(t *testing.T) {
	_, url := serve(t, nil)
	for _, c := range []struct {
		path, body string
		status     int
		message    string
	}{
		{"/v1/completions", ``, 400, "empty"},
		{"/v1/completions", `{`, 400, "JSON"},
		{"/v1/completions", `[]`, 400, "JSON"},
		{"/v1/completions", `{}`, 400, "prompt is missing"},
		{"/v1/completions", `{"prompt":{"a":1}}`, 400, "neither"},
		{"/v1/completions", `{"prompt":""}`, 400, "empty"},
		{"/v1/completions", `{"prompt":[]}`, 400, "empty"},
		{"/v1/completions", `{"prompt":"a","model":"other"}`, 404, "does not exist"},
		{"/v1/completions", `{"prompt":[1,2,999]}`, 400, "out of vocabulary"},
		{"/v1/completions", `{"prompt":[1,-2]}`, 400, "out of vocabulary"},
		{"/v1/completions", `{"prompt":"` + strings.Repeat("a", 300) + `"}`, 400, "maximum context length is 256 tokens"},
		{"/v1/completions", `{"prompt":"` + strings.Repeat("a", 3_000_000) + `"}`, 400, "maximum context length is 256 tokens"},
		{"/v1/completions", `{"prompt":"a","max_tokens":256}`, 400, "too large"},
		{"/v1/completions", `{"prompt":"a","max_tokens":-1}`, 400, "at least 1"},
		{"/v1/completions", `{"prompt":"a","temperature":-1}`, 400, "temperature"},
		{"/v1/completions", `{"prompt":"a","temperature":"hot"}`, 400, "temperature"},
		{"/v1/completions", `{"prompt":"a","top_p":2}`, 400, "top_p"},
		{"/v1/completions", `{"prompt":"a","stop":5}`, 400, "stop"},
		{"/v1/completions", `{"prompt":"a","n":0}`, 400, "n is 0"},
		{"/v1/completions", `{"prompt":"a","n":100000}`, 400, "n is 100000"},
		{"/v1/completions", `{"prompt":"a","logprobs":21}`, 400, "logprobs"},
		{"/v1/completions", `{"prompt":"a","logit_bias":{"1":2}}`, 400, "logit_bias is not supported"},
		{"/v1/completions", `{"prompt":"a","presence_penalty":1}`, 400, "presence_penalty is not supported"},
		{"/v1/chat/completions", `{"messages":[]}`, 400, "messages is empty"},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]}`, 400, "image_url"},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":5}]}`, 400, "content"},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":"a"}],"tools":[{}]}`, 400, "tools is not supported"},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":"a"}],"response_format":{"type":"json_object"}}`, 400, "response_format is not supported"},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":"` + strings.Repeat("a", 300) + `"}]}`, 400, "maximum context length"},
		{"/detokenize", `{"tokens":[5000]}`, 400, "out of vocabulary"},
		{"/tokenize", `{"prompt":["a","b"]}`, 400, "2 prompts"},
	} {
		status, got := post(t, url+c.path, c.body)
		e, _ := got["error"].(map[string]any)
		message, _ := e["message"].(string)
		if status != c.status || !strings.Contains(message, c.message) || e["type"] == "" {
			t.Errorf("%s %.80s: %d %q, want %d %q", c.path, c.body, status, message, c.status, c.message)
		}
	}
	// It still answers.
	if status, _ := post(t, url+"/v1/completions", `{"prompt":"a"}`); status != 200 {
		t.Errorf("status %d", status)
	}
}

func TestPromptsAndAnswers(t *testing.T) {
	_, url := serve(t, nil)
	status, got := post(t, url+"/v1/completions", `{"prompt":["ab","c"],"n":2,"max_tokens":3,"temperature":0,"ignore_eos":true}`)
	choices, _ := got["choices"].([]any)
	usage, _ := got["usage"].(map[string]any)
	if status != 200 || len(choices) != 4 || usage["prompt_tokens"] != 3.0 || usage["completion_tokens"] != 12.0 {
		t.Fatalf("%d %v", status, got)
	}
	text := func(i int) any { return choices[i].(map[string]any)["text"] }
	if text(0) != text(1) || text(2) != text(3) {
		t.Errorf("greedy answers differ: %v", choices)
	}
	_, same := post(t, url+"/v1/completions", `{"prompt":[100,101],"max_tokens":3,"temperature":0,"ignore_eos":true}`)
	if got := same["choices"].([]any)[0].(map[string]any)["text"]; got != text(0) {
		t.Errorf("tokens give %q, their text %q", got, text(0))
	}
	_, tokens := post(t, url+"/tokenize", `{"messages":[{"role":"user","content":"é"}]}`)
	if tokens["count"] != 21.0 || tokens["max_model_len"] != 256.0 {
		t.Errorf("%v", tokens)
	}
	_, back := post(t, url+"/detokenize", `{"tokens":[1,198,172,2]}`)
	if back["prompt"] != "<|im_start|>é<|im_end|>" {
		t.Errorf("%v", back)
	}
}

// TestEcho asks for the probabilities of a prompt, as lm-evaluation-harness does.
func TestEcho(t *testing.T) {
	_, url := serve(t, nil)
	_, got := post(t, url+"/v1/completions", `{"prompt":"abc","max_tokens":1,"temperature":0,"logprobs":2,"echo":true}`)
	c := got["choices"].([]any)[0].(map[string]any)
	l := c["logprobs"].(map[string]any)
	values := l["token_logprobs"].([]any)
	if !strings.HasPrefix(c["text"].(string), "abc") || len(values) != 4 || values[0] != nil || values[1].(float64) >= 0 || len(l["tokens"].([]any)) != 4 {
		t.Errorf("%v", c)
	}
	if tops := l["top_logprobs"].([]any)[1].(map[string]any); len(tops) < 2 || tops["b"] != values[1] {
		t.Errorf("alternatives %v, of the token itself %v", tops, values[1])
	}
}

// events reads a stream.
func readEvents(t testing.TB, url, body string) (out []map[string]any, done bool) {
	t.Helper()
	res, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	sc := bufio.NewScanner(res.Body)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		data, ok := strings.CutPrefix(sc.Text(), "data: ")
		switch {
		case data == "[DONE]":
			done = true
		case ok:
			var e map[string]any
			if err := json.Unmarshal([]byte(data), &e); err != nil {
				t.Fatalf("event %q: %v", data, err)
			}
			out = append(out, e)
		case sc.Text() != "":
			t.Fatalf("line %q", sc.Text())
		}
	}
	return out, done
}

func TestStreams(t *testing.T) {
	_, url := serve(t, nil)
	list, done := readEvents(t, url+"/v1/chat/completions", `{"messages":[{"role":"user","content":"Hi"}],"n":3,"max_tokens":5,"stream":true,"seed":1,"ignore_eos":true,"stream_options":{"include_usage":true},"logprobs":true,"top_logprobs":1}`)
	if !done || len(list) != 3*(1+5)+1 {
		t.Fatalf("%d events, done %v", len(list), done)
	}
	roles, ends, tokens := 0, 0, 0
	for _, e := range list[:len(list)-1] {
		c := e["choices"].([]any)[0].(map[string]any)
		if e["object"] != "chat.completion.chunk" || e["id"] != list[0]["id"] {
			t.Fatalf("%v", e)
		}
		if c["delta"].(map[string]any)["role"] == "assistant" {
			roles++
		}
		if c["finish_reason"] != nil {
			ends++
		}
		if l, ok := c["logprobs"].(map[string]any); ok {
			tokens += len(l["content"].([]any))
		}
	}
	last := list[len(list)-1]
	if roles != 3 || ends != 3 || tokens != 15 || len(last["choices"].([]any)) != 0 || last["usage"].(map[string]any)["completion_tokens"] != 15.0 {
		t.Errorf("%d roles, %d ends, %d tokens, last %v", roles, ends, tokens, last)
	}
	// Joined, a stream is the answer in one piece.
	const ask = `{"prompt":"Hello","max_tokens":20,"temperature":0,"ignore_eos":true,"stop":["zzz"]`
	_, whole := post(t, url+"/v1/completions", ask+`}`)
	list, _ = readEvents(t, url+"/v1/completions", ask+`,"stream":true}`)
	joined := ""
	for _, e := range list {
		joined += e["choices"].([]any)[0].(map[string]any)["text"].(string)
	}
	if want := whole["choices"].([]any)[0].(map[string]any)["text"]; joined != want {
		t.Errorf("stream %q, whole %q", joined, want)
	}
}

// TestClientsThatLeave cuts hundreds of streams: the engine lets go of them.
func TestClientsThatLeave(t *testing.T) {
	s, url := serve(t, nil)
	var wait sync.WaitGroup
	for i := range 200 {
		wait.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			body := fmt.Sprintf(`{"prompt":"client %d","max_tokens":200,"ignore_eos":true,"stream":%v}`, i, i%2 == 0)
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/completions", strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			if i%2 == 1 {
				time.AfterFunc(20*time.Millisecond, cancel)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				return // cut before its answer began
			}
			defer res.Body.Close()
			_, _ = res.Body.Read(make([]byte, 10))
		})
	}
	wait.Wait()
	deadline := time.Now().Add(20 * time.Second)
	for {
		st := s.Engine().Stats()
		if st.Running+st.Waiting == 0 && st.CacheUsage == 0 {
			if st.Finished["abort"] == 0 {
				t.Errorf("no request was let go of: %v", st.Finished)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", st)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestCheckpointsThatAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"no tokenizer":  func(dir string) error { return os.Remove(filepath.Join(dir, "tokenizer.json")) },
		"no weights":    func(dir string) error { return os.Remove(filepath.Join(dir, "model.safetensors")) },
		"no config":     func(dir string) error { return os.Remove(filepath.Join(dir, "config.json")) },
		"broken config": func(dir string) error { return os.WriteFile(filepath.Join(dir, "config.json"), []byte("{"), 0o644) },
		"half a file":   func(dir string) error { return os.Truncate(filepath.Join(dir, "model.safetensors"), 5000) },
		"a large tokens": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "tokenizer.json"), []byte(`{"model":{"type":"WordLevel","vocab":{"a":5000}}}`), 0o644)
		},
	} {
		dir := enginetest.Folder(t, enginetest.Tiny)
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), Config{Source: model.Folder(dir)}); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
}

// TestWithoutTemplate serves text, and says why it serves no chats.
func TestWithoutTemplate(t *testing.T) {
	for name, template := range map[string]string{"none": "", "unknown tag": "{% generation %}"} {
		s, url := serve(t, func(dir string, c *Config) {
			if err := os.WriteFile(filepath.Join(dir, "chat_template.jinja"), []byte(template), 0o644); err != nil {
				t.Fatal(err)
			}
		})
		status, got := post(t, url+"/v1/chat/completions", `{"messages":[{"role":"user","content":"a"}]}`)
		if status != 400 || !strings.Contains(fmt.Sprint(got), "/v1/completions") || s.NoChat() == "" {
			t.Errorf("%s: %d %v", name, status, got)
		}
		if status, _ = post(t, url+"/v1/completions", `{"prompt":"a"}`); status != 200 {
			t.Errorf("%s: completions answer %d", name, status)
		}
	}
}

func TestDefaultsOfTheModel(t *testing.T) {
	_, url := serve(t, func(dir string, c *Config) {
		if err := os.WriteFile(filepath.Join(dir, "generation_config.json"), []byte(`{"temperature":0.000001,"eos_token_id":[2,5]}`), 0o644); err != nil {
			t.Fatal(err)
		}
	})
	_, one := post(t, url+"/v1/completions", `{"prompt":"a","max_tokens":20}`)
	_, two := post(t, url+"/v1/completions", `{"prompt":"a","max_tokens":20,"temperature":0}`)
	if fmt.Sprint(one["choices"]) != fmt.Sprint(two["choices"]) {
		t.Errorf("%v, greedy %v", one["choices"], two["choices"])
	}
}

// FuzzRequest sends any body to both endpoints: never a crash, always an answer.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{`{"prompt":"a","max_tokens":2}`, `{"prompt":[[1,2],[3]],"echo":true,"logprobs":1,"max_tokens":1}`, `{"messages":[{"role":"user","content":"a"}],"max_tokens":1,"stream":true}`,
		`{"messages":[{"role":"x","content":[{"type":"text","text":"a"}]}],"max_tokens":1,"continue_final_message":true}`, `{"prompt":"a","stop":["b",""],"n":2,"seed":-5,"top_k":3,"min_p":0.1,"max_tokens":3}`, `{"tokens":[1,2,3]}`} {
		f.Add(s)
	}
	s, _ := serve(f, nil)
	f.Fuzz(func(t *testing.T, body string) {
		for _, path := range []string{"/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"} {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			w := httptest.NewRecorder()
			s.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, path, bytes.NewReader([]byte(body))))
			cancel()
			if w.Code >= 500 || w.Body.Len() == 0 {
				t.Fatalf("%s %q: %d %s", path, body, w.Code, w.Body)
			}
		}
	})
}
