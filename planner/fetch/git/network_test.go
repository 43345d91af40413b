package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
)

// cutWriter breaks the connection after n bytes of body.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	if len(p) <= c.left {
		c.left -= len(p)
		return c.ResponseWriter.Write(p)
	}
	_, _ = c.ResponseWriter.Write(p[:c.left])
	if f, ok := c.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
	panic(http.ErrAbortHandler)
}

// onPost applies f to the requests for packs.
func onPost(f func(h http.Handler, w http.ResponseWriter, r *http.Request)) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				f(h, w, r)
				return
			}
			h.ServeHTTP(w, r)
		})
	}
}

func TestConnectionDropsAtByteN(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	r := s.repo(t, "proj")
	r.write("data.bin", noise(200_000))
	want := r.commit("x")
	modes(t, func(t *testing.T, child []string) {
		for _, n := range []int{0, 1, 30, 70, 500, 65_500, 150_000, 200_100} {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				var tries atomic.Int32
				s.setWrap(onPost(func(h http.Handler, w http.ResponseWriter, r *http.Request) {
					if tries.Add(1) <= 2 {
						w = &cutWriter{w, n}
					}
					h.ServeHTTP(w, r)
				}))
				cfg := s.config(t, child)
				co := checkout(t, newCloner(t, cfg), Request{Repo: s.URL + "/proj"})
				if co.Commit != want || content(t, co.Dir, "data.bin") != noise(200_000) {
					t.Error("another content after a retry")
				}
				if tries.Load() != 3 {
					t.Errorf("%d tries", tries.Load())
				}
				nothingStaged(t, cfg.CacheDir)
			})
		}
	})
	t.Run("list of refs", func(t *testing.T) {
		var tries atomic.Int32
		s.setWrap(func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if n := tries.Add(1); n <= 2 {
					w = &cutWriter{w, 20 * int(n)}
				}
				h.ServeHTTP(w, r)
			})
		})
		if co := checkout(t, newCloner(t, s.config(t, nil)), Request{Repo: s.URL + "/proj"}); co.Commit != want {
			t.Errorf("commit %s", co.Commit)
		}
	})
	t.Run("for good", func(t *testing.T) {
		var tries atomic.Int32
		s.setWrap(onPost(func(h http.Handler, w http.ResponseWriter, r *http.Request) {
			tries.Add(1)
			h.ServeHTTP(&cutWriter{w, 1000}, r)
		}))
		cfg := s.config(t, childCommand())
		_, err := newCloner(t, cfg).Checkout(t.Context(), Request{Repo: s.URL + "/proj"})
		var user interface{ UserError() string }
		if err == nil || errors.As(err, &user) || tries.Load() != maxAttempts {
			t.Errorf("after %d tries: %v", tries.Load(), err)
		}
		nothingStaged(t, cfg.CacheDir)
	})
}

func TestServerBusy(t *testing.T) {
	s := newServer(t)
	sample(t, s.repo(t, "proj"))
	var tries atomic.Int32
	s.setWrap(func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch tries.Add(1) {
			case 1:
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(http.StatusTooManyRequests)
			case 2:
				w.Header().Set("Retry-After", "86400")
				w.WriteHeader(http.StatusServiceUnavailable)
			default:
				h.ServeHTTP(w, r)
			}
		})
	})
	cfg := s.config(t, nil)
	var slept []time.Duration
	cfg.Sleep = func(_ context.Context, d time.Duration) error {
		slept = append(slept, d)
		return nil
	}
	checkout(t, newCloner(t, cfg), Request{Repo: s.URL + "/proj"})
	if want := []time.Duration{7 * time.Second, maxRetryAfter}; !slices.Equal(slept, want) {
		t.Errorf("slept %v, want %v", slept, want)
	}
}

func TestSlowServer(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	r := s.repo(t, "proj")
	r.write("data.bin", noise(200_000))
	r.commit("x")
	release := make(chan struct{})
	defer close(release)
	stall := func(after int) func(http.Handler) http.Handler {
		return onPost(func(h http.Handler, w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(&stallWriter{w, after, release, r.Context().Done()}, r)
		})
	}
	modes(t, func(t *testing.T, child []string) {
		for name, tc := range map[string]struct {
			limits Limits
			after  int
			want   string
		}{
			"no header":  {Limits{Idle: 50 * time.Millisecond}, -1, CapIdle},
			"mid-stream": {Limits{Idle: 100 * time.Millisecond}, 50_000, CapIdle},
			"wall clock": {Limits{Time: 400 * time.Millisecond}, 50_000, CapTime},
		} {
			t.Run(name, func(t *testing.T) {
				s.setWrap(stall(tc.after))
				cfg := s.config(t, child)
				cfg.Limits = tc.limits
				start := time.Now()
				_, err := newCloner(t, cfg).Checkout(t.Context(), Request{Repo: s.URL + "/proj"})
				var limit *LimitError
				if !errors.As(err, &limit) || limit.Cap != tc.want {
					t.Errorf("error %v, want cap %s", err, tc.want)
				}
				if d := time.Since(start); d > 5*time.Second {
					t.Errorf("it took %v to give up", d)
				}
				nothingStaged(t, cfg.CacheDir)
			})
		}
		t.Run("cancelled", func(t *testing.T) {
			s.setWrap(stall(50_000))
			cfg := s.config(t, child)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_, err := newCloner(t, cfg).Checkout(ctx, Request{Repo: s.URL + "/proj"})
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
			nothingStaged(t, cfg.CacheDir)
		})
	})
}

// stallWriter stops writing after so many bytes; a negative number sends
// nothing at all.
type stallWriter struct {
	http.ResponseWriter
	left    int
	release chan struct{}
	gone    <-chan struct{}
}

func (s *stallWriter) Write(p []byte) (int, error) {
	if s.left -= len(p); s.left < 0 {
		if s.left > -len(p)-1 {
			_, _ = s.ResponseWriter.Write(p[:len(p)+s.left])
			s.ResponseWriter.(http.Flusher).Flush()
		}
		select {
		case <-s.release:
		case <-s.gone:
		}
		panic(http.ErrAbortHandler)
	}
	return s.ResponseWriter.Write(p)
}

// A server that never ends its list of refs, or what comes before its pack,
// is cut off long before the budget of the transfer.
func TestEndlessPreamble(t *testing.T) {
	t.Parallel()
	_, _, cid := oneFile(id("blob", "x"))
	for _, part := range []string{"refs", "shallow"} {
		t.Run(part, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var b bytes.Buffer
				e := pktline.NewEncoder(&b)
				if r.Method == http.MethodGet {
					_ = e.EncodeString("# service=git-upload-pack\n")
					_ = e.Flush()
					_ = e.Encodef("%x HEAD\x00shallow agent=test\n", cid)
					if part == "shallow" {
						_ = e.Flush()
					}
					_, _ = w.Write(b.Bytes())
					b.Reset()
				}
				if part == "refs" {
					_ = e.Encodef("%x refs/heads/main\n", cid)
				} else {
					_ = e.Encodef("shallow %x", cid)
				}
				line := bytes.Repeat(b.Bytes(), 10_000)
				for r.Method == http.MethodPost || part == "refs" {
					if _, err := w.Write(line); err != nil {
						return
					}
				}
			}))
			defer s.Close()
			cfg := Config{CacheDir: t.TempDir(), AllowHTTPHosts: []string{strings.TrimPrefix(s.URL, "http://")}, Sleep: noSleep}
			_, err := newCloner(t, cfg).Checkout(t.Context(), Request{Repo: s.URL + "/x"})
			var limit *LimitError
			if !errors.As(err, &limit) || limit.Cap != CapTransfer || limit.Limit != maxPreamble {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestTokens(t *testing.T) {
	a, b := newServer(t), newServer(t)
	sample(t, b.repo(t, "proj"))
	sample(t, a.repo(t, "proj"))
	cfg := a.config(t, nil)
	cfg.AllowHTTPHosts = []string{a.host(), b.host()}
	cfg.Token = func(host string) string {
		if host == a.host() {
			return "s3cret"
		}
		return ""
	}
	checkout(t, newCloner(t, cfg), Request{Repo: a.URL + "/proj"})
	for _, r := range a.requests {
		if _, password, ok := r.BasicAuth(); !ok || password != "s3cret" {
			t.Errorf("%s %s came without the token", r.Method, r.URL)
		}
	}
	a.setWrap(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, b.URL+r.URL.RequestURI(), http.StatusFound)
		})
	})
	cfg.CacheDir = t.TempDir()
	co := checkout(t, newCloner(t, cfg), Request{Repo: a.URL + "/proj"})
	if co.Repo != a.URL+"/proj" || b.count() != 3 {
		t.Errorf("after a redirect: %s, %d requests", co.Repo, b.count())
	}
	for _, r := range b.requests {
		if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" {
			t.Errorf("%s %s carries credentials", r.Method, r.URL)
		}
	}
}

func TestRedirectPolicy(t *testing.T) {
	a, b := newServer(t), newServer(t)
	sample(t, b.repo(t, "proj"))
	to := ""
	a.setWrap(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			target := to
			if target == "self" {
				target = a.URL + r.URL.RequestURI()
			}
			http.Redirect(w, r, target, http.StatusFound)
		})
	})
	for target, want := range map[string]string{
		b.URL + "/proj/info/refs?service=git-upload-pack": "scheme http is refused",
		"https://169.254.169.254/x/info/refs":             "address is not public",
		"https://example.org:8443/x/info/refs":            "port 8443 is refused",
		"https://metadata/x/info/refs":                    "not a public name",
		"self":                                            "redirects",
	} {
		to = target
		_, err := newCloner(t, a.config(t, nil)).Checkout(t.Context(), Request{Repo: a.URL + "/proj"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("redirect to %s: %v, want %q", target, err, want)
		}
	}
	if b.count() != 0 {
		t.Errorf("a server that was not configured got %d requests", b.count())
	}
}

// The address that is about to be dialled is checked, whatever name led to it.
func TestDialGuard(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c := newCloner(t, Config{CacheDir: t.TempDir()})
	tr := c.transport.(*http.Transport)
	for _, addr := range []string{l.Addr().String(), "localhost:1", "[::ffff:127.0.0.1]:443", "10.1.2.3:443", "169.254.169.254:443", "[fe80::1]:443"} {
		conn, err := tr.DialContext(t.Context(), "tcp", addr)
		var bad *RepoError
		if conn != nil || !errors.As(err, &bad) {
			t.Errorf("%s: %v", addr, err)
		}
	}
	own := newCloner(t, Config{CacheDir: t.TempDir(), AllowHTTPHosts: []string{l.Addr().String()}})
	conn, err := own.transport.(*http.Transport).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func TestPublicAddr(t *testing.T) {
	for addr, want := range map[string]bool{
		"140.82.121.3": true, "2606:50c0:8000::153": true, "1.1.1.1": true,
		"127.0.0.1": false, "0.0.0.0": false, "10.0.0.1": false, "172.16.0.1": false, "192.168.1.1": false, "169.254.169.254": false,
		"100.64.0.1": false, "198.18.0.1": false, "224.0.0.1": false, "255.255.255.255": false, "240.0.0.1": false, "192.0.2.1": false,
		"::1": false, "::": false, "fe80::1": false, "fd00::1": false, "ff02::1": false, "::ffff:10.0.0.1": false, "::ffff:140.82.121.3": true,
		"64:ff9b::7f00:1": false, "2002:7f00:1::": false, "2001::1": false, "::7f00:1": false, "fe80::1%eth0": false, "2001:db8::1": false,
	} {
		if got := publicAddr(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
}

func TestEndpointOverride(t *testing.T) {
	s := newServer(t)
	ids := sample(t, s.repo(t, "mirror/own/proj"))
	cfg := Config{CacheDir: t.TempDir(), Endpoints: map[string]string{"github.com": s.URL + "/mirror"}}
	co := checkout(t, newCloner(t, cfg), Request{Repo: "https://github.com/own/proj"})
	if co.Repo != "https://github.com/own/proj" || co.Commit != ids["main"] {
		t.Errorf("checkout %+v", co)
	}
}

func TestParseRemote(t *testing.T) {
	c := newCloner(t, Config{CacheDir: t.TempDir(), AllowHTTPHosts: []string{"127.0.0.1:8080", "git.lan:443"}})
	for raw, want := range map[string]string{
		"https://github.com/a/b":             "https://github.com/a/b",
		"https://GitHub.com:443/a/b.git":     "https://github.com/a/b",
		"https://github.com/a/b/":            "https://github.com/a/b",
		"https://huggingface.co/a/b":         "https://huggingface.co/a/b",
		"http://127.0.0.1:8080/r/.git":       "http://127.0.0.1:8080/r",
		"https://git.lan/a":                  "https://git.lan/a",
		"https://github.com/a/../b":          "https://github.com/b",
		"http://github.com/a/b":              "!scheme http",
		"https://github.com:8443/a/b":        "!port 8443",
		"https://github.com/a/b?x=y":         "!query",
		"https://github.com/a/b#readme":      "!query",
		"https://tok@github.com/a/b":         "!user name",
		"https://github.com/":                "!empty",
		"https://localhost/a":                "!not a public name",
		"git@github.com:a/b.git":             "!give https://github.com/a/b.git",
		"ssh://git@github.com:22/a/b":        "!give https://github.com/a/b",
		"git://github.com/a/b":               "!give https://github.com/a/b",
		"file:///etc":                        "!not an address",
		"ext::sh -c x":                       "!remote helpers",
		"ftp://example.org/a":                "!scheme ftp",
		"relative/folder":                    "!not an address",
		"https://github.com/a/.GIT/b":        "!stands for .git",
		"https://github.com/a\\b":            "!path separator",
		"https://github.com/a/%00":           "!control",
		"https://[::ffff:127.0.0.1]/a":       "https://[::ffff:127.0.0.1]/a", // refused when dialled
		"http://127.0.0.1:8081/r":            "!scheme http",
		"https://github.com/a/--upload-pack": "https://github.com/a/--upload-pack",
	} {
		r, err := c.parseRemote(raw)
		if why, refused := strings.CutPrefix(want, "!"); refused {
			if err == nil || !strings.Contains(err.Error(), why) {
				t.Errorf("%s: %v, want %q", raw, err, why)
			}
		} else if err != nil || r.name != want {
			t.Errorf("%s: %+v, %v, want %s", raw, r, err, want)
		}
	}
}

func TestSubmoduleURL(t *testing.T) {
	const parent = "https://github.com/own/proj"
	for raw, want := range map[string]string{
		"../other.git":           "https://github.com/own/other.git",
		"./sub":                  "https://github.com/own/proj/sub",
		"../../them/x":           "https://github.com/them/x",
		"../../../x":             "!leaves",
		"../..":                  "!leaves",
		"https://example.org/x":  "https://example.org/x",
		"http://example.org/x":   "https://example.org/x",
		"git@github.com:a/b.git": "https://github.com/a/b.git",
		"ssh://git@host.org/a/b": "https://host.org/a/b",
		"git://host.org/a":       "https://host.org/a",
		"/home/me/x":             "!path of the author",
		"C:\\x":                  "!scheme",
		"ext::sh":                "!remote helper",
		"file:///x":              "!scheme file",
		"":                       "!no url",
		"%zz":                    "!cannot be read",
	} {
		got, refused := submoduleURL(parent, raw)
		if why, no := strings.CutPrefix(want, "!"); no && !strings.Contains(refused, why) || !no && got != want {
			t.Errorf("%q: %q %q, want %q", raw, got, refused, want)
		}
	}
	if got, _ := submoduleURL("/srv/own/proj", "../other"); got != "/srv/own/other" {
		t.Errorf("relative to a folder: %q", got)
	}
}

func FuzzAddresses(f *testing.F) {
	for _, s := range []string{"https://github.com/a/b", "git@github.com:a/b", "../x", "ext::sh -c", "https://u:p@h/x", "http://[::1]:80/a", "C:\\x"} {
		f.Add(s)
	}
	dir, _ := os.Getwd()
	c := newCloner(f, Config{CacheDir: dir})
	f.Fuzz(func(t *testing.T, raw string) {
		if r, err := c.parseRemote(raw); err == nil {
			if c.refusedURL(r.url) != "" || r.url.Scheme != "https" || r.url.User != nil || unsafePath(r.path) != "" {
				t.Errorf("accepted %q as %v", raw, r.url)
			}
			if again, err := c.parseRemote(r.name); err != nil || again.name != r.name {
				t.Errorf("%q: canonical %q is not stable: %v", raw, r.name, err)
			}
		}
		if got, refused := submoduleURL("https://github.com/own/proj", raw); refused == "" {
			if u, err := url.Parse(got); err == nil && u.Scheme != "https" {
				t.Errorf("submodule %q became %q", raw, got)
			}
		}
	})
}
