package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// records collects what a proxy logs.
type records struct {
	mu  sync.Mutex
	all []Record
}

func (r *records) add(rec Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, rec)
}

// start returns a client that goes through a proxy, and the proxy's address.
func start(t *testing.T, cfg Config) (*http.Client, string, *records) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rec := &records{}
	cfg.Log = rec.add
	p := Serve(l, cfg)
	t.Cleanup(func() { p.Close() })
	via := &url.URL{Scheme: "http", Host: l.Addr().String()}
	tr := &http.Transport{Proxy: http.ProxyURL(via), TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}, l.Addr().String(), rec
}

func get(t *testing.T, c *http.Client, u string) (int, string) {
	t.Helper()
	resp, err := c.Get(u)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestPasses(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != "" || r.Header.Get("X-Hop") != "" {
			t.Errorf("a field that ends at the proxy went on: %v", r.Header)
		}
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Host, r.URL, b)
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer plain.Close()
	defer secure.Close()
	hosts := []string{plain.Listener.Addr().String(), secure.Listener.Addr().String()}
	c, _, rec := start(t, Config{Allow: hosts, AllowPrivate: hosts})
	for _, srv := range []*httptest.Server{plain, secure} {
		for range 2 { // the second time over the same connection
			if code, body := get(t, c, srv.URL+"/simple/x?y=z"); code != 200 || body != "GET "+srv.Listener.Addr().String()+" /simple/x?y=z " {
				t.Errorf("%s: %d %q", srv.URL, code, body)
			}
		}
		req, err := http.NewRequest("POST", srv.URL+"/p", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Connection", "X-Hop")
		if srv == plain {
			req.Header.Set("X-Hop", "1")
			req.Header.Set("Proxy-Authorization", "Basic c2VjcmV0")
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if !strings.HasSuffix(string(b), "/p body") {
			t.Errorf("%s: %q", srv.URL, b)
		}
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if len(rec.all) < 3 || !rec.all[0].Allowed || rec.all[0].Got == 0 {
		t.Errorf("the log is %+v", rec.all)
	}
}

func TestRefuses(t *testing.T) {
	reached := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the server was reached") }))
	defer reached.Close()
	_, port, _ := net.SplitHostPort(reached.Listener.Addr().String())
	resolved := map[string]string{"rebind.example": "127.0.0.1", "metadata.example": "169.254.169.254", "mapped.example": "::ffff:10.0.0.1", "nat64.example": "64:ff9b::7f00:1"}
	c, _, rec := start(t, Config{
		Allow: []string{"127.0.0.1:" + port, "rebind.example:" + port, "metadata.example:80", "mapped.example:80", "nat64.example:80", "[::1]:" + port},
		// Only this pair was configured, and it is not in Allow.
		AllowPrivate: []string{"127.0.0.1:1"},
		Resolve: func(_ context.Context, host string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr(resolved[host])}, nil
		},
	})
	for _, u := range []string{
		"http://127.0.0.1:" + port, "http://rebind.example:" + port, "http://metadata.example/", "http://mapped.example/", "http://nat64.example/", "http://[::1]:" + port,
		"http://127.0.0.1:1/", "http://other.example/", "http://rebind.example:81/", "http://127.1:" + port, "http://2130706433:" + port,
	} {
		if code, body := get(t, c, u); code != http.StatusForbidden {
			t.Errorf("%s: %d %s", u, code, body)
		}
		if code, body := get(t, c, strings.Replace(u, "http:", "https:", 1)); code != 0 || !strings.Contains(body, "Forbidden") {
			t.Errorf("CONNECT %s: %d %s", u, code, body)
		}
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for _, r := range rec.all {
		if r.Allowed || r.Why == "" || r.Host == "" {
			t.Errorf("%+v", r)
		}
	}
	if len(rec.all) != 22 {
		t.Errorf("%d refusals are logged, want 22", len(rec.all))
	}
}

// TestMalformed: nothing that is no proxy request gets anywhere.
func TestMalformed(t *testing.T) {
	_, addr, _ := start(t, Config{Allow: []string{"a.example:80"}})
	for in, want := range map[string]string{
		"GET /relative HTTP/1.1\r\nHost: a.example\r\n\r\n":                                           "403",
		"CONNECT a.example HTTP/1.1\r\nHost: a.example\r\n\r\n":                                       "403",
		"GET ftp://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n":                                    "403",
		"GET http://a.example/ HTTP/1.1\r\nX: " + strings.Repeat("x", maxHeaderBytes+10) + "\r\n\r\n": "431",
		"\x16\x03\x01\x02\x00": "",
	} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		go func() {
			io.WriteString(c, in)
			c.(*net.TCPConn).CloseWrite()
		}()
		line, _ := bufio.NewReader(c).ReadString('\n')
		if want == "" && line != "" || !strings.Contains(line, want) {
			t.Errorf("%.40q is answered with %q, want %s", in, line, want)
		}
		c.Close()
	}
}

// TestCloseCuts: a tunnel does not outlive its proxy.
func TestCloseCuts(t *testing.T) {
	up, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := up.Addr().String()
	p := Serve(l, Config{Allow: []string{host}, AllowPrivate: []string{host}})
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", host, host)
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Fatal(line, err)
	}
	done := make(chan struct{})
	go func() {
		p.Close()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the proxy does not close")
	}
}

func TestPublic(t *testing.T) {
	for a, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1111": true, "151.101.0.223": true,
		"127.0.0.1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false, "169.254.169.254": false, "100.64.0.1": false, "0.0.0.0": false,
		"224.0.0.1": false, "255.255.255.255": false, "240.0.0.1": false, "::1": false, "::": false, "fe80::1": false, "fc00::1": false, "fd00:ec2::254": false,
		"::ffff:127.0.0.1": false, "64:ff9b::a00:1": false, "2002:7f00:1::": false, "::7f00:1": false,
	} {
		if got := Public(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %v", a, got)
		}
	}
}

// FuzzDial: a host that is not listed is neither resolved nor dialled.
func FuzzDial(f *testing.F) {
	for _, s := range []string{"a.example:443", "A.EXAMPLE.:443", "a.example:443 ", "a.example:0443", "a.example@b:443", "[a.example]:443", ":443", "a.example", "127.0.0.1:443", "a.example:443:443", "a.example\x00:443"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, hostport string) {
		p := &Proxy{cfg: Config{Allow: []string{"a.example:443"}, DialTimeout: time.Second, Resolve: func(_ context.Context, host string) ([]netip.Addr, error) {
			if !strings.EqualFold(host, "a.example") {
				t.Errorf("%q was resolved", host)
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}}}
		if c, err := p.dial(t.Context(), hostport); err == nil {
			c.Close()
			t.Errorf("%q was dialled", hostport)
		}
	})
}
