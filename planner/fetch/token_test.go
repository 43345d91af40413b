package fetch

import (
	"net/http"
	"strings"
	"testing"
)

// TestTokenStaysHome runs the hub's real flow, a redirect from huggingface.co
// to its content network and on, over TLS, and looks at every byte of header
// that any host saw.
func TestTokenStaysHome(t *testing.T) {
	const token = "hf_verysecret"
	hops := map[string]string{
		"huggingface.co/old/name/resolve/main/f":           "/new/name/resolve/main/f",
		"huggingface.co/new/name/resolve/main/f":           "https://cas-bridge.xethub.hf.co/xet/abc?X-Amz-Signature=s1",
		"huggingface.co/lfs/resolve/main/f":                "https://cdn-lfs-us-1.hf.co/repos/x?Policy=p&Signature=s%2F2",
		"huggingface.co/away":                              "https://github.com/a/b",
		"huggingface.co/there":                             "https://arxiv.org/abs/2401.00001",
		"arxiv.org/abs/2401.00002":                         "https://huggingface.co/papers/2401.00002",
		"cas-bridge.xethub.hf.co/again?X-Amz-Signature=s3": "https://cdn-lfs.hf.co/x",
		"huggingface.co/twice/resolve/main/f":              "https://cas-bridge.xethub.hf.co/again?X-Amz-Signature=s3",
	}
	o := newOutside(t, func(w http.ResponseWriter, r *http.Request) {
		if to := hops[r.Host+r.URL.RequestURI()]; to != "" {
			w.Header().Set("X-Repo-Commit", "0123456789012345678901234567890123456789")
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusFound)
			return
		}
		_, _ = w.Write([]byte(r.Host))
	}, "huggingface.co", "*.xethub.hf.co", "*.hf.co", "github.com", "arxiv.org")
	c, _ := client(t, nil, func(cfg *Config) {
		cfg.Proxy, cfg.RootCAs, cfg.HFToken = o.proxy, o.roots, token
	})
	for url, want := range map[string]string{
		"https://huggingface.co/old/name/resolve/main/f":  "cas-bridge.xethub.hf.co",
		"https://huggingface.co/lfs/resolve/main/f":       "cdn-lfs-us-1.hf.co",
		"https://huggingface.co/twice/resolve/main/f":     "cdn-lfs.hf.co",
		"https://huggingface.co/away":                     "github.com",
		"https://huggingface.co/there":                    "arxiv.org",
		"https://arxiv.org/abs/2401.00002":                "huggingface.co",
		"https://github.com/huggingface/transformers":     "github.com",
		"https://huggingface.co/api/models/Qwen/Qwen3-8B": "huggingface.co",
	} {
		res, err := c.Get(t.Context(), Request{URL: url})
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if string(res.Body) != want {
			t.Errorf("%s ended at %s, want %s", url, res.Body, want)
		}
		if strings.Contains(res.FinalURL, "Signature") {
			t.Errorf("%s: the final URL %s shows a signature", url, res.FinalURL)
		}
		if strings.Contains(url, "/resolve/") && res.Header.Get("X-Repo-Commit") == "" {
			t.Errorf("%s: the commit that the hub stated is lost", url)
		}
	}
	home := 0
	for _, r := range o.seen() {
		var all strings.Builder
		_ = r.Header.Write(&all)
		leaked := strings.Contains(all.String()+r.URL.String(), token)
		// A request that began elsewhere brings no token to the hub.
		if mine := r.Host == "huggingface.co" && r.Method == http.MethodGet && r.URL.Path != "/papers/2401.00002"; leaked != mine {
			t.Errorf("%s %s%s: token sent %v, want %v", r.Method, r.Host, r.URL, leaked, mine)
		} else if mine {
			home++
		}
		if len(r.Header["Cookie"]) > 0 || len(r.Header["Referer"]) > 0 {
			t.Errorf("%s: cookie or referer sent: %v", r.Host, r.Header)
		}
	}
	if home < 6 {
		t.Errorf("the hub saw the token %d times, want 6 or more", home)
	}
	for _, host := range o.connects {
		if !strings.HasSuffix(host, ":443") {
			t.Errorf("the proxy was asked for %s", host)
		}
	}
}

func TestTokenAndEndpoint(t *testing.T) {
	for name, tc := range map[string]struct {
		endpoint, url string
		sent          bool
	}{
		"canonical":               {"", "https://huggingface.co/x", true},
		"endpoint":                {"https://hub.example.org/hf", "https://huggingface.co/x", true},
		"endpoint asked directly": {"https://hub.example.org/hf", "https://hub.example.org/hf/x", true},
		"loopback in clear text":  {"http://127.0.0.1:9", "https://huggingface.co/x", true},
		"clear text":              {"http://hub.example.org", "https://huggingface.co/x", false},
		"another site":            {"", "https://github.com/x", false},
	} {
		c, _ := client(t, nil, func(cfg *Config) {
			cfg.HFToken = "hf_t"
			if tc.endpoint != "" {
				cfg.Endpoints = map[Site]string{HF: tc.endpoint}
			}
		})
		loc, err := c.rebuild(tc.url)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := c.token(loc) != ""; got != tc.sent {
			t.Errorf("%s: token sent to %s: %v, want %v", name, loc, got, tc.sent)
		}
	}
	// With an endpoint, the canonical host is another host.
	c, _ := client(t, nil, func(cfg *Config) {
		cfg.HFToken, cfg.Endpoints = "hf_t", map[Site]string{HF: "https://hub.example.org"}
	})
	from, err := c.rebuild("https://huggingface.co/x")
	if err != nil {
		t.Fatal(err)
	}
	to, err := c.redirected(from, "https://huggingface.co/x")
	if err != nil || c.token(to) != "" || to.String() != "https://huggingface.co/x" {
		t.Errorf("redirect to the canonical host: %s, token %q, %v", to, c.token(to), err)
	}
}

// TestTokenSeparatesCache: what was fetched with a token is not given to who
// has none.
func TestTokenSeparatesCache(t *testing.T) {
	srv, n := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer hf_t" {
			w.Header().Set("X-Error-Code", "GatedRepo")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte("gated"))
	})
	dir := t.TempDir()
	get := func(token string) error {
		c, _ := client(t, srv, func(cfg *Config) { cfg.CacheDir, cfg.HFToken = dir, token })
		_, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/gated/model/resolve/main/config.json"})
		return err
	}
	if err := get("hf_t"); err != nil {
		t.Fatal(err)
	}
	if err := get(""); err == nil {
		t.Error("without a token the gated answer came from the cache")
	}
	if err := get("hf_t"); err != nil || n.get() != 2 {
		t.Errorf("with the token again: %v, %d requests", err, n.get())
	}
}
