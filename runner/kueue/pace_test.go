package kueue

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// busyServer takes so many requests at once and refuses the rest, as an API
// server whose queues are full.
type busyServer struct {
	room           int32
	under, most    atomic.Int32
	refused, taken atomic.Int32
	retryAfter     string
}

func (s *busyServer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	n := s.under.Add(1)
	defer s.under.Add(-1)
	for m := s.most.Load(); n > m && !s.most.CompareAndSwap(m, n); m = s.most.Load() {
	}
	if n > s.room {
		s.refused.Add(1)
		if s.retryAfter != "" {
			w.Header().Set("Retry-After", s.retryAfter)
		}
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	time.Sleep(2 * time.Millisecond)
	s.taken.Add(1)
}

func send(ctx context.Context, rt http.RoundTripper, url string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// TestPaceFindsTheRoom: many callers settle near what the server takes, and
// few of their requests are refused on the way.
func TestPaceFindsTheRoom(t *testing.T) {
	s := &busyServer{room: 12}
	srv := httptest.NewServer(s)
	defer srv.Close()
	p := newPace(http.DefaultTransport, time.Now)
	var wg sync.WaitGroup
	const callers, each = 100, 10
	for range callers {
		wg.Go(func() {
			for range each {
				for {
					code, err := send(t.Context(), p, srv.URL)
					if err != nil {
						t.Error(err)
						return
					}
					if code == http.StatusOK {
						break
					}
				}
			}
		})
	}
	wg.Wait()
	if got := s.taken.Load(); got != callers*each {
		t.Errorf("%d answers, want %d", got, callers*each)
	}
	if r := s.refused.Load(); r > callers*each/4 {
		t.Errorf("%d requests were refused on the way to %d answers", r, s.taken.Load())
	}
	if m := s.most.Load(); m < 6 || m > 40 {
		t.Errorf("up to %d were under way at a server with room for %d", m, s.room)
	}
}

// TestPaceWaitsAsTold: after Retry-After nobody sends before that time.
func TestPaceWaitsAsTold(t *testing.T) {
	var calls atomic.Int32
	var first, second time.Time
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch calls.Add(1) {
		case 1:
			first = time.Now()
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		case 2:
			second = time.Now()
		}
	}))
	defer srv.Close()
	p := newPace(http.DefaultTransport, time.Now)
	for _, want := range []int{http.StatusTooManyRequests, http.StatusOK} {
		if code, err := send(t.Context(), p, srv.URL); err != nil || code != want {
			t.Fatalf("%d, %v; want %d", code, err, want)
		}
	}
	if pause := second.Sub(first); pause < 950*time.Millisecond {
		t.Errorf("it was asked again after %v, and had said 1 s", pause)
	}
}

// TestPaceGivesTurnsBack: who stops waiting takes no place away from others,
// and watches need none.
func TestPaceGivesTurnsBack(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-release
		}
	}))
	defer srv.Close()
	p := newPace(http.DefaultTransport, time.Now)
	p.window = 1
	done := make(chan error, 1)
	go func() {
		_, err := send(t.Context(), p, srv.URL+"/slow")
		done <- err
	}()
	for p.mu.Lock(); p.under == 0; p.mu.Lock() {
		p.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := send(ctx, p, srv.URL); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a request without a place: %v", err)
	}
	if code, err := send(t.Context(), p, srv.URL+"/?watch=true"); err != nil || code != http.StatusOK {
		t.Errorf("a watch: %d, %v", code, err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := send(t.Context(), p, srv.URL); err != nil || p.under != 0 || len(p.waiting) != 0 {
		t.Errorf("then %v, %d under way, %d waiting", err, p.under, len(p.waiting))
	}
}
