package wire_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/repromill/repromill/suites/load/wire"
)

// TestArrivals: each event carries the moment at which it came, not that at
// which it was looked at.
func TestArrivals(t *testing.T) {
	const gap = 30 * time.Millisecond
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if string(b) != `{"q":1}` || r.Header.Get("Authorization") != "Bearer k" {
			http.Error(w, "bad request", 400)
			return
		}
		for i := range 4 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			time.Sleep(gap)
		}
	}))
	defer srv.Close()
	clock := wire.NewClock()
	c, err := wire.New(wire.Config{URL: srv.URL + "/x", Clock: clock, Header: map[string]string{"Authorization": "Bearer k"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 { // the second and third on a kept connection
		var at []int64
		a, err := c.Do(t.Context(), []byte(`{"q":1}`), func(b []byte, ns int64) error { at = append(at, ns); return nil })
		if err != nil || a.Status != 200 || len(at) != 4 || a.Retries != 0 {
			t.Fatalf("%+v, %v, %d events", a, err, len(at))
		}
		for i := 1; i < len(at); i++ {
			if d := time.Duration(at[i] - at[i-1]); d < gap/2 {
				t.Errorf("events %d and %d lie %s apart, want about %s", i-1, i, d, gap)
			}
		}
		if !slices.IsSorted([]int64{a.Start, a.Sent, a.Headers, a.FirstByte, a.End}) || a.Start == 0 {
			t.Errorf("%+v", a)
		}
	}
}

// TestClosedWhileIdle: a kept connection that the server has closed is no error.
func TestClosedWhileIdle(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "data: 1\n\n") }))
	defer srv.Close()
	c, err := wire.New(wire.Config{URL: srv.URL, Clock: wire.NewClock()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	nothing := func([]byte, int64) error { return nil }
	if _, err := c.Do(t.Context(), nil, nothing); err != nil {
		t.Fatal(err)
	}
	srv.CloseClientConnections()
	a, err := c.Do(t.Context(), nil, nothing)
	if err != nil || a.Retries != 1 {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestErrors(t *testing.T) {
	nothing := func([]byte, int64) error { return nil }
	raw := func(answer string) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Read(make([]byte, 4096))
				_, _ = io.WriteString(c, answer)
				if answer != "" {
					c.Close()
				} else {
					defer c.Close()
				}
			}
		}()
		return "http://" + l.Addr().String()
	}
	for name, c := range map[string]struct {
		answer string
		is     error
	}{
		"silence":        {"", wire.ErrIdle},
		"cut in a chunk": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\ndata: 1\n\n", io.ErrUnexpectedEOF},
		"no HTTP":        {"SSH-2.0-OpenSSH_9.2\r\n", nil},
		// SETTINGS and GOAWAY, as nghttp2 and gRPC answer HTTP/1.1.
		"HTTP/2": {"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01", wire.ErrHTTP2},
	} {
		cl, err := wire.New(wire.Config{URL: raw(c.answer), Clock: wire.NewClock(), IdleTimeout: 300 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		_, err = cl.Do(t.Context(), []byte("{}"), nothing)
		if err == nil || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v", name, err)
		}
		cl.Close()
	}
	for _, u := range []string{"", "ftp://h/", "http://", "://", "http://h\n/"} {
		if _, err := wire.New(wire.Config{URL: u}); err == nil {
			t.Errorf("%q is taken for an endpoint", u)
		}
	}
	if _, err := wire.New(wire.Config{URL: "http://h/", Header: map[string]string{"A": "b\r\nC: d"}}); err == nil {
		t.Error("a header with a line break is sent")
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
	cl, err := wire.New(wire.Config{URL: raw(""), Clock: wire.NewClock()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Do(ctx, nil, nothing); !errors.Is(err, why) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestTLS offers HTTP/1.1 to a server that would rather speak HTTP/2.
func TestTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "data: %s\n\n", r.Proto) }))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	c, err := wire.New(wire.Config{URL: srv.URL, Clock: wire.NewClock(), TLS: srv.Client().Transport.(*http.Transport).TLSClientConfig})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var got bytes.Buffer
	if _, err := c.Do(t.Context(), nil, func(b []byte, _ int64) error { got.Write(b); return nil }); err != nil || got.String() != "HTTP/1.1" {
		t.Errorf("%s, %v", &got, err)
	}
}

// TestHTTP2Only: a server whose TLS will not agree on HTTP/1.1 is told by its
// alert. (Go's own would fall back for h2, as others do not.)
func TestHTTP2Only(t *testing.T) {
	base := httptest.NewTLSServer(http.NotFoundHandler())
	defer base.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: base.TLS.Certificates, NextProtos: []string{"h2-14"}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			_ = nc.(*tls.Conn).Handshake()
			nc.Close()
		}
	}()
	c, err := wire.New(wire.Config{URL: "https://" + l.Addr().String(), Clock: wire.NewClock(), TLS: base.Client().Transport.(*http.Transport).TLSClientConfig})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Do(t.Context(), nil, func([]byte, int64) error { return nil })
	var user interface{ UserError() string }
	if !errors.Is(err, wire.ErrHTTP2) || !errors.As(err, &user) || user.UserError() == "" {
		t.Errorf("%v", err)
	}
}
