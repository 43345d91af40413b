package fetch

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gocolly/colly/v2"
)

func newBenchServer(b *testing.B) string {
	body := strings.Repeat("0123456789abcdef", 1<<20)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }))
	b.Cleanup(srv.Close)
	return srv.URL
}

// TestTransportUnderColly runs a real collector over the client.
func TestTransportUnderColly(t *testing.T) {
	srv, n := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/abs/2604.08075":
			http.Redirect(w, r, "/abs/2604.08075v1", http.StatusFound)
		case "/abs/2604.08075v1":
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = io.WriteString(w, `<html><h1 class="title">Dual pools</h1><a href="https://github.com/a/b">code</a></html>`)
		default:
			http.NotFound(w, r)
		}
	})
	c, ck := client(t, srv, func(cfg *Config) { cfg.Endpoints = map[Site]string{Arxiv: srv.URL} })
	visit := func(url string) (title, final string, status int, err error) {
		col := colly.NewCollector()
		col.WithTransport(c.Transport())
		col.OnHTML("h1.title", func(e *colly.HTMLElement) { title = e.Text })
		col.OnResponse(func(r *colly.Response) { final, status = r.Request.URL.String(), r.StatusCode })
		col.OnError(func(r *colly.Response, _ error) { status = r.StatusCode })
		err = col.Visit(url)
		return title, final, status, err
	}
	for range 2 {
		title, final, status, err := visit("https://arxiv.org/abs/2604.08075")
		if err != nil || title != "Dual pools" || status != 200 || !strings.HasSuffix(final, "/abs/2604.08075v1") {
			t.Errorf("%q %q %d %v", title, final, status, err)
		}
	}
	if n.get() != 2 {
		t.Errorf("%d requests, want the two hops once", n.get())
	}
	if w := ck.waits(); len(w) != 1 {
		t.Errorf("waits %v, want one between the two hops", w)
	}
	if _, _, status, err := visit("https://arxiv.org/abs/9999.99999"); err == nil || status != 404 {
		t.Errorf("missing page: %d, %v", status, err)
	}
	var blocked *BlockedError
	if _, _, _, err := visit("https://evil.example/"); !errors.As(err, &blocked) {
		t.Errorf("unknown host: %v", err)
	}
	if _, _, _, err := visit("https://arxiv.org/e-print/2604.08075"); !errors.As(err, &blocked) {
		t.Errorf("disallowed path: %v", err)
	}
}

func TestTransportRefusals(t *testing.T) {
	srv, n := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	c, _ := client(t, srv, nil)
	hc := &http.Client{Transport: c.Transport()}
	var blocked *BlockedError
	if _, err := hc.Post("https://huggingface.co/x", "text/plain", strings.NewReader("secret")); !errors.As(err, &blocked) {
		t.Errorf("POST: %v", err)
	}
	if _, err := hc.Get("https://user:pw@huggingface.co/x"); !errors.As(err, &blocked) || strings.Contains(err.Error(), "pw") {
		t.Errorf("user in the URL: %v", err)
	}
	if n.get() != 0 {
		t.Errorf("%d requests", n.get())
	}
	resp, err := hc.Get("https://huggingface.co/x")
	if err != nil || resp.StatusCode != http.StatusServiceUnavailable || n.get() != 4 {
		t.Errorf("busy site: %v, %v, %d requests", resp, err, n.get())
	}
	if err == nil {
		_ = resp.Body.Close()
	}
	// A block that an earlier answer set is a status too.
	c.cfg.Retry.Attempts = 1
	srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3000")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	for range 2 {
		resp, err := hc.Get("https://huggingface.co/y")
		if err != nil || resp.StatusCode != http.StatusTooManyRequests {
			t.Errorf("blocked site: %v, %v", resp, err)
		}
		if err == nil {
			_ = resp.Body.Close()
		}
	}
}

func TestTransportOverMirror(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "arxiv.org/abs/1", "<html><h1>x</h1></html>")
	c, err := New(Config{Mirror: dir})
	if err != nil {
		t.Fatal(err)
	}
	hc := &http.Client{Transport: c.Transport()}
	resp, err := hc.Get("https://arxiv.org/abs/1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(body), "<h1>") || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		t.Errorf("%s, %v, %v", body, resp.Header, err)
	}
	var missing *NotInMirrorError
	if _, err := hc.Get("https://arxiv.org/abs/2"); !errors.As(err, &missing) {
		t.Errorf("error = %v", err)
	}
}

func TestConfigFromEnv(t *testing.T) {
	home := t.TempDir()
	write(t, home, ".cache/huggingface/token", "hf_file\n")
	write(t, home, "hfhome/token", "hf_home")
	write(t, home, "elsewhere", " hf_path \n")
	for name, tc := range map[string]struct {
		env   map[string]string
		token string
		cache string
		bad   bool
	}{
		"nothing":         {env: map[string]string{}},
		"home":            {env: map[string]string{"HOME": home}, token: "hf_file", cache: home + "/.cache/repromill"},
		"variable":        {env: map[string]string{"HOME": home, "HF_TOKEN": " hf_var\n"}, token: "hf_var", cache: home + "/.cache/repromill"},
		"old variable":    {env: map[string]string{"HUGGING_FACE_HUB_TOKEN": "hf_old"}, token: "hf_old"},
		"HF_HOME":         {env: map[string]string{"HOME": home, "HF_HOME": home + "/hfhome"}, token: "hf_home", cache: home + "/.cache/repromill"},
		"HF_TOKEN_PATH":   {env: map[string]string{"HF_HOME": home + "/hfhome", "HF_TOKEN_PATH": home + "/elsewhere"}, token: "hf_path"},
		"switched off":    {env: map[string]string{"HF_TOKEN": "hf_var", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}},
		"XDG":             {env: map[string]string{"XDG_CACHE_HOME": home + "/.cache"}, token: "hf_file", cache: home + "/.cache/repromill"},
		"relative XDG":    {env: map[string]string{"XDG_CACHE_HOME": "cache", "HOME": home + "/none"}, cache: home + "/none/.cache/repromill"},
		"broken token":    {env: map[string]string{"HF_TOKEN": "hf_a\nX-Evil: 1"}, bad: true},
		"folder as token": {env: map[string]string{"HF_TOKEN_PATH": home}, bad: true},
		"broken endpoint": {env: map[string]string{"HF_ENDPOINT": "hf-mirror.com"}, bad: true},
	} {
		cfg, err := ConfigFromEnv(func(k string) string { return tc.env[k] })
		var user interface{ UserError() string }
		if tc.bad {
			if !errors.As(err, &user) || strings.Contains(err.Error(), "hf_a") {
				t.Errorf("%s: error = %v", name, err)
			}
			continue
		}
		if err != nil || cfg.HFToken != tc.token || cfg.CacheDir != filepath.FromSlash(tc.cache) {
			t.Errorf("%s: token %q, cache %q, %v", name, cfg.HFToken, cfg.CacheDir, err)
		}
	}
	cfg, err := ConfigFromEnv(func(k string) string {
		return map[string]string{"HF_ENDPOINT": "https://hf-mirror.com/", "REPROMILL_MIRROR": "/m"}[k]
	})
	if err != nil || cfg.Endpoints[HF] != "https://hf-mirror.com/" || cfg.Mirror != "/m" {
		t.Errorf("%+v, %v", cfg, err)
	}
	if _, err := os.Stat(home); err != nil {
		t.Error(err)
	}
}
