package fetch

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestProbe looks at hosts of all kinds behind a proxy that stands for the
// internet.
func TestProbe(t *testing.T) {
	world := newOutside(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Host + r.URL.Path {
		case "dl.files.example/ok.pth":
			w.Header().Set("Content-Length", "1234")
		case "dl.files.example/get-only.pth":
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
			if r.Header.Get("Range") != "bytes=0-0" {
				t.Errorf("range %q", r.Header.Get("Range"))
			}
			w.Header().Set("Content-Range", "bytes 0-0/98765")
			w.WriteHeader(http.StatusPartialContent)
			fmt.Fprint(w, "x")
		case "dl.files.example/moved":
			http.Redirect(w, r, "https://cdn.other.example/signed?sig=secret", http.StatusFound)
		case "cdn.other.example/signed":
			w.Header().Set("Content-Length", "7")
		case "dl.files.example/inside":
			http.Redirect(w, r, "http://cdn.other.example/plain", http.StatusFound)
		case "dl.files.example/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "huggingface.co/a/b/resolve/main/w.bin":
			if r.Header.Get("Authorization") != "Bearer secret" {
				t.Error("the hub gets no token")
			}
			w.Header().Set("X-Linked-Size", "55")
			http.Redirect(w, r, "https://cdn-lfs.hf.co/x?sig=1", http.StatusFound)
		case "cdn-lfs.hf.co/x":
			if r.Header.Get("Authorization") != "" {
				t.Error("the content network gets the token")
			}
		case "huggingface.co/a/gated/resolve/main/w.bin":
			w.Header().Set("X-Error-Code", "GatedRepo")
			w.WriteHeader(http.StatusUnauthorized)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}, "dl.files.example", "cdn.other.example", "huggingface.co", "cdn-lfs.hf.co")
	c, err := New(Config{CacheDir: t.TempDir(), Proxy: world.proxy, RootCAs: world.roots, HFToken: "secret",
		Limits: map[Site]Limit{HF: {Conns: 4}}})
	if err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]struct {
		status int
		bytes  int64
		final  string
		code   string
	}{
		"https://dl.files.example/ok.pth":                   {200, 1234, "https://dl.files.example/ok.pth", ""},
		"https://dl.files.example/get-only.pth":             {206, 98765, "https://dl.files.example/get-only.pth", ""},
		"https://dl.files.example/moved":                    {200, 7, "https://cdn.other.example/signed", ""},
		"https://dl.files.example/none":                     {404, -1, "https://dl.files.example/none", ""},
		"https://huggingface.co/a/b/resolve/main/w.bin":     {200, 55, "https://cdn-lfs.hf.co/x", ""},
		"https://huggingface.co/a/gated/resolve/main/w.bin": {401, -1, "https://huggingface.co/a/gated/resolve/main/w.bin", "GatedRepo"},
	} {
		p, err := c.Probe(t.Context(), url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if p.Status != want.status || p.Bytes != want.bytes || p.FinalURL != want.final || p.Header.Get("X-Error-Code") != want.code {
			t.Errorf("%s: %+v, want %+v", url, p, want)
		}
	}
	for url, want := range map[string]string{
		"https://dl.files.example/inside": "only https",
		"https://dl.files.example/loop":   "redirects more than",
		"http://dl.files.example/ok.pth":  "only https",
		"https://dl.files.example:8443/x": "port 443",
		"ftp://dl.files.example/x":        "only https",
		"https://u:p@dl.files.example/x":  "never sent",
		"https://dl.files.example/a b":    "",
	} {
		_, err := c.Probe(t.Context(), url)
		var blocked *BlockedError
		if want != "" && (!errors.As(err, &blocked) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error %v, want one with %q", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "u:p") {
			t.Errorf("the password is shown: %v", err)
		}
	}
}

// TestProbeGuard: an address that is not public is not looked at, whatever its
// name; an endpoint that the user configured is.
func TestProbeGuard(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ok" {
			http.Redirect(w, r, "https://127.0.0.1/secret", http.StatusFound)
		}
	}))
	t.Cleanup(srv.Close)
	c, err := New(Config{CacheDir: t.TempDir(), Endpoints: map[Site]string{HF: srv.URL}, Limits: map[Site]Limit{HF: {Conns: 4}},
		Timeouts: Timeouts{Connect: 5 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := c.Probe(t.Context(), "https://huggingface.co/ok"); err != nil || p.Status != 200 {
		t.Errorf("the configured endpoint: %+v, %v", p, err)
	}
	for _, url := range []string{"https://127.0.0.1/x", "https://[::1]/x", "https://169.254.169.254/latest/meta-data", "https://10.0.0.1/", "https://huggingface.co/away"} {
		_, err := c.Probe(t.Context(), url)
		var blocked *BlockedError
		if !errors.As(err, &blocked) || !strings.Contains(err.Error(), "address") {
			t.Errorf("%s: %v", url, err)
		}
	}
	m, err := New(Config{Mirror: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	var missing *NotInMirrorError
	if _, err := m.Probe(t.Context(), "https://example.org/x"); !errors.As(err, &missing) {
		t.Errorf("with a mirror: %v", err)
	}
}
