package fetch

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// noTemps fails where a failed answer left a file.
func noTemps(t *testing.T, c *Client) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(c.cache.dir, "tmp", "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// cutAt sends the head of a whole body and drops the connection after n bytes.
func cutAt(w http.ResponseWriter, body []byte, n int) {
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	_, _ = w.Write(body[:n])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func TestDropsAreRetried(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 8<<10)
	want := sha256.Sum256(body)
	for name, tc := range map[string]struct {
		etag, ranges string
		cuts         []int
		// parts are the Range headers that are to arrive.
		parts []string
		fails bool
	}{
		"at the head":       {cuts: []int{-1, -1, -1}, parts: []string{"", "", "", ""}},
		"at byte 0":         {cuts: []int{0}, parts: []string{"", ""}},
		"in the middle":     {cuts: []int{1000, 70000}, parts: []string{"", "", ""}},
		"before the end":    {cuts: []int{len(body) - 1}, parts: []string{"", ""}},
		"resumes":           {etag: `"v1"`, ranges: "bytes", cuts: []int{70000, 100000}, parts: []string{"", "bytes=70000-", "bytes=100000-"}},
		"weak tag":          {etag: `W/"v1"`, ranges: "bytes", cuts: []int{70000}, parts: []string{"", ""}},
		"no parts":          {etag: `"v1"`, cuts: []int{70000}, parts: []string{"", ""}},
		"four times":        {cuts: []int{5, 5, 5, 5}, parts: []string{"", "", "", ""}, fails: true},
		"changes meanwhile": {etag: "new each time", ranges: "bytes", cuts: []int{70000}, parts: []string{"", "bytes=70000-"}},
	} {
		t.Run(name, func(t *testing.T) {
			var parts []string
			srv, n := serve(t, nil)
			tries := 0
			srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n.add()
				parts = append(parts, r.Header.Get("Range"))
				try := tries
				tries++
				etag := tc.etag
				if strings.HasPrefix(etag, "new") {
					etag = fmt.Sprintf(`"v%d"`, try)
				}
				if etag != "" {
					w.Header().Set("ETag", etag)
				}
				if tc.ranges != "" {
					w.Header().Set("Accept-Ranges", tc.ranges)
				}
				rest, start := body, 0
				if r.Header.Get("Range") != "" && r.Header.Get("If-Range") == etag {
					_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &start)
					rest = body[start:]
				}
				if try < len(tc.cuts) && tc.cuts[try] < 0 {
					panic(http.ErrAbortHandler)
				}
				if start > 0 {
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(body)-1, len(body)))
					w.Header().Set("Content-Length", fmt.Sprint(len(rest)))
					w.WriteHeader(http.StatusPartialContent)
				}
				if try < len(tc.cuts) {
					cutAt(w, rest, tc.cuts[try]-start)
				}
				_, _ = w.Write(rest)
			})
			c, ck := client(t, srv, nil)
			res, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/a/resolve/main/b"})
			if tc.fails {
				if err == nil || !strings.Contains(err.Error(), "4 attempts") {
					t.Errorf("error = %v", err)
				}
			} else if err != nil || res.SHA256 != hex.EncodeToString(want[:]) || res.Status != 200 || !bytes.Equal(res.Body, body) {
				t.Errorf("answer: %v", err)
			}
			if !slices.Equal(parts, tc.parts) {
				t.Errorf("ranges %q, want %q", parts, tc.parts)
			}
			for i, w := range ck.waits() {
				if want := 250 * time.Millisecond << i; w != want { // half the backoff: Jitter is 0
					t.Errorf("wait %d was %s, want %s", i, w, want)
				}
			}
			noTemps(t, c)
		})
	}
}

func TestRefusalsForNow(t *testing.T) {
	for name, tc := range map[string]struct {
		statuses []int
		after    string
		want     error
		waits    time.Duration
		requests int
	}{
		"429 with Retry-After": {[]int{429}, "20", nil, 20 * time.Second, 2},
		"503 with Retry-After": {[]int{503, 503}, "2", nil, 4 * time.Second, 3},
		"502":                  {[]int{502}, "", nil, 250 * time.Millisecond, 2},
		"504 each time":        {[]int{504, 504, 504, 504}, "", &StatusError{Status: 504}, 1750 * time.Millisecond, 4},
		"429 for too long":     {[]int{429}, "7200", &StatusError{Status: 429}, 0, 1},
		"over the budget":      {[]int{429, 429, 429, 429}, "250", &StatusError{Status: 429}, 500 * time.Second, 3},
		"500 is an answer":     {[]int{500}, "", &StatusError{Status: 500}, 0, 1},
		"403 is an answer":     {[]int{403}, "", &StatusError{Status: 403}, 0, 1},
		"451 is an answer":     {[]int{451}, "", &StatusError{Status: 451}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			i := 0
			srv, n := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				if i < len(tc.statuses) {
					if tc.after != "" {
						w.Header().Set("Retry-After", tc.after)
					}
					w.WriteHeader(tc.statuses[i])
					i++
					return
				}
				_, _ = w.Write([]byte("ok"))
			})
			c, ck := client(t, srv, nil)
			res, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/api/models/a"})
			var got, want *StatusError
			errors.As(tc.want, &want)
			switch {
			case want == nil && (err != nil || string(res.Body) != "ok"):
				t.Errorf("error = %v", err)
			case want != nil && (!errors.As(err, &got) || got.Status != want.Status):
				t.Errorf("error = %v, want status %d", err, want.Status)
			}
			if w := sum(ck.waits()); w != tc.waits || n.get() != tc.requests {
				t.Errorf("waited %s over %d requests, want %s over %d", w, n.get(), tc.waits, tc.requests)
			}
			noTemps(t, c)
		})
	}
}

// TestRateExceeded: arXiv says "not now" with status 200, and that must not
// stay in the cache for a day.
func TestRateExceeded(t *testing.T) {
	i := 0
	srv, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if i++; i == 1 {
			_, _ = io.WriteString(w, "Rate exceeded.\n")
			return
		}
		_, _ = io.WriteString(w, "<feed/>")
	})
	c, _ := client(t, srv, func(cfg *Config) { cfg.Endpoints = map[Site]string{ArxivAPI: srv.URL} })
	res, err := c.Get(t.Context(), Request{URL: "https://export.arxiv.org/api/query?id_list=1"})
	if err != nil || string(res.Body) != "<feed/>" {
		t.Errorf("%v, %v", res, err)
	}
	c.cfg.Retry.Attempts = 1
	i = 0
	var status *StatusError
	if _, err := c.Get(t.Context(), Request{URL: "https://export.arxiv.org/api/query?id_list=2"}); !errors.As(err, &status) || status.Status != 429 || !strings.HasPrefix(status.Excerpt, "Rate exceeded") {
		t.Errorf("error = %v", err)
	}
}

func TestCheckKeepsBadAnswersOut(t *testing.T) {
	i := 0
	srv, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		i++
		_, _ = fmt.Fprint(w, i)
	})
	c, _ := client(t, srv, nil)
	notYet := func(r *Response) error {
		if string(r.Body) < "3" {
			return fmt.Errorf("too early: %w", ErrTransient)
		}
		return nil
	}
	res, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/x", Check: notYet})
	if err != nil || string(res.Body) != "3" {
		t.Errorf("%v, %v", res, err)
	}
	wrong := errors.New("an error feed")
	if _, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/y", Check: func(*Response) error { return wrong }}); !errors.Is(err, wrong) || i != 4 {
		t.Errorf("error = %v after %d requests", err, i)
	}
	if res, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/y"}); err != nil || string(res.Body) != "5" {
		t.Errorf("the bad answer was stored: %v, %v", res, err)
	}
	noTemps(t, c)
}

// TestBodyCaps sends what must not be taken in, and watches the memory.
func TestBodyCaps(t *testing.T) {
	bomb := gzipped(t, 64<<20, 0)
	small := gzipped(t, 900<<10, 0) // below where the ratio counts
	chunk := bytes.Repeat([]byte("<p>page</p>"), 1<<13)
	// Far more than is taken in, and no more than a disk holds should it be.
	const much = 128 << 20
	endless := func(w http.ResponseWriter, r *http.Request) {
		for sent := 0; sent < much && r.Context().Err() == nil; sent += len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
	for name, tc := range map[string]struct {
		handler http.HandlerFunc
		reason  string
	}{
		"50 MB announced": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "50000000")
			_, _ = w.Write(chunk)
		}, "announced"},
		"50 MB": {func(w http.ResponseWriter, _ *http.Request) {
			for range 50e6 / len(chunk) {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, "longer than the cap"},
		"endless": {endless, "longer than the cap"},
		"bomb": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb)
		}, "decompressed"},
		"endless bomb": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			for sent := 0; sent < much && r.Context().Err() == nil; sent += 900 << 10 {
				if _, err := w.Write(small); err != nil { // members follow each other
					return
				}
			}
		}, "decompressed"},
		"endless random": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			zw, err := gzip.NewWriterLevel(w, gzip.NoCompression)
			for sent := 0; err == nil && sent < much && r.Context().Err() == nil; sent += len(chunk) {
				_, err = zw.Write(chunk)
			}
		}, "longer than the cap"},
	} {
		t.Run(name, func(t *testing.T) {
			srv, n := serve(t, tc.handler)
			c, _ := client(t, srv, nil)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/x"})
			runtime.ReadMemStats(&after)
			var large *TooLargeError
			if !errors.As(err, &large) || !strings.Contains(large.Reason, tc.reason) || large.Limit != 20<<20 {
				t.Errorf("error = %v", err)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > 8<<20 {
				t.Errorf("%d bytes were allocated", got)
			}
			if n.get() != 1 {
				t.Errorf("%d requests, want no retry", n.get())
			}
			noTemps(t, c)
		})
	}
	srv, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(small)
	})
	c, _ := client(t, srv, nil)
	if res, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/x"}); err != nil || len(res.Body) != 900<<10 {
		t.Errorf("a short page of blanks: %v", err)
	}
}

func gzipped(t *testing.T, n int, b byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	if _, err := io.CopyN(zw, same(b), int64(n)); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

type same byte

func (s same) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(s)
	}
	return len(p), nil
}

func TestEncodings(t *testing.T) {
	text := strings.Repeat("the same text ", 1000)
	var packed bytes.Buffer
	zw := gzip.NewWriter(&packed)
	_, _ = io.WriteString(zw, text)
	_ = zw.Close()
	var enc string
	var body []byte
	srv, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "gzip" {
			t.Errorf("Accept-Encoding = %q", r.Header.Get("Accept-Encoding"))
		}
		if enc != "" {
			w.Header().Set("Content-Encoding", enc)
		}
		_, _ = w.Write(body)
	})
	c, _ := client(t, srv, func(cfg *Config) { cfg.Retry.Attempts = 2 })
	for i, tc := range []struct {
		enc  string
		body []byte
		ok   bool
	}{
		{"", []byte(text), true}, {"gzip", packed.Bytes(), true}, {"GZIP", packed.Bytes(), true}, {"identity", []byte(text), true},
		{"br", []byte(text), false}, {"gzip, gzip", packed.Bytes(), false}, {"gzip", []byte("not gzip"), false}, {"gzip", packed.Bytes()[:packed.Len()-9], false},
	} {
		enc, body = tc.enc, tc.body
		res, err := c.Get(t.Context(), Request{URL: fmt.Sprintf("https://huggingface.co/%d", i)})
		if (err == nil) != tc.ok || err == nil && string(res.Body) != text {
			t.Errorf("%d %q: %v, want ok %v", i, tc.enc, err, tc.ok)
		}
	}
	noTemps(t, c)
}

func TestSlowAnswersEnd(t *testing.T) {
	drip := func(every time.Duration) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte("x")); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(every):
				}
			}
		}
	}
	for name, tc := range map[string]struct {
		handler  http.HandlerFunc
		caps     Timeouts
		want     string
		requests int
	}{
		"never a head": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, Timeouts{Header: 150 * time.Millisecond}, "no answer came", 2},
		"stalls":       {drip(time.Hour), Timeouts{Idle: 150 * time.Millisecond}, "nothing more arrived", 2},
		"drips":        {drip(10 * time.Millisecond), Timeouts{Total: 500 * time.Millisecond}, "did not end", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv, n := serve(t, tc.handler)
			c, _ := client(t, srv, func(cfg *Config) {
				cfg.Timeouts = tc.caps
				cfg.Retry.Attempts = 2
			})
			_, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/x"})
			var timeout *TimeoutError
			if !errors.As(err, &timeout) || !strings.Contains(timeout.What, tc.want) || n.get() != tc.requests {
				t.Errorf("error = %v after %d requests", err, n.get())
			}
			noTemps(t, c)
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		srv, _ := serve(t, drip(5*time.Millisecond))
		c, _ := client(t, srv, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := c.Get(ctx, Request{URL: "https://huggingface.co/x"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error = %v", err)
		}
		noTemps(t, c)
	})
}

func TestParts(t *testing.T) {
	const content = "0123456789abcdef"
	honours := true
	srv, n := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if !honours {
			_, _ = io.WriteString(w, content)
			return
		}
		http.ServeContent(w, r, "x", time.Time{}, strings.NewReader(content))
	})
	c, _ := client(t, srv, nil)
	for _, honours = range []bool{true, false} {
		for _, tc := range []struct {
			offset, length int64
			want           string
			status         int
		}{{0, 8, "01234567", 206}, {8, 4, "89ab", 206}, {12, 100, "cdef", 206}, {16, 4, "", 416}} {
			res, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/w", Offset: tc.offset, Length: tc.length, MaxAge: -1})
			var status *StatusError
			if tc.status == 416 {
				if !errors.As(err, &status) || status.Status != 416 {
					t.Errorf("honours %v, %+v: error = %v", honours, tc, err)
				}
			} else if err != nil || string(res.Body) != tc.want || res.Status != tc.status {
				t.Errorf("honours %v, %+v: %v", honours, tc, err)
			}
		}
	}
	before := n.get()
	if res, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/w", Offset: 8, Length: 4}); err != nil || !res.FromCache || n.get() != before {
		t.Errorf("a part is not cached: %v", err)
	}
	for _, bad := range []Request{{Offset: -1, Length: 1}, {Length: -1}, {Offset: 5}, {Offset: 1 << 62, Length: 1 << 62}} {
		bad.URL = "https://huggingface.co/w"
		if _, err := c.Get(t.Context(), bad); err == nil {
			t.Errorf("range %d+%d was accepted", bad.Offset, bad.Length)
		}
	}
}

// TestLargeDownload takes a file that is larger than the memory it may use.
func TestLargeDownload(t *testing.T) {
	const size = 48 << 20
	srv, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		_, _ = io.CopyN(w, same('w'), size)
	})
	var notes atomic.Int64
	var last Progress
	c, _ := client(t, srv, func(cfg *Config) {
		cfg.Progress = func(p Progress) {
			if p.Phase == "body" {
				notes.Add(1)
				last = p
			}
		}
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, cached := range []bool{false, true} {
		res, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/a/resolve/main/model.safetensors", MaxBytes: size, NoBody: true})
		if err != nil || res.Body != nil || res.Size != size || res.FromCache != cached {
			t.Fatalf("%+v, %v", res, err)
		}
		info, err := os.Stat(res.Path)
		if err != nil || info.Size() != size {
			t.Errorf("file: %v, %v", info, err)
		}
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 8<<20 {
		t.Errorf("%d bytes were allocated", got)
	}
	if notes.Load() < 10 || last.Total != size || last.Bytes < size-2*progressStep {
		t.Errorf("%d notes, the last %+v", notes.Load(), last)
	}
}
