package fetch

import (
	"errors"
	"net/url"
	"strings"
	"testing"
)

func TestRebuild(t *testing.T) {
	c, _ := client(t, nil, nil)
	for in, want := range map[string]string{
		"https://arxiv.org/abs/2604.08075":                             "https://arxiv.org/abs/2604.08075",
		"http://arxiv.org/abs/hep-th/9901001v3":                        "https://arxiv.org/abs/hep-th/9901001v3",
		"HTTPS://WWW.ArXiv.org:443/abs/2604.08075#S1":                  "https://arxiv.org/abs/2604.08075",
		"http://arxiv.org:80/pdf/2604.08075":                           "https://arxiv.org/pdf/2604.08075",
		"https://export.arxiv.org/api/query?max_results=1&id_list=a,b": "https://export.arxiv.org/api/query?id_list=a%2Cb&max_results=1",
		"https://huggingface.co/api/models/a/tree/refs%2Fpr%2F1":       "https://huggingface.co/api/models/a/tree/refs%2Fpr%2F1",
		"https://huggingface.co/api/models/a/tree/refs%2fpr%2f1":       "https://huggingface.co/api/models/a/tree/refs%2Fpr%2F1",
		"https://hf.co//Qwen///Qwen3-8B/":                              "https://huggingface.co/Qwen/Qwen3-8B/",
		"https://github.com/a/b/blob/main/a file.md":                   "https://github.com/a/b/blob/main/a%20file.md",
		"https://github.com/a/b/blob/main/ü.md":                        "https://github.com/a/b/blob/main/%C3%BC.md",
		"https://github.com/a/b?q=a+b&q=c":                             "https://github.com/a/b?q=a+b&q=c",
		"https://github.com":                                           "https://github.com/",
		"https://github.com?x=1":                                       "https://github.com/?x=1",
	} {
		loc, err := c.rebuild(in)
		if err != nil || loc.String() != want {
			t.Errorf("rebuild(%q) = %q, %v; want %q", in, loc.String(), err, want)
		}
	}
}

func TestRebuildRefuses(t *testing.T) {
	c, _ := client(t, nil, nil)
	for _, in := range []string{
		"", "arxiv.org/abs/1", "//arxiv.org/abs/1", "https:///abs/1", "https://", "https:arxiv.org", "ftp://arxiv.org/abs/1",
		"file:///etc/passwd", "data:text/plain,x", "git://github.com/a/b", "javascript:1",
		"https://user@arxiv.org/abs/1", "https://user:pw@arxiv.org/abs/1", "https://arxiv.org@evil.example/", "https://@arxiv.org/",
		"http://127.1/", "http://127.0.0.1/", "http://0x7f000001/", "http://2130706433/", "http://[::1]/", "https://[::ffff:169.254.169.254]/",
		"https://169.254.169.254/latest/meta-data/", "https://metadata.google.internal/", "https://localhost/", "https://evil/?u=arxiv.org",
		"https://arxiv.org.evil.example/abs/1", "https://evilarxiv.org/abs/1", "https://arxiv.org./abs/1", "https://arxiv.org:8443/abs/1",
		"https://arxiv.org:80/abs/1", "http://arxiv.org:443/abs/1", "https://arxiv.org:x/abs/1",
		"https://arxıv.org/abs/1", "https://аrxiv.org/abs/1", "https://hugging\u212Bface.co/x", "https://arxiv.org%2f@evil/", "https://arxiv。org/abs/1",
		"https://github.com/a/../b", "https://github.com/a/%2e%2e/b", "https://github.com/a/%2E./b", "https://github.com/./a", "https://github.com/a/..",
		"https://github.com/a%2F..%2Fb", "https://github.com/a%5C..%5Cb", `https://github.com/a\b`, "https://github.com/a%00b", "https://github.com/a%0d%0ab",
		"https://github.com/a%zz", "https://github.com/%ff", "https://github.com/a?b=%zz", "https://github.com/a?b;c", "https://github.com/a\nb",
		"https://arxiv.org/e-print/2401.00001", "https://arxiv.org/src/2401.00001", "https://arxiv.org/api/query", "https://arxiv.org/absurd", "https://arxiv.org/",
		"https://arxiv.org/%65-print/2401.00001", "https://arxiv.org//e-print/2401.00001", "https://export.arxiv.org/abs/2401.00001",
		"https://cas-bridge.xethub.hf.co/x", "https://cdn-lfs.hf.co/x", "https://codeload.github.com/a/b/zip/main",
		"https://bit.ly/abc", "https://github.com/" + strings.Repeat("a", maxURL),
	} {
		loc, err := c.rebuild(in)
		var blocked *BlockedError
		if !errors.As(err, &blocked) {
			t.Errorf("rebuild(%q) = %q, %v; want a BlockedError", in, loc.String(), err)
			continue
		}
		if strings.Contains(err.Error(), "pw") || blocked.Reason == "" || len(err.Error()) > 700 {
			t.Errorf("rebuild(%q): message %q", in, err)
		}
	}
}

func TestEndpoints(t *testing.T) {
	c, _ := client(t, nil, func(cfg *Config) {
		cfg.Endpoints = map[Site]string{
			HF: "https://mirror.example.org/hub/", Arxiv: "http://127.0.0.1:8080", ArxivAPI: "http://127.0.0.1:8080",
			"corp": "https://git.corp.example:8443",
		}
	})
	for in, want := range map[string]string{
		"https://huggingface.co/a/b":                "https://mirror.example.org/hub/a/b",
		"https://hf.co/a/b":                         "https://mirror.example.org/hub/a/b",
		"https://mirror.example.org/hub/a/b":        "https://mirror.example.org/hub/a/b",
		"https://MIRROR.example.org:443/hub":        "https://mirror.example.org/hub/",
		"https://arxiv.org/abs/1":                   "http://127.0.0.1:8080/abs/1",
		"http://127.0.0.1:8080/abs/1":               "http://127.0.0.1:8080/abs/1",
		"http://127.0.0.1:8080/api/query?id_list=1": "http://127.0.0.1:8080/api/query?id_list=1",
		"https://git.corp.example:8443/a/b":         "https://git.corp.example:8443/a/b",
	} {
		loc, err := c.rebuild(in)
		if err != nil || loc.String() != want {
			t.Errorf("rebuild(%q) = %q, %v; want %q", in, loc.String(), err, want)
		}
	}
	for _, in := range []string{
		"http://mirror.example.org/hub/a", "https://mirror.example.org/a/b", "https://mirror.example.org/hubris", "https://127.0.0.1:8080/abs/1",
		"http://127.0.0.1:8081/abs/1", "http://localhost:8080/abs/1", "https://git.corp.example/a/b",
	} {
		if loc, err := c.rebuild(in); err == nil {
			t.Errorf("rebuild(%q) = %q, want it refused", in, loc)
		}
	}
	if loc, err := c.rebuild("http://127.0.0.1:8080/api/query"); err != nil || loc.place.name != ArxivAPI {
		t.Errorf("of two sites at one endpoint the one that admits the path is meant: %v, %v", loc.place, err)
	}
}

func TestURL(t *testing.T) {
	c, _ := client(t, nil, nil)
	got, err := c.URL(HF, Path("api", "models", "Qwen", "Qwen3-8B", "tree", "refs/pr/1"), url.Values{"recursive": {"true"}})
	if want := "https://huggingface.co/api/models/Qwen/Qwen3-8B/tree/refs%2Fpr%2F1?recursive=true"; err != nil || got != want {
		t.Errorf("URL = %q, %v; want %q", got, err, want)
	}
	if _, err := c.URL("nowhere", "/", nil); err == nil {
		t.Error("an unknown site has a URL")
	}
	if _, err := c.URL(HF, Path("a", "..", "b"), nil); err == nil {
		t.Error("a path that climbs has a URL")
	}
	if _, err := c.URL(Arxiv, "/e-print/1", nil); err == nil {
		t.Error("a path that robots.txt disallows has a URL")
	}
}

func TestNewRefusesConfig(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no cache":         {},
		"endpoint scheme":  {CacheDir: t.TempDir(), Endpoints: map[Site]string{HF: "ftp://x"}},
		"endpoint bare":    {CacheDir: t.TempDir(), Endpoints: map[Site]string{HF: "hf-mirror.com"}},
		"endpoint user":    {CacheDir: t.TempDir(), Endpoints: map[Site]string{HF: "https://u:p@x"}},
		"endpoint query":   {CacheDir: t.TempDir(), Endpoints: map[Site]string{HF: "https://x/?a=1"}},
		"proxy":            {CacheDir: t.TempDir(), Proxy: "socks5://x"},
		"limit of nothing": {CacheDir: t.TempDir(), Limits: map[Site]Limit{"nowhere": {}}},
		"no mirror":        {Mirror: t.TempDir() + "/none"},
	} {
		_, err := New(cfg)
		var user interface{ UserError() string }
		if !errors.As(err, &user) || user.UserError() == "" {
			t.Errorf("%s: error = %v, want a user's error", name, err)
		}
	}
}

func FuzzRebuild(f *testing.F) {
	for _, s := range []string{
		"https://arxiv.org/abs/hep-th/9901001v3", "http://www.arxiv.org:80/pdf/2604.08075?x=1#y", "https://huggingface.co/a/b/resolve/refs%2Fpr%2F1/x",
		"https://user:pw@github.com/", "https://github.com/a/%2e%2e/b", "https://huggingface.co:443//a//b/", "http://127.0.0.1:8080/base/x",
		"https://github.com/ü?a=1;b", "https://[::1]/", "https://github.com/a%5cb", "HTTPS://HF.CO/%E2%82%AC/%25",
	} {
		f.Add(s)
	}
	c, err := New(Config{CacheDir: f.TempDir(), Endpoints: map[Site]string{GitLab: "http://127.0.0.1:8080/base"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		loc, err := c.rebuild(raw)
		if err != nil {
			var blocked *BlockedError
			if !errors.As(err, &blocked) {
				t.Fatalf("rebuild(%q): %T", raw, err)
			}
			return
		}
		out := loc.String()
		u, err := url.Parse(out)
		if err != nil {
			t.Fatalf("rebuild(%q) = %q: %v", raw, out, err)
		}
		if known := c.hosts[u.Host]; (known == nil || u.Scheme != "https") && !strings.HasPrefix(out, "http://127.0.0.1:8080/base/") {
			t.Fatalf("rebuild(%q) = %q leaves the allow-list", raw, out)
		}
		if u.User != nil || u.Fragment != "" || !plainASCII(out) {
			t.Fatalf("rebuild(%q) = %q", raw, out)
		}
		for part := range strings.SplitSeq(u.Path, "/") {
			if part == ".." || part == "." {
				t.Fatalf("rebuild(%q) = %q climbs", raw, out)
			}
		}
		again, err := c.rebuild(out)
		if err != nil || again.String() != out || again.place != loc.place {
			t.Fatalf("rebuild is not idempotent: %q, %q, %q, %v", raw, out, again, err)
		}
		name := mirrorName(loc.place.host, loc.path, loc.query, "")
		checkName(t, name)
		if host, path, query, part, err := unname(name); err == nil &&
			(host != loc.place.host || path != loc.path || query != loc.query || part != "") {
			t.Fatalf("name %q of %q reads back as %q %q %q %q", name, out, host, path, query, part)
		}
		from := loc
		if to, err := c.redirected(from, raw); err == nil && to.String() != out {
			// Only where the endpoint is not used for a redirect may they differ.
			if to.place.endpoint == nil {
				t.Fatalf("redirected(%q) = %q, rebuild gives %q", raw, to, out)
			}
		}
	})
}
