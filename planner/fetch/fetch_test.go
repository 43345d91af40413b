package fetch

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// clock is a clock that only moves when someone sleeps.
type clock struct {
	mu    sync.Mutex
	t     time.Time
	slept []time.Duration
}

func newClock() *clock { return &clock{t: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
	c.slept = append(c.slept, d)
	return ctx.Err()
}

// waits returns the sleeps since the last call.
func (c *clock) waits() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.slept
	c.slept = nil
	return w
}

// serve runs a handler and counts the requests to it.
func serve(t *testing.T, h http.HandlerFunc) (*httptest.Server, *counter) {
	t.Helper()
	n := &counter{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.add()
		h(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv, n
}

type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) add() {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()
}

func (c *counter) get() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// client makes a client on a fake clock whose sites are asked at srv.
func client(t *testing.T, srv *httptest.Server, change func(*Config)) (*Client, *clock) {
	t.Helper()
	ck := newClock()
	cfg := Config{CacheDir: t.TempDir(), Now: ck.Now, Sleep: ck.Sleep, Jitter: func() float64 { return 0 }}
	if srv != nil {
		cfg.Endpoints = map[Site]string{HF: srv.URL}
	}
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.http != nil {
			c.http.CloseIdleConnections()
		}
	})
	return c, ck
}

func mustURL(t *testing.T, c *Client, s Site, path string) string {
	t.Helper()
	u, err := c.URL(s, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestGetIsCached(t *testing.T) {
	srv, n := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"id":"` + r.URL.Path + `"}`))
	})
	c, ck := client(t, srv, nil)
	u := mustURL(t, c, HF, "/api/models/Qwen/Qwen3-0.6B")
	first, err := c.Get(t.Context(), Request{URL: u})
	if err != nil {
		t.Fatal(err)
	}
	if first.FromCache || first.URL != u || first.FinalURL != u || !first.FetchedAt.Equal(ck.Now()) {
		t.Errorf("first answer: %+v", first)
	}
	ck.Advance(23 * time.Hour)
	// The canonical host leads to the same endpoint.
	again, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/api/models/Qwen/Qwen3-0.6B"})
	if err != nil {
		t.Fatal(err)
	}
	if !again.FromCache || string(again.Body) != string(first.Body) || again.SHA256 != first.SHA256 ||
		again.Header.Get("Content-Type") != "application/json" || !again.FetchedAt.Equal(first.FetchedAt) {
		t.Errorf("second answer: %+v", again)
	}
	if w := ck.waits(); n.get() != 1 || len(w) != 0 {
		t.Errorf("%d requests and waits %v, want one request and no wait", n.get(), w)
	}
	ck.Advance(2 * time.Hour)
	if third, err := c.Get(t.Context(), Request{URL: u}); err != nil || third.FromCache || n.get() != 2 {
		t.Errorf("after a day: %+v, %v, %d requests", third, err, n.get())
	}
}

func TestLimitSpacesRequests(t *testing.T) {
	srv, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.URL.RawQuery)) })
	c, ck := client(t, srv, func(cfg *Config) {
		cfg.Endpoints = map[Site]string{ArxivAPI: srv.URL, Arxiv: srv.URL + "/web"}
	})
	for _, id := range []string{"2401.00001", "2401.00002", "2401.00003"} {
		if _, err := c.Get(t.Context(), Request{URL: "https://export.arxiv.org/api/query?id_list=" + id}); err != nil {
			t.Fatal(err)
		}
	}
	if w := ck.waits(); len(w) != 2 || w[0] != 3*time.Second || w[1] != 3*time.Second {
		t.Errorf("API waits = %v, want 3s twice", w)
	}
	for _, id := range []string{"2401.00001", "2401.00002"} {
		if _, err := c.Get(t.Context(), Request{URL: "https://arxiv.org/abs/" + id}); err != nil {
			t.Fatal(err)
		}
	}
	if w := ck.waits(); len(w) != 1 || w[0] != 15*time.Second {
		t.Errorf("page waits = %v, want 15s once", w)
	}
}

func TestMissingIsCachedForAShortTime(t *testing.T) {
	srv, n := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Error-Code", "RepoNotFound")
		http.Error(w, `{"error":"Repository not found"}`, http.StatusNotFound)
	})
	c, ck := client(t, srv, nil)
	for range 3 {
		_, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/api/models/no/such"})
		var status *StatusError
		if !errors.As(err, &status) || status.Status != 404 || status.Header.Get("X-Error-Code") != "RepoNotFound" || status.Excerpt == "" {
			t.Fatalf("error = %#v", err)
		}
	}
	if n.get() != 1 {
		t.Errorf("%d requests, want 1", n.get())
	}
	ck.Advance(11 * time.Minute)
	if _, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/api/models/no/such"}); err == nil || n.get() != 2 {
		t.Errorf("after 11 minutes: %v, %d requests", err, n.get())
	}
}
