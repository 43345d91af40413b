package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http/httpproxy"
)

// site is a site's proxy that wants a password, and leads every name of the
// invalid top-level domain to one of two servers.
type site struct {
	secure, plain string

	mu    sync.Mutex
	asked []string
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, r.Method+" "+r.Host)
	s.mu.Unlock()
	if r.Header.Get("Proxy-Authorization") != "Basic dXNlcjpzZWNyZXQ=" {
		http.Error(w, "who is it?", http.StatusProxyAuthRequired)
		return
	}
	if strings.HasPrefix(r.Host, "forbidden.") {
		http.Error(w, "not here", http.StatusForbidden)
		return
	}
	if r.Method != http.MethodConnect {
		r.Header.Del("Proxy-Authorization")
		r.RequestURI, r.URL.Host = "", s.plain
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
		return
	}
	up, err := net.Dial("tcp", s.secure)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer up.Close()
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	fmt.Fprint(c, "HTTP/1.1 200 Yes\r\n\r\n")
	go io.Copy(up, c)
	_, _ = io.Copy(c, up)
}

// TestUpstream: behind the proxy of a site the list holds as it does without.
func TestUpstream(t *testing.T) {
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != "" {
			t.Error("the site's password went on")
		}
		fmt.Fprint(w, "here is "+r.Host)
	})
	plain, secure := httptest.NewServer(answer), httptest.NewTLSServer(answer)
	defer plain.Close()
	defer secure.Close()
	s := &site{secure: secure.Listener.Addr().String(), plain: plain.Listener.Addr().String()}
	via := httptest.NewServer(s)
	defer via.Close()
	at, err := url.Parse(via.URL)
	if err != nil {
		t.Fatal(err)
	}
	at.User = url.UserPassword("user", "secret")
	direct := plain.Listener.Addr().String()
	c, _, _ := start(t, Config{
		Allow:        []string{"index.invalid:443", "index.invalid:80", "forbidden.invalid:443", "169.254.169.254:443", "127.0.0.1:80", direct},
		AllowPrivate: []string{direct},
		Upstream:     (&httpproxy.Config{HTTPProxy: at.String(), HTTPSProxy: at.String(), NoProxy: "127.0.0.1"}).ProxyFunc(),
	})
	for _, tc := range []struct {
		url, want string
		asked     string // of the site's proxy
	}{
		{"https://index.invalid/x", "here is index.invalid", "CONNECT index.invalid:443"},
		{"http://index.invalid/x", "here is index.invalid", "GET index.invalid"},
		{"http://" + direct, "here is " + direct, ""},
		{"https://elsewhere.invalid/x", "Forbidden", ""},
		{"http://elsewhere.invalid/x", "not among the hosts", ""},
		{"https://169.254.169.254/latest", "Forbidden", ""},
		{"https://forbidden.invalid/x", "Bad Gateway", "CONNECT forbidden.invalid:443"},
	} {
		s.mu.Lock()
		s.asked = nil
		s.mu.Unlock()
		_, got := get(t, c, tc.url)
		s.mu.Lock()
		asked := strings.Join(s.asked, " ")
		s.mu.Unlock()
		if !strings.Contains(got, tc.want) || asked != tc.asked {
			t.Errorf("%s: %q, and the site was asked %q; want %q, %q", tc.url, got, asked, tc.want, tc.asked)
		}
	}
}
