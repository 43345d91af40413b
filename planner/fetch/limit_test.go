package fetch

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// taker takes turns at one class of requests on a fake clock.
func taker(t *testing.T, lim Limit) (*limiter, *clock, func() []time.Duration) {
	t.Helper()
	ck := newClock()
	cfg := Config{Now: ck.Now, Sleep: ck.Sleep}.withDefaults()
	l, err := openLimiter(filepath.Join(t.TempDir(), "limits"), &cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l, ck, func() []time.Duration {
		t.Helper()
		turn, err := l.acquire(t.Context(), "site", lim, func(time.Duration, string) {})
		if err != nil {
			t.Fatal(err)
		}
		if err := turn.end(nil, 200); err != nil {
			t.Fatal(err)
		}
		return ck.waits()
	}
}

func sum(ds []time.Duration) (total time.Duration) {
	for _, d := range ds {
		total += d
	}
	return total
}

func TestLimitEveryAndClockJumps(t *testing.T) {
	const every = 15 * time.Second
	l, ck, take := taker(t, Limit{Every: every, Conns: 1})
	state := filepath.Join(l.dir, "site.json")
	for _, step := range []struct {
		name string
		do   func()
		want time.Duration
	}{
		{"first", func() {}, 0},
		{"at once", func() {}, every},
		{"after 10 s", func() { ck.Advance(10 * time.Second) }, 5 * time.Second},
		{"after an hour", func() { ck.Advance(time.Hour) }, 0},
		{"clock set back an hour", func() { ck.Advance(-time.Hour) }, every},
		{"and then normal", func() { ck.Advance(every) }, 0},
		{"empty file", func() { overwrite(t, state, "") }, every},
		{"garbage", func() { overwrite(t, state, "\x00\xff{") }, every},
		{"wrong type", func() { overwrite(t, state, `{"last":5}`) }, every},
		{"far future", func() { overwrite(t, state, `{"last":"2999-01-01T00:00:00Z"}`) }, every},
		{"removed", func() { _ = os.Remove(state) }, 0},
	} {
		step.do()
		if got := sum(take()); got != step.want {
			t.Errorf("%s: waited %s, want %s", step.name, got, step.want)
		}
	}
}

func overwrite(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestLimitWithFrozenClock: a clock that never moves does not make the limiter
// wait for ever.
func TestLimitWithFrozenClock(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var slept time.Duration
	cfg := Config{Now: func() time.Time { return now }, Sleep: func(_ context.Context, d time.Duration) error { slept += d; return nil }}.withDefaults()
	l, err := openLimiter(t.TempDir(), &cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		turn, err := l.acquire(t.Context(), "site", Limit{Every: 3 * time.Second, Burst: 2, Per: 2 * time.Second}, func(time.Duration, string) {})
		if err != nil {
			t.Fatal(err)
		}
		if err := turn.end(nil, 200); err != nil {
			t.Fatal(err)
		}
	}
	if slept < 6*time.Second || slept > 20*time.Second {
		t.Errorf("slept %s", slept)
	}
}

func TestLimitBucket(t *testing.T) {
	_, ck, take := taker(t, Limit{Burst: 3, Per: 30 * time.Second})
	for i, want := range []time.Duration{0, 0, 0, 10 * time.Second, 10 * time.Second} {
		if got := sum(take()); got != want {
			t.Errorf("request %d waited %s, want %s", i, got, want)
		}
	}
	ck.Advance(time.Hour) // no more than a full bucket
	for i, want := range []time.Duration{0, 0, 0, 10 * time.Second} {
		if got := sum(take()); got != want {
			t.Errorf("later request %d waited %s, want %s", i, got, want)
		}
	}
}

// TestTableKeepsHubWindows counts what the table lets through to the hub in
// five minutes against what the hub allows without an account.
func TestTableKeepsHubWindows(t *testing.T) {
	for path, most := range map[string]float64{"/api/models/a": 500, "/a/b/resolve/main/c": 3000, "/a/b": 100} {
		for _, s := range sites {
			if s.name != HF {
				continue
			}
			l := s.bucketOf(path).limit
			if got := float64(l.Burst) + 300*float64(l.Burst)/l.Per.Seconds(); got > most || got < most/2 {
				t.Errorf("%s: %.0f requests in five minutes, the hub allows %.0f", path, got, most)
			}
		}
	}
}

func TestHeadersTightenLimit(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		status int
		header http.Header
		want   time.Duration
	}{
		"plain":               {200, http.Header{}, 0},
		"hub has room":        {200, http.Header{"Ratelimit": {`"api";r=496;t=246`}}, 0},
		"hub is used up":      {200, http.Header{"Ratelimit": {`"api";r=0;t=55`}}, 55 * time.Second},
		"hub refuses":         {429, http.Header{"Ratelimit": {`"api";r=0;t=7`}}, 7 * time.Second},
		"seconds":             {503, http.Header{"Retry-After": {"120"}}, 2 * time.Minute},
		"date":                {429, http.Header{"Retry-After": {"Sun, 01 Mar 2026 12:00:30 GMT"}}, 30 * time.Second},
		"past date":           {429, http.Header{"Retry-After": {"Sun, 01 Mar 2020 12:00:30 GMT"}}, 0},
		"negative":            {429, http.Header{"Retry-After": {"-5"}}, 0},
		"nonsense":            {429, http.Header{"Retry-After": {"soon"}, "Ratelimit": {`;;r=x;t=`}}, 0},
		"overflow":            {429, http.Header{"Retry-After": {"99999999999999999999"}}, 0},
		"on success":          {200, http.Header{"Retry-After": {"120"}}, 0},
		"github, used up":     {403, http.Header{"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {strconv.FormatInt(now.Add(90*time.Second).Unix(), 10)}}, 90 * time.Second},
		"github, has room":    {200, http.Header{"X-Ratelimit-Remaining": {"59"}, "X-Ratelimit-Reset": {strconv.FormatInt(now.Add(time.Hour).Unix(), 10)}}, 0},
		"github, second kind": {403, http.Header{"Retry-After": {"60"}}, time.Minute},
	} {
		if got := askedWait(tc.header, tc.status, now); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

// TestUsedUpQuotaHoldsForOthers: what one client was told, another one on the
// same cache folder obeys.
func TestUsedUpQuotaHoldsForOthers(t *testing.T) {
	srv, n := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("RateLimit", `"api";r=0;t=55`)
		_, _ = w.Write([]byte("x"))
	})
	a, ck := client(t, srv, nil)
	if _, err := a.Get(t.Context(), Request{URL: "https://huggingface.co/api/models/a"}); err != nil {
		t.Fatal(err)
	}
	b, err := New(Config{CacheDir: a.cfg.CacheDir, Endpoints: a.cfg.Endpoints, Now: ck.Now, Sleep: ck.Sleep})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(t.Context(), Request{URL: "https://huggingface.co/a/b/resolve/main/c"}); err != nil || len(ck.waits()) != 0 {
		t.Errorf("another class of requests waited: %v", err)
	}
	if _, err := b.Get(t.Context(), Request{URL: "https://huggingface.co/api/models/b"}); err != nil {
		t.Fatal(err)
	}
	if got := sum(ck.waits()); got != 55*time.Second || n.get() != 3 {
		t.Errorf("waited %s, want 55s", got)
	}
}

// TestLongBlockIsAnAnswer: a site that wants an hour's peace is not waited for.
func TestLongBlockIsAnAnswer(t *testing.T) {
	srv, n := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "86400")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	c, ck := client(t, srv, nil)
	for i, want := range []time.Duration{24 * time.Hour, longestBlock} {
		_, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/api/models/a"})
		var status *StatusError
		if !errors.As(err, &status) || status.RetryAfter != want || status.URL != srv.URL+"/api/models/a" {
			t.Errorf("request %d: error = %v, want one that says %s", i, err, want)
		}
	}
	if n.get() != 1 || len(ck.waits()) != 0 {
		t.Errorf("%d requests, want one and no wait", n.get())
	}
	ck.Advance(longestBlock)
	if _, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/api/models/a"}); err == nil || n.get() != 2 {
		t.Errorf("after an hour: %v, %d requests", err, n.get())
	}
}

func TestCancelWhileWaiting(t *testing.T) {
	srv, n := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) })
	c, err := New(Config{CacheDir: t.TempDir(), Endpoints: map[Site]string{Arxiv: srv.URL}}) // the real clock
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), Request{URL: "https://arxiv.org/abs/1"}); err != nil {
		t.Fatal(err)
	}
	for name, hold := range map[string]bool{"for the gap": false, "for the connection": true} {
		var turn *turn
		if hold {
			loc, err := c.rebuild("https://arxiv.org/abs/2")
			if err != nil {
				t.Fatal(err)
			}
			key, _ := limitOf(loc)
			if turn, err = c.limits.acquire(t.Context(), key, Limit{Conns: 1}, func(time.Duration, string) {}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
		begin := time.Now()
		_, err := c.Get(ctx, Request{URL: "https://arxiv.org/abs/2"})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 5*time.Second {
			t.Errorf("%s: %v after %s", name, err, time.Since(begin))
		}
		cancel()
		if turn != nil {
			turn.freeSlot()
		}
	}
	if n.get() != 1 {
		t.Errorf("%d requests", n.get())
	}
}

func FuzzRateLimit(f *testing.F) {
	f.Add(`"api";r=0;t=55`, "10", "1")
	f.Add(`"a";r=5;t=3, "b";r=0;t=99`, "Sun, 01 Mar 2026 12:00:30 GMT", "0")
	f.Add(`r==;t=-1`, "-1", "x")
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, limit, after, left string) {
		h := http.Header{"Ratelimit": {limit}, "Retry-After": {after}, "X-Ratelimit-Remaining": {left}, "X-Ratelimit-Reset": {after}}
		if d := askedWait(h, 429, now); d < 0 {
			t.Fatalf("wait %s", d)
		}
		if n, reset, ok := rateLimit(h); n < 0 || reset < 0 || !ok && n != 0 {
			t.Fatalf("%d %s %v", n, reset, ok)
		}
	})
}
